"""What the processes of one run of tests use together: made by whoever needs it first, ended after the last.

Processes that end badly end nobody's use: each holds a lock that the system takes from whoever is gone, and a keeper
waits for the last of them.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the keeper does without
    import pytest


ROOT = Path(__file__).parents[2]


def base(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of a whole run: that of pytest-xdist's workers are below it."""
    own = factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@contextmanager
def together(folder: Path, start: Callable[[Path], object], end: Callable[[Path], object]) -> Iterator[Path]:
    """Something that runs for all processes of a run.

    Args:
        folder: for its files, the same for all that share it.
        start: starts it; called by one process at a time, and only while it does not run.
        end: ends what was started, or what is left of it; a function of a module, for the keeper calls it, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun, made = folder / "begun", folder / "made"
    # The keeper waits for "there", which is let go only after whoever is the last has ended it in the usual way.
    with (folder / "there").open("a") as there, (folder / "users").open("a") as users:
        fcntl.flock(there, fcntl.LOCK_SH)
        # Waits while the last of those before is ending it.
        fcntl.flock(users, fcntl.LOCK_SH)
        with (folder / "making").open("a") as making:
            fcntl.flock(making, fcntl.LOCK_EX)
            if not made.exists():
                _keep(folder, end)
                begun.touch()
                start(folder)
                made.touch()
        try:
            yield folder
        finally:
            with suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                made.unlink(missing_ok=True)
                end(folder)
                begun.unlink(missing_ok=True)


def _keep(folder: Path, end: Callable[[Path], object]) -> None:
    command = [sys.executable, "-m", __name__, str(folder), end.__module__, end.__qualname__]
    # In a session of its own: what interrupts the run from the keyboard is not for it. Nobody waits for its end.
    actions = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in (0, 1, 2)]
    os.posix_spawn(
        command[0], command, {**os.environ, "PYTHONPATH": str(ROOT)}, file_actions=actions, setsid=True
    )


def main() -> None:
    """The keeper: end what is left when nobody is there any more."""
    folder, module, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with (folder / "there").open("a") as there:
        fcntl.flock(there, fcntl.LOCK_EX)
        if (folder / "begun").exists():
            (folder / "made").unlink(missing_ok=True)
            getattr(importlib.import_module(module), name)(folder)


if __name__ == "__main__":
    main()
