"""Stand-in for Cytomine's image server: reading slides with Pillow (PNG, JPEG, BMP, WebP, flat and pyramidal TIFF).

Whole-slide formats and tiles of large slides are upstream's; here an image is decoded whole, up to a limit.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageOps, TiffImagePlugin, TiffTags

from .pyramid import levels

Image.MAX_IMAGE_PIXELS = None
PIXEL_LIMIT = 120_000_000
FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "BMP": "BMP", "WEBP": "WEBP"}
ENCODERS = {
    "image/png": ("PNG", {}),
    "image/jpeg": ("JPEG", {"quality": 75}),
    "image/webp": ("WEBP", {"quality": 75}),
}
TO_MICRONS = {2: 25400.0, 3: 10000.0}


class Unreadable(Exception):
    """No image that the stand-in knows, or a part of it that does not exist."""


@dataclass(frozen=True)
class Info:
    """What core stores about a slide; physical sizes in microns per pixel."""

    format: str
    width: int
    height: int
    samples: int
    bits: int
    physical_x: float | None
    physical_y: float | None


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise Unreadable(str(error)) from None


def info(path: Path) -> Info:
    """Format, size and resolution, from the file's header."""
    with _open(path) as image:
        kind, size = image.format or "", (None, None)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            kind, size = _tiff(image)
        elif kind not in FORMATS:
            raise Unreadable(f"format {kind} is not supported")
        samples = len(image.getbands())
        return Info(kind, image.width, image.height, samples, 16 if "16" in image.mode else 8, *size)


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


def metadata(path: Path) -> list[dict[str, Any]]:
    """The tags of a TIFF; nothing for other formats."""
    with _open(path) as image:
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return []
        return [
            _tag(number, value)
            for number, value in image.tag_v2.items()
            if number not in (324, 325, 273, 279)
        ]


def _tag(number: int, value: Any) -> dict[str, Any]:
    name = TiffTags.lookup(number).name
    kinds = {int: "INTEGER", str: "STRING", float: "DECIMAL"}
    kind = kinds.get(type(value), "UNKNOWN")
    return {
        "namespace": "TIFF",
        "key": name,
        "value": value if kind != "UNKNOWN" else str(value),
        "type": kind,
    }


@functools.lru_cache(maxsize=2)
def _pixels(path: str, _stamp: float) -> Image.Image:
    with _open(Path(path)) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise Unreadable("the stand-in does not read pixels of slides as large as this")
        try:
            return image.convert("RGB")
        except (OSError, ValueError) as error:
            raise Unreadable(str(error)) from None


def pixels(path: Path) -> Image.Image:
    """The whole image; the last two are kept."""
    try:
        return _pixels(str(path), path.stat().st_mtime)
    except FileNotFoundError:
        raise Unreadable(f"{path.name} is not there") from None


def encode(image: Image.Image, accept: str) -> tuple[bytes, str]:
    """The image in the format asked for, JPEG where that is unknown."""
    content_type = accept if accept in ENCODERS else "image/jpeg"
    name, options = ENCODERS[content_type]
    if content_type == "image/jpeg" and image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue(), content_type


def thumb(path: Path, length: int) -> Image.Image:
    """The whole image, its longer side at most ``length``."""
    image = pixels(path)
    return _shrink(image, min(1.0, length / max(image.size)))


def window(path: Path, box: list[int]) -> Image.Image:
    """The part x, y, width, height from the top left; it must be inside."""
    image = pixels(path)
    x, y, w, h = box
    if w < 1 or h < 1 or x < 0 or y < 0 or x + w > image.width or y + h > image.height:
        raise Unreadable(f"the window {box} is not inside the image")
    return image.crop((x, y, x + w, y + h))


