"""What pip is told on this machine: its index, certificates and time-outs, for other installers to use, too."""

from __future__ import annotations

import subprocess
import sys

_SECTIONS = {"global", "install", ":env:"}


def settings() -> dict[str, str]:
    """Pip's settings by their long names, such as ``index-url``; of several the strongest."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found: dict[str, str] = {}
    # In pip's order: files first, the environment last.
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.strip().rpartition(".")
        if section in _SECTIONS:
            found[option] = value.strip().strip("'\"")
    return found
