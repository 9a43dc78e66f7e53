"""Kubernetes' quantities as numbers, and back for people."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal("1e3"),
    **{unit: Decimal(10) ** (3 * power) for power, unit in enumerate("MGTPE", start=2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)\s*")


def number(quantity: str | float) -> Decimal:
    """The number that a quantity such as ``250m`` or ``3Gi`` stands for.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _QUANTITY.fullmatch(str(quantity))
    if not match or match[2] not in _UNITS:
        msg = f"{quantity!r} is not a quantity such as 250m or 3Gi"
        raise ValueError(msg)
    return Decimal(match[1]) * _UNITS[match[2]]


def cores(quantity: str | float) -> float:
    """Processor cores."""
    return float(number(quantity))


def to_bytes(quantity: str | float) -> int:
    """Bytes of memory or disk."""
    return int(number(quantity))


def gib(count: int) -> str:
    """Bytes for people: ``3.3 GiB``, ``512 MiB``."""
    if count < 1024**3:
        return f"{count / 1024**2:.0f} MiB"
    return f"{count / 1024**3:.1f} GiB".replace(".0 ", " ")
