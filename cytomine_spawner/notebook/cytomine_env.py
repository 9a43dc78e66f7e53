"""The command ``cytomine-env``: the variables by which tools find Cytomine, for ``eval "$(cytomine-env)"``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from .connection import environment
from .errors import CytomineError


def main(argv: Sequence[str] | None = None) -> int:
    """Print one ``export`` line a variable; say on the error output what went wrong."""
    parser = argparse.ArgumentParser(
        prog="cytomine-env",
        description='Prints the variables by which tools find Cytomine. Use it as: eval "$(cytomine-env)"',
    )
    parser.add_argument("stack", nargs="?", help="name of the stack; the one beside this server if left out")
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds to wait for a stack that is starting"
    )
    parser.add_argument("--resume", action="store_true", help="start the stack if it is hibernated")
    options = parser.parse_args(argv)
    try:
        # The bar is written to the error output, so that eval does not see it.
        variables = environment(
            options.stack, timeout=options.timeout, progress=sys.stderr.isatty(), resume=options.resume
        )
    except CytomineError as error:
        sys.stderr.write(f"cytomine-env: {error}\n")
        return 1
    sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
