"""What numbers and cells of tables may be: NumPy's and pandas' as well as Python's own."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas


def whole(value: Any, what: str) -> int:
    """A whole number as Python's: those of NumPy overflow, and floats are no places of pixels.

    Args:
        value: an integer of any kind, or a float without a fraction.
        what: its name, for the sentence.

    Raises:
        ValueError: it is no whole number.
    """
    if not isinstance(value, (bool, np.bool_, str, bytes)):
        try:
            return operator.index(value)
        except TypeError:
            pass
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if number.is_integer():
            return int(number)
    raise ValueError(f"{what} must be a whole number, not {value}.")


def marks(value: Any) -> list[int | str]:
    """The terms in one cell of a table: nothing, one, or several, in whatever pandas made of it.

    Args:
        value: a name or an id; several of them as a list, a tuple, a set or an array; nothing as None, NaN, NA or "".

    Returns:
        Names as they are, ids as integers.

    Raises:
        ValueError: something in it is neither.
    """
    if isinstance(value, str):
        return [value] if value.strip() else []
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
        if isinstance(value, str):
            return marks(value)
    if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)):
        return [mark for one in value for mark in marks(one)]
    if not isinstance(value, (Mapping, bytes)) and pandas.isna(value):
        return []
    return [whole(value, "A term's id")]


def names(value: Any) -> list[str]:
    """The names of the terms in one cell of a table, see `marks`."""
    return [str(mark) for mark in marks(value)]
