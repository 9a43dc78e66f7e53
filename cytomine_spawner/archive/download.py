"""Copies of the archive's files on disk: whole, checked, and gone on with where they were cut."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any

from .errors import ArchiveError, Damaged
from .reader import Reader

PART, STATE = ".sda-part", ".sda-part.json"
# What was written last before a machine went down may be missing or empty, in bytes.
UNSURE = 1024 * 1024
STEP = 1024 * 1024


class InTheWay(ArchiveError):
    """Something else is where the copy is to be."""


def digest_of(checksum: str | None) -> Any:
    """A new digest of a checksum's kind.

    Args:
        checksum: such as ``sha256:1f2e…``; sha256 where None.
    """
    return hashlib.new((checksum or "sha256").partition(":")[0], usedforsecurity=False)


def checksum_of(path: Path, checksum: str | None, tell: Callable[[int], object] = lambda _: None) -> str:
    """The checksum of a file on disk, of another checksum's kind.

    Args:
        path: the file.
        checksum: gives the kind.
        tell: called with the number of bytes of each piece.
    """
    digest = digest_of(checksum)
    with path.open("rb") as file:
        while piece := file.read(STEP):
            digest.update(piece)
            tell(len(piece))
    return f"{digest.name}:{digest.hexdigest()}"


async def download(reader: Reader, target: Path, tell: Callable[[int], object] = lambda _: None) -> str:
    """Copy a file; what was cut before goes on where it ended.

    While it is not whole it lies beside ``target``, with the ending ``.sda-part``.

    Args:
        reader: the file, opened.
        target: where to.
        tell: called with the number of bytes of each piece, those that were there already first.

    Returns:
        the checksum of what was written.

    Raises:
        Damaged: it is not what the archive's checksum says; the copy was removed.
        InTheWay: another download writes there.
        OSError: the archive, or the disk.
    """
    head = await reader.head(fresh=True)
    size, wanted = head.layout.size, reader.file.checksum
    part = target.with_name(target.name + PART)
    state = target.with_name(target.name + STATE)
    with _mine(part) as file:
        start = await asyncio.to_thread(_resume, file, state, head.content, size)
        digest = digest_of(wanted)
        await asyncio.to_thread(_rehash, file, start, digest, tell)

        def write(piece: memoryview) -> None:
            file.write(piece)
            digest.update(piece)
            tell(len(piece))

        await written(reader, start, write)
        found = f"{digest.name}:{digest.hexdigest()}"
        await asyncio.to_thread(_settle, file)
        if file.tell() != size or (wanted is not None and found != wanted):
            part.unlink(missing_ok=True)
            state.unlink(missing_ok=True)
            raise Damaged(
                f"What came of {reader.file.path} has another checksum ({found}) than the archive says ({wanted}), and was "
                "removed: fetch it again, and tell the archive's operators if it stays so."
            )
        part.replace(target)
        state.unlink(missing_ok=True)
    return found


async def written(reader: Reader, start: int, write: Callable[[memoryview], object]) -> None:
    """Hand a file on, each piece in a thread while the next is decrypted.

    Args:
        reader: the file.
        start: its first byte.
        write: takes a piece, and is done with it when it returns.

    Raises:
        ArchiveError: something of it cannot be had.
    """
    writing: asyncio.Future[object] | None = None
    try:
        async with aclosing(reader.stream(start)) as pieces:
            async for piece in pieces:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(asyncio.to_thread(write, piece))
    finally:
        if writing is not None:
            await writing


@contextlib.contextmanager
def _mine(part: Path) -> Iterator[IO[bytes]]:
    part.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        found = os.fstat(descriptor)
        # In a folder that others may write to, they could read in a file of theirs what comes, and change it.
        if found.st_uid != os.geteuid() or found.st_nlink > 1:
            raise InTheWay(
                f"{part} is there already and is not yours alone: remove it, or copy to another folder."
            )
        os.fchmod(descriptor, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InTheWay(f"Another download writes to {part}: wait for it, or end it.") from None
        yield file


def _resume(file: IO[bytes], state: Path, content: str, size: int) -> int:
    """Where to go on; what there is of another content is dropped."""
    known = ""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(state.read_text()).get("content", "")
    have = file.seek(0, os.SEEK_END)
    start = max(0, min(have, size) - UNSURE) if known == content else 0
    file.truncate(start)
    if known != content:
        # A new file: what is there may be a link of somebody else.
        state.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(state, flags, 0o600), "w") as note:
            json.dump({"content": content, "size": size}, note)
    return start


def _rehash(file: IO[bytes], start: int, digest: Any, tell: Callable[[int], object]) -> None:
    file.seek(0)
    left = start
    while left:
        piece = file.read(min(STEP, left))
        if not piece:
            raise OSError("The part that was there became shorter: does another program write to it?")
        digest.update(piece)
        tell(len(piece))
        left -= len(piece)


def _settle(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
