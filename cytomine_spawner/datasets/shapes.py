"""The geometries of annotations: checked, cut at the image's border, and turned to count as Cytomine does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

# No image is so large, and what is computed so far out is not exact.
_FARTHEST = 1e9
# A collection and several lines in one are stored part by part, for Cytomine takes neither.
_COLLECTIONS = ("GeometryCollection", "MultiLineString")


class Unfit(Exception):
    """A geometry that cannot be stored; the message is a clause that says why: "it crosses itself near 10, 20"."""


@dataclass(frozen=True)
class Piece:
    """What is stored as one annotation.

    Attributes:
        key: our own name of it, by which it is known again.
        wkt: the geometry as Cytomine counts, from the image's bottom left.
    """

    key: str
    wkt: str


@dataclass(frozen=True)
class Shape:
    """One annotation of a file.

    Attributes:
        geometry: in pixels from the top left, y downwards.
        term: the name of its class, or "".
        colour: the class's colour, ``#rrggbb``.
        key: our own name of it, no two annotations of an image have the same.
        place: where it is in its file: "feature 3".
    """

    geometry: BaseGeometry
    term: str = ""
    colour: str = ""
    key: str = ""
    place: str = ""

    def pieces(self, width: float | None, height: float) -> list[Piece]:
        """What is stored of it in an image of this size, in pixels: most often one piece.

        Args:
            width: of the image; None where Cytomine does not know it, then nothing is cut.
            height: of the image.

        Raises:
            Unfit: nothing of it can be stored.
        """
        geometry = self.geometry
        try:
            if width is not None:
                geometry = _cut(geometry, width, height)
            # A line that leaves the image and comes back is several.
            parts = [_flipped(part, height) for part in _flat(geometry)]
        except shapely.errors.ShapelyError as error:
            raise Unfit(f"it cannot be cut at the image's border ({error})") from None
        # Cytomine refuses areas that are less than a pixel wide or high; of lines it takes also those.
        if any(_is_thin(part) for part in parts):
            raise Unfit("it is less than a pixel wide or high")
        keys = [self.key] if len(parts) == 1 else [f"{self.key}.{number}" for number in range(len(parts))]
        return [Piece(key, shapely.to_wkt(part)) for key, part in zip(keys, parts, strict=True)]


def read(geometry: Any) -> list[BaseGeometry]:
    """The geometries that a GeoJSON geometry stands for, each of a kind that Cytomine stores.

    Raises:
        Unfit: it is no geometry, or none that is whole.
    """
    if not isinstance(geometry, dict):
        raise Unfit("it has no geometry")
    found = []
    left = [geometry]
    # Without recursion: a collection may hold collections without end.
    while left:
        part = left.pop()
        if isinstance(part, dict) and part.get("type") == "GeometryCollection":
            inner = part.get("geometries")
            if not isinstance(inner, list):
                raise Unfit("its collection holds no geometries")
            left += reversed(inner)
        else:
            found += _leaf(part)
    if not found:
        raise Unfit("it has no geometry")
    return found


def _leaf(part: Any) -> list[BaseGeometry]:
    if not isinstance(part, dict):
        raise Unfit("it has no geometry")
    kind, coordinates = part.get("type"), part.get("coordinates")
    depth = {
        "Point": 0,
        "MultiPoint": 1,
        "LineString": 1,
        "MultiLineString": 2,
        "Polygon": 2,
        "MultiPolygon": 3,
    }
    if kind not in depth:
        raise Unfit(f"a geometry of the kind {str(kind)[:40]} cannot be stored in Cytomine")
    if coordinates is None or coordinates == []:
        raise Unfit("it has no geometry")
    flat = _plane(coordinates, depth[kind])
    try:
        geometry = _made(kind, flat)
    except (ValueError, shapely.errors.ShapelyError) as error:
        raise Unfit(f"it is no whole {kind} ({error})") from None
    if geometry.is_empty:
        raise Unfit("it has no geometry")
    if not geometry.is_valid:
        raise Unfit(_reason(geometry))
    return list(_flat(geometry))


def _made(kind: str, flat: Any) -> BaseGeometry:
    if kind == "Point":
        return shapely.Point(flat)
    if kind == "MultiPoint":
        return shapely.MultiPoint(flat)
    if kind == "LineString":
        return shapely.LineString(flat)
    if kind == "MultiLineString":
        return shapely.MultiLineString(flat)
    if kind == "Polygon":
        return shapely.Polygon(flat[0], flat[1:])
    return shapely.MultiPolygon([(part[0], part[1:]) for part in flat])


def _plane(value: Any, depth: int) -> Any:
    """Coordinates without what is more than x and y."""
    if not isinstance(value, (list, tuple)) or not value:
        raise Unfit("its coordinates are not as its kind has them")
    if depth:
        return [_plane(part, depth - 1) for part in value]
    if len(value) < 2 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value[:2]):
        raise Unfit("its coordinates are no numbers")
    try:
        x, y = float(value[0]), float(value[1])
    except OverflowError:
        x = y = math.inf
    if not (math.isfinite(x) and math.isfinite(y)):
        raise Unfit("its coordinates are no finite numbers")
    if max(abs(x), abs(y)) > _FARTHEST:
        raise Unfit("its coordinates lie beyond any image")
    return (x, y)


def _reason(geometry: BaseGeometry) -> str:
    """Why a geometry is not valid."""
    text = str(shapely.is_valid_reason(geometry))
    kind, _, place = text.partition("[")
    words = {
        "Self-intersection": "it crosses itself",
        "Ring Self-intersection": "its outline touches itself",
        "Nested shells": "one of its parts lies inside another",
        "Hole lies outside shell": "a hole lies outside of it",
        "Holes are nested": "a hole lies inside another",
        "Too few points in geometry component": "it has too few points",
        "Interior is disconnected": "holes cut it in two",
    }
    near = ", ".join(f"{float(v):.0f}" for v in place.rstrip("]").split()[:2])
    return f"{words.get(kind, f'it is not valid: {kind}')}{f' near {near}' if near else ''}"


def _cut(geometry: BaseGeometry, width: float, height: float) -> BaseGeometry:
    """The part that is inside the image, of the same kind: an area that only touches the border is no area there."""
    left, top, right, bottom = geometry.bounds
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return geometry
    inside = geometry.intersection(shapely.box(0, 0, width, height))
    kind = geometry.geom_type.removeprefix("Multi")
    parts = [p for p in shapely.get_parts(inside) if p.geom_type == kind and not p.is_empty]
    if not parts:
        raise Unfit("it lies outside of the image")
    # What is computed on the border may be off by the last digit, and Cytomine would cut again.
    whole = parts[0] if len(parts) == 1 else _multi(parts)
    return shapely.transform(whole, lambda points: points.clip((0, 0), (width, height)))


def _multi(parts: list[BaseGeometry]) -> BaseGeometry:
    kinds = {
        "Point": shapely.MultiPoint,
        "LineString": shapely.MultiLineString,
        "Polygon": shapely.MultiPolygon,
    }
    return kinds[parts[0].geom_type](parts)


def _flat(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    # Points within a pixel are refused together, and taken each for itself.
    near = geometry.geom_type == "MultiPoint" and (len(geometry.geoms) == 1 or _is_thin(geometry))
    if near or geometry.geom_type in _COLLECTIONS:
        yield from geometry.geoms
    else:
        yield geometry


def _flipped(geometry: BaseGeometry, height: float) -> BaseGeometry:
    return shapely.transform(geometry, lambda points: points * (1, -1) + (0, height))


def _is_thin(geometry: BaseGeometry) -> bool:
    left, bottom, right, top = geometry.bounds
    return geometry.geom_type not in ("LineString", "Point") and bool(right - left < 1 or top - bottom < 1)
