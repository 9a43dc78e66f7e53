"""What the class of a GeoJSON feature is, and which features a document holds, in every form that QuPath writes.

For the notebooks' library and for the import of datasets, which share nothing else; needs the standard library only. QuPath
is read from 0.2 on:

- 0.2 and 0.3 write ``classification`` as ``{"name": …, "colorRGB": integer}``, what was derived from another class with
  that class as ``parentClass``;
- from 0.4 on it is ``{"name": …, "color": [r, g, b]}``, of a derived class ``{"names": ["Tumor", "Positive"], …}``, which
  QuPath shows, and reads from a text, as ``Tumor: Positive``;
- objects inside of others come as ``properties.childObjects``, and a whole hierarchy as ``{"root": {…}}``.

Tools that read tables write the same object as a text, and others the bare name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

GEOMETRIES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
)
# Where the class may be, the first that says something counts.
PLACES = ("classification", "path_class_name")
CHILDREN = ("childObjects", "children")


@dataclass(frozen=True)
class FeatureClass:
    """A class.

    Attributes:
        name: as QuPath shows it; of a derived class all its names, ``Tumor: Positive``.
        colour: ``#rrggbb``; None where the feature does not say it.
    """

    name: str
    colour: str | None = None


def class_of(properties: Mapping[str, Any]) -> FeatureClass | None:
    """The class of a feature; None where it has none.

    Args:
        properties: of the feature.

    Raises:
        ValueError: there is something in the place of a class that is none, in one sentence.
    """
    for place in PLACES:
        found = read_class(properties.get(place))
        if found is not None:
            return found
    return None


def read_class(value: Any) -> FeatureClass | None:
    """The class that a value stands for, see `class_of`."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        names = _names(value)
        return FeatureClass(": ".join(names), _colour_of(value)) if names else None
    listed = isinstance(value, (list, tuple))
    names = texts(value if listed else [value])
    if len(names) > 1:
        # They could be several classes, or the names of one.
        raise ValueError(f"{short(value)} cannot be read as a class: a list of names has to be in its names")
    return FeatureClass(names[0]) if names else None


