"""The annotations of a GeoJSON file, as QuPath, the archive and other tools write it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..common import qupath
from . import shapes as dataset_shapes
from .errors import DatasetError, unreadable
from .shapes import Shape, Unfit

# Terms without a colour get these, by their names.
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
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
    for path, member in qupath.walk(document):
        # What holds a hierarchy together is no object itself.
        if not (qupath.is_root(member) and qupath.children(member)):
            yield _place(path), member


def _place(path: qupath.Path) -> str:
    """Where a member is, by the numbers of those around it and its own."""
    numbers = [str(part) for part in path if isinstance(part, int)]
    if path[:1] == ("root",):
        return ".".join(["the root", *numbers])
    # A file of one feature has no list that would number it.
    alone = not path or path[0] in qupath.CHILDREN
    return f"feature {'.'.join(['0', *numbers] if alone else numbers)}"


def _tried(member: Any, place: str) -> list[Shape] | str:
    """The annotations of a feature, or why there are none."""
    try:
        return _shapes(member, place)
    except Unfit as error:
        return str(error)


def _shapes(member: Any, place: str) -> list[Shape]:
    if not qupath.is_feature(member):
        raise Unfit("it is no feature, it has no geometry")
    is_feature = member["type"] == "Feature"
    properties = member.get("properties") if is_feature else None
    if not isinstance(properties, (Mapping, type(None))):
        raise Unfit("its properties are no object")
    try:
        found = qupath.class_of(properties or {})
    except ValueError as error:
        raise Unfit(str(error)) from None
    term, colour = (found.name, found.colour) if found else ("", None)
    if len(term) > LONGEST_TERM:
        raise Unfit(f"the name of its class is longer than {LONGEST_TERM} characters")
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in term):
        # A null byte, or half of a character: no database keeps it.
        raise Unfit("the name of its class holds what is no character")
    colour = colour or COLOURS[sum(term.encode()) % len(COLOURS)]
    geometries = dataset_shapes.read(member.get("geometry") if is_feature else member)
    return [Shape(geometry, term, colour, place=place) for geometry in geometries]
