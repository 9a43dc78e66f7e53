"""Invalid polygons made valid: what an outline goes around is inside, however often it does.

`shapely.make_valid` counts crossings instead, so that it takes out what two parts share. Here parts are united, and what
holes share is taken out once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

# What an annotation can be.
KINDS = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")


def repaired(shape: BaseGeometry) -> BaseGeometry:
    """A valid geometry that covers what an invalid one goes around.

    A polygon is what its outline goes around less what its holes go around; several parts are united. Of what is left, only
    areas are kept of areas, lines of lines and points of points.

    Args:
        shape: any geometry with finite coordinates, without a third one.

    Returns:
        Of the same dimension, or empty where nothing is left of it.
    """
    dimension = shapely.get_dimensions(shape)
    if dimension == 2:
        made = shapely.union_all([_polygon(p) for p in _parts(shape) if p.geom_type == "Polygon"])
    else:
        made = shapely.make_valid(shape)
    return of_dimension(made, dimension)


def _parts(shape: BaseGeometry) -> list[Any]:
    """The single geometries in collections, however deep they are nested."""
    left, found = [shape], []
    while left:
        one = left.pop()
        if hasattr(one, "geoms"):
            left += list(one.geoms)[::-1]
        elif not one.is_empty:
            found.append(one)
    return found


def _polygon(polygon: Any) -> BaseGeometry:
    if polygon.is_valid:
        return polygon
    holes = [_inside(ring) for ring in polygon.interiors]
    return _inside(polygon.exterior).difference(shapely.union_all(holes))


def _inside(ring: Any) -> BaseGeometry:
    """What a ring goes around, in either direction."""
    plain = shapely.Polygon(ring)
    if plain.is_valid:
        return plain
    # The union of a line with itself has a point at each crossing, and nothing twice.
    lines = shapely.union_all([shapely.LineString(ring.coords)])
    points = np.asarray(ring.coords)
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    return shapely.union_all([face for face in faces if _turns(points, face.representative_point())])


def _turns(points: NDArray[np.float64], place: Any) -> int:
    """How often a closed line goes around a place, counter-clockwise less clockwise."""
    x, y = points[:, 0] - place.x, points[:, 1] - place.y
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    up = (y[:-1] <= 0) & (y[1:] > 0) & (cross > 0)
    down = (y[:-1] > 0) & (y[1:] <= 0) & (cross < 0)
    return int(up.sum()) - int(down.sum())


def of_dimension(shape: BaseGeometry, dimension: int) -> BaseGeometry:
    """Without the points and lines that cutting and repairing leave beside polygons."""
    if shape.geom_type in KINDS and shapely.get_dimensions(shape) == dimension:
        return shape
    parts = [p for p in _parts(shape) if shapely.get_dimensions(p) == dimension]
    if not parts:
        return shapely.Point()
    if dimension == 2:
        return parts[0] if len(parts) == 1 else shapely.union_all(parts)
    if dimension == 1:
        parts = [shapely.LineString(p) for p in parts]
        return parts[0] if len(parts) == 1 else shapely.multilinestrings(parts)
    return parts[0] if len(parts) == 1 else shapely.multipoints(parts)
