"""The class of a GeoJSON feature, in every form that QuPath writes and that tools make of them.

- QuPath 0.2 and 0.3: ``{"name": "Tumor", "colorRGB": -3670016}``; a class that is derived from another has that as
  ``parentClass``. An object without a class has ``{}``.
- QuPath 0.4 to 0.6: ``{"name": "Tumor", "color": [200, 0, 0]}``; a derived class ``{"names": ["Tumor", "Positive"], ...}``,
  which QuPath shows as ``Tumor: Positive``.
- Tables keep the same object as a text, others the bare name; some write it into ``path_class_name``.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

# The first place that says something counts.
PLACES = ("classification", "path_class_name")
_KEYS = frozenset(("name", "names", "color", "colorRGB", "parentClass"))


def class_of(properties: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The name of a feature's class and its colour as ``#rrggbb``, None where it does not say one; None without a class.

    Raises:
        ValueError: there is something in its place that is no class.
    """
    return next((found for place in PLACES if (found := _read(properties.get(place))) is not None), None)


def _read(value: Any) -> tuple[str, str | None] | None:
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        # Else it is a name that begins with a bracket.
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        names = _lineage(value)
        colours = (colour_of(value.get(key)) for key in ("color", "colorRGB"))
        return (": ".join(names), next(filter(None, colours), None)) if names else None
    names = _texts(value if isinstance(value, list) else [value])
    if len(names) > 1:
        # Several classes, or the names of one? Nobody can know.
        raise ValueError(f"its class is a list of {len(names)} names")
    return (names[0], None) if names else None


def _lineage(value: Mapping[str, Any]) -> list[str]:
    """The names of a class, after those of the classes that it is derived from."""
    names: list[str] = []
    part: Any = value
    while part is not None:
        if not isinstance(part, Mapping) or (part and not _KEYS & part.keys()):
            raise ValueError("its class has no name")
        own = part.get("name")
        own = part.get("names") if own is None else own
        names = _texts(own if isinstance(own, list) else [own]) + names
        part = part.get("parentClass")
    return names


def _texts(values: Iterable[Any]) -> list[str]:
    """Names without the blanks around them; what says nothing is left out."""
    found = []
    for value in values:
        if isinstance(value, str):
            found.append(value.strip())
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            # A column of numbers that lacks some is one of floats.
            whole = isinstance(value, float) and value.is_integer()
            found.append("" if value != value else f"{value:.0f}" if whole else str(value))
        elif value is not None:
            raise ValueError(f"the name of its class is no text but {str(value)[:40]}")
    return [name for name in found if name]


def colour_of(value: Any) -> str | None:
    """A colour as ``#rrggbb``, from Java's integer (ARGB, with its sign), a list of 0 to 255, or a text; else None."""
    if isinstance(value, str):
        found = re.fullmatch(r"#?([0-9a-fA-F]{6})", value.strip())
        return f"#{found[1].lower()}" if found else None
    if isinstance(value, list):
        parts = [_whole(part) for part in value[:3]]
        if len(parts) < 3 or not all(part is not None and 0 <= part <= 255 for part in parts):
            return None
        return "#" + "".join(f"{part:02x}" for part in parts)
    packed = _whole(value)
    return None if packed is None or not -(2**31) <= packed < 2**32 else f"#{packed & 0xFFFFFF:06x}"


def _whole(value: Any) -> int | None:
    """A whole number, from one or from a float that is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None
