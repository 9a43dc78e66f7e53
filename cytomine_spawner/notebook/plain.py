"""Values as JSON can hold them: what a table, a measurement or a parameter may be, for GeoJSON and for records of runs."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import json
import math
import numbers
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from typing import Any

import numpy as np
import pandas

# Readers of JSON give up at some depth, ours of records at two hundred.
DEPTH = 100


def plain(value: Any, depth: int = DEPTH) -> Any:
    """A value as JSON can hold it.

    Args:
        value: anything. Numbers that are none or infinite, and what pandas takes for missing, become None; dates and times
            their text in ISO 8601; durations seconds; arrays and series lists, a data frame a list of its rows; bytes
            base64; of what is not known the text counts.
        depth: levels of lists and dictionaries; what is deeper, or inside itself, becomes its text.

    Returns:
        None, bool, int, finite float, str, and lists and dictionaries (with str as keys) of them.
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, enum.Enum):
        return plain(value.value, depth)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (numbers.Number, Decimal, np.generic)):
        return _number(value)
    if value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _number(value.total_seconds())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return _many(value, depth)


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON of a value, whatever is in it; see `plain`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def _number(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.timedelta64):
        # Months and years have no length.
        try:
            return None if np.isnat(value) else float(value / np.timedelta64(1, "s"))
        except TypeError:
            return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value) if value.adjusted() < 300 else str(value)
    if isinstance(value, (numbers.Real, Decimal, np.floating)):
        try:
            number = float(value)
        except (OverflowError, ValueError):
            return None
        return number if math.isfinite(number) else None
    if isinstance(value, np.void):
        return plain(value.item()) if value.dtype.names else base64.b64encode(value.tobytes()).decode()
    return plain(value.item()) if isinstance(value, np.bytes_) else str(value)


def _many(value: Any, depth: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, pandas.DataFrame):
        value = [
            dict(zip(map(str, value.columns), row, strict=True)) for row in value.itertuples(index=False)
        ]
    elif hasattr(value, "tolist"):
        value = value.tolist()
        if not isinstance(value, (list, tuple)):
            return plain(value, depth - 1) if depth else _text(value)
    several = isinstance(value, (Mapping, Set, Sequence))
    if not several or depth <= 0:
        return _text(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(one, depth - 1) for key, one in value.items()}
    ordered = sorted(value, key=_text) if isinstance(value, Set) else value
    return [plain(one, depth - 1) for one in ordered]


def _key(key: Any) -> str:
    found = plain(key)
    return found if isinstance(found, str) else str(key)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # also what nests without an end
        return f"<{type(value).__name__}: {type(error).__name__}>"