def _parsed(text: str) -> Any:
    """An object or a list that was written as a text; any other text stays what it is."""
    if text.strip()[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _names(value: Mapping[str, Any]) -> list[str]:
    """The names of a class, after those of the classes that it is derived from."""
    names: list[str] = []
    one: Any = value
    while one is not None:
        if not isinstance(one, Mapping):
            raise ValueError(f"{short(one)} cannot be read as the class that another is derived from")
        if one and not {"name", "names", "color", "colorRGB", "parentClass"} & one.keys():
            raise ValueError(f"{short(one)} cannot be read as a class: it has no name")
        own = one.get("name")
        if own is None:
            own = one.get("names")
        names = texts(own if isinstance(own, (list, tuple)) else [own]) + names
        one = one.get("parentClass")
    return names


def texts(values: Iterable[Any]) -> list[str]:
    """Names without the blanks around them; what says nothing (None, NaN, blanks) is left out.

    Raises:
        ValueError: one of them is neither a text nor a number.
    """
    found = []
    for value in values:
        if isinstance(value, str):
            found.append(value.strip())
        elif isinstance(value, Real) and not isinstance(value, bool):
            number = _whole(value)
            found.append("" if value != value else str(value if number is None else number))
        elif value is not None:
            raise ValueError(f"{short(value)} cannot be read as the name of a class")
    return [name for name in found if name]


def _colour_of(value: Mapping[str, Any]) -> str | None:
    return next((c for c in map(colour, (value.get("color"), value.get("colorRGB"))) if c), None)


def colour(value: Any) -> str | None:
    """A colour as ``#rrggbb``, from Java's integer (ARGB, with its sign), a list of 0 to 255, or a text; None for others."""
    if isinstance(value, str):
        found = re.fullmatch(r"#?([0-9a-fA-F]{6})", value.strip())
        return f"#{found[1].lower()}" if found else None
    if isinstance(value, (list, tuple)):
        whole = [_whole(v) for v in value[:3]]
        if len(whole) < 3 or any(v is None or not 0 <= v <= 255 for v in whole):
            return None
        return "#" + "".join(f"{v:02x}" for v in whole)
    packed = _whole(value)
    return None if packed is None or not -(2**31) <= packed < 2**32 else f"#{packed & 0xFFFFFF:06x}"


def _whole(value: Any) -> int | None:
    """A whole number, also one that a table made a float; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    return int(float(value)) if float(value).is_integer() else None


def short(value: Any) -> str:
    """A value in a sentence, cut where it is long."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


# Where a member is in its document: names and numbers, from the outside in.
Path = tuple[str | int, ...]


def features(document: Any) -> Iterator[tuple[str, Any]]:
    """The features of a GeoJSON document with the objects inside of them, each once, in the order of the file.

    Args:
        document: see `walk`.

    Yields:
        Where it is (``features[3].childObjects[0]``), and the member itself: a feature as a dictionary, or whatever else was
        in a feature's place. The root of a hierarchy, which is no object, is left out.

    Raises:
        ValueError: it is no GeoJSON.
    """
    try:
        for path, member in walk(document):
            if not is_root(member):
                yield _written(path) or "the feature", member
    except NoGeoJson as error:
        raise ValueError(f"It is no GeoJSON: {error}.") from None


def _written(path: Path) -> str:
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return parts.removeprefix(".")


class NoGeoJson(ValueError):
    """What a document is not, as the end of a sentence."""


def walk(document: Any) -> Iterator[tuple[Path, Any]]:
    """The members of a GeoJSON document with those inside of them, each once, in the order of the file.

    Args:
        document: what ``json.loads`` made of it: a FeatureCollection, a Feature, a bare geometry, a list of those, or the
            hierarchy of a QuPath image.

    Yields:
        Where it is, and the member itself: a feature as a dictionary, the root of a hierarchy, or whatever else was in a
        feature's place.

    Raises:
        NoGeoJson: it is none.
    """
    left: list[tuple[Path, Any]]
    if isinstance(document, list):
        left = [((n,), member) for n, member in enumerate(document)]
    elif isinstance(document, Mapping) and isinstance(document.get("root"), Mapping):
        left = [(("root",), document["root"])]
    elif is_feature(document) or _collected(document) is not None:
        left = [((), document)]
    else:
        raise NoGeoJson("neither a FeatureCollection, nor a Feature, nor a geometry")
    # Without recursion: a hierarchy may be deeper than Python's stack.
    left.reverse()
    while left:
        path, member = left.pop()
        inner = _collected(member)
        if inner is None:
            inner = children(member)
            yield path, member
        name, members = inner or ("", [])
        left += [((*path, name, n), one) for n, one in enumerate(members)][::-1]


def _collected(member: Any) -> tuple[str, list[Any]] | None:
    """The members of a collection of features; None of anything else."""
    if isinstance(member, Mapping) and member.get("type") not in ("Feature", *GEOMETRIES):
        return ("features", member["features"]) if isinstance(member.get("features"), list) else None
    return None


def children(member: Any) -> tuple[str, list[Any]] | None:
    """The objects inside of one, with the name that they are under; None where there are none."""
    properties = member.get("properties") if isinstance(member, Mapping) else None
    if not isinstance(properties, Mapping):
        return None
    for name in CHILDREN:
        inner = properties.get(name)
        if isinstance(inner, list) and any(isinstance(one, Mapping) for one in inner):
            return name, inner
    return None


def is_root(member: Any) -> bool:
    """Whether it only holds the objects of a hierarchy: QuPath's root has no outline and is not drawn."""
    if not isinstance(member, Mapping) or member.get("geometry"):
        return False
    properties = member.get("properties")
    kinds = [member.get("id")]
    if isinstance(properties, Mapping):
        kinds += [properties.get("objectType"), properties.get("object_type")]
    return "root" in kinds[1:] or kinds[0] == "PathRootObject"


def is_feature(member: Any) -> bool:
    """Whether a member is a feature, or a bare geometry."""
    return isinstance(member, Mapping) and member.get("type") in ("Feature", *GEOMETRIES)
