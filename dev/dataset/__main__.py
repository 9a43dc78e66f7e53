"""``python -m dev.dataset [OUTDIR]``: make the mock dataset, and copy it to a folder if one is named."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dev import dataset
from dev.console import Console, Problem


def main(argv: list[str]) -> int:
    """Run the command; a failure is one sentence."""
    parser = argparse.ArgumentParser(prog="python -m dev.dataset", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="OUTDIR")
    args = parser.parse_args(argv)
    console = Console()
    try:
        made = dataset.copy(console, args.folder) if args.folder else dataset.build(console)
    except Problem as problem:
        console.say(f"\n{problem}")
        return 1
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        console.say(f"{path.stat().st_size:>12,}  {path.relative_to(made)}")
    console.say(f"{dataset.size(made):>12,}  {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
