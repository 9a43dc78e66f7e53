"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Page tokens of version 2: signed, bound to the query, good for an hour.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from .settings import Settings


class BadPage(Exception):
    """A page size or token that is refused; the message is the answer's detail."""


@dataclass
class Page:
    """Where a page begins.

    Attributes:
        cursor: sort key of the last entry before it.
        tie: its id, where sort keys may be the same.
        size: page size of the first request.
        query: fingerprint of what was asked for.
    """

    cursor: str
    tie: str
    size: int
    query: str


def page_size(text: str | None) -> int:
    """The page size of a query, 100 without one.

    Raises:
        BadPage: it is no number of 1 to 1000.
    """
    if not text:
        return 100
    try:
        size = int(text)
    except ValueError:
        raise BadPage("pageSize must be an integer") from None
    if not 1 <= size <= 1000:
        raise BadPage("pageSize must be between 1 and 1000")
    return size


def fingerprint(*parts: str) -> str:
    """Tells queries apart."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def encode(page: Page, settings: Settings) -> str:
    """A signed token for a page."""
    ends = int(settings.clock() + settings.page_ttl)
    fields = {"c": page.cursor, "i": page.tie, "s": page.size, "q": page.query, "e": ends}
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return f"{_text(payload)}.{_text(_sign(payload, settings))}"


def decode(token: str, settings: Settings) -> Page:
    """The page of a token.

    Raises:
        BadPage: it is not one of ours, or too old.
    """
    try:
        payload, signature = (base64.urlsafe_b64decode(p + "=" * (-len(p) % 4)) for p in token.split(".", 1))
    except (ValueError, binascii.Error):
        raise BadPage("malformed page token") from None
    if not hmac.compare_digest(_sign(payload, settings), signature):
        raise BadPage("invalid page token signature")
    fields = json.loads(payload)
    if settings.clock() > fields["e"]:
        raise BadPage("page token expired")
    return Page(fields["c"], fields["i"], fields["s"], fields["q"])


def _sign(payload: bytes, settings: Settings) -> bytes:
    return hmac.new(settings.page_secret, payload, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
