"""Annotations as GeoDataFrames and GeoJSON, in the image's coordinates.

Cytomine's annotations have their origin at the image's bottom left, y upwards. NumPy arrays, windows and tiles have it
at the top left, y downwards. Everything in this package speaks the second way, ``top-left``; `to_image` and
`to_cytomine` convert. A frame says its origin by the coordinate reference system of its geometries, see `origins`. Units are pixels of the full-size image; a corner of the image is a corner of a pixel, so the
image spans 0 to width and 0 to height.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely
from cytomine.models import ImageInstance, ImageInstanceCollection, Project
from shapely.geometry.base import BaseGeometry

from ..common.qupath import colour
from .geojson import from_geojson
from .images import image_id, image_of
from .origins import COLUMNS, Origin, checked, frame, origin_of, to_cytomine, to_image
from .plain import dumps, plain
from .safe import fetch_all, pages, terms
from .transport import get_json
from .values import names, whole

__all__ = [
    "COLUMNS",
    "Origin",
    "fetch",
    "frame",
    "from_geojson",
    "origin_of",
    "read_annotations",
    "statistics",
    "to_cytomine",
    "to_geojson",
    "to_image",
]

# Colours that colour-blind people tell apart (Okabe and Ito), for terms without one of their own.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")
FLAGS = {"showBasic": "true", "showMeta": "true", "showWKT": "true", "showTerm": "true", "showUser": "true"}


def _images(project: int) -> dict[int, ImageInstance]:
    return {int(i.id): i for i in fetch_all(ImageInstanceCollection({"project": project}))}


def _listed(ids: Iterable[Any] | None) -> str | None:
    return ",".join(str(int(getattr(i, "id", i))) for i in ids) if ids is not None else None


def read_annotations(
    image: ImageInstance | int | None = None,
    *,
    project: Project | int | None = None,
    users: Sequence[Any] | None = None,
    terms: Sequence[Any] | None = None,
    reviewed: bool = False,
    origin: Origin = "top-left",
) -> geopandas.GeoDataFrame:
    """The annotations of an image or a project.

    Args:
        image: the image or its id.
        project: the project or its id, for those of all its images.
        users: only these users' (objects or ids).
        terms: only those with one of these terms (objects or ids).
        reviewed: the accepted copies (see `reviews`) instead of what users drew.
        origin: ``top-left`` as in arrays, or ``bottom-left`` as in Cytomine.

    Returns:
        One row per annotation, the oldest first. Columns: ``id``, ``image``, ``project``, ``user`` (ids),
        ``user_name``, ``term`` (list of ids), ``term_name`` (list of names), ``created`` (UTC), ``reviewed``
        (accepted), ``geometry`` (shapely, px of the full-size image); of accepted copies also ``parent``, the id of the
        annotation that was accepted. ``frame.crs`` says the origin.

    Raises:
        ValueError: neither or both of image and project are given.
        RequestFailed: Cytomine refused.
    """
    checked(origin)
    if (image is None) == (project is None):
        raise ValueError("Either an image or a project is needed.")
    params: dict[str, Any] = dict(FLAGS)
    if image is not None:
        one = image_of(image)
        known, place = {int(one.id): one}, int(one.project)
        params["image"] = one.id
    else:
        place = int(project.id if isinstance(project, Project) else project)  # type: ignore[arg-type]
        known = _images(place)
    params |= {"project": place, "users": _listed(users), "terms": _listed(terms)}
    if reviewed:
        params["reviewed"] = "true"
    params = {k: v for k, v in params.items() if v is not None}
    items = sorted(pages("annotation.json", params, 2000), key=lambda item: item["id"])
    called = _term_names(place) if any(item.get("term") for item in items) else {}
    found = frame([_row(item, known, called, origin) for item in items], origin)
    if reviewed:
        found["parent"] = [int(item["parentIdent"]) for item in items]
    return found


def _term_names(project: int) -> dict[int, str]:
    return {int(t.id): t.name for t in terms(project)}


def _row(
    item: dict[str, Any], images: dict[int, ImageInstance], called: dict[int, str], origin: Origin
) -> dict[str, Any]:
    shape = shapely.from_wkt(item["location"])
    if origin == "top-left":
        shape = to_image(shape, float(images[item["image"]].height))
    marks = [int(t) for t in item.get("term") or []]
    return {
        "id": int(item["id"]),
        "image": int(item["image"]),
        "project": int(item["project"]),
        "user": int(item["user"]),
        "user_name": item.get("creator", ""),
        "term": marks,
        "term_name": [called.get(t, str(t)) for t in marks],
        "created": pandas.Timestamp(float(item["created"]), unit="ms", tz="UTC"),
        "reviewed": bool(item.get("reviewed")),
        "geometry": shape,
    }


def to_geojson(
    data: geopandas.GeoDataFrame,
    path: str | Path | None = None,
    *,
    image: ImageInstance | int | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection, origin top left.

    The features are what QuPath reads: ``properties.classification`` is the first term's name with a colour, that of the
    column ``term_colour`` or else one of `PALETTE`; all columns are kept as properties, as JSON can hold them (see
    `plain`): what is missing, no number or infinite is null.

    Args:
        data: for instance from `read_annotations`.
        path: where to write it, if given.
        image: needed only for a frame with its origin at the bottom left and without the column ``image``: whose height
            counts.
        origin: ``top-left`` or ``bottom-left``; if not given, what the frame says.

    Raises:
        ValueError: it is not known where the coordinates have their origin, or of which image they are; or a coordinate is
            no finite number.
    """
    shapes: list[Any] = list(data.geometry)
    if origin_of(data, origin) == "bottom-left":
        heights = _heights(data, image)
        shapes = [g if g is None else to_image(g, h) for g, h in zip(shapes, heights, strict=True)]
    columns = [
        (str(k), [plain(v) for v in column]) for k, column in data.drop(columns=data.geometry.name).items()
    ]
    features = []
    for row, (shape, told) in enumerate(zip(shapes, _classes(data), strict=True)):
        properties = {name: column[row] for name, column in columns}
        if told:
            properties["classification"] = told
        features.append({"type": "Feature", "geometry": _written(shape, row), "properties": properties})
    made = {"type": "FeatureCollection", "features": features}
    if path is not None:
        Path(path).write_text(dumps(made), encoding="utf-8")
    return made


