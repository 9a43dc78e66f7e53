"""Pixels of a slide: regions, levels and what is below annotations; `tiling` reads whole slides.

The full-size image is read by windows, which Cytomine gives as RGB in full size only; smaller levels come from its
tiles, each level half the size of the one below, rounded up. Level 0 is the full size. Origin top left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from cytomine.models import ImageInstance
from PIL import Image as Pillow
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry
from tqdm.auto import tqdm

from .images import AnyImage, Pixels, decode, image_id, image_of, lossy, reference, slices
from .masks import rasterize
from .slides import Slide
from .transport import current, get_bytes, get_json
from .values import whole

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


def levels(image: AnyImage) -> list[Level]:
    """The levels of a slide, the full size first; the last fits into one tile of 256 px."""
    one = image_of(image)
    sizes = [(int(one.width), int(one.height))]
    while max(sizes[-1]) > TILE:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    top = len(sizes) - 1
    return [Level(n, w, h, 2**n, top - n) for n, (w, h) in enumerate(sizes)]


def level_for(image: AnyImage, micron_per_px: float) -> Level:
    """The smallest level that is at least as fine as asked for.

    Args:
        image: the image or its id, or a slide that is a file.
        micron_per_px: the coarsest resolution that will do, in µm per px.

    Raises:
        ValueError: the pixel size of the image is not known.
    """
    one = image_of(image)
    if not one.physicalSizeX:
        raise ValueError(
            "The image's pixel size is not known: set it in Cytomine if it is there, or choose a level by number."
        )
    fine = [v for v in levels(one) if one.physicalSizeX * v.scale <= micron_per_px * 1.001]
    return fine[-1] if fine else levels(one)[0]


class Reader:
    """Reads one plane of one image; what the functions of this module share.

    Args:
        image: the image or its id.
        plane: the id of a plane (`images.slices`); the reference plane if not given.
        format: ``png`` (exact) or ``jpg`` (twice as fast or more, with losses). If not given, ``jpg`` for slides whose
            own file is compressed with losses (`images.lossy`), else ``png``.
    """

    def __init__(
        self,
        image: ImageInstance | int,
        plane: int | None = None,
        format: str | None = None,  # noqa: A002
    ) -> None:
        if format not in ("png", "jpg", None):
            raise ValueError(f"format must be png or jpg, not {format!r}.")
        self.client = current()  # a later connect() elsewhere must not redirect what is read lazily
        self.image, self._format = image_of(image), format
        self._plane = None if plane is None else whole(plane, "plane")
        self.levels = levels(self.image)

    @property
    def name(self) -> str:
        """What tells its pixels from all others', for caches."""
        return f"{self.client.host}-{image_id(self.image)}-{self._plane}-{self.format}"

    @property
    def plane(self) -> int:
        """The id of the plane that is read."""
        if self._plane is None:
            self._plane = reference(self.image)
        return self._plane

    @property
    def format(self) -> str:
        """The format that is asked for."""
        if self._format is None:
            self._format = "jpg" if lossy(self.image, self.client) else "png"
        return self._format

    def check(self, x: int, y: int, w: int, h: int, level: int) -> Level:
        """The level, if the rectangle is inside it; all are whole numbers of Python's, see `box`.

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
        at = self.levels[level]
        if level:
            return [
                (px, py, min(TILE, at.width - px), min(TILE, at.height - py))
                for py in range(y // TILE * TILE, y + h, TILE)
                for px in range(x // TILE * TILE, x + w, TILE)
            ]
        # As much as a square of PIECE, whatever the region's shape.
        tall = min(h, SIDE_LIMIT, max(PIECE, PIECE * PIECE // w))
        wide = min(w, SIDE_LIMIT, PIECE * PIECE // tall)
        return [
            (px, py, min(wide, x + w - px), min(tall, y + h - py))
            for py in range(y, y + h, tall)
            for px in range(x, x + w, wide)
        ]

    def piece(self, place: tuple[int, int, int, int], level: int) -> Pixels:
        """One of `requests`' pieces."""
        x, y, w, h = place
        return self.window(x, y, w, h) if level == 0 else self.tile(level, x // TILE, y // TILE)

    def region(
        self, x: int, y: int, w: int, h: int, level: int = 0, pool: ThreadPoolExecutor | None = None
    ) -> Pixels:
        """A rectangle of a level; see `region` of this module."""
        x, y, w, h, level = *box(x, y, w, h), whole(level, "level")
        self.check(x, y, w, h, level)
        out = np.empty((h, w, 3), np.uint8)
        places = self.requests(x, y, w, h, level)

        def put(place: tuple[int, int, int, int]) -> None:
            px, py, pw, ph = place
            x0, y0, x1, y1 = max(px, x), max(py, y), min(px + pw, x + w), min(py + ph, y + h)
            pixels = self.piece(place, level)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[y0 - py : y1 - py, x0 - px : x1 - px]

        for _ in map(put, places) if pool is None else pool.map(put, places):
            pass
        return out


class FileReader(Reader):
    """Reads a slide that is a file, in the place of `Reader`.

    Args:
        slide: the slide.
        plane: None: its planes have no ids.
    """

    def __init__(self, slide: Slide, plane: int | None = None) -> None:
        if plane is not None:
            raise ValueError(
                f"plane must be left out, not {plane}: a slide that is a file has no planes here."
            )
        self.image, self.levels, self._slide = slide, levels(slide), slide

    @property
    def name(self) -> str:
        """What tells its pixels from all others', for caches."""
        return f"{self._slide.url}-{self._slide.width}-{self._slide.height}"

    @property
    def format(self) -> str:
        """The file's own: its pixels come as they are."""
        return ""

    def requests(self, x: int, y: int, w: int, h: int, level: int) -> list[tuple[int, int, int, int]]:
        """The pieces (x, y, w, h) that a region is read by."""
        return self._slide.pieces(x, y, w, h, level)

    def piece(self, place: tuple[int, int, int, int], level: int) -> Pixels:
        """One of `requests`' pieces."""
        return self._slide.piece(place, level)


def reader_of(
    image: AnyImage,
    plane: int | None = None,
    format: str | None = None,  # noqa: A002
) -> Reader:
    """What reads an image; see `Reader`."""
    one = image_of(image)
    return FileReader(one, plane) if isinstance(one, Slide) else Reader(one, plane, format)


def box(x: Any, y: Any, w: Any, h: Any) -> tuple[int, int, int, int]:
    """A rectangle of whole pixels, as Python's integers: small ones of NumPy overflow.

    Raises:
        ValueError: a side lies within a pixel, so that somebody has to choose.
    """
    try:
        return whole(x, "x"), whole(y, "y"), whole(w, "w"), whole(h, "h")
    except ValueError as error:
        raise ValueError(
            f"{error} Pixels are whole: round left and top down, right and bottom up, and take w and h from those."
        ) from error


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
    image: AnyImage,
    x: int,
    y: int,
    w: int,
    h: int,
    *,
    level: int = 0,
    plane: int | None = None,
    format: str | None = None,  # noqa: A002
    workers: int = WORKERS,
    progress: bool = False,
) -> Pixels:
    """A rectangle of a slide as an array.

    Args:
        image: the image or its id; a slide of `open_slide`, its path or its URL.
        x: left edge, px of the level, origin top left.
        y: top edge.
        w: width in px.
        h: height in px.
        level: 0 for the full size, n for 1/2ⁿ.
        plane: the id of a plane (`images.slices`); the reference plane if not given.
        format: ``png`` (exact) or ``jpg`` (twice as fast or more, with losses); if not given, ``jpg`` where the slide's own
            file is compressed with losses, else ``png``.
        workers: requests at the same time.
        progress: show a progress bar (requests).

    Returns:
        uint8, shape (h, w, 3): h * w * 3 bytes of memory.

    Raises:
        ValueError: the rectangle is not inside the image, or not of whole pixels.
        RequestFailed: Cytomine refused, or was cut off several times.
    """
    reader = reader_of(image, plane, format)
    x, y, w, h, level = *box(x, y, w, h), whole(level, "level")
    with ThreadPoolExecutor(max(1, whole(workers, "workers"))) as pool:
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


