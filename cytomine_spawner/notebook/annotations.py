"""Annotations as GeoDataFrames and GeoJSON, in the image's coordinates.

Cytomine's annotations have their origin at the image's bottom left, y upwards. NumPy arrays, windows and tiles have it
at the top left, y downwards. Everything in this package speaks the second way, ``top-left``; `to_image` and
`to_cytomine` convert. Units are pixels of the full-size image; a corner of the image is a corner of a pixel, so the
image spans 0 to width and 0 to height.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import pandas
import shapely
from cytomine.models import ImageInstance, ImageInstanceCollection, Project
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from .images import image_id, image_of
from .plain import dumps, plain
from .safe import fetch_all, pages, terms
from .transport import get_json

Origin = Literal["top-left", "bottom-left"]
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
FLAGS = {"showBasic": "true", "showMeta": "true", "showWKT": "true", "showTerm": "true", "showUser": "true"}


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
        annotation that was accepted. ``frame.attrs["origin"]`` keeps the origin.

    Raises:
        ValueError: neither or both of image and project are given.
        RequestFailed: Cytomine refused.
    """
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
    names = _term_names(place) if any(item.get("term") for item in items) else {}
    found = frame([_row(item, known, names, origin) for item in items], origin)
    if reviewed:
        found["parent"] = [int(item["parentIdent"]) for item in items]
    return found


def _term_names(project: int) -> dict[int, str]:
    return {int(t.id): t.name for t in terms(project)}


def _row(
    item: dict[str, Any], images: dict[int, ImageInstance], names: dict[int, str], origin: Origin
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
        "term_name": [names.get(t, str(t)) for t in marks],
        "created": pandas.Timestamp(float(item["created"]), unit="ms", tz="UTC"),
        "reviewed": bool(item.get("reviewed")),
        "geometry": shape,
    }


def frame(rows: Sequence[dict[str, Any]], origin: Origin = "top-left") -> geopandas.GeoDataFrame:
    """A GeoDataFrame from rows that have at least ``geometry``; with the columns of `read_annotations` where it is empty."""
    columns = None if rows else list(COLUMNS)
    made = geopandas.GeoDataFrame(list(rows), columns=columns, geometry="geometry")
    made.attrs["origin"] = origin
    return made


def origin_of(data: geopandas.GeoDataFrame, given: Origin | None) -> Origin:
    """The origin that was given, else the one that the frame remembers, else ``top-left``."""
    found: Origin = given or data.attrs.get("origin", "top-left")
    if found not in ("top-left", "bottom-left"):
        raise ValueError(f"origin must be top-left or bottom-left, not {found!r}.")
    return found


def to_geojson(
    data: geopandas.GeoDataFrame, path: str | Path | None = None, *, image: ImageInstance | int | None = None
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection, origin top left.

    The features are what QuPath reads: ``properties.classification.name`` is the first term's name; all columns
    are kept as properties, as JSON can hold them (see `plain`): what is missing, no number or infinite is null.

    Args:
        data: for instance from `read_annotations`.
        path: where to write it, if given.
        image: needed only for a frame with its origin at the bottom left: whose height counts.

    Raises:
        ValueError: a coordinate is no finite number, or the image is missing.
    """
    shapes: list[Any] = list(data.geometry)
    if origin_of(data, None) == "bottom-left":
        if image is None:
            raise ValueError(
                "Coordinates with their origin at the bottom left need the image for its height."
            )
        height = float(image_of(image).height)
        shapes = [g if g is None else to_image(g, height) for g in shapes]
    columns = [
        (str(k), [plain(v) for v in column]) for k, column in data.drop(columns=data.geometry.name).items()
    ]
    features = []
    for row, shape in enumerate(shapes):
        properties = {name: column[row] for name, column in columns}
        named = properties.get("term_name")
        label = next((n for n in named if n), None) if isinstance(named, list) else named
        if label:
            properties["classification"] = {"name": str(label)}
        features.append({"type": "Feature", "geometry": _written(shape, row), "properties": properties})
    made = {"type": "FeatureCollection", "features": features}
    if path is not None:
        Path(path).write_text(dumps(made), encoding="utf-8")
    return made


def _written(shape: BaseGeometry | None, row: int) -> Any:
    """A geometry in GeoJSON, which has no word for a coordinate that is no number."""
    if shape is None:
        return None
    if not np.isfinite(shapely.get_coordinates(shape, include_z=shape.has_z)).all():
        raise ValueError(f"Row {row} has a coordinate that is no finite number: GeoJSON cannot hold it.")
    return json.loads(shapely.to_geojson(shape))


def from_geojson(source: str | Path | dict[str, Any]) -> geopandas.GeoDataFrame:
    """A frame from GeoJSON with its origin at the top left; what `upload` takes.

    Args:
        source: a path, or the parsed object: a FeatureCollection, a Feature or a list of Features.

    Returns:
        Columns ``geometry`` and ``term_name`` (list of names from ``term_name`` or ``classification.name``) and the
        other properties.

    Raises:
        ValueError: it is no GeoJSON.
    """
    if isinstance(source, (str, Path)):
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"The file is no JSON: {error}") from error
    features: Any = source.get("features", [source]) if isinstance(source, dict) else source
    rows = []
    for number, feature in enumerate(features):
        try:
            shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        except (KeyError, TypeError, shapely.errors.GEOSException) as error:
            raise ValueError(f"Feature {number} has no geometry that can be read: {error}") from error
        properties = dict(feature.get("properties") or {})
        label = properties.pop("classification", None)
        named = properties.pop("term_name", None) or ([label["name"]] if isinstance(label, dict) else [])
        rows.append({**properties, "term_name": list(named), "geometry": shape})
    return frame(rows)


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
    exploded = part.assign(term_name=[list(n) or [""] for n in part["term_name"]]).explode("term_name")
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