def _classes(data: geopandas.GeoDataFrame) -> list[dict[str, Any]]:
    """The class of each row as QuPath reads it; it refuses a whole file for a class without a colour."""
    first = [next(iter(names(v)), "") for v in data["term_name"]] if "term_name" in data else [""] * len(data)
    own = [colour(v) for v in data["term_colour"]] if "term_colour" in data else [None] * len(data)
    known: dict[str, str] = {}
    for name, said in zip(first, own, strict=True):
        if said:
            known.setdefault(name, said)
    for name in first:
        known.setdefault(name, PALETTE[len(known) % len(PALETTE)])
    packed = [said or known[name] for name, said in zip(first, own, strict=True)]
    return [
        {"name": name, "color": [int(c[n : n + 2], 16) for n in (1, 3, 5)]} if name else {}
        for name, c in zip(first, packed, strict=True)
    ]


def _heights(data: geopandas.GeoDataFrame, image: ImageInstance | int | None) -> list[float]:
    """The height of each row's image, px."""
    if image is None and "image" not in data:
        raise ValueError("Coordinates with their origin at the bottom left need the image for its height.")
    where = [whole(i, "An image's id") for i in data["image"]] if "image" in data else []
    if image is not None and set(where) - {image_id(image)}:
        raise ValueError(
            "The table has annotations of other images, too: leave image out, or choose its rows."
        )
    if image is not None:
        return [float(image_of(image).height)] * len(data)
    known = {n: float(image_of(n).height) for n in dict.fromkeys(where)}
    return [known[n] for n in where]


def _written(shape: BaseGeometry | None, row: int) -> Any:
    """A geometry in GeoJSON, which has no word for a coordinate that is no number."""
    if shape is None:
        return None
    if not np.isfinite(shapely.get_coordinates(shape, include_z=shape.has_z)).all():
        raise ValueError(f"Row {row} has a coordinate that is no finite number: GeoJSON cannot hold it.")
    return json.loads(shapely.to_geojson(shape))


def statistics(data: geopandas.GeoDataFrame, image: ImageInstance | int) -> Any:
    """Counts and areas by term and user of one image's annotations.

    Args:
        data: from `read_annotations`.
        image: the image, for its pixel size.

    Returns:
        A DataFrame indexed by ``term_name`` and ``user_name`` (an annotation with two terms counts for both; one
        without for ``""``): ``count``, ``area_px`` (px²), ``area_um2`` (µm²; NaN where the pixel size is unknown) and
        ``share`` (of the image's area).
    """
    one = image_of(image)
    part = data[data["image"] == image_id(image)] if len(data) else data
    exploded = part.assign(term_name=[names(n) or [""] for n in part["term_name"]]).explode("term_name")
    exploded = exploded.assign(area_px=[g.area for g in exploded.geometry])
    groups = exploded.groupby(["term_name", "user_name"])["area_px"]
    table = groups.agg(count="count", area_px="sum")
    x, y = one.physicalSizeX, one.physicalSizeY
    table["area_um2"] = table["area_px"] * (x * y) if x and y else float("nan")
    table["share"] = table["area_px"] / (one.width * one.height)
    return table


def fetch(annotation: int) -> dict[str, Any]:
    """One annotation as Cytomine has it (``location`` is a WKT with its origin bottom left)."""
    found: dict[str, Any] = get_json(f"annotation/{int(annotation)}.json")
    return found
