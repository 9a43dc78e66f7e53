"""Stand-in for Cytomine's image server: opening slides and reading parts of them.

OpenSlide reads what has a tiled pyramid (Aperio, DICOM, tiled TIFF): of such a slide only the tiles that are needed are
decoded, whatever its size. Everything else (PNG, JPEG, planes of OME-TIFF, flat TIFF) Pillow decodes whole, up to a limit.
"""

from __future__ import annotations

import functools
import threading
import xml.etree.ElementTree as ET
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import openslide
from PIL import Image, TiffImagePlugin

from .pyramid import levels

Image.MAX_IMAGE_PIXELS = None
PIXEL_LIMIT = 120_000_000
# Upstream refuses larger answers, too.
OUTPUT_LIMIT = 10_000
TILE_CACHE = 64 * 2**20
PLANE_CACHE = 512 * 2**20
FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "BMP": "BMP", "WEBP": "WEBP"}
TO_MICRONS = {2: 25400.0, 3: 10000.0}
Box = tuple[int, int, int, int]


# What OpenSlide calls them, and upstream.
SCANNERS = {"aperio": "SVS", "dicom": "WSIDICOM", "hamamatsu": "VMS", "mirax": "MRXS"}


class Unreadable(Exception):
    """No image that the stand-in knows, or a part of it that does not exist."""


@dataclass(frozen=True)
class Info:
    """What core stores about a slide; physical sizes in microns per pixel.

    ``samples`` are a plane's (3 for RGB); ``planes`` are the names of further channels, each a grey plane of its own.
    """

    format: str
    width: int
    height: int
    samples: int
    bits: int
    physical_x: float | None = None
    physical_y: float | None = None
    magnification: int | None = None
    planes: tuple[str, ...] = ()


class Reader(Protocol):
    """An open slide."""

    size: tuple[int, int]

    def read(self, box: Box, size: tuple[int, int], channel: int | None = None) -> Image.Image:
        """The part x, y, width, height from the top left, in RGB, shrunk to ``size``; None means all channels."""


def check_output(size: tuple[int, int]) -> None:
    """Refuse an answer that is too large."""
    if max(size) > OUTPUT_LIMIT:
        raise Unreadable(f"an answer of {size[0]} x {size[1]} pixels is larger than {OUTPUT_LIMIT}")


class Pyramid:
    """A slide that OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        self.slide = openslide.OpenSlide(path)
        self.slide.set_cache(_tiles())
        self.size = self.slide.dimensions

    def read(
        self,
        box: Box,
        size: tuple[int, int],
        channel: int | None = None,  # noqa: ARG002 - its slides have one plane
    ) -> Image.Image:
        """The part, from the smallest level that is large enough."""
        check_output(size)
        try:
            return self._read(box, size)
        except openslide.OpenSlideError as error:
            # After a fault OpenSlide refuses everything: the next call has to open the slide anew.
            _reader.cache_clear()
            raise Unreadable(str(error)) from None

    def _read(self, box: Box, size: tuple[int, int]) -> Image.Image:
        x, y, width, height = box
        # A level of an odd size is a little more than twice as small as the one before.
        level = self.slide.get_best_level_for_downsample(min(width / size[0], height / size[1]) * 1.01)
        own = self.slide.level_downsamples[level]
        inside = (max(1, round(width / own)), max(1, round(height / own)))
        part = self.slide.read_region((x, y), level, inside)
        flat = Image.new("RGB", part.size, (255, 255, 255)) if _has_holes(part) else None
        if flat is not None:
            flat.paste(part, mask=part.getchannel("A"))
        rgb = flat or part.convert("RGB")
        return rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BILINEAR)


def _has_holes(part: Image.Image) -> bool:
    low, _ = part.getchannel("A").getextrema()
    return bool(low < 255)


@functools.cache
def _tiles() -> openslide.OpenSlideCache:
    return openslide.OpenSlideCache(TILE_CACHE)


class Planes:
    """A slide whose planes Pillow decodes whole; those used last are kept."""

    def __init__(self, path: Path, planes: int) -> None:
        self.path, self.planes = path, planes
        with _open(path) as image:
            self.size = image.size

    def plane(self, number: int) -> Image.Image:
        """One plane: RGB, or grey where the slide has several."""

        def load() -> Image.Image:
            with _open(self.path) as image:
                if image.width * image.height > PIXEL_LIMIT:
                    raise Unreadable("the stand-in does not read pixels of a slide as large as this")
                try:
                    if self.planes:
                        image.seek(number)
                    return image.convert("L" if self.planes else "RGB")
                except (OSError, ValueError, EOFError) as error:
                    raise Unreadable(str(error)) from None

        return DECODED.get((str(self.path), number), load)

    def read(self, box: Box, size: tuple[int, int], channel: int | None = None) -> Image.Image:
        """The part; all channels together are shown as red, green and blue."""
        check_output(size)
        x, y, width, height = box
        area = (x, y, x + width, y + height)

        def cut(number: int) -> Image.Image:
            part = self.plane(number).crop(area)
            return part if part.size == size else part.resize(size, Image.Resampling.BILINEAR)

        if not self.planes:
            return cut(0)
        if channel is None:
            parts = [cut(n) for n in range(min(3, self.planes))]
            parts += [Image.new("L", size)] * (3 - len(parts))
            return Image.merge("RGB", parts)
        if channel >= self.planes:
            raise Unreadable(f"channel {channel} is not there")
        return cut(channel).convert("RGB")


class Decoded:
    """Decoded planes up to a number of bytes, the one used last at the end."""

    def __init__(self, limit: int) -> None:
        self.limit, self._kept, self._lock = (
            limit,
            OrderedDict[tuple[str, int], Image.Image](),
            threading.Lock(),
        )

    def get(self, key: tuple[str, int], load) -> Image.Image:  # type: ignore[no-untyped-def]
        """A plane, decoded now unless it is kept; one at a time, so that memory stays bounded."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            image: Image.Image = load()
            self._kept[key] = image
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self.limit:
                self._kept.popitem(last=False)
            return image


