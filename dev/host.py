"""Debian packages of this machine: installed when missing, never upgraded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dev import proc
from dev.console import Console, Problem

# program that shows that a package is there: the package
BROWSER = {
    "chromium": "chromium",
    "fc-list": "fontconfig",
    "/usr/share/fonts/truetype/liberation": "fonts-liberation",
}


def need(console: Console, packages: dict[str, str]) -> None:
    """Install the packages whose program or path is not there."""
    missing = [
        p
        for probe, p in packages.items()
        if not (Path(probe).exists() if probe.startswith("/") else shutil.which(probe))
    ]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Problem(
            f"{', '.join(missing)} is missing and this is not a Debian or Ubuntu",
            "Install it with your system's package manager",
        )
    if os.geteuid():
        raise Problem(
            f"{', '.join(missing)} is missing and only root can install it",
            f"Run apt-get install {' '.join(missing)} as root",
        )
    with console.step(f"Installing {', '.join(missing)}") as step:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        proc.run(
            ["apt-get", "update", "-qq"], "asking for Debian's package lists", log="apt", timeout=180, env=env
        )
        proc.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *missing],
            "installing Debian packages",
            log="apt",
            timeout=600,
            env=env,
            each_line=step.detail,
        )
