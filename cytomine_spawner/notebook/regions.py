"""Pixels of a slide: regions, levels, and tiles that are read only when they are needed.

The full-size image is read by windows, which Cytomine gives as RGB in full size only; smaller levels come from its
tiles, each level half the size of the one below, rounded up. Level 0 is the full size. Origin top left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from cytomine.models import ImageInstance
from tqdm.auto import tqdm

from .images import Pixels, decode, image_id, image_of, reference, slices
from .transport import current, get_bytes

TILE = 256
# The image server refuses pictures with a longer side.
SIDE_LIMIT = 10_000
# A window of this side costs 12 MiB; larger ones are no faster and hold the memory longer.
PIECE = 2048
WORKERS = 8


@dataclass(frozen=True)
class Level:
    """One level of a slide's pyramid.

    Attributes:
        level: 0 for the full size.
        width: px at this level.
        height: px at this level.
        scale: full-size pixels per pixel (1, 2, 4 …).
        zoom: the number that Cytomine's tiles have for it.
    """

    level: int
    width: int
    height: int
    scale: int
    zoom: int


@dataclass(frozen=True)
class Tile:
    """A piece of a slide.

    Attributes:
        x: left edge, px at the level that was asked for.
        y: top edge.
        pixels: uint8, shape (height, width, 3).
        core: the part (x, y, width, height) that no other tile has, at the same level; the rest is overlap.
    """

    x: int
    y: int
    pixels: Pixels
    core: tuple[int, int, int, int]


def levels(image: ImageInstance | int) -> list[Level]:
    """The levels of a slide, the full size first; the last fits into one tile of 256 px."""
    one = image_of(image)
    sizes = [(int(one.width), int(one.height))]
    while max(sizes[-1]) > TILE:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    top = len(sizes) - 1
    return [Level(n, w, h, 2**n, top - n) for n, (w, h) in enumerate(sizes)]


def level_for(image: ImageInstance | int, micron_per_px: float) -> Level:
    """The smallest level that is at least as fine as asked for.

    Args:
        image: the image or its id.
        micron_per_px: the coarsest resolution that will do, in µm per px.

    Raises:
        ValueError: the pixel size of the image is not known.
    """
    one = image_of(image)
    if not one.physicalSizeX:
        raise ValueError(
            "The image's pixel size is not known: set it in Cytomine, or choose a level by number."
        )
    fine = [v for v in levels(one) if one.physicalSizeX * v.scale <= micron_per_px * 1.001]
    return fine[-1] if fine else levels(one)[0]


class Reader:
    """Reads one plane of one image; what the functions of this module share.

    Args:
        image: the image or its id.
        plane: the id of a plane (`images.slices`); the reference plane if not given.
        format: ``png`` (exact) or ``jpg`` (smaller and faster, with losses) for windows; tiles are the same.
    """

    def __init__(self, image: ImageInstance | int, plane: int | None = None, format: str = "png") -> None:  # noqa: A002
        if format not in ("png", "jpg"):
            raise ValueError(f"format must be png or jpg, not {format!r}.")
        self.client = current()  # a later connect() elsewhere must not redirect what is read lazily
        self.image, self.format, self._plane = image_of(image), format, plane
        self.levels = levels(self.image)

    @property
    def plane(self) -> int:
        """The id of the plane that is read."""
        if self._plane is None:
            self._plane = reference(self.image)
        return self._plane

    def check(self, x: int, y: int, w: int, h: int, level: int) -> Level:
        """The level, if the rectangle is inside it.

        Raises:
            ValueError: naming what is wrong.
        """
        if not 0 <= level < len(self.levels):
            raise ValueError(f"level must be 0 to {len(self.levels) - 1} for this image, not {level}.")
        at = self.levels[level]
        if w < 1 or h < 1 or x < 0 or y < 0 or x + w > at.width or y + h > at.height:
            raise ValueError(
                f"The region x={x} y={y} w={w} h={h} is not inside the image, which has {at.width} x {at.height} px at level {level}."
            )
        return at

    def window(self, x: int, y: int, w: int, h: int) -> Pixels:
        """One window of the full size, at most 10,000 px wide and high."""
        kind, number = (
            ("imageinstance", image_id(self.image)) if self._plane is None else ("sliceinstance", self._plane)
        )
        uri = f"{kind}/{number}/window-{x}-{y}-{w}-{h}.{self.format}"
        return _sized(decode(get_bytes(uri, client=self.client), f"The window {x},{y} of {w} x {h}"), w, h)

    def tile(self, level: int, tx: int, ty: int) -> Pixels:
        """One tile of a level: 256 px, less at the right and bottom border."""
        at = self.levels[level]
        uri = f"sliceinstance/{self.plane}/normalized-tile/zoom/{at.zoom}/tx/{tx}/ty/{ty}.{self.format}"
        size = min(TILE, at.width - tx * TILE), min(TILE, at.height - ty * TILE)
        return _sized(
            decode(get_bytes(uri, client=self.client), f"The tile {tx},{ty} of level {level}"), *size
        )

    def requests(self, x: int, y: int, w: int, h: int, level: int) -> list[tuple[int, int, int, int]]:
        """The pieces (x, y, w, h) that a region is read by, one request each."""
        side = PIECE if level == 0 else TILE
        left, top = (0, 0) if level else (x, y)
        pieces = []
        for py in range(top + (y - top) // side * side, y + h, side):
            for px in range(left + (x - left) // side * side, x + w, side):
                at = self.levels[level]
                right, bottom = (at.width, at.height) if level else (x + w, y + h)
                pieces.append((px, py, min(side, right - px), min(side, bottom - py)))
        return pieces

    def piece(self, place: tuple[int, int, int, int], level: int) -> Pixels:
        """One of `requests`' pieces."""
        x, y, w, h = place
        return self.window(x, y, w, h) if level == 0 else self.tile(level, x // TILE, y // TILE)

    def region(
        self, x: int, y: int, w: int, h: int, level: int = 0, pool: ThreadPoolExecutor | None = None
    ) -> Pixels:
        """A rectangle of a level; see `region` of this module."""
        self.check(x, y, w, h, level)
        out = np.empty((h, w, 3), np.uint8)
        places = self.requests(x, y, w, h, level)
        read = map if pool is None else pool.map
        for place, pixels in zip(places, read(lambda p: self.piece(p, level), places), strict=True):
            px, py, pw, ph = place
            x0, y0, x1, y1 = max(px, x), max(py, y), min(px + pw, x + w), min(py + ph, y + h)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[y0 - py : y1 - py, x0 - px : x1 - px]
        return out


def _sized(pixels: Pixels, w: int, h: int) -> Pixels:
    """A tile at the border may come a pixel larger or smaller than the level's size says: cut or repeat the edge."""
    if pixels.shape[:2] == (h, w):
        return pixels
    if abs(pixels.shape[0] - h) > 1 or abs(pixels.shape[1] - w) > 1:
        raise ValueError(
            f"Cytomine sent {pixels.shape[1]} x {pixels.shape[0]} px where {w} x {h} were asked for."
        )
    cut = pixels[:h, :w]
    return np.pad(cut, ((0, h - cut.shape[0]), (0, w - cut.shape[1]), (0, 0)), mode="edge")


def region(
    image: ImageInstance | int,
    x: int,
    y: int,
    w: int,
    h: int,
    *,
    level: int = 0,
    plane: int | None = None,
    format: str = "png",  # noqa: A002
    workers: int = WORKERS,
    progress: bool = False,
) -> Pixels:
    """A rectangle of a slide as an array.

    Args:
        image: the image or its id.
        x: left edge, px of the level, origin top left.
        y: top edge.
        w: width in px.
        h: height in px.
        level: 0 for the full size, n for 1/2ⁿ.
        plane: the id of a plane (`images.slices`); the reference plane if not given.
        format: ``png`` (exact) or ``jpg`` (faster, with losses).
        workers: requests at the same time.
        progress: show a progress bar (requests).

    Returns:
        uint8, shape (h, w, 3): h * w * 3 bytes of memory.

    Raises:
        ValueError: the rectangle is not inside the image.
        RequestFailed: Cytomine refused, or was cut off several times.
    """
    reader = Reader(image, plane, format)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        if not progress:
            return reader.region(x, y, w, h, level, pool)
        reader.check(x, y, w, h, level)
        with tqdm(total=len(reader.requests(x, y, w, h, level)), unit="request", desc="pixels") as bar:
            counted = _Counted(pool, bar)
            return reader.region(x, y, w, h, level, counted)  # type: ignore[arg-type]


class _Counted:
    def __init__(self, pool: ThreadPoolExecutor, bar: Any) -> None:
        self._pool, self._bar = pool, bar

    def map(self, function: Any, items: Any) -> Iterator[Any]:
        for result in self._pool.map(function, items):
            self._bar.update()
            yield result


def tiles(
    image: ImageInstance | int,
    size: int = 1024,
    *,
    overlap: int = 0,
    level: int = 0,
    area: tuple[int, int, int, int] | None = None,
    plane: int | None = None,
    format: str = "png",  # noqa: A002
    workers: int = WORKERS,
    progress: bool = True,
) -> Iterator[Tile]:
    """The tiles of a slide, row by row, read ahead while the caller works on the one before.

    At most ``workers + 1`` tiles are in memory, however large the slide is.

    Args:
        image: the image or its id.
        size: side of the tiles' cores in px.
        overlap: px that a tile reaches into its neighbours on each side (less at the image's border).
        level: 0 for the full size, n for 1/2ⁿ.
        area: only this part (x, y, w, h), px of the level.
        plane: the id of a plane; the reference plane if not given.
        format: ``png`` (exact) or ``jpg`` (faster, with losses).
        workers: tiles that are read at the same time.
        progress: show a progress bar (tiles).

    Yields:
        `Tile`: place, pixels, and the part that belongs to it alone.

    Raises:
        ValueError: size, overlap or area do not fit.
        RequestFailed: Cytomine refused, or was cut off several times.
    """
    if size < 1 or overlap < 0 or size + 2 * overlap > SIDE_LIMIT:
        raise ValueError(f"size must be at least 1 and size + 2 * overlap at most {SIDE_LIMIT} px.")
    reader = Reader(image, plane, format)
    at = reader.levels[level] if 0 <= level < len(reader.levels) else reader.check(0, 0, 1, 1, level)
    ax, ay, aw, ah = area or (0, 0, at.width, at.height)
    reader.check(ax, ay, aw, ah, level)
    cores = [
        (x, y, min(size, ax + aw - x), min(size, ay + ah - y))
        for y in range(ay, ay + ah, size)
        for x in range(ax, ax + aw, size)
    ]

    def read(core: tuple[int, int, int, int]) -> Tile:
        x, y = max(0, core[0] - overlap), max(0, core[1] - overlap)
        right = min(at.width, core[0] + core[2] + overlap)
        bottom = min(at.height, core[1] + core[3] + overlap)
        return Tile(x, y, reader.region(x, y, right - x, bottom - y, level), core)

    return _ahead(read, cores, max(1, workers), progress)


def _ahead(read: Any, cores: list[Any], workers: int, progress: bool) -> Iterator[Tile]:
    waiting: deque[Future[Tile]] = deque()
    todo = iter(cores)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(cores), unit="tile", desc="tiles", disable=not progress) as bar,
    ):
        try:
            for core in todo:
                waiting.append(pool.submit(read, core))
                if len(waiting) >= workers:
                    break
            while waiting:
                tile = waiting.popleft().result()
                if (core := next(todo, None)) is not None:
                    waiting.append(pool.submit(read, core))
                yield tile
                bar.update()
        finally:
            for future in waiting:
                future.cancel()


