"""The notebooks that teach, from the image into the user's home."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

# Set by an image that has them: the folder.
VARIABLE = "CYTOMINE_NOTEBOOKS"
FOLDER = "cytomine-notebooks"


def copy(log: Any) -> None:
    """Copy those that the home does not have into ``~/cytomine-notebooks``; what is there is the user's own.

    A home that is full or cannot be written keeps no server from starting: the log says so.

    Args:
        log: takes warnings.
    """
    source, target = os.environ.get(VARIABLE), Path.home() / FOLDER
    if not source:
        return
    try:
        target.mkdir(exist_ok=True)
        for path in sorted(Path(source).glob("*.ipynb")):
            if not (target / path.name).exists():
                _whole(path, target / path.name)
    except OSError as error:
        log.warning("The example notebooks could not be put into %s (%s).", target, error.strerror)


def _whole(path: Path, target: Path) -> None:
    """Copy a file so that it is there as a whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(path, part)
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
