"""Virtual environments for the tests, kept in the cache under the hash of what they install."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from dev import cache, pip, proc
from dev.console import Step

UV = "0.13.9"
# What pip calls a setting: uv's environment variable.
_WORDS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}


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
        uv = _uv(step)
        command: list[str | Path] = [uv, "venv", "--quiet", "--python", sys.executable, folder]
        proc.run(command, "making a Python environment", log="venv", timeout=120, env=_settings())
        # Its modules are linked from uv's cache, so that a second environment takes a second.
        command = [uv, "pip", "install", "--python", python]
        for file in constraints:
            command += ["--constraint", file]
        proc.run(
            [*command, *requirements],
            f"installing the Python packages of {name}",
            log="venv",
            timeout=900,
            env=_settings(),
            each_line=(lambda line: step.detail(line)) if step else None,
        )
        whole.touch()
    return python


def _uv(step: Step | None) -> Path:
    """The installer's program, from its wheel."""

    def fill(folder: Path) -> None:
        if step:
            step.detail("uv")
        command = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--target", str(folder), f"uv=={UV}"]
        proc.run(command, "installing uv", log="venv", timeout=300)

    return cache.built("uv", cache.digest([], UV, sys.version), fill) / "bin" / "uv"


def _settings() -> dict[str, str]:
    """Pip's settings of this machine (index, certificates, folders with wheels) in uv's words."""
    told = pip.settings()
    found = {_WORDS[name]: value.replace("\\n", " ") for name, value in told.items() if name in _WORDS}
    return {"UV_CACHE_DIR": str(cache.home() / "uv-cache"), **found}


def _remove_old(name: str) -> None:
    """Remove what is cut or old; the newest stays, for another checkout may be running its tests in it."""
    whole = [path.parent for path in (cache.home() / "venv").glob(f"{name}-*/complete")]
    newest = max(whole, key=lambda folder: (folder / "complete").stat().st_mtime, default=None)
    for old in (cache.home() / "venv").glob(f"{name}-*"):
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)
