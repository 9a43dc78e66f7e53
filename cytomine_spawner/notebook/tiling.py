"""A slide piece by piece, whatever its size: tiles that are read ahead, and an array that reads what is computed.

A request costs Cytomine about as much as a quarter of a megapixel of it, so several small tiles of a row come by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .images import AnyImage, Pixels
from .regions import PIECE, SIDE_LIMIT, TILE, WORKERS, box, reader_of
from .values import whole

# Bytes of pixels that are read before they are asked for, at most; a single tile may be larger. While a picture is
# decoded it takes four times as much.
AHEAD = 64 * 2**20
Box = tuple[int, int, int, int]


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
    core: Box


def tiles(
    image: AnyImage,
    size: int = 1024,
    *,
    overlap: int = 0,
    level: int = 0,
    area: Box | None = None,
    plane: int | None = None,
    format: str | None = None,  # noqa: A002
    workers: int = WORKERS,
    progress: bool = True,
) -> Iterator[Tile]:
    """The tiles of a slide, row by row, read ahead while the caller works on the one before.

    However large the slide is, at most 64 MiB of pixels are read ahead, or one tile where a single one is larger. Small
    tiles of a row are read together.

    Args:
        image: the image or its id; a slide of `open_slide`, its path or its URL.
        size: side of the tiles' cores in px.
        overlap: px that a tile reaches into its neighbours on each side (less at the image's border).
        level: 0 for the full size, n for 1/2ⁿ.
        area: only this part (x, y, w, h), px of the level.
        plane: the id of a plane; the reference plane if not given.
        format: ``png`` (exact) or ``jpg``, as for `region`.
        workers: requests at the same time.
        progress: show a progress bar (tiles).

    Yields:
        `Tile`: place, pixels, and the part that belongs to it alone.

    Raises:
        ValueError: size, overlap or area do not fit.
        RequestFailed: Cytomine refused, or was cut off several times.
    """
    size, overlap, level = whole(size, "size"), whole(overlap, "overlap"), whole(level, "level")
    if size < 1 or overlap < 0 or size + 2 * overlap > SIDE_LIMIT:
        raise ValueError(f"size must be at least 1 and size + 2 * overlap at most {SIDE_LIMIT} px.")
    reader = reader_of(image, plane, format)
    at = reader.levels[level] if 0 <= level < len(reader.levels) else reader.check(0, 0, 1, 1, level)
    # An array, as of bounds, is neither true nor false.
    ax, ay, aw, ah = box(*area) if area is not None else (0, 0, at.width, at.height)
    reader.check(ax, ay, aw, ah, level)
    _ = reader.format  # asked for here, where it is only one who asks
    strips = _strips((ax, ay, aw, ah), size, overlap)
    bounds = (at.width, at.height)

    def read(strip: list[Box], pieces: ThreadPoolExecutor) -> list[Tile]:
        x, y, right, bottom = _around(_whole(strip), overlap, bounds)
        pixels = reader.region(x, y, right - x, bottom - y, level, pieces)
        if len(strip) == 1:
            return [Tile(x, y, pixels, strip[0])]
        found = []
        for core in strip:
            x0, y0, x1, y1 = _around(core, overlap, bounds)
            # A copy: who keeps one tile does not keep its neighbours.
            found.append(Tile(x0, y0, pixels[y0 - y : y1 - y, x0 - x : x1 - x].copy(), core))
        return found

    return _ahead(read, strips, max(1, whole(workers, "workers")), progress)


def _strips(area: Box, size: int, overlap: int) -> list[list[Box]]:
    """The tiles' cores, row by row, those that are read together in one list."""
    ax, ay, aw, ah = area
    side = size + 2 * overlap
    together = max(1, (min(SIDE_LIMIT, PIECE * PIECE // side) - 2 * overlap) // size)
    found = []
    for y in range(ay, ay + ah, size):
        row = [(x, y, min(size, ax + aw - x), min(size, ay + ah - y)) for x in range(ax, ax + aw, size)]
        found += [row[n : n + together] for n in range(0, len(row), together)]
    return found


def _whole(strip: list[Box]) -> Box:
    first, last = strip[0], strip[-1]
    return (first[0], first[1], last[0] + last[2] - first[0], first[3])


def _around(core: Box, overlap: int, bounds: tuple[int, int]) -> Box:
    """Left, top, right and bottom of a core with its overlap, inside the image."""
    x, y, w, h = core
    return (
        max(0, x - overlap),
        max(0, y - overlap),
        min(bounds[0], x + w + overlap),
        min(bounds[1], y + h + overlap),
    )


def _ahead(
    read: Callable[[list[Box], ThreadPoolExecutor], list[Tile]],
    strips: list[list[Box]],
    workers: int,
    progress: bool,
) -> Iterator[Tile]:
    waiting: deque[tuple[int, Future[list[Tile]]]] = deque()
    todo, held = deque(strips), 0
    with (
        # Strips wait for their pieces: were both in one pool, all threads could wait.
        ThreadPoolExecutor(workers) as pieces,
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=sum(map(len, strips)), unit="tile", desc="tiles", disable=not progress) as bar,
    ):
        try:
            while todo or waiting:
                cost, found = 0, deque[Tile]()
                if waiting:
                    cost, future = waiting.popleft()
                    found.extend(future.result())
                    del future  # it would keep tiles that the caller has let go
                while todo and len(waiting) < workers:
                    size = _bytes(todo[0])
                    if held and held + size > AHEAD:
                        break
                    held += size
                    waiting.append((size, pool.submit(read, todo.popleft(), pieces)))
                while found:
                    yield found.popleft()
                    bar.update()
                held -= cost
        finally:
            for _, future in waiting:
                future.cancel()


def _bytes(strip: list[Box]) -> int:
    _, _, w, h = _whole(strip)
    return 3 * w * h


def lazy(
    image: AnyImage,
    *,
    level: int = 0,
    chunk: int = 1024,
    plane: int | None = None,
    format: str | None = None,  # noqa: A002
) -> Any:
    """A slide as a dask array: pixels are read when they are computed.

    ``lazy(image)[1000:2000, 500:900].compute()`` reads what it needs. Dask's threads decide how much is read at the
    same time: ``array.compute(num_workers=8)``. A whole slide does not fit into memory at level 0: reduce it.

    Args:
        image: the image or its id; a slide of `open_slide`, its path or its URL.
        level: 0 for the full size, n for 1/2ⁿ.
        chunk: side of the chunks in px; one chunk is one request at level 0, and (chunk / 256)² at others.
        plane: the id of a plane; the reference plane if not given.
        format: ``png`` (exact) or ``jpg``, as for `region`.

    Returns:
        A dask array, uint8, shape (height, width, 3) of the level.
    """
    import dask.array

    reader = reader_of(image, plane, format)
    level, chunk = whole(level, "level"), whole(chunk, "chunk")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 px, not {chunk}.")
    at = reader.check(0, 0, 1, 1, level)
    if level:
        chunk = max(TILE, chunk // TILE * TILE)
    side = min(chunk, PIECE) if level == 0 else chunk

    def read(block_info: Any = None) -> Pixels:
        (top, bottom), (left, right) = block_info[None]["array-location"][:2]
        return reader.region(left, top, right - left, bottom - top, level)

    chunks = (_cut(at.height, side), _cut(at.width, side), (3,))
    name = f"slide-{reader.name}-{level}-{side}"
    return dask.array.map_blocks(  # type: ignore[no-untyped-call]
        read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8), name=name
    )


def _cut(length: int, side: int) -> tuple[int, ...]:
    return (side,) * (length // side) + ((length % side,) if length % side else ())
