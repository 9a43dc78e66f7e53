"""Reads one file of the archive: which segments are needed, which are cached, which are on their way."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Container, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from .api import Api, Opened, RemoteFile
from .blocks import Policy, plan
from .cache import DiskCache, MemoryCache, content_name
from .crypt import (
    CIPHER_SEGMENT,
    SEGMENT,
    BadSegment,
    Keys,
    Layout,
    cipher_range,
    key_pair,
    plain_size,
    read_header,
    segments,
)
from .errors import Changed, Damaged

PIECE = 16  # segments that are decrypted at a time: 1 MiB
LOADED = 256  # segments that are read from disk at a time: 16 MiB
INLINE = 2  # so few are decrypted at once, not in a thread
# What was hurt on the way comes right when it is fetched again; what is hurt in the archive does not.
AGAIN = 3
# Who opens a file whose header is older asks the archive anew whether it is granted, in seconds.
FRESH = 300.0


@dataclass
class Shared:
    """What the files of one archive share.

    Attributes:
        api: the archive.
        policy: the size of blocks.
        memory: segments in memory.
        disk: segments on disk; None without.
    """

    api: Api
    policy: Policy
    memory: MemoryCache
    disk: DiskCache | None


class _Want:
    """Bytes that somebody waits for, filled segment by segment."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self.buffer = bytearray(sum(stop - start for start, stop in spans))
        self.missing: set[int] = set()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places: dict[int, list[tuple[int, int, int]]] = {}
        at = 0
        for start, stop in spans:
            for segment in range(start // SEGMENT, -(-stop // SEGMENT)):
                low, high = max(start, segment * SEGMENT), min(stop, (segment + 1) * SEGMENT)
                place = (at + low - start, low - segment * SEGMENT, high - low)
                self._places.setdefault(segment, []).append(place)
                self.missing.add(segment)
            at += stop - start
        if not self.missing:
            self.done.set_result(None)

    def offer(self, segment: int, data: bytes) -> None:
        """Take a segment, if it is wanted."""
        if segment not in self.missing:
            return
        for at, begin, length in self._places[segment]:
            self.buffer[at : at + length] = memoryview(data)[begin : begin + length]
        self.missing.discard(segment)
        if not self.missing and not self.done.done():
            self.done.set_result(None)


@dataclass
class Head:
    """A file that was opened.

    Attributes:
        opened: the archive's answer.
        keys: what opens its segments.
        layout: which bytes are the file.
        content: the content's name in the cache.
        since: when the archive granted it last, by the monotonic clock.
        wants: who waits for bytes of this content.
        flying: its segments that are on their way.
    """

    opened: Opened
    keys: Keys
    layout: Layout
    content: str
    since: float
    wants: set[_Want] = field(default_factory=set)
    flying: set[int] = field(default_factory=set)


class _Failures:
    """Counts how often the same segment did not fit its key."""

    def __init__(self) -> None:
        self._segment, self._times = -1, 0

    def too_many(self, segment: int) -> bool:
        """Count one more; whether it is no use to fetch it again."""
        self._times = self._times + 1 if segment == self._segment else 1
        self._segment = segment
        return self._times > AGAIN


class Reader:
    """Reads one file.

    Args:
        file: the file, as the archive lists it.
        shared: what it shares with others.
    """

    def __init__(self, file: RemoteFile, shared: Shared) -> None:
        self.file, self.shared = file, shared
        self._head: Head | None = None
        self._opening: asyncio.Lock | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._edge, self._run = -1, 0

    @property
    def size(self) -> int | None:
        """The file's length in bytes; None before it was opened."""
        return self._head.layout.size if self._head else None

    async def head(self, fresh: bool = False) -> Head:
        """The opened file.

        Args:
            fresh: whether the archive is asked again when it was opened a while ago.

        Raises:
            ArchiveError: it cannot be opened.
        """
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            known = self._head
            if known is not None and not (fresh and time.monotonic() - known.since > FRESH):
                return known
            found = await self._open()
            if known is not None and known.content == found.content:
                known.since = found.since
                found = known
            self._head = found
            return found

    async def _open(self) -> Head:
        pair, file = key_pair(), self.file
        for left in range(AGAIN, -1, -1):
            opened = await self.shared.api.open(file, pair)
            try:
                keys, edits = read_header(opened.header, pair)
                layout = Layout.of(opened.body_size, edits)
                break
            except Damaged as error:
                if not left:
                    raise Damaged(
                        f"{file.path} cannot be opened: {error}. Tell the archive's operators."
                    ) from None
        # Crypt4GH does not protect the end of a file: what was cut between two segments still decrypts.
        # Whether an archive's list counts what an edit list leaves out is not said anywhere.
        if file.plain_size is not None and file.plain_size not in {layout.size, plain_size(opened.body_size)}:
            raise Damaged(
                f"{file.path} has {layout.size} bytes where the archive's list says {file.plain_size}: list the dataset "
                "anew, and tell the archive's operators if it stays so."
            )
        parts = (keys.secret, file.id, opened.etag, str(opened.body_size), file.checksum or "")
        return Head(opened, keys, layout, content_name(*parts), time.monotonic())

    @property
    def opened(self) -> Head:
        """The file as it was opened last: who keeps it reads this content and no later one."""
        assert self._head is not None  # noqa: S101
        return self._head

    def peek(self, start: int, stop: int, head: Head) -> bytes | None:
        """Bytes that are in memory, for any thread; None where they are not.

        Args:
            start: the first byte.
            stop: the one behind the last.
            head: the file as it was opened.
        """
        if stop - start > PIECE * SEGMENT:
            return None
        parts = []
        for low, high in head.layout.spans(start, stop):
            for segment in range(low // SEGMENT, -(-high // SEGMENT)):
                data = self.shared.memory.get(head.content, segment)
                if data is None:
                    return None
                base = segment * SEGMENT
                parts.append(data[max(low - base, 0) : high - base])
        return b"".join(parts)

    async def read(self, ranges: Sequence[tuple[int, int]], head: Head | None = None) -> list[bytes]:
        """Several ranges of the file; what lies side by side is one request.

        Args:
            ranges: (first byte, the one behind the last) each.
            head: the file as it was opened; as it was opened last where None.

        Raises:
            ArchiveError: something of it cannot be had.
        """
        head = head or await self.head()
        cut = [(max(0, start), min(stop, head.layout.size)) for start, stop in ranges]
        spans = [span for start, stop in cut for span in head.layout.spans(start, stop)]
        want = _Want(spans)
        head.wants.add(want)
        try:
            await self._fill(want, head)
            await want.done
        finally:
            head.wants.discard(want)
        view, at, found = memoryview(want.buffer), 0, []
        for start, stop in cut:
            length = max(0, stop - start)
            found.append(bytes(view[at : at + length]))
            at += length
        return found

    async def _fill(self, want: _Want, head: Head) -> None:
        """Take what is cached, and start what fetches the rest."""
        memory, disk, name = self.shared.memory, self.shared.disk, head.content
        for segment in sorted(want.missing):
            if (data := memory.get(name, segment)) is not None:
                want.offer(segment, data)
        on_disk: Container[int] = ()
        if disk is not None and want.missing:
            on_disk = await asyncio.to_thread(disk.known, name)
            stored = sorted(segment for segment in want.missing if segment in on_disk)
            for at in range(0, len(stored), LOADED):
                found = await asyncio.to_thread(
                    lambda part: list(disk.get(name, part)), stored[at : at + LOADED]
                )
                for segment, data in found:
                    memory.put(name, segment, data)
                    want.offer(segment, data)
        # From here to the tasks' start nothing else runs: no segment can arrive unseen.
        missing = want.missing - head.flying
        if not missing:
            return
        count = segments(head.opened.body_size)
        policy, least = self.shared.policy, min(missing)
        block = policy.block(least * SEGMENT, count * SEGMENT)
        border = policy.border(least, block // SEGMENT, count)
        self._run = self._run + 1 if least == self._edge else 0
        after = max(missing) + 1
        ahead = policy.ahead(self._run, block) // SEGMENT
        coming = range(after, min(after + ahead, count))
        missing |= {segment for segment in coming if segment not in head.flying and segment not in on_disk}

        def known(segment: int) -> bool:
            return segment in head.flying or segment in on_disk or memory.has(name, segment)

        most = policy.request(block) // SEGMENT
        for first, last in plan(missing, want.missing, known, block // SEGMENT, most, count, border):
            self._edge = last + 1
            head.flying.update(range(first, last + 1))
            task = asyncio.create_task(self._fetch(head, first, last))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fetch(self, head: Head, first: int, last: int) -> None:
        """Fetch segments, and hand each to all who want it."""
        at, failed = first, _Failures()
        try:
            async with self.shared.api.http.limit:
                while at <= last:
                    try:
                        async with aclosing(self._pour(head, at, last)) as pieces:
                            async for piece in pieces:
                                parts = await _decrypted(head.keys, piece)
                                await self._deliver(head, at, parts)
                                at += len(parts)
                    except BadSegment as error:  # noqa: PERF203
                        await self._deliver(head, at, error.good)
                        at += len(error.good)
                        if failed.too_many(at):
                            raise
        except BaseException as error:
            if isinstance(error, Changed) and self._head is head:
                self._head = None  # who opens it now gets the new content
            head.flying.difference_update(range(at, last + 1))
            if not isinstance(error, Exception):
                raise
            for want in list(head.wants):
                if not want.done.done() and not want.missing.isdisjoint(range(at, last + 1)):
                    want.done.set_exception(self._named(error))

    def _named(self, error: Exception) -> Exception:
        if isinstance(error, BadSegment):
            return Damaged(
                f"{self.file.path} is damaged: {error}, also when it is fetched again. Nothing of it was used; tell the "
                "archive's operators."
            )
        return error

    async def _deliver(self, head: Head, first: int, parts: list[bytes]) -> None:
        for number, data in enumerate(parts, first):
            self.shared.memory.put(head.content, number, data)
            head.flying.discard(number)
            for want in list(head.wants):
                want.offer(number, data)
        if self.shared.disk is not None and parts:
            await asyncio.to_thread(self.shared.disk.put, head.content, first, parts)

    async def _pour(self, head: Head, first: int, last: int) -> AsyncGenerator[memoryview, None]:
        """Whole segments in order, encrypted, in pieces; each is there until the next is asked for."""
        low, high = cipher_range(first, last, head.opened.body_size)
        begun, wait, came = time.monotonic(), 0.0, 0
        # One buffer for all: to take new memory for each piece costs more time than to decrypt it.
        room = min(PIECE * CIPHER_SEGMENT, high - low)
        buffer, filled = memoryview(bytearray(room)), 0
        stream = self.shared.api.body(self.file, head.opened, key_pair(), low, high)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if not came:
                    # Told before a byte is handed on: who waits for these may ask for the next at once.
                    wait = time.monotonic() - begun
                    self.shared.policy.waited(low, wait)
                came += len(chunk)
                if came == high - low:
                    self.shared.policy.came(came, time.monotonic() - begun - wait)
                rest = memoryview(chunk)
                while rest:
                    part = rest[: room - filled]
                    buffer[filled : filled + len(part)] = part
                    filled, rest = filled + len(part), rest[len(part) :]
                    if filled == room:
                        yield buffer
                        filled = 0
        if filled:
            yield buffer[:filled]

    async def stream(self, start: int = 0) -> AsyncGenerator[memoryview, None]:
        """The file from a byte to its end, in one request where it is in one piece; nothing of it is cached.

        A piece is there until the next but one is asked for: it can be written while the next is decrypted, and who keeps it
        copies it.

        Args:
            start: the first byte.

        Raises:
            ArchiveError: something of it cannot be had.
        """
        head = await self.head()
        room = min(PIECE, segments(head.opened.body_size)) * SEGMENT
        rooms = itertools.cycle(memoryview(bytearray(room)) for _ in range(2))
        async with self.shared.api.http.limit:
            for low, high in head.layout.spans(start, head.layout.size):
                at, failed = low, _Failures()
                while at < high:
                    first, last = at // SEGMENT, (high - 1) // SEGMENT
                    try:
                        async with aclosing(self._pour(head, first, last)) as pieces:
                            async for piece in pieces:
                                plain, base = next(rooms), at // SEGMENT * SEGMENT
                                length = await asyncio.to_thread(head.keys.open_into, piece, plain)
                                begin, at = at - base, base + length
                                yield plain[begin : min(length, high - base)]
                    except BadSegment as error:
                        if failed.too_many(at // SEGMENT + len(error.good)):
                            raise self._named(error) from None

    async def encrypted(self) -> AsyncGenerator[bytes, None]:
        """The encrypted body as it is in the archive, in pieces.

        Raises:
            ArchiveError: it cannot be opened.
        """
        head = await self.head()
        return self.shared.api.body(self.file, head.opened, key_pair(), 0, head.opened.body_size)


async def _decrypted(keys: Keys, body: memoryview) -> list[bytes]:
    if len(body) <= INLINE * CIPHER_SEGMENT:
        return keys.open_all(body)
    return await asyncio.to_thread(keys.open_all, body)
