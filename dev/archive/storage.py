"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Where bodies lie, and how the server reads them: exactly on a disk, in whole blocks from an object store.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import aiohttp

from .sources import Source

PIECE = 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class Storage(Protocol):
    """Keeps bodies by key."""

    async def put(self, key: str, body: Source) -> None:
        """Store a body."""
        ...

    def get(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """One read: the bytes from ``start``, in pieces as they come."""
        ...

    async def close(self) -> None:
        """Give up what it holds."""
        ...


class Virtual:
    """Stores nothing: bodies are encrypted as they are read."""

    def __init__(self) -> None:
        self._bodies: dict[str, Source] = {}

    async def put(self, key: str, body: Source) -> None:
        """Store a body."""
        self._bodies[key] = body

    async def get(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """One read, in pieces as they come."""
        body = self._bodies[key]
        for at in range(start, min(start + length, body.size), PIECE):
            yield await asyncio.to_thread(body.read, at, min(PIECE, start + length - at))

    async def close(self) -> None:
        """Give up what it holds."""
        self._bodies.clear()


class Folder:
    """Bodies as files, as in an archive on POSIX."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def put(self, key: str, body: Source) -> None:
        """Store a body."""
        await asyncio.to_thread(self._write, key, body)

    def _write(self, key: str, body: Source) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / key).open("wb") as out:
            for at in range(0, body.size, PIECE):
                out.write(body.read(at, PIECE))

    async def get(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """One read, in pieces as they come."""
        fd = await asyncio.to_thread(os.open, self.root / key, os.O_RDONLY)
        try:
            while length > 0:
                piece = await asyncio.to_thread(os.pread, fd, min(PIECE, length), start)
                if not piece:
                    return
                yield piece
                start += len(piece)
                length -= len(piece)
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Nothing is held."""


class Bucket:
    """Bodies as objects of an S3 server that checks no signatures, such as moto's.

    Args:
        endpoint: the server's address.
        bucket: the bucket's name; made when the first body comes.
    """

    # What such a server wants to see of a signature.
    _SIGNED = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
        "SignedHeaders=host, Signature=0"
    }

    def __init__(self, endpoint: str, bucket: str = "archive") -> None:
        self._base = f"{endpoint.rstrip('/')}/{bucket}"
        self._session: aiohttp.ClientSession | None = None
        self._made = False

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._SIGNED, timeout=_TIMEOUT)
        return self._session

    async def put(self, key: str, body: Source) -> None:
        """Store a body."""
        if not self._made:
            async with self._http().put(self._base) as answer:
                answer.raise_for_status()
            self._made = True
        content = await asyncio.to_thread(body.read, 0, body.size)
        async with self._http().put(f"{self._base}/{quote(key)}", data=io.BytesIO(content)) as answer:
            answer.raise_for_status()

    async def get(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """One read, in pieces as they come."""
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        async with self._http().get(f"{self._base}/{quote(key)}", headers=wanted) as answer:
            answer.raise_for_status()
            async for piece in answer.content.iter_chunked(PIECE):
                yield piece

    async def close(self) -> None:
        """Give up what it holds."""
        if self._session is not None:
            await self._session.close()


@dataclass
class Reads:
    """What a server pulled from its storage.

    Attributes:
        reads: requests to the storage.
        pulled: bytes that came.
    """

    reads: int = 0
    pulled: int = 0


class Reader:
    """One file, opened for one request.

    Args:
        storage: where the body lies.
        key: under which name.
        size: its bytes.
        counts: each of these is told of every read.
        block: None on a disk; else the bytes that an S3-backed server pulls at once.
        delay: seconds before a read's first byte.
        rate: bytes a second of one read; 0 is as fast as can be.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        size: int,
        counts: list[Reads],
        *,
        block: int | None = None,
        delay: float = 0,
        rate: float = 0,
    ) -> None:
        self._storage, self._key, self.size = storage, key, size
        self._counts, self._block, self._delay, self._rate = counts, block, delay, rate

    async def _get(self, start: int, length: int) -> AsyncIterator[bytes]:
        for count in self._counts:
            count.reads += 1
        if self._delay:
            await asyncio.sleep(self._delay)
        async with aclosing(self._storage.get(self._key, start, length)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                for count in self._counts:
                    count.pulled += len(piece)
                if self._rate:
                    await asyncio.sleep(len(piece) / self._rate)
                yield piece

    async def seeking(self, start: int, length: int) -> AsyncIterator[bytes]:
        """A range as version 2 reads it.

        On a disk straight at its place; from an object store whole blocks, each pulled to its end before its first byte
        leaves, unless the range starts at 0.
        """
        end = min(start + length, self.size)
        if self._block is None or start == 0:
            async with aclosing(self._get(start, end - start)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        while start < end:
            held = [piece async for piece in self._get(start, min(self._block, self.size - start))]
            block = memoryview(b"".join(held))
            yield bytes(block[: end - start])
            start += len(block)

    async def discarding(self, start: int, length: int) -> AsyncIterator[bytes]:
        """A range as version 1 reads it: all from byte 0, what is before ``start`` is thrown away."""
        async with aclosing(self._get(0, min(start + length, self.size))) as pieces:
            async for piece in pieces:
                kept = piece[start:]
                start = max(0, start - len(piece))
                if kept:
                    yield kept