def tile(path: Path, zoom: int, tx: int, ty: int, size: int = 256) -> Image.Image:
    """A tile of a zoom level; tiles at the border are smaller."""
    image = pixels(path)
    top = levels(*image.size, size)
    if zoom > top:
        raise Unreadable(f"zoom {zoom} is not there")
    factor = 2 ** (top - zoom)
    width, height = (-(-side // factor) for side in image.size)
    if tx * size >= width or ty * size >= height:
        raise Unreadable(f"tile {tx},{ty} is outside")
    low = (tx * size, ty * size)
    high = (min(low[0] + size, width), min(low[1] + size, height))
    part = image.crop((low[0] * factor, low[1] * factor, high[0] * factor, high[1] * factor))
    return part.resize((high[0] - low[0], high[1] - low[1]), Image.Resampling.BILINEAR)


def _rings(shape: dict[str, Any]) -> list[tuple[str, list[list[tuple[float, float]]]]]:
    kind, coordinates = shape["type"], shape.get("coordinates", [])
    if kind == "GeometryCollection":
        return [part for child in shape["geometries"] for part in _rings(child)]
    if kind.startswith("Multi"):
        return [part for c in coordinates for part in _rings({"type": kind[5:], "coordinates": c})]
    if kind == "Point":
        return [("Point", [[tuple(coordinates)]])]
    if kind == "LineString":
        return [("Line", [[tuple(p) for p in coordinates]])]
    return [("Polygon", [[tuple(p) for p in ring] for ring in coordinates])]


def annotation(path: Path, options: dict[str, Any]) -> Image.Image:
    """The crop, mask or alpha mask of a GeoJSON geometry with its origin at the top left."""
    image, parts = pixels(path), _rings(options["shape"])
    points = [p for _, rings in parts for ring in rings for p in ring]
    if not points:
        raise Unreadable("the geometry is empty")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    box = [min(xs), min(ys), max(xs), max(ys)]
    if (factor := options.get("factor") or 1) != 1:
        grow = [(box[2] - box[0]) * (factor - 1) / 2, (box[3] - box[1]) * (factor - 1) / 2]
        box = [box[0] - grow[0], box[1] - grow[1], box[2] + grow[0], box[3] + grow[1]]
    (x, right), (y, bottom) = (_inside(box[n], box[n + 2], image.size[n]) for n in (0, 1))
    part = image.crop((x, y, right, bottom))
    scale = 2.0 ** -int(options.get("zoom") or 0)
    if options.get("length"):
        scale = min(1.0, options["length"] / max(part.size))
    part = _filters(_shrink(part, scale), options)
    if options["mode"] == "crop":
        part.putalpha(255)
        return part
    mask = _mask(part.size, parts, (x, y), scale)
    if options["mode"] == "mask":
        return mask
    part.putalpha(mask)
    return part


def _inside(low: float, high: float, side: int) -> tuple[int, int]:
    """The span moved into the image, at least one pixel and at most the image."""
    length = max(1, min(side, round(high) - round(low)))
    start = max(0, min(round(low), side - length))
    return start, start + length


def _shrink(image: Image.Image, scale: float) -> Image.Image:
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.copy() if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _filters(image: Image.Image, options: dict[str, Any]) -> Image.Image:
    gamma, contrast = options.get("gamma") or 1, options.get("contrast") or 1
    if gamma != 1:
        image = image.point([round(255 * (v / 255) ** gamma) for v in range(256)] * 3)
    if contrast != 1:
        image = ImageEnhance.Contrast(image).enhance(contrast)
    return ImageOps.invert(image) if options.get("inverse") else image


def _mask(size: tuple[int, int], parts: list[Any], origin: tuple[int, int], scale: float) -> Image.Image:
    mask = Image.new("L", size, 0)
    draw = ImageDraw.Draw(mask)
    for kind, rings in parts:
        moved = [[((px - origin[0]) * scale, (py - origin[1]) * scale) for px, py in ring] for ring in rings]
        if kind == "Point":
            draw.point(moved[0], 255)
        elif kind == "Line":
            draw.line(moved[0], 255)
        else:
            draw.polygon(moved[0], fill=255)
            for hole in moved[1:]:
                draw.polygon(hole, fill=0)
    return mask
