"""How much to ask for at a time, and which segments to ask for together.

Some archives seek to a range in a millisecond. Others fetch 50 MiB from their own storage for each range, and version 1
reads all that stands before it. Nobody tells, so it is measured: from the time to the first byte and the speed after it
follows how many bytes more would cost as long again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from statistics import median_low

from .crypt import SEGMENT

MIB = 1024 * 1024
FIRST = 4 * SEGMENT  # before anything is known
CHEAP = (SEGMENT, 1 * MIB)
# Encrypted, the larger is less than the 50 MiB that an archive pulls at a time where nobody set another size.
DEAR = (8 * MIB, 48 * MIB)
DEAR_WAIT = 0.1  # seconds to the first byte: no seek and no network alone takes so long
SPEED = 50e6  # bytes a second, until it is known
# How much longer than with the smallest block a random read may take: where it is dear the archive has pulled the
# neighbours already, and the next read of one of them costs as much again.
SHARE_CHEAP, SHARE_DEAR = 0.25, 1.0
# The tables of a slide's tiles are about a thousandth of it (12 to 16 bytes for a tile of 16 KiB), and stand at its start, or
# behind the directory that names them. In one piece they cost one read of the archive's storage; in small ones, one each.
TABLES, TABLES_MOST = 10, 8 * MIB
# Of a slide's levels all but the two largest, each a quarter as wide as the one before, are about so much of it: its end.
END = 7
STAGED = 64 * MIB  # files of version 1 up to here are fetched whole
GREEDY = 16 * MIB  # a request that others run beside


class Policy:
    """The size of blocks at one archive.

    Args:
        whole_prefix: whether the archive reads all that stands before a range, as version 1 does.
        room: how many bytes the cache holds at least: a block must fit.
        fixed: a size in bytes that somebody chose; None to measure.
    """

    def __init__(self, whole_prefix: bool, room: int, fixed: int | None = None) -> None:
        self.whole_prefix, self.fixed = whole_prefix, fixed
        self.room = max(room // 2, SEGMENT)
        self._waits: deque[float] = deque(maxlen=9)
        self._speeds: deque[float] = deque(maxlen=9)

    def waited(self, first: int, seconds: float) -> None:
        """The first byte of a request for content has come.

        Args:
            first: the first byte that was asked for.
            seconds: since it was.
        """
        # Whatever begins at the first byte is streamed everywhere: it tells nothing of the others.
        if first:
            self._waits.append(seconds)

    def came(self, size: int, seconds: float) -> None:
        """A request for content has ended.

        Args:
            size: bytes that came.
            seconds: from the first to the last.
        """
        if size >= MIB and seconds > 0:
            self._speeds.append(size / seconds)

    def block(self, offset: int, body: int) -> int:
        """How many bytes to ask for around an offset, a multiple of the segments' size.

        Args:
            offset: in the decrypted body.
            body: the length of the decrypted body.
        """
        if self.fixed:
            return _round(min(self.fixed, max(self.room, SEGMENT)))
        if self.whole_prefix:
            if body <= min(STAGED, self.room):
                return max(SEGMENT, -(-body // SEGMENT) * SEGMENT)
            size = max(DEAR[0], min(offset // 4, DEAR[1]))
        elif self._open(offset, body):
            size = tables(body)
        else:
            # The lower median: a request that met a busy moment does not count for long.
            wait = median_low(self._waits)
            (low, high), share = (DEAR, SHARE_DEAR) if wait >= DEAR_WAIT else (CHEAP, SHARE_CHEAP)
            speed = median_low(self._speeds) if self._speeds else SPEED
            size = max(low, min(int(wait * speed * share), high))
            end = min(body >> END, DEAR[1])
            if low == DEAR[0] and offset >= body - end:
                size = max(size, end)
        return _round(min(size, self.room))

    def _dear(self) -> bool:
        return bool(self._waits) and median_low(self._waits) >= DEAR_WAIT

    def _open(self, offset: int, body: int) -> bool:
        """Whether what is asked for at an offset follows the file's size: nothing is known, or it is a dear file's start."""
        # A range from the first byte is streamed, and costs no more than its bytes.
        return not self._waits or (self._dear() and offset < tables(body))

    def border(self, segment: int, block: int, count: int) -> int:
        """A segment where a block begins; others do a whole number of blocks before and behind.

        Args:
            segment: the first that is missing.
            block: segments of a block.
            count: how many segments the file has.
        """
        offset, body = segment * SEGMENT, count * SEGMENT
        if self.fixed or self.whole_prefix or offset < tables(body):
            return 0
        if not self._waits:
            return segment  # a directory's tables stand behind it
        # The directories and the pictures of a slide's small levels stand together at its end: in one block.
        return count % block if self._dear() else 0

    def request(self, block: int) -> int:
        """How many bytes one request has at most, where several may run at a time.

        Args:
            block: the size of a block.
        """
        # Version 1 reads the prefix for each of them again.
        return 1 << 62 if self.whole_prefix else max(block, GREEDY)

    def ahead(self, run: int, block: int) -> int:
        """How many bytes to read ahead of somebody who reads on and on.

        Args:
            run: how many reads followed each other.
            block: the size of a block.
        """
        return 0 if run < 2 else min(max(block, SEGMENT) << min(run - 1, 7), max(8 * MIB, block), self.room)


def tables(body: int) -> int:
    """How many bytes to ask for at once where a slide's directory and its tables may be, a multiple of the segments' size.

    Args:
        body: the length of the decrypted body.
    """
    return _round(max(FIRST, min(body >> TABLES, TABLES_MOST)))


def _round(size: int) -> int:
    """A multiple of segments that divides a power of two of them, so that blocks of neighbouring sizes share borders."""
    count = max(1, -(-size // SEGMENT))
    return (1 << (count - 1).bit_length() if count < 512 else count // 128 * 128) * SEGMENT


def plan(
    missing: Iterable[int],
    needed: Iterable[int],
    known: Callable[[int], bool],
    block: int,
    most: int,
    end: int,
    border: int = 0,
) -> list[tuple[int, int]]:
    """Which segments to ask for: ranges (first, last) that cover all missing ones.

    Blocks that touch each other are one range. Segments at a range's ends that are known already are left out.

    Args:
        missing: the segments that are to be there.
        needed: those among them that are asked for even if they are known.
        known: whether a segment is cached or on its way.
        block: segments of a block.
        most: segments of a range at most.
        end: how many segments there are.
        border: a segment where a block begins.
    """
    kept = set(needed)
    found: list[list[int]] = []
    for segment in sorted(set(missing)):
        start = segment - (segment - border) % block
        first, last = max(start, 0), min(start + block, end) - 1
        if found and first <= found[-1][1] + 1:
            found[-1][1] = max(found[-1][1], last)
        else:
            found.append([first, last])
    ranges = []
    for low, high in found:
        first, last = low, high
        while first <= last and first not in kept and known(first):
            first += 1
        while first <= last and last not in kept and known(last):
            last -= 1
        ranges += [(at, min(at + most - 1, last)) for at in range(first, last + 1, most)]
    return ranges
