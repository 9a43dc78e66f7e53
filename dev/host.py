"""Debian packages of this machine: installed when missing, never upgraded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from dev import cache, proc
from dev.console import Console, Problem

# What shows that a package is there, a program or a path: the package.
BROWSER = {
    "chromium": "chromium",
    "chromium-headless-shell": "chromium-headless-shell",
    "fc-list": "fontconfig",
    "/usr/share/fonts/truetype/liberation": "fonts-liberation",
}


def missing(packages: Mapping[str, str]) -> list[str]:
    """The packages whose program or path is not there, in order.

    Args:
        packages: a program or an absolute path, and the package that brings it.
    """
    # root's PATH may lack the sbin folders when sudo or su keeps the user's
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [
        package
        for probe, package in packages.items()
        if not (Path(probe).exists() if probe.startswith("/") else shutil.which(probe, path=path))
    ]


def need(console: Console, packages: Mapping[str, str]) -> None:
    """Install the packages that are missing, as a step of its own.

    Raises:
        Problem: they cannot be installed here.
    """
    if names := missing(packages):
        with console.step(f"Installing {', '.join(names)}") as step:
            install(names, step.detail)


def install(names: list[str], each_line: Callable[[str], None]) -> None:
    """Install packages with apt.

    Args:
        names: the packages.
        each_line: called with each line that apt prints.

    Raises:
        Problem: no apt, not root, or apt failed.
    """
    listed = ", ".join(names)
    if not shutil.which("apt-get"):
        raise Problem(
            f"{listed} is missing and this is not a Debian or Ubuntu",
            "Install it with your system's package manager",
        )
    if os.geteuid():
        raise Problem(
            f"{listed} is missing and only root can install it",
            f"Run apt-get install {' '.join(names)} as root",
        )
    # Builds run side by side: apt fails at once where another apt is at work.
    with cache.lock("apt"):
        _apt("update", "-q", what="asking for Debian's package lists", each_line=each_line)
        _apt(
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            *names,
            what=f"installing {listed}",
            each_line=each_line,
        )


def unpacked(package: str, each_line: Callable[[str], None]) -> Path:
    """A folder with a package's files, for a program whose package would start a service.

    Args:
        package: the package; what it depends on is not looked at.
        each_line: called with each line that apt prints.

    Raises:
        Problem: the package cannot be had.
    """

    def fill(folder: Path) -> None:
        with cache.lock("apt"):
            _apt("update", "-q", what="asking for Debian's package lists", each_line=each_line)
            _apt("download", package, what=f"downloading {package}", each_line=each_line, cwd=folder)
        archive = next(folder.glob("*.deb"))
        proc.run(["dpkg", "-x", archive, folder], f"unpacking {package}", log="apt", timeout=60)
        archive.unlink()

    return cache.built("debian", package, fill, keep=8)


def _apt(*arguments: str, what: str, each_line: Callable[[str], None], cwd: Path | None = None) -> None:
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    proc.run(command, what, log="apt", timeout=900, env=env, each_line=each_line, cwd=cwd)