def _bytes(image: Image.Image) -> int:
    # Pillow keeps four bytes a pixel for RGB.
    return image.width * image.height * (1 if image.mode == "L" else 4)


DECODED = Decoded(PLANE_CACHE)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise Unreadable(str(error)) from None


def reader(path: Path) -> Reader:
    """The slide, opened; the last few stay open."""
    try:
        return _reader(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        raise Unreadable(f"{path.name} is not there") from None


@functools.lru_cache(maxsize=16)
def _reader(path: Path, _stamp: int) -> Reader:
    try:
        if tiled(path):
            return Pyramid(path)
    except openslide.OpenSlideError as error:
        raise Unreadable(str(error)) from None
    return Planes(path, len(info(path).planes))


def has_thumbnail(path: Path) -> bool:
    """Whether a scanner's file (Aperio's, SVS) has a small picture of itself beside its pyramid."""
    if openslide.OpenSlide.detect_format(path) != "aperio":
        return False
    image = reader(path)
    return isinstance(image, Pyramid) and "thumbnail" in image.slide.associated_images


def tiled(path: Path) -> bool:
    """Whether OpenSlide should read it: not flat TIFF, whose one level it would decode again and again."""
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor is None or vendor != "generic-tiff":
        return vendor is not None
    with openslide.OpenSlide(path) as slide:
        return bool(slide.level_count > 1)


def info(path: Path) -> Info:
    """Format, size and resolution, from the file's header."""
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor in SCANNERS:
        return _scanned(path, SCANNERS[vendor])
    with _open(path) as image:
        kind, size, planes = image.format or "", (None, None), ()
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            if (found := _ome(image)) is not None:
                return found
            kind, size = _tiff(image)
        elif kind not in FORMATS:
            raise Unreadable(f"format {kind} is not supported")
        samples = len(image.getbands())
        bits = 16 if "16" in image.mode else 8
        return Info(kind, image.width, image.height, samples, bits, *size, None, planes)


def _scanned(path: Path, kind: str) -> Info:
    try:
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions
            names = (
                openslide.PROPERTY_NAME_MPP_X,
                openslide.PROPERTY_NAME_MPP_Y,
                openslide.PROPERTY_NAME_OBJECTIVE_POWER,
            )
            x, y, power = (float(v) if (v := slide.properties.get(n)) else None for n in names)
    except openslide.OpenSlideError as error:
        raise Unreadable(str(error)) from None
    return Info(kind, width, height, 3, 8, x, y, int(power) if power else None)


def _ome(image: TiffImagePlugin.TiffImageFile) -> Info | None:
    """An OME-TIFF's channels, where each is a plane of its own."""
    text = image.tag_v2.get(TiffImagePlugin.IMAGEDESCRIPTION, "")
    if not isinstance(text, str) or "<OME" not in text[:200]:
        return None
    try:
        tree = ET.fromstring(text)  # noqa: S314 - expat expands no external entities
    except ET.ParseError:
        return None
    name = tree.tag.partition("}")[0] + "}"
    pixels = tree.find(f".//{name}Pixels")
    if (
        pixels is None
        or len(image.getbands()) > 1
        or int(pixels.get("SizeZ", 1)) * int(pixels.get("SizeT", 1)) > 1
    ):
        return None
    channels = tuple(c.get("Name", f"Channel {n}") for n, c in enumerate(pixels.findall(f"{name}Channel")))
    sizes = [float(v) if (v := pixels.get(f"PhysicalSize{axis}")) else None for axis in "XY"]
    bits = 16 if "16" in image.mode else 8
    return Info("OMETIFF", image.width, image.height, 1, bits, sizes[0], sizes[1], None, channels)


def _tiff(image: TiffImagePlugin.TiffImageFile) -> tuple[str, tuple[float | None, float | None]]:
    tags = image.tag_v2
    unit = TO_MICRONS.get(tags.get(TiffImagePlugin.RESOLUTION_UNIT, 2))
    size = [tags.get(t) for t in (TiffImagePlugin.X_RESOLUTION, TiffImagePlugin.Y_RESOLUTION)]
    smaller, width = False, image.width
    if getattr(image, "n_frames", 1) > 1:
        # Pillow reads the next frame's tags into the same object.
        image.seek(1)
        smaller = image.width < width
        image.seek(0)
    # A resolution of one is a writer's default, not a pixel size.
    known = [unit / float(v) if unit and v and float(v) > 1 else None for v in size]
    return ("PYRTIFF" if smaller else "PLANARTIFF"), (known[0], known[1])


def place(size: tuple[int, int], zoom: int, tx: int, ty: int, tile: int = 256) -> tuple[Box, tuple[int, int]]:
    """The part of the slide that a tile shows, and the tile's size; tiles at the border are smaller."""
    top = levels(*size, tile)
    if zoom > top:
        raise Unreadable(f"zoom {zoom} is not there")
    factor = 2 ** (top - zoom)
    across, down = (-(-side // factor) for side in size)
    if tx * tile >= across or ty * tile >= down:
        raise Unreadable(f"tile {tx},{ty} is outside")
    x, y = tx * tile, ty * tile
    width, height = min(tile, across - x), min(tile, down - y)
    # Where the sides are no multiples of the factor, the last pixel of a level stands for fewer.
    right, bottom = min((x + width) * factor, size[0]), min((y + height) * factor, size[1])
    return (x * factor, y * factor, right - x * factor, bottom - y * factor), (width, height)
