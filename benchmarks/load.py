"""HTTP load from this machine: many small answers, or one large upload. One process, as little work a request as possible."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BLOCK = bytes(256 * 1024)
EDGE = "benchmark"
FORM = f"multipart/form-data; boundary={EDGE}"
PATIENCE = 60


@dataclass
class Way:
    """One way to the same server.

    Attributes:
        name: for the table.
        tiles: address and port for tiles.
        uploads: address, port and path for uploads.
        headers: what makes the request a known person's.
    """

    name: str
    tiles: tuple[str, int]
    uploads: tuple[str, int, str]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Load:
    """What came of one run.

    Attributes:
        seconds: each answer's.
        took: of the run.
        failed: answers other than 200, by status; 0 is a connection that ended before its answer.
    """

    seconds: list[float] = field(default_factory=list)
    took: float = 0
    failed: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.seconds) / self.took

    @property
    def p95(self) -> float:
        """Milliseconds that 95 of 100 answers took at most."""
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(len(found) * 0.95))] * 1000 if found else float("nan")


class _Client(asyncio.Protocol):
    """Asks, reads the answer, asks again, until the time is over. Answers must tell their length."""

    def __init__(self, load: Load, request: Callable[[], bytes], end: float) -> None:
        self.load, self.request, self.end = load, request, end
        self.ended = asyncio.get_running_loop().create_future()
        self.buffer, self.left, self.status, self.asked = b"", 0, 0, 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.buffer, self.status, self.asked = b"", 0, time.perf_counter()
        self.transport.write(self.request())

    def data_received(self, data: bytes) -> None:
        if not self.status:
            self.buffer += data
            at = self.buffer.find(b"\r\n\r\n")
            if at < 0:
                return
            head = self.buffer[:at].lower()
            self.status = int(head.split(b" ", 2)[1])
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            self.left = length - (len(self.buffer) - at - 4)
        else:
            self.left -= len(data)
        if self.left:
            return
        if self.status == 200:
            self.load.seconds.append(time.perf_counter() - self.asked)
        else:
            self.load.failed[self.status] = self.load.failed.get(self.status, 0) + 1
        if time.monotonic() < self.end:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        # A server may close between two requests; in the midst of one it fails.
        if self.left or (self.buffer and not self.status):
            self.load.failed[0] = self.load.failed.get(0, 0) + 1
        if not self.ended.done():
            self.ended.set_result(None)


async def tiles(way: Way, paths: list[str], clients: int, seconds: float) -> Load:
    """Ask for tiles with so many clients at once, each on a connection that it keeps."""
    load, end = Load(), time.monotonic() + seconds
    lines = [f"{k}: {v}" for k, v in {"Host": f"{way.tiles[0]}:{way.tiles[1]}", **way.headers}.items()]
    requests = ["\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode() for path in paths]
    loop = asyncio.get_running_loop()

    async def client() -> None:
        while time.monotonic() < end:
            _, one = await loop.create_connection(
                lambda: _Client(load, lambda: random.choice(requests), end), *way.tiles
            )
            await one.ended

    start = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*(client() for _ in range(clients))), seconds + PATIENCE)
    load.took = time.monotonic() - start
    return load


async def upload(way: Way, storage: int, size: int, name: str, told: Callable[[int], None]) -> float:
    """Send a file of so many zero bytes.

    Args:
        way: the way, with the headers of a signed form.
        storage: the storage that takes the file.
        size: bytes.
        name: of the file.
        told: called with the bytes sent so far.

    Returns:
        The seconds until the answer.
    """
    host, port, path = way.uploads
    disposition = f'Content-Disposition: form-data; name="files[]"; filename="{name}"'
    head = f"--{EDGE}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
    foot = f"\r\n--{EDGE}--\r\n".encode()
    length = len(head) + size + len(foot)
    headers = {"Host": f"{host}:{port}", **way.headers, "Content-Length": str(length), "Connection": "close"}
    first = f"POST {path}?idStorage={storage}&storage={storage} HTTP/1.1\r\n"
    first += "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
    reader, writer = await asyncio.open_connection(host, port)
    start = time.monotonic()
    with contextlib.closing(writer):
        writer.write(first.encode() + head)
        left = size
        while left:
            writer.write(BLOCK[: min(left, len(BLOCK))])
            left -= min(left, len(BLOCK))
            await writer.drain()
            told(size - left)
        writer.write(foot)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 3600)
    took = time.monotonic() - start
    status = int(answer.split(b" ", 2)[1])
    if status >= 300:
        raise SystemExit(f"The upload {way.name} was answered with {status}: {answer[-300:]!r}")
    return took
