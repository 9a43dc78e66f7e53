"""Base images for machines that cannot pull any: Debian by debootstrap, and node from a wheel on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dev import cache
from dev.console import Problem, Step
from dev.images import node
from dev.proc import run

SUITE = "bookworm"
# Weight that the official slim images leave out, too.
_DROP = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
# Targets for the build machine's own settings: a mount on a file that is there leaves nothing behind.
PIP_CONFIG = "etc/pip.conf"
NPM_CONFIG = "usr/local/etc/npmrc"

# What each base stands in for.
PUBLIC = {"debian": "debian:bookworm-slim", "node": "node:22-bookworm-slim"}


def key(base: str) -> str:
    """Hash of what a base is made from.

    Args:
        base: ``debian`` or ``node``.
    """
    return cache.digest([Path(__file__), Path(node.__file__)], base)


def tarball(base: str, step: Step) -> Path:
    """The base's file tree as a tar, made now unless an earlier command did.

    Args:
        base: ``debian`` or ``node``.
        step: the running step, told what is done.

    Raises:
        Problem: a package registry did not answer, or this is not root.
    """
    make = {"debian": _debian, "node": _node}[base]
    return cache.built(f"base-{base}", key(base), lambda folder: make(folder, step), keep=2) / "rootfs.tar"


def _debian(folder: Path, step: Step) -> None:
    if os.geteuid() != 0:
        raise Problem("Building images from Debian's packages needs root", "Run the command as root")
    step.detail("Debian's base system by debootstrap")
    root = folder / "root"
    command: list[str | Path] = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, root]
    run(command, "Making Debian's base system", log="debootstrap", timeout=900, each_line=step.detail)
    for name in _DROP:
        for path in (root / name).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for log in (root / "var/log").glob("*.log"):
        log.unlink()
    # debootstrap copies this machine's.
    for name in ("etc/resolv.conf", "etc/hostname"):
        (root / name).write_text("")
    for name in (PIP_CONFIG, NPM_CONFIG):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    _pack(root, folder / "rootfs.tar")


def _node(folder: Path, step: Step) -> None:
    step.detail(f"node {node.VERSION}")
    shutil.copytree(node.tree(), folder / "root/usr/local", symlinks=True)
    _pack(folder / "root", folder / "rootfs.tar", "--owner=+0", "--group=+0")


def _pack(root: Path, archive: Path, *flags: str) -> None:
    command: list[str | Path] = [
        "tar",
        "--numeric-owner",
        *flags,
        "--sort=name",
        "-C",
        root,
        "-cf",
        archive,
        ".",
    ]
    run(command, "Packing a base image", log="base", timeout=300)
    shutil.rmtree(root)
