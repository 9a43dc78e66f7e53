"""``python3 -m dev.images build [name …]`` builds images; ``list`` shows their names."""

from __future__ import annotations

import argparse
import sys

from dev.console import Console, Problem
from dev.images import IMAGES, build, reference


def main() -> int:
    """Run the command; the exit code is 1 after a failure, which is one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.images", description="Build the project's images.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("build", "build what changed, and print the archives"),
        ("list", "print the images' names"),
    ):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument(
            "names", nargs="*", metavar="name", help=f"one of {', '.join(IMAGES)}; all if none is given"
        )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in IMAGES]
    if unknown:
        parser.error(f"there is no image {unknown[0]}; there are {', '.join(IMAGES)}")
    if arguments.command == "list":
        for name in arguments.names or IMAGES:
            print(reference(name))
        return 0
    console = Console()
    try:
        for archive in build(console, arguments.names).values():
            console.say(f"{archive.reference}  {archive.path}")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
