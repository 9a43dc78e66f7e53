"""GeoJSON read as annotations: each shape of a file becomes a row, or is named as skipped, or the file is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from ..common.qupath import CHILDREN, class_of, colour, features, is_feature, short
from .origins import frame
from .values import names

SHOWN = 3


def from_geojson(source: str | Path | dict[str, Any] | list[Any]) -> geopandas.GeoDataFrame:
    """A frame from GeoJSON with its origin at the top left, as QuPath's; what `upload` takes.

    What QuPath 0.2 to 0.6 writes is read in every form, with the objects that are inside of others. Third coordinates are
    left out. The shapes of a GeometryCollection get a row each. What has no shape is skipped, with a warning that names it.

    Args:
        source: a path, or the parsed object: a FeatureCollection, a Feature, a geometry, a list of those, or the hierarchy
            of a QuPath image.

    Returns:
        Columns ``geometry`` (px), ``term_name`` (list of names: the property ``term_name``, else the feature's class),
        ``term_colour`` (``#rrggbb`` or None) and the other properties. ``frame.attrs["skipped"]`` says of each member that
        was skipped where it is and why.

    Raises:
        ValueError: it is no GeoJSON, or a geometry or a class in it cannot be read; it names which.
    """
    if isinstance(source, (str, Path)):
        source = _read(Path(source))
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for where, member in features(source):
        try:
            if not is_feature(member):
                skipped[where] = f"it is no Feature, but {_kind(member)}"
                continue
            found, reason = _rows(member)
        except ValueError as error:
            wrong[where] = str(error)
            continue
        rows += found
        if reason:
            skipped[where] = reason
    if wrong:
        raise ValueError(f"Nothing was read, because of {_listed(wrong)}. Mend or remove them.")
    if skipped:
        warnings.warn(f"{len(skipped)} were skipped: {_listed(skipped)}.", stacklevel=2)
    made = frame(rows)
    made.attrs["skipped"] = skipped
    return made


def _read(path: Path) -> Any:
    content = path.read_bytes()
    if content[:2] in (b"PK", b"\x1f\x8b"):
        raise ValueError(f"{path} is compressed: unpack it, and read what was in it.")
    try:
        # Bytes, so that a mark of the byte order says the encoding.
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


def _listed(reasons: dict[str, str]) -> str:
    shown = "; ".join(f"{where}: {text}" for where, text in list(reasons.items())[:SHOWN])
    return shown + (f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else "")


def _kind(member: Any) -> str:
    if not isinstance(member, Mapping):
        return short(repr(member))
    return f"of the type {short(repr(member['type']))}" if "type" in member else "an object without a type"


def _rows(member: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """A row for each shape of a feature; and why there are none, or some are missing."""
    bare = member["type"] != "Feature"
    outline = member if bare else member.get("geometry")
    if not outline:
        return [], "it has no geometry"
    shapes = list(geometries(outline))
    whole = [s for s in shapes if not s.is_empty]
    properties = _properties({} if bare else member.get("properties"))
    reason = (
        "" if len(whole) == len(shapes) and whole else "a part of it is empty" if whole else "it is empty"
    )
    return [{**properties, "geometry": shape} for shape in whole], reason


def _properties(given: Any) -> dict[str, Any]:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise ValueError(f"its properties are no object, but {short(given)}")
    # A column of this name is already there: that of the shapes.
    properties = {"property geometry" if key == "geometry" else str(key): v for key, v in given.items()}
    for key in CHILDREN:
        inner = properties.get(key)
        if isinstance(inner, list) and any(isinstance(one, Mapping) for one in inner):
            del properties[key]
    named = _named(properties.pop("term_name", None))
    own = colour(properties.pop("term_colour", None))
    try:
        found = class_of(properties)
    except ValueError:
        if not named:
            raise
        found = None
    for key in ("classification", "path_class_name"):
        properties.pop(key, None)
    if not named and found is not None:
        named = [found.name]
    if own is None and found is not None and found.name == named[0]:
        own = found.colour
    return {**properties, "term_name": named, "term_colour": own}


def _named(value: Any) -> list[str]:
    """Names of terms: one, a list, or a list that was written as a text, as tables are."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    try:
        return names(value)
    except ValueError:
        raise ValueError(f"its term_name {short(value)} is neither a name nor a list of names") from None


def geometries(outline: Any) -> Iterator[BaseGeometry]:
    """The geometries of a GeoJSON geometry, those of a collection one by one, without third coordinates.

    shapely's own reader refuses third coordinates, and ends the process where a position of several is empty.

    Raises:
        ValueError: it cannot be read, in a few words.
    """
    left = [outline]
    while left:
        one = left.pop()
        kind = one.get("type") if isinstance(one, Mapping) else None
        if kind == "GeometryCollection":
            inner = one.get("geometries")
            if not isinstance(inner, list):
                raise ValueError("its GeometryCollection has no list of geometries")
            left += inner[::-1]
            continue
        build = _BUILD.get(kind) if isinstance(kind, str) else None
        if build is None:
            raise ValueError(f"its geometry is no geometry, but {_kind(one)}")
        if not isinstance(one.get("coordinates"), list):
            raise ValueError("its geometry has no list of coordinates")
        yield build(one["coordinates"])


def _positions(many: Any) -> NDArray[np.float64]:
    """Places, shape (n, 2)."""
    if not isinstance(many, list) or not all(isinstance(p, list) and len(p) >= 2 for p in many):
        raise ValueError("its geometry has a place that is no list of two numbers")
    if not many:
        return np.empty((0, 2))
    try:
        array = np.array([p[:2] for p in many])
    except ValueError:
        array = np.empty(0)
    if array.ndim != 2 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError("its geometry has a coordinate that is not a number")
    return array.astype(float)


def _several(many: Any) -> list[Any]:
    if not isinstance(many, list):
        raise ValueError("its geometry has something else in the place of a list")
    return many


def _line(many: Any, least: int = 2) -> NDArray[np.float64]:
    """A line of at least so many places: one that is shorter ends where it began, so that it has its row and can be looked at."""
    array = _positions(many)
    return (
        array if not len(array) else np.concatenate([array, array[:1].repeat(max(0, least - len(array)), 0)])
    )


def _polygon(many: Any) -> Any:
    rings = [_line(ring, 4) for ring in _several(many)]
    if not rings or not len(rings[0]):
        if any(len(ring) for ring in rings):
            raise ValueError("its geometry has a hole without an outline")
        return shapely.Polygon()
    return shapely.Polygon(rings[0], [ring for ring in rings[1:] if len(ring)])


_BUILD: dict[str, Any] = {
    "Point": lambda c: shapely.Point(_positions([c])[0]) if c else shapely.Point(),
    "MultiPoint": lambda c: shapely.MultiPoint(_positions([p for p in c if p != []])),
    "LineString": lambda c: shapely.LineString(_line(c)),
    "MultiLineString": lambda c: shapely.MultiLineString([line for line in map(_line, c) if len(line)]),
    "Polygon": _polygon,
    "MultiPolygon": lambda c: shapely.MultiPolygon([p for p in map(_polygon, c) if not p.is_empty]),
}
