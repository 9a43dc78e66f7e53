"""The annotations of a GeoJSON file, as QuPath, the archive and other tools write it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import dataset_classes, dataset_shapes
from .dataset_errors import DatasetError, unreadable
from .dataset_shapes import Shape, Unfit

# Terms without a colour get these, by their names.
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
GEOMETRIES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
)
# The objects that lie in another, in QuPath's export of a hierarchy.
CHILDREN = ("childObjects", "children")
# As Cytomine's database has it.
LONGEST_TERM = 255


@dataclass
class Features:
    """What is in a file.

    Attributes:
        shapes: the annotations.
        skipped: of each that cannot be stored, where it is and why: "feature 3: it crosses itself".
    """

    shapes: list[Shape] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read(path: Path, name: str = "") -> Features:
    """The annotations of a GeoJSON file; one that is broken costs nothing but itself.

    Args:
        path: the file.
        name: its name in the dataset, which makes its annotations' keys its own; none means that of the file.

    Raises:
        DatasetError: the file cannot be read, is no GeoJSON, or nothing in it can be stored.
    """
    try:
        # Finds out the encoding by itself, and a mark of the byte order is no fault.
        document = json.loads(path.read_bytes())
        members = list(_members(document))
    except OSError as error:
        raise unreadable(error, path) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no GeoJSON ({error}). Mend the dataset and try again.") from None
    found, seen = Features(), Counter[str]()
    for place, member in members:
        made = _tried(member, place)
        if isinstance(made, str):
            found.skipped.append(f"{place}: {made}")
        else:
            found.shapes += [_named(shape, name or path.name, seen) for shape in made]
    if found.skipped and not found.shapes:
        raise DatasetError(
            f"{path} holds nothing that can be stored ({found.skipped[0]}). Mend the dataset and try again."
        )
    return found


def _named(shape: Shape, name: str, seen: Counter[str]) -> Shape:
    """The shape with a key of its own: by what it is, not by its place, which changes when others are mended."""
    what = f"{name}\n{shape.term}\n{shape.geometry.wkb_hex}"
    key = hashlib.sha256(what.encode()).hexdigest()[:24]
    seen[key] += 1
    return replace(shape, key=key if seen[key] == 1 else f"{key}-{seen[key]}")


def _members(document: Any) -> Iterator[tuple[str, Any]]:
    """The features with the objects in them, each once, in the order of the file; and whatever else is in their place.

    Raises:
        ValueError: it is no GeoJSON.
    """
    if isinstance(document, list):
        left = [(f"feature {number}", member) for number, member in enumerate(document)]
    elif isinstance(document, Mapping) and isinstance(document.get("root"), Mapping):
        left = [("the root", document["root"])]
    elif _is_feature(document):
        left = [("feature 0", document)]
    elif (inner := _collected(document)) is not None:
        left = [(f"feature {number}", member) for number, member in enumerate(inner)]
    else:
        raise ValueError("it is neither a FeatureCollection, nor a Feature, nor a geometry")
    # Without recursion: a hierarchy may be deeper than Python's stack.
    left.reverse()
    while left:
        place, member = left.pop()
        inner = _collected(member)
        if inner is None:
            inner = _children(member)
            if not (inner and _is_root(member)):
                yield place, member
        left += [(f"{place}.{number}", part) for number, part in enumerate(inner or [])][::-1]


def _is_feature(member: Any) -> bool:
    return isinstance(member, Mapping) and member.get("type") in ("Feature", *GEOMETRIES)


def _collected(member: Any) -> list[Any] | None:
    """What a collection of features holds; None of anything else."""
    if not isinstance(member, Mapping) or _is_feature(member):
        return None
    inner = member.get("features")
    return inner if isinstance(inner, list) else None


def _children(member: Any) -> list[Any] | None:
    properties = member.get("properties") if isinstance(member, Mapping) else None
    if not isinstance(properties, Mapping):
        return None
    lists = (properties.get(name) for name in CHILDREN)
    return next(
        (c for c in lists if isinstance(c, list) and any(isinstance(one, Mapping) for one in c)), None
    )


def _is_root(member: Mapping[str, Any]) -> bool:
    """Whether it is what holds a hierarchy together, and no object itself."""
    properties = member["properties"]
    kind = properties.get("objectType", properties.get("object_type"))
    return (kind == "root" or member.get("id") == "PathRootObject") and not member.get("geometry")


def _tried(member: Any, place: str) -> list[Shape] | str:
    """The annotations of a feature, or why there are none."""
    try:
        return _shapes(member, place)
    except Unfit as error:
        return str(error)


def _shapes(member: Any, place: str) -> list[Shape]:
    if not _is_feature(member):
        raise Unfit("it is no feature, it has no geometry")
    is_feature = member["type"] == "Feature"
    properties = member.get("properties") if is_feature else None
    if not isinstance(properties, (Mapping, type(None))):
        raise Unfit("its properties are no object")
    try:
        found = dataset_classes.class_of(properties or {})
    except ValueError as error:
        raise Unfit(str(error)) from None
    term, colour = found or ("", None)
    if len(term) > LONGEST_TERM:
        raise Unfit(f"the name of its class is longer than {LONGEST_TERM} characters")
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in term):
        # A null byte, or half of a character: no database keeps it.
        raise Unfit("the name of its class holds what is no character")
    colour = colour or COLOURS[sum(term.encode()) % len(COLOURS)]
    geometries = dataset_shapes.read(member.get("geometry") if is_feature else member)
    return [Shape(geometry, term, colour, place=place) for geometry in geometries]
