"""Builds kept outside the checkout, under the hash of what they are made from."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The cache's folder: ``CYTOMINE_SPAWNER_CACHE``, else below the user's cache folder."""
    own = os.environ.get("CYTOMINE_SPAWNER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(own).resolve() if own else Path(base) / "cytomine-spawner"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(sources: Iterable[Path | str], *extra: str) -> str:
    """Hash of files and folders (names, modes and bytes) and of further strings: 16 hex digits.

    Folders are walked in order; what Python and npm leave behind does not count.
    """
    h = hashlib.sha256()
    for source in sources:
        top = Path(source)
        files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        for path in files:
            if {"__pycache__", "node_modules"} & set(path.parts) or path.suffix == ".pyc":
                continue
            name = path.relative_to(top) if top.is_dir() else path.name
            h.update(f"{name}\0{os.access(path, os.X_OK)}\0".encode())
            h.update(hashlib.sha256(path.read_bytes()).digest())
    for text in extra:
        h.update(b"\0" + text.encode())
    return h.hexdigest()[:16]


@contextlib.contextmanager
def lock(name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold an inter-process lock; two checkouts may share one cache.

    Args:
        name: the lock's.
        wait: whether to wait for it.

    Yields:
        Whether it is held: not where another process has it and is not waited for.
    """
    folder = home() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def built(kind: str, key: str, build: Callable[[Path], None], keep: int = 3) -> Path:
    """The folder ``<kind>/<key>``, made by ``build(folder)`` unless it is there already.

    It appears whole or not at all: a build that is cut leaves only a temporary folder, which the
    next one of its kind removes. The newest ``keep`` results of a kind are kept.
    """
    shelf = home() / kind
    final = shelf / key
    if final.is_dir():
        os.utime(final)
        return final
    with lock(kind):
        if final.is_dir():
            return final
        shelf.mkdir(exist_ok=True)
        for stale in shelf.glob("tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        tmp = Path(tempfile.mkdtemp(prefix="tmp-", dir=shelf))
        tmp.chmod(0o755)
        try:
            build(tmp)
            tmp.rename(final)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        done = sorted((p for p in shelf.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        for old in done[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    return final
