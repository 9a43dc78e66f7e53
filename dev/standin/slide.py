"""Stand-in for Cytomine's image server: thumbs, windows, tiles, crops and masks of slides."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageOps, TiffImagePlugin, TiffTags

from .readers import FORMATS, Info, Reader, Unreadable, has_thumbnail, info, place, reader

__all__ = [
    "FORMATS",
    "Info",
    "Unreadable",
    "annotation",
    "encode",
    "has_thumbnail",
    "info",
    "metadata",
    "thumb",
    "tile",
    "window",
]
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "image/png": ("PNG", {"compress_level": 1}),
    "image/jpeg": ("JPEG", {"quality": 75}),
    "image/webp": ("WEBP", {"quality": 75, "method": 0}),
}
# As upstream names what the tags' numbers stand for.
NAMES: dict[int, dict[int, str]] = {
    254: {0: "UNDEFINED", 1: "REDUCEDIMAGE", 2: "PAGE", 4: "MASK"},
    259: {1: "NONE", 5: "LZW", 6: "OJPEG", 7: "JPEG", 8: "ADOBE_DEFLATE", 32773: "PACKBITS"},
    262: {0: "MINISWHITE", 1: "MINISBLACK", 2: "RGB", 3: "PALETTE", 4: "MASK", 5: "SEPARATED", 6: "YCBCR"},
    284: {1: "CONTIG", 2: "SEPARATE"},
    296: {1: "NONE", 2: "INCH", 3: "CENTIMETER"},
}
# What upstream leaves out: where the pixels are, tables of colours and of compression.
LEFT_OUT = {273, 278, 279, 288, 289, 320, 324, 325, 347, 437, 519, 520, 521, 34675}


def metadata(path: Path) -> list[dict[str, Any]]:
    """The tags of a TIFF's first directory; nothing for other formats."""
    try:
        image = Image.open(path)
    except OSError:
        return []
    with image:
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return []
        return [
            _tag(number, value)
            for number, value in sorted(image.tag_v2.items())
            if number not in LEFT_OUT and not isinstance(value, bytes)
        ]


def _tag(number: int, value: Any) -> dict[str, Any]:
    value = NAMES.get(number, {}).get(value, value)
    kinds = {int: "INTEGER", str: "STRING", float: "DECIMAL"}
    kind = kinds.get(type(value), "UNKNOWN")
    return {
        "namespace": "TIFF",
        "key": TiffTags.lookup(number).name,
        "value": value if kind != "UNKNOWN" else str(_flat(value)),
        "type": kind,
    }


def _flat(value: Any) -> Any:
    """Fractions as their two numbers, one after the other."""
    values = value if isinstance(value, tuple) else (value,)
    if not any(isinstance(v, TiffImagePlugin.IFDRational) for v in values):
        return value
    return tuple(number for v in values for number in (v.numerator, v.denominator))


def encode(image: Image.Image, accept: str) -> tuple[bytes, str]:
    """The image in the format asked for, JPEG where that is unknown."""
    content_type = accept if accept in ENCODERS else "image/jpeg"
    name, options = ENCODERS[content_type]
    if content_type == "image/jpeg" and image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue(), content_type


def thumb(path: Path, length: int, channel: int | None = None) -> Image.Image:
    """The whole image, its longer side at most ``length``."""
    image = reader(path)
    return _shrunk(image, (0, 0, *image.size), min(1.0, length / max(image.size)), channel)


def window(path: Path, box: list[int], channel: int | None = None) -> Image.Image:
    """The part x, y, width, height from the top left, in full size; it must be inside."""
    image = reader(path)
    x, y, w, h = box
    if w < 1 or h < 1 or x < 0 or y < 0 or x + w > image.size[0] or y + h > image.size[1]:
        raise Unreadable(f"the window {box} is not inside the image")
    return image.read((x, y, w, h), (w, h), channel)


def tile(path: Path, zoom: int, tx: int, ty: int, channel: int | None = None) -> Image.Image:
    """A tile of a zoom level; tiles at the border are smaller."""
    image = reader(path)
    return image.read(*place(image.size, zoom, tx, ty), channel)


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
    """The crop, mask or alpha mask of a GeoJSON geometry with its origin at the top left.

    The pixels are those one row above the geometry, as upstream's are; a mask fits the geometry's own box.
    """
    image, parts = reader(path), _rings(options["shape"])
    points = [p for _, rings in parts for ring in rings for p in ring]
    if not points:
        raise Unreadable("the geometry is empty")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    box = [min(xs), min(ys), max(xs), max(ys)]
    if (factor := options.get("factor") or 1) != 1:
        grow = [(box[2] - box[0]) * (factor - 1) / 2, (box[3] - box[1]) * (factor - 1) / 2]
        box = [box[0] - grow[0], box[1] - grow[1], box[2] + grow[0], box[3] + grow[1]]
    (x, right), (y, bottom) = (_inside(box[n], box[n + 2], image.size[n]) for n in (0, 1))
    scale = 2.0 ** -int(options.get("zoom") or 0)
    if options.get("length"):
        scale = min(1.0, options["length"] / max(right - x, bottom - y))
    part = _shrunk(image, (x, max(0, y - 1), right - x, bottom - y), scale, options.get("channel"))
    part = _filters(part, options)
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


def _shrunk(
    image: Reader, box: tuple[int, int, int, int], scale: float, channel: int | None = None
) -> Image.Image:
    return image.read(box, (max(1, round(box[2] * scale)), max(1, round(box[3] * scale))), channel)


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
