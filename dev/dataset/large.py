"""Mock dataset: a large pyramid, the real slide mirrored side by side, written tile by tile in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from . import geo

ACROSS, DOWN, TILE, QUALITY = 8, 6, 256, 75
MICRONS = 0.499


def _rows(image: NDArray[np.uint8], first: int, last: int) -> NDArray[np.uint8]:
    """Rows of the mirrored image: rows, width, RGB."""
    height = image.shape[0]
    rows = np.arange(first, last)
    turn, place = np.divmod(rows, height)
    part = image[np.where(turn % 2, height - 1 - place, place)]
    return np.concatenate([part[:, ::-1] if n % 2 else part for n in range(ACROSS)], axis=1)


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half the size, each pixel the mean of four; an odd last row or column is repeated."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    total = image[::2, ::2].astype(np.uint16) + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def _cut(strip: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    # The pixels beyond the border repeat the last ones, as scanners' software does it.
    below, right = -strip.shape[0] % TILE, -strip.shape[1] % TILE
    strip = np.pad(strip, ((0, below), (0, right), (0, 0)), mode="edge")
    for x in range(0, strip.shape[1], TILE):
        yield np.ascontiguousarray(strip[:, x : x + TILE])


def write(image: NDArray[np.uint8], path: Path) -> tuple[int, int]:
    """Write the pyramid; its width and height. The memory needed is about that of a quarter of its third level."""
    height, width = image.shape[0] * DOWN, image.shape[1] * ACROSS
    shape = (height, width)
    second: list[NDArray[np.uint8]] = []

    def full() -> Iterator[NDArray[np.uint8]]:
        for y in range(0, height, TILE):
            yield from _cut(_rows(image, y, min(y + TILE, height)))

    def half() -> Iterator[NDArray[np.uint8]]:
        for y in range(0, height, 2 * TILE):
            strip = _halved(_rows(image, y, min(y + 2 * TILE, height)))
            second.append(_halved(strip))
            yield from _cut(strip)

    def whole(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        for y in range(0, pixels.shape[0], TILE):
            yield from _cut(pixels[y : y + TILE])

    with tifffile.TiffWriter(path, bigtiff=False) as out:
        _page(out, full(), shape, 0)
        shape = tuple(-(-side // 2) for side in shape)  # type: ignore[assignment]
        _page(out, half(), shape, 1)
        level = np.concatenate(second)
        second.clear()
        number = 2
        while True:
            _page(out, whole(level), level.shape[:2], number)
            if max(level.shape[:2]) <= TILE:
                return width, height
            level, number = _halved(level), number + 1


def _page(out: tifffile.TiffWriter, tiles: Any, shape: tuple[int, ...], level: int) -> None:
    out.write(
        tiles,
        shape=(*shape, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": QUALITY},
        subfiletype=1 if level else 0,
        resolution=(10000 / (MICRONS * 2**level), 10000 / (MICRONS * 2**level)),
        resolutionunit="CENTIMETER",
        description="Mock pyramid: a real slide mirrored side by side" if not level else None,
        software=False,
        metadata=None,
        maxworkers=1,
    )


def truth(outlines: list[Any], width: int, height: int) -> list[dict[str, Any]]:
    """The tissue's outlines, mirrored as the pixels are."""
    features = []
    for row in range(DOWN):
        for column in range(ACROSS):
            sx, sy = (-1 if column % 2 else 1), (-1 if row % 2 else 1)
            dx = (column + 1) * width if sx < 0 else column * width
            dy = (row + 1) * height if sy < 0 else row * height
            for shape in outlines:
                moved: BaseGeometry = affine_transform(shape, [sx, 0, 0, sy, dx, dy])
                features.append(geo.feature(moved, "Tissue", column=column, row=row))
    return features