def lazy(
    image: ImageInstance | int,
    *,
    level: int = 0,
    chunk: int = 1024,
    plane: int | None = None,
    format: str = "png",  # noqa: A002
) -> Any:
    """A slide as a dask array: pixels are read when they are computed.

    ``lazy(image)[1000:2000, 500:900].compute()`` reads what it needs. Dask's threads decide how much is read at the
    same time: ``array.compute(num_workers=8)``. A whole slide does not fit into memory at level 0: reduce it.

    Args:
        image: the image or its id.
        level: 0 for the full size, n for 1/2ⁿ.
        chunk: side of the chunks in px; one chunk is one request at level 0, and (chunk / 256)² at others.
        plane: the id of a plane; the reference plane if not given.
        format: ``png`` (exact) or ``jpg`` (faster, with losses).

    Returns:
        A dask array, uint8, shape (height, width, 3) of the level.
    """
    import dask.array

    reader = Reader(image, plane, format)
    at = reader.check(0, 0, 1, 1, level)
    if level:
        chunk = max(TILE, chunk // TILE * TILE)
    side = min(chunk, PIECE) if level == 0 else chunk

    def read(block_info: Any = None) -> Pixels:
        (top, bottom), (left, right) = block_info[None]["array-location"][:2]
        return reader.region(left, top, right - left, bottom - top, level)

    chunks = (_cut(at.height, side), _cut(at.width, side), (3,))
    name = f"slide-{reader.client.host}-{image_id(reader.image)}-{plane}-{level}-{side}-{format}"
    return dask.array.map_blocks(  # type: ignore[no-untyped-call]
        read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8), name=name
    )


def _cut(length: int, side: int) -> tuple[int, ...]:
    return (side,) * (length // side) + ((length % side,) if length % side else ())


def channels(
    image: ImageInstance | int, x: int, y: int, w: int, h: int, *, workers: int = WORKERS
) -> tuple[Pixels, list[str]]:
    """A rectangle of an image with several channels, each by itself.

    Cytomine gives every plane as RGB of 8 bits; the largest of the three values is taken.

    Args:
        image: the image or its id.
        x: left edge, px, origin top left.
        y: top edge.
        w: width in px.
        h: height in px.
        workers: requests at the same time.

    Returns:
        uint8, shape (channels, h, w), and the channels' names.
    """
    one = image_of(image)
    planes = [p for p in slices(one) if not p["zStack"] and not p["time"]]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        read = [pool.submit(Reader(one, p["id"]).region, x, y, w, h) for p in planes]
        stack = np.stack([r.result().max(axis=2) for r in read])
    return stack, [p.get("channelName") or str(p["channel"]) for p in planes]
