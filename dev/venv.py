"""Virtual environments for the tests, kept in the cache under the hash of what they install."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from dev import cache, proc
from dev.console import Step


def ensure(name: str, requirements: list[str], constraints: list[Path], step: Step | None = None) -> Path:
    """The Python of a virtual environment with ``requirements``, made unless it is there.

    Scripts in a virtual environment hold its path, so it is made in place, and a file that is
    written last says that it is whole.
    """
    key = cache.digest([*constraints], name, sys.version, *requirements)
    folder = cache.home() / "venv" / f"{name}-{key}"
    python = folder / "bin" / "python"
    whole = folder / "complete"
    if whole.exists():
        return python
    with cache.lock(f"venv-{name}"):
        if whole.exists():
            return python
        _remove_old(name)
        proc.run(
            [sys.executable, "-m", "venv", str(folder)],
            "making a Python environment",
            log="venv",
            timeout=120,
        )
        command: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--no-input",
            "--disable-pip-version-check",
            # Most of it is never imported; what is, is compiled then.
            "--no-compile",
        ]
        for file in constraints:
            command += ["--constraint", file]
        proc.run(
            [*command, *requirements],
            f"installing the Python packages of {name}",
            log="venv",
            timeout=900,
            each_line=(lambda line: step.detail(line)) if step else None,
        )
        whole.touch()
    return python


def _remove_old(name: str) -> None:
    """Remove what is cut or old; the newest stays, for another checkout may be running its tests in it."""
    whole = [path.parent for path in (cache.home() / "venv").glob(f"{name}-*/complete")]
    newest = max(whole, key=lambda folder: (folder / "complete").stat().st_mtime, default=None)
    for old in (cache.home() / "venv").glob(f"{name}-*"):
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)
