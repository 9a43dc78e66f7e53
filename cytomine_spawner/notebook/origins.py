"""Where coordinates have their origin: every frame of this package says it, in its geometries.

Top left or bottom left cannot be told from numbers, and what is taken for the other is mirrored. So the origin is the
coordinate reference system of a frame's geometries, which GeoPandas takes through merging, dissolving, overlaying and
into files, and does not let be mixed. A frame that does not say its origin is refused where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import geopandas
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

Origin = Literal["top-left", "bottom-left"]
ORIGINS: tuple[Origin, ...] = ("top-left", "bottom-left")
COLUMNS = (
    "id",
    "image",
    "project",
    "user",
    "user_name",
    "term",
    "term_name",
    "created",
    "reviewed",
    "geometry",
)
_NAME = "Pixels of an image, origin {}"


def to_image(shape: BaseGeometry, height: float) -> BaseGeometry:
    """From Cytomine's coordinates (origin bottom left) to the image's (origin top left).

    Args:
        shape: a geometry in px.
        height: the image's height in px.
    """
    return affine_transform(shape, [1, 0, 0, -1, 0, height])


def to_cytomine(shape: BaseGeometry, height: float) -> BaseGeometry:
    """From the image's coordinates (origin top left) to Cytomine's (origin bottom left); see `to_image`."""
    return affine_transform(shape, [1, 0, 0, -1, 0, height])


def crs(origin: Origin) -> str:
    """The coordinate reference system that stands for an origin, as WKT."""
    corner, down = ("Upper", "south") if checked(origin) == "top-left" else ("Lower", "north")
    return (
        f'ENGCRS["{_NAME.format(origin)}",EDATUM["{corner} left corner of the image"],CS[Cartesian,2],'
        f'AXIS["(x)",east,ORDER[1]],AXIS["(y)",{down},ORDER[2]],LENGTHUNIT["pixel",1]]'
    )


def checked(origin: Any) -> Origin:
    """The origin, if it is one.

    Raises:
        ValueError: it is none.
    """
    if origin not in ORIGINS:
        raise ValueError(f"origin must be top-left or bottom-left, not {origin!r}.")
    found: Origin = origin
    return found


def frame(rows: Sequence[dict[str, Any]], origin: Origin = "top-left") -> geopandas.GeoDataFrame:
    """A GeoDataFrame from rows that have at least ``geometry``, which says its origin.

    Args:
        rows: of the table; where there are none, it has the columns of `annotations.read_annotations`.
        origin: of the geometries.
    """
    columns = None if rows else list(COLUMNS)
    return geopandas.GeoDataFrame(list(rows), columns=columns, geometry="geometry", crs=crs(origin))


def said(data: Any) -> Origin | None:
    """The origin that a frame's geometries say themselves; None where they do not."""
    known = getattr(_geometries(data).array, "crs", None)
    name = getattr(known, "name", None)
    return next((o for o in ORIGINS if name == _NAME.format(o)), None)


def origin_of(data: Any, given: Origin | None = None) -> Origin:
    """The origin that was given, else the one that the frame says.

    Args:
        data: a GeoDataFrame.
        given: what the caller says; it counts, whatever the frame says.

    Raises:
        ValueError: nobody says it, or what was given is no origin.
    """
    if given is not None:
        return checked(given)
    found = said(data)
    if found is None and len(data):
        raise ValueError(
            "This table does not say where its coordinates have their origin, so it could be stored or drawn mirrored. "
            'Pass origin="top-left" if y grows downwards, as in arrays, or origin="bottom-left" if it grows upwards.'
        )
    return found or "top-left"


def _geometries(data: Any) -> Any:
    try:
        return data.geometry
    except AttributeError as error:
        raise ValueError(
            "This table has no geometries: make a GeoDataFrame of it by geopandas.GeoDataFrame(table, geometry=…)."
        ) from error
