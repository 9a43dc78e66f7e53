"""What code runs here, for the record of a run."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("cytomine-python-client", "numpy", "scipy", "scikit-image", "scikit-learn", "shapely", "torch")


def code_version() -> dict[str, Any]:
    """What code runs here: the notebook, its git commit if there is one, Python and the packages that matter."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    found: dict[str, Any] = {"python": platform.python_version(), "packages": versions}
    if notebook := os.environ.get("JPY_SESSION_NAME") or os.environ.get("PAPERMILL_INPUT_PATH"):
        found["notebook"] = Path(notebook).name
    elif sys.argv and sys.argv[0].endswith(".py"):
        found["notebook"] = Path(sys.argv[0]).name
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["commit"], found["changed"] = commit, bool(_git("status", "--porcelain"))
        found["origin"] = _without_secret(_git("remote", "get-url", "origin"))
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _without_secret(url: str) -> str:
    """A remote's address may hold a token."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else url
