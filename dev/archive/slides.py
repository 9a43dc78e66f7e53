"""Stands in for slides of the Bigpicture archive in development and tests; never what production runs.

A tiled pyramidal TIFF of any size that takes no disk: directories are made, tiles come from a small pool by their place.
"""

from __future__ import annotations

import bisect
import io
import struct
from dataclasses import dataclass

from PIL import Image

TILE = 256
_POOL = 16
_JPEG, _YCBCR = 7, 6
_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
_WIDTH = {_SHORT: 2, _LONG: 4, _RATIONAL: 8, _LONG8: 8}


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        width: pixels.
        height: pixels.
        start: offset of its first tile in the file.
    """

    width: int
    height: int
    start: int = 0

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        """Tiles in all."""
        return self.across * -(-self.height // TILE)


class Pyramid:
    """A BigTIFF with tiles of 256 pixels, JPEG, each level a quarter as wide as the one before.

    Args:
        width: of the full image, pixels.
        height: of the full image, pixels.
        stride: bytes that each tile takes in the file; what its picture does not need is padding.
        spread: each level's directory stands before its tiles, as tifffile writes them, so that a reader must visit the
            whole file; otherwise all directories stand at its start.

    Attributes:
        levels: from the full image to the smallest.
    """

    def __init__(self, width: int, height: int, *, stride: int = 16384, spread: bool = True) -> None:
        self._stride = stride
        self._pool = [_tile(number, stride) for number in range(_POOL)]
        sizes = [Level(width, height)]
        while max(sizes[-1].width, sizes[-1].height) > 2 * TILE:
            sizes.append(Level(-(-sizes[-1].width // 4), -(-sizes[-1].height // 4)))
        directories, at = [0] * len(sizes), 16
        # First the places of everything, then the directories that name them.
        for number, level in enumerate(sizes):
            directories[number] = at
            at = -(-(at + self._directory_size(level)) // 16) * 16
            if spread:
                sizes[number] = Level(level.width, level.height, at)
                at += level.tiles * stride
        if not spread:
            for number, level in enumerate(sizes):
                sizes[number] = Level(level.width, level.height, at)
                at += level.tiles * stride
        self.levels, self.size = sizes, at
        parts: list[tuple[int, bytes | Level]] = [(0, struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16))]
        for number, level in enumerate(sizes):
            following = directories[number + 1] if number + 1 < len(sizes) else 0
            parts.append(
                (directories[number], self._directory(number, level, directories[number], following))
            )
            parts.append((level.start, level))
        parts.sort(key=lambda part: part[0])
        self._starts, self._parts = [start for start, _ in parts], [part for _, part in parts]

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile's JPEG."""
        return self._pool[self._which(row * self.levels[level].across + column, self.levels[level])]

    def _which(self, number: int, level: Level) -> int:
        return (number // level.across * 5 + number % level.across * 3 + level.width) % _POOL

    def _tags(self, level: Level) -> list[tuple[int, int, list[int]]]:
        counts = [len(self._pool[self._which(n, level)]) for n in range(level.tiles)]
        offsets = [level.start + n * self._stride for n in range(level.tiles)]
        return [
            (256, _LONG, [level.width]),
            (257, _LONG, [level.height]),
            (258, _SHORT, [8, 8, 8]),
            (259, _SHORT, [_JPEG]),
            (262, _SHORT, [_YCBCR]),
            (277, _SHORT, [3]),
            (282, _RATIONAL, [20000, 1]),
            (283, _RATIONAL, [20000, 1]),
            (296, _SHORT, [3]),
            (322, _LONG, [TILE]),
            (323, _LONG, [TILE]),
            (324, _LONG8, offsets),
            (325, _LONG, counts),
            (530, _SHORT, [2, 2]),
        ]

    def _directory_size(self, level: Level) -> int:
        # Tables of offsets and counts are as long as there are tiles; eight bytes or fewer stand in the entry itself.
        tables = sum(length for length in (level.tiles * 8, level.tiles * 4) if length > 8)
        return 8 + 14 * 20 + 8 + tables + 16

    def _directory(self, number: int, level: Level, at: int, following: int) -> bytes:
        tags = self._tags(level)
        if number:
            tags.insert(0, (254, _LONG, [1]))  # a reduced image
            tags = [tag for tag in tags if tag[0] != 296]
        entries, tables = [], bytearray()
        after = at + 8 + len(tags) * 20 + 8
        for tag, kind, values in tags:
            form = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _LONG8: "Q"}[kind]
            data = struct.pack(f"<{len(values)}{form}", *values)
            count = len(data) // _WIDTH[kind]
            if len(data) > 8:
                place = struct.pack("<Q", after + len(tables))
                tables += data
            else:
                place = data.ljust(8, b"\0")
            entries.append(struct.pack("<HHQ", tag, kind, count) + place)
        whole = struct.pack("<Q", len(tags)) + b"".join(entries) + struct.pack("<Q", following) + tables
        if len(whole) > self._directory_size(level):
            raise ValueError("the directory does not fit where it was put")
        return whole

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset."""
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        found = bytearray(end - offset)
        first = max(0, bisect.bisect_right(self._starts, offset) - 1)
        for start, part in zip(self._starts[first:], self._parts[first:], strict=True):
            if start >= end:
                break
            if isinstance(part, bytes):
                _put(found, offset, start, part)
                continue
            low = max(0, (offset - start) // self._stride)
            high = min(part.tiles, -(-(end - start) // self._stride))
            for number in range(low, high):
                _put(found, offset, start + number * self._stride, self._pool[self._which(number, part)])
        return bytes(found)


def _put(found: bytearray, offset: int, at: int, data: bytes) -> None:
    """Copy what of ``data``, which stands at ``at``, lies in the window that begins at ``offset``."""
    low, high = max(at, offset), min(at + len(data), offset + len(found))
    if low < high:
        found[low - offset : high - offset] = data[low - at : high - at]


def _tile(number: int, stride: int) -> bytes:
    """A picture that looks like stained tissue and tells its number by its colours."""
    noise = Image.effect_noise((TILE, TILE), 60).resize((TILE // 4, TILE // 4)).resize((TILE, TILE))
    red = noise.point(lambda v: min(255, 150 + v // 3))
    green = noise.point(lambda v: min(255, 60 + number * 8 + v // 4))
    picture = Image.merge("RGB", (red, green, noise.point(lambda v: min(255, 130 + v // 3))))
    for quality in (85, 60, 30):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, subsampling="4:2:0")
        if out.tell() <= stride:
            return out.getvalue()
    raise ValueError(f"a tile does not fit into {stride} bytes")
