"""Stand-in for Cytomine: what core's and repository's handlers share (failures, parameters, lists, routes)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from .errors import HEADERS, Broken, Failure, answer, page, plain, problem, unparsable
from .settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
HTTP: web.AppKey[ClientSession] = web.AppKey("http", ClientSession)
LOG = logging.getLogger("standin")
BODY_LIMIT = 256 * 1024**2


async def http_session(app: web.Application):
    """One client session for calls to the other services."""
    app[HTTP] = ClientSession(timeout=ClientTimeout(total=60, connect=10))
    yield
    await app[HTTP].close()


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A browser's OPTIONS is answered before anyone asks who it is."""
    if request.method == "OPTIONS":
        response = web.Response()
        if "Origin" in request.headers:
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Allow-Methods"] = "GET,POST,PUT,DELETE,OPTIONS,PATCH"
        return response
    return await handler(request)


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Core's headers on every answer, streamed ones too."""
    response.headers.update(HEADERS)


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn exceptions into upstream's forms of failure; the traceback of the unforeseen goes to the log."""
    try:
        return await handler(request)
    except Failure as failure:
        refused = failure.response()
        if failure.status == 415:
            refused.headers["Accept"] = "application/json, application/*+json"
        return refused
    except web.HTTPNotFound:
        return problem(404, f"No static resource {request.path.lstrip('/')}.", request.path).response()
    except web.HTTPMethodNotAllowed as error:
        response = problem(405, f"Method '{request.method}' is not supported.", request.path).response()
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods - {"HEAD"}))
        return response
    except web.HTTPException:
        raise
    except Broken as error:
        LOG.warning("%s %s: server error, as upstream: %s", request.method, request.path, error)
        return page(500)
    except Exception:
        LOG.exception("%s %s failed", request.method, request.path)
        return page(500)


def ident(request: web.Request, name: str = "id") -> int:
    """A numeric part of the path."""
    text = request.match_info[name]
    if not text.isdigit():
        raise problem(400, f"Failed to convert 'id' with value: '{text}'", request.path)
    return int(text)


def number(request: web.Request, name: str, default: int = 0) -> int:
    """A numeric query parameter."""
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise problem(400, f"Failed to convert '{name}' with value: '{text}'", request.path) from None


def flag(values: Any, name: str) -> bool:
    """A boolean parameter of a query or a body: absent is false."""
    return str(values.get(name, "")).lower() == "true"


def idents(text: Any) -> list[int]:
    """Ids given as ``1,2`` or as a list."""
    parts = text if isinstance(text, list) else str(text or "").split(",")
    return [int(p) for p in parts if str(p).strip()]


async def body_text(request: web.Request) -> str:
    """The body, for handlers that parse it themselves."""
    return await request.text()


async def body(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object."""
    kind = request.content_type
    if request.can_read_body and kind not in ("application/json", "application/octet-stream"):
        detail = f"Content-Type '{kind};charset=UTF-8' is not supported."
        raise problem(415, detail, request.path)
    try:
        data = json.loads(await request.text())
    except ValueError:
        raise unparsable() from None
    if not isinstance(data, dict):
        raise unparsable()
    return data


def required(request: web.Request, name: str) -> str:
    """A query parameter that upstream demands by name."""
    if name not in request.query:
        text = f"Required request parameter '{name}' for method parameter type String is not present"
        raise plain(400, text)
    return request.query[name]


def collection(
    items: Sequence[Any], offset: int = 0, limit: int = 0, total: int | None = None, *, asked: bool = False
) -> web.Response:
    """Core's form of a list: ``max=0`` means all.

    ``perPage`` is the number of entries that came or, in annotation lists (``asked``), the number asked for.
    """
    size = len(items) if total is None else total
    pages = math.ceil(size / limit) if limit else int(size > 0)
    head = {
        "perPage": limit if asked and limit else len(items),
        "offset": offset,
        "size": size,
        "totalPages": pages,
    }
    return answer({**head, "collection": list(items)})


def window(request: web.Request) -> tuple[int, int]:
    """``max`` and ``offset`` of core's lists; negative values are a server error upstream."""
    limit, offset = number(request, "max"), number(request, "offset")
    if limit < 0 or offset < 0:
        raise Broken("negative max or offset")
    return limit, offset


def cut(request: web.Request, items: Sequence[Any]) -> web.Response:
    """The page of a core list that the request asks for."""
    limit, offset = window(request)
    part = items[offset : offset + limit] if limit else items[offset:]
    return collection(part, offset, limit, len(items))


def command(
    name: str,
    action: str,
    payload: dict[str, Any],
    message: str,
    number_: int,
    key: str | None = None,
    printed: bool = True,
) -> web.Response:
    """Core's answer to create, update and delete."""
    kind = name[0].upper() + name[1:]
    lower = key or kind.lower()
    callback = {"method": f"be.cytomine.{action}{kind}Command", f"{lower}ID": str(payload["id"])}
    label = "annotation" if kind == "UserAnnotation" else lower
    reply = {
        label: payload,
        "printMessage": printed,
        "callback": callback,
        "message": message,
        "command": number_,
    }
    return answer(reply)


def routes(app: web.Application, table: Iterable[tuple[str, str, Handler]]) -> None:
    """Add (method, path, handler) rows."""
    for method, path, handler in table:
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
