"""Stand-in for Cytomine: the signature of a request, as the Python client and the image server make it."""

from __future__ import annotations

import base64
import hashlib
import hmac

from aiohttp import web


def signature(private: str, method: str, content_type: str, date: str) -> str:
    """The signature: HMAC-SHA1 over method, content type and date. Path and body are not covered."""
    text = f"{method}\n\n{content_type}\n{date}".encode()
    return base64.b64encode(hmac.new(private.encode(), text, hashlib.sha1).digest()).decode()


def credentials(request: web.Request) -> tuple[str, str] | None:
    """Public key and signature of a ``CYTOMINE`` authorization, or None."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    public, colon, given = rest.strip().partition(":")
    return (public, given) if scheme == "CYTOMINE" and colon else None


def signed(request: web.Request, given: str, private: str) -> bool:
    """Whether the signature fits the request, with its content type or without, as upstream accepts."""
    date = request.headers.get("dateFull") or request.headers.get("Date", "")
    kind = request.headers.get("content-type-full") or request.headers.get("Content-Type", "")
    if not date:
        return False
    fits = [
        hmac.compare_digest(signature(private, request.method, t, date).encode(), given.encode())
        for t in (kind, "")
    ]
    return any(fits)
