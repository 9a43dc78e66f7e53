"""Stand-in for Cytomine: the forms in which core and repository report failures.

Upstream has three JSON forms and an HTML page under a JSON content type; clients read only ``errors``.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

HEADERS = {
    "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
    "Vary": "Access-Control-Request-Headers",
    "X-Frame-Options": "DENY",
}


def answer(body: Any, status: int = 200, content_type: str = "application/json") -> web.Response:
    """A JSON answer, without a charset in its content type, as upstream sends it."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(body=data, status=status, content_type=content_type)


class Failure(Exception):
    """An answer other than 200 with a JSON body."""

    def __init__(self, status: int, body: dict[str, Any], content_type: str = "application/json") -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body, self.content_type = status, body, content_type

    def response(self) -> web.Response:
        """The answer."""
        return answer(self.body, self.status, self.content_type)


class Broken(Exception):
    """A request on which upstream fails with a server error; the client sees an HTML page."""


def refused(status: int, message: str) -> Failure:
    """The form of reads: ``{"errorValues": {}, "errors": {"message": ...}}``."""
    return Failure(status, {"errorValues": {}, "errors": {"message": message}})


def rejected(status: int, message: str) -> Failure:
    """The form of commands (create, update, delete): ``errors`` is a text."""
    return Failure(status, {"errorValues": {}, "success": False, "errors": message})


def plain(status: int, message: str) -> Failure:
    """The form of argument and parse errors."""
    return Failure(status, {"errors": {"message": message}})


def problem(status: int, detail: str, path: str) -> Failure:
    """The form of routing and of the repository service: problem+json."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
    }
    return Failure(status, body, "application/problem+json")


def page(status: int) -> web.Response:
    """Upstream's HTML error page, which it sends under a JSON content type."""
    html = f"<!doctype html><html><head><title>Cytomine error {status}</title></head><body>{status}</body></html>"
    return web.Response(body=html.encode(), status=status, content_type="application/json")


def unparsable() -> Failure:
    """The answer to a body that is no JSON object."""
    return plain(400, "The body cannot be parsed, is the body content in the good format?")


def forbidden(kind: str, ident: int, command: bool = False) -> Failure:
    """The answer to someone without rights on an object; ``kind`` is upstream's class name."""
    text = (
        f"You don't have the right to read or modify this resource! class be.cytomine.domain.{kind} {ident}"
    )
    return rejected(403, text) if command else refused(403, text)