def crop(annotation: Any, max_size: int | None = None, *, mask: bool = False) -> Pixels:
    """The part of the image below an annotation, or the annotation's mask: the whole pixels that its outline touches.

    Both are made by coordinates, so they are the pixels that `region` has at that place, exactly. Cytomine's own crop
    (``Annotation.dump``) is one pixel too high: it has the row above the annotation, and lacks the last one.

    Args:
        annotation: an annotation with an area, or its id.
        max_size: length of the longer side in pixels at most; full size if not given.
        mask: the mask instead of the picture: 255 where a pixel's centre is inside, 0 outside.

    Returns:
        uint8, shape (height, width, 3), or (height, width) for a mask; origin top left.

    Raises:
        ValueError: it is a point or a line, or outside the image.
        RequestFailed: Cytomine refused, or there is no such annotation.
    """
    number = whole(getattr(annotation, "id", annotation), "annotation")
    one = get_json(f"annotation/{number}.json")
    image, shape = image_of(int(one["image"])), shapely.from_wkt(one["location"])
    left, top, right, bottom = _box(number, shape, image)
    w, h = right - left, bottom - top
    # As Cytomine rounds it.
    scale = 1.0 if max_size is None else min(1.0, max(1, whole(max_size, "max_size")) / max(w, h))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    if mask:
        fx, fy = size[0] / w, size[1] / h
        placed = affine_transform(shape, [fx, 0, 0, -fy, -left * fx, (image.height - top) * fy])
        return rasterize(placed, *size).astype(np.uint8) * 255
    at = next(v for v in reversed(levels(image)) if v.scale * scale <= 1)
    x, y = left // at.scale, top // at.scale
    x1, y1 = math.ceil(right / at.scale), math.ceil(bottom / at.scale)
    pixels = region(image, x, y, x1 - x, y1 - y, level=at.level, plane=one["slice"], format="png")
    if scale == 1:
        return pixels
    # The box may begin and end within pixels of a smaller level.
    box = left / at.scale - x, top / at.scale - y, right / at.scale - x, bottom / at.scale - y
    return np.asarray(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BILINEAR, box))


