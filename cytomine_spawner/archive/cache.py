"""Plain segments, kept in memory and on disk.

On disk several processes of one user share a folder. A file is one run of segments of one content, with a checksum each; it
is written beside its place and then renamed, so that nobody reads half of one. Its name is the content's name, which is a hash of
the keys that encrypt it: only who has opened the file in the archive finds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import stat
import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from .crypt import SEGMENT

log = logging.getLogger(__name__)
RUN = 64  # segments of a file at most: 4 MiB
TOUCH = 60.0  # a file that is read counts as used this often, in seconds
MAGIC = b"sdaplain"


def content_name(*parts: bytes | str) -> str:
    """A name for a content.

    Args:
        parts: what makes it this content and no other.
    """
    found = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


class MemoryCache:
    """The segments that were used last. Safe for threads.

    Args:
        limit: bytes at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._size = 0

    def get(self, content: str, segment: int) -> bytes | None:
        """A segment, or None."""
        with self._lock:
            data = self._found.get((content, segment))
            if data is not None:
                self._found.move_to_end((content, segment))
            return data

    def has(self, content: str, segment: int) -> bool:
        """Whether a segment is there; it does not count as used."""
        return (content, segment) in self._found

    def put(self, content: str, segment: int, data: bytes) -> None:
        """Keep a segment."""
        if len(data) > self.limit:
            return
        with self._lock:
            former = self._found.pop((content, segment), b"")
            self._found[content, segment] = data
            self._size += len(data) - len(former)
            while self._size > self.limit:
                self._size -= len(self._found.popitem(last=False)[1])


