"""Who is sent away for what a browser tells of a request's origin (Fetch Metadata), before any page is asked.

Cookies come along with whatever a page makes a browser fetch, from wherever that page is: a picture, a script, a frame.
Browsers say in ``Sec-Fetch-*`` how a request came about, and no page can change that. Requests with cookies go on only
if they open a page in a tab, or if a script of a page of the same origin asks. Programs do not send these headers, and
requests with a token do not live on cookies: both are let through.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    ResponseStartLine,
)
from tornado.routing import Router

READING = ("GET", "HEAD")

FRAMED = "This page is not shown inside of another one; open it in a tab of its own."
FORM = "A page of another site sent this form; open the page itself and do it there."
FETCHED = (
    "A page of another site or another user asked for this with your cookies, and was refused. "
    "Open the address in a tab of its own, or send a token instead of cookies."
)
ELSEWHERE = "This host serves one user's pages only; the hub's own pages are at {home}."


class Headers(Protocol):
    """What is asked of a request's headers."""

    def get(self, name: str) -> str | None:
        """A header's value, or None."""

    def __contains__(self, name: object) -> bool: ...


def fault(method: str, headers: Headers, *, foreign_forms: bool = False, scripts: bool = True) -> str:
    """Why a request is refused, as one sentence; empty if it is not.

    Args:
        method: the HTTP method.
        headers: the request's; names in any case.
        foreign_forms: whether pages of other sites may send forms that open a page, as some logins do (LTI, SAML).
        scripts: whether scripts of the same origin ask for this address.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is None or "Cookie" not in headers or "Authorization" in headers:
        return ""
    mode, dest = headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")
    if mode == "navigate":
        # "empty": what is opened to be saved.
        if dest not in (None, "document", "empty"):
            return FRAMED
        if method in READING or site in ("same-origin", "none") or foreign_forms:
            return ""
        return FORM
    if (
        scripts
        and site == "same-origin"
        and mode in (None, "cors", "same-origin")
        and dest in (None, "empty")
    ):
        return ""
    return FETCHED


class Guard(Router):
    """The first rule of an application: answers what is refused, and leaves the rest to the rules after it.

    Args:
        public: patterns of paths that are the same for everybody (style sheets, pictures), or that look after
            themselves; they are not judged.
        foreign_forms: as for :func:`fault`.
        scripts: patterns of the paths that scripts of the same origin ask for; all if none is given.
        hosts: says where a request for another host belongs; nothing is asked of it by default.
        log: is told of each refusal.
    """

    def __init__(
        self,
        public: Sequence[str] = (),
        *,
        foreign_forms: bool = False,
        scripts: Sequence[str] = (r".*",),
        hosts: Callable[[HTTPServerRequest], Answer | None] = lambda _: None,
        log: Any = None,
    ) -> None:
        self._public = [re.compile(pattern) for pattern in public]
        self._scripts = [re.compile(pattern) for pattern in scripts]
        self._foreign_forms, self._hosts = foreign_forms, hosts
        self._log = log or logging.getLogger(__name__)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:  # noqa: ARG002
        """Answer a request, or give None to have it answered by others."""
        if any(pattern.fullmatch(request.path) for pattern in self._public):
            return None
        answer = self._hosts(request)
        if answer is None:
            sentence = fault(
                request.method or "",
                request.headers,
                foreign_forms=self._foreign_forms,
                scripts=any(pattern.fullmatch(request.path) for pattern in self._scripts),
            )
            if not sentence:
                return None
            answer = Answer(403, sentence)
        if answer.status >= 400:
            told = {k: request.headers.get(f"Sec-Fetch-{k}") for k in ("Site", "Mode", "Dest")}
            # The path only: a query may hold a token.
            self._log.warning("Refused %s %s on %s: %s", request.method, request.path, request.host, told)
        return answer.to(request)


class Answer:
    """An answer that needs no handler: one sentence, or another address.

    Args:
        status: the HTTP status.
        sentence: the body.
        location: where to go instead.
    """

    def __init__(self, status: int, sentence: str, location: str = "") -> None:
        self.status, self.sentence, self.location = status, sentence, location

    def to(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        """What sends it once the request has been read."""
        to_program = "/api/" in request.path
        told = {"status": self.status, "message": self.sentence}
        body = (json.dumps(told) if to_program else f"{self.sentence}\n").encode()
        headers = HTTPHeaders(
            {
                "Content-Type": f"{'application/json' if to_program else 'text/plain'}; charset=utf-8",
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "Vary": "Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
                "Cross-Origin-Resource-Policy": "same-origin",
                **({"Location": self.location} if self.location else {}),
            }
        )
        connection = cast(HTTPConnection, request.connection)
        return _Sent(connection, self.status, headers, b"" if request.method == "HEAD" else body)


class _Sent(HTTPMessageDelegate):
    def __init__(self, connection: HTTPConnection, status: int, headers: HTTPHeaders, body: bytes) -> None:
        self._connection, self._status, self._headers, self._body = connection, status, headers, body

    def finish(self) -> None:
        reason = {302: "Found", 403: "Forbidden"}.get(self._status, "Refused")
        line = ResponseStartLine("HTTP/1.1", self._status, reason)
        self._connection.write_headers(line, self._headers, self._body or None)
        self._connection.finish()


def hub_hosts(
    home: str, prefix: str, moved: Mapping[str, str]
) -> Callable[[HTTPServerRequest], Answer | None]:
    """Where requests belong at a hub whose users have hosts of their own.

    The proxy brings the hub whatever no server answers, from users' hosts, too. There a user's page is of the same
    origin: what the hub shows or takes at such a host, that page reads and sends. So the hub's own pages are at the
    hub's host alone.

    Args:
        home: the hub's origin, such as ``https://hub.example.org``; nothing where all is on one host.
        prefix: the path of the hub's own pages, such as ``/hub/``.
        moved: paths that live at another origin: the first part of the path to the origin.
    """
    domain = (urlsplit(home).hostname or "").lower()

    def where(request: HTTPServerRequest) -> Answer | None:
        if not domain:
            return None
        uri = request.uri or "/"
        on_users_host = request.host_name.endswith(f".{domain}")
        if on_users_host and (request.path + "/").startswith(prefix):
            if "Authorization" in request.headers:
                return None
            sentence = ELSEWHERE.format(home=home)
            if request.method in READING:
                return Answer(302, sentence, home + uri)
            return Answer(403, sentence)
        if request.host_name == domain and request.method in READING:
            for path, origin in moved.items():
                if request.path.startswith(path):
                    return Answer(302, f"This page is now at {origin}{path}", origin + uri)
        return None

    return where
