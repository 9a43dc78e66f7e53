"""Stands in for the Bigpicture archive in development and tests; never what production runs.

The two ways in which ``Range`` is read.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

_ONE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


class RangeInvalid(Exception):
    """The header cannot be read, or asks for several ranges."""


class RangeUnsatisfiable(Exception):
    """There are no such bytes."""


def parse(text: str, size: int) -> tuple[int, int] | None:
    """The first and the last byte that version 2 serves; None without a header.

    Raises:
        RangeInvalid: answered with 400.
        RangeUnsatisfiable: answered with 416.
    """
    if not text:
        return None
    found = _ONE.fullmatch(text)
    # Numbers that do not fit into 64 bits are none.
    if not found or found[1] == found[2] == "" or any(int(n or 0) >= 2**63 for n in found.groups()):
        raise RangeInvalid
    if not found[1]:
        suffix = int(found[2])
        if not suffix or not size:
            raise RangeUnsatisfiable
        return max(0, size - suffix), size - 1
    start = int(found[1])
    end = int(found[2]) if found[2] else size - 1
    if start >= size or start > end:
        raise RangeUnsatisfiable
    return start, min(end, size - 1)


def honoured(if_range: str, etag: str) -> bool:
    """Whether a range counts beside this ``If-Range``: a strong ETag must be the same, any valid date counts."""
    if not if_range:
        return True
    if if_range.startswith('"'):
        return if_range == etag
    try:
        parsedate_to_datetime(if_range)
    except ValueError:
        return False
    return not if_range.startswith("W/")


def parse_v1(text: str) -> tuple[int, int] | None:
    """The first byte and the byte behind the last that version 1 serves; None where the header says nothing.

    Args:
        text: the header; only ``bytes=a-b`` is understood, and one without a hyphen is ignored.

    Raises:
        RangeInvalid: answered with 400, for ``bytes=a-`` and ``bytes=-n``, too.
    """
    parts = text.removeprefix("bytes=").split("-")
    if not text or len(parts) < 2:
        return None
    if not all(re.fullmatch(r"[+]?[0-9]{1,18}", part) for part in parts[:2]):
        raise RangeInvalid
    first, last = int(parts[0]), int(parts[1])
    if first > last:
        raise RangeInvalid
    return first, last + 1