class DiskCache:
    """Segments on disk. Its methods block; failures of the disk cost speed and nothing else.

    Args:
        folder: the folder, made with no access for others.
        limit: bytes at most; what was used longest ago goes first.

    Raises:
        OSError: the folder belongs to somebody else, or others can read it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._runs: dict[str, tuple[int, dict[int, tuple[int, str]]]] = {}
        self._own: dict[str, int] = {}
        self._touched: dict[str, float] = {}
        self._written = limit  # so that the first write looks how much is there
        self._failed = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(
                f"The cache's folder {folder} is no folder of yours: name another by cache_folder=."
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)

    def known(self, content: str) -> Container[int]:
        """The segments that are there."""
        try:
            return self._look(content)
        except OSError as error:
            self._fail(error)
            return ()

    def get(self, content: str, segments: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Those of the segments that are there, with their numbers."""
        wanted = list(segments)
        try:
            runs = self._look(content)
            groups: dict[tuple[int, str], list[int]] = {}
            for segment in wanted:
                if segment in runs:
                    groups.setdefault(runs[segment], []).append(segment)
            for (first, name), numbers in groups.items():
                yield from self._read(content, name, first, numbers)
        except OSError as error:
            self._fail(error)

    def put(self, content: str, first: int, data: Sequence[bytes]) -> None:
        """Keep segments that follow each other.

        Args:
            content: the content's name.
            first: the first segment's number.
            data: the segments.
        """
        for at in range(0, len(data), RUN):
            try:
                self._write(content, first + at, data[at : at + RUN])
            except OSError as error:  # noqa: PERF203 - it ends the loop
                self._fail(error)
                return

    def _look(self, content: str) -> dict[int, tuple[int, str]]:
        """Where each segment is; the folder is read anew when it changed."""
        folder = self.folder / content
        try:
            stamp = folder.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        with self._lock:
            known = self._runs.get(content)
            # Two changes within the clock's step look like one: what is so young is read again.
            if (
                known
                and known[0] == stamp
                and (stamp == self._own.get(content) or time.time_ns() - stamp > 50_000_000)
            ):
                return known[1]
            found: dict[int, tuple[int, str]] = {}
            for name in os.listdir(folder):  # noqa: PTH208
                first, _, count = name.partition("-")
                if first.isdigit() and count.isdigit():
                    found.update((int(first) + i, (int(first), name)) for i in range(int(count)))
            self._runs[content] = (stamp, found)
            return found

    def _read(self, content: str, name: str, first: int, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
        path = self.folder / content / name
        count = int(name.partition("-")[2])
        try:
            with path.open("rb") as file:
                head = file.read(len(MAGIC) + 8 * count)
                if head[: len(MAGIC)] != MAGIC or len(head) != len(MAGIC) + 8 * count:
                    raise ValueError
                table = list(struct.iter_unpack("<II", head[len(MAGIC) :]))
                for number in numbers:
                    index = number - first
                    length, check = table[index]
                    file.seek(len(head) + index * SEGMENT)
                    data = file.read(length)
                    if len(data) != length or zlib.crc32(data) != check:
                        raise ValueError
                    yield number, data
        except FileNotFoundError:
            with self._lock:
                self._runs.pop(content, None)
            return
        except ValueError:
            log.warning("A file of the cache is damaged; what it had is fetched anew.")
            path.unlink(missing_ok=True)
            return
        now = time.monotonic()
        if now - self._touched.get(f"{content}/{name}", -TOUCH) >= TOUCH:
            if len(self._touched) > 10_000:
                self._touched.clear()
            self._touched[f"{content}/{name}"] = now
            with contextlib.suppress(OSError):
                os.utime(path)

    def _write(self, content: str, first: int, data: Sequence[bytes]) -> None:
        size = sum(map(len, data))
        with self._lock:
            self._written += size
            look = self._written >= self.limit // 16
            if look:
                self._written = 0
        if look:
            self._evict(size)
        folder = self.folder / content
        folder.mkdir(mode=0o700, exist_ok=True)
        # Not in the content's folder: that it was changed is to say that a run was added.
        beside = self.folder / f".{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
                table = b"".join(struct.pack("<II", len(part), zlib.crc32(part)) for part in data)
                file.write(MAGIC + table)
                file.writelines(data)
            self._place(content, beside, first, len(data))
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise

    def _place(self, content: str, beside: Path, first: int, count: int) -> None:
        """Give a run its name, and note it: to read the folder anew after each would cost more the fuller it is."""
        folder, name = self.folder / content, f"{first}-{count}"
        with self._lock:
            known, before = self._runs.get(content), folder.stat().st_mtime_ns
            beside.rename(folder / name)
            if known is None or known[0] != before:
                return
            # What another process adds at this very moment may be missed: it is fetched once more.
            known[1].update((first + i, (first, name)) for i in range(count))
            self._own[content] = stamp = folder.stat().st_mtime_ns
            self._runs[content] = (stamp, known[1])

    def _evict(self, coming: int) -> None:
        """Remove what was used longest ago, until four fifths of the limit are left for the rest."""
        with self._alone() as mine:
            if not mine:
                return  # another process does it
            found = []
            for folder in os.scandir(self.folder):
                if not folder.is_dir(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        # Of a process that died.
                        if folder.name.startswith(".") and time.time() - folder.stat().st_mtime > 3600:
                            Path(folder.path).unlink(missing_ok=True)
                    continue
                entries = list(os.scandir(folder.path))
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        old = time.time() - status.st_mtime > 3600
                        if entry.name.startswith("."):
                            if old:  # of a process that died
                                Path(entry.path).unlink(missing_ok=True)
                            continue
                        found.append((status.st_mtime, status.st_size, entry.path))
                if not entries:
                    with contextlib.suppress(OSError):
                        Path(folder.path).rmdir()
            total = sum(size for _, size, _ in found) + coming
            if total <= self.limit * 15 // 16:
                return
            for _, size, path in sorted(found):
                if total <= self.limit * 4 // 5:
                    break
                Path(path).unlink(missing_ok=True)
                total -= size

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        descriptor = os.open(
            self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            log.warning(
                "The cache of the archive in %s does not work (%s): reading goes on without.",
                self.folder,
                error.strerror,
            )