def _box(number: int, shape: BaseGeometry, image: ImageInstance) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the whole pixels below a geometry in Cytomine's coordinates."""
    if shapely.get_dimensions(shape) < 2:
        kind = "point" if shapely.get_dimensions(shape) < 1 else "line"
        raise ValueError(
            f"Annotation {number} is a {kind}, which has no area to cut out: read the region around it by region()."
        )
    # What was computed to be at a pixel's edge must not reach into the next.
    low_x, low_y, high_x, high_y = np.round(shape.bounds, 6)
    left, right = max(0, math.floor(low_x)), min(int(image.width), math.ceil(high_x))
    top = max(0, int(image.height) - math.ceil(high_y))
    bottom = min(int(image.height), int(image.height) - math.floor(low_y))
    if left >= right or top >= bottom:
        raise ValueError(
            f"Annotation {number} is outside its image, which has {image.width} x {image.height} px: move it in Cytomine."
        )
    return left, top, right, bottom


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
    x, y, w, h = box(x, y, w, h)
    with ThreadPoolExecutor(max(1, whole(workers, "workers"))) as pool:
        read = [pool.submit(Reader(one, p["id"]).region, x, y, w, h) for p in planes]
        stack = np.stack([r.result().max(axis=2) for r in read])
    return stack, [p.get("channelName") or str(p["channel"]) for p in planes]
