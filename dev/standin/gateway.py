"""Stand-in for a stack's gateway: one origin for all services, for runs without Kubernetes.

It checks nobody, so it listens on loopback only; on Kubernetes the stack's own gateway does this work.
"""

from __future__ import annotations

import os
import re

from aiohttp import ClientError, web
from multidict import CIMultiDict

from .settings import Settings
from .web import HTTP, SETTINGS, http_session

HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    # Answers pass unpacked.
    "accept-encoding",
}


def target(path: str, core: str, pims: str, webui: str) -> str:
    """The address behind the gateway."""
    if path.startswith(("/api/", "/server/", "/session/")):
        return core + path
    if path in ("/upload", "/import"):
        return f"{pims}/ims{path}"
    return (pims if path.startswith("/ims/") else webui) + path


def thumbs(path: str, query: str) -> str:
    """The query for core: as the stack's gateway, ask for thumbs that are made from the slide's own pixels."""
    if not re.fullmatch(r"/api/[a-z]+/[^/]+/(thumb|preview)\.[^/]+", path):
        return query
    kept = [part for part in query.split("&") if part and not re.fullmatch(r"bits=\D*", part)]
    return "&".join(kept if any(part.startswith("bits=") for part in kept) else [*kept, "bits=8"])


async def proxy(request: web.Request) -> web.StreamResponse:
    """Pass a request on with Date, Authorization and Content-Type as they came: signatures cover them."""
    settings = request.app[SETTINGS]
    webui = os.environ.get("WEBUI_URL", "http://web-ui:9090")
    path, _, query = request.raw_path.partition("?")
    query = thumbs(path, query)
    url = target(path, settings.core_url, settings.pims_url, webui)
    url += f"?{query}" if query else ""
    head = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in HOP)
    try:
        async with request.app[HTTP].request(
            request.method,
            url,
            headers=head,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
            skip_auto_headers=["Content-Type", "Accept", "Accept-Encoding", "User-Agent"],
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            response.headers.extend((k, v) for k, v in answer.headers.items() if k.lower() not in HOP)
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(1 << 16):
                await response.write(chunk)
            await response.write_eof()
            return response
    except (ClientError, TimeoutError, OSError) as error:
        return web.Response(status=502, text=f"{url} does not answer: {error}")


def application(settings: Settings) -> web.Application:
    """The gateway's application."""
    app = web.Application(client_max_size=1024**3)
    app[SETTINGS] = settings
    app.cleanup_ctx.append(http_session)
    app.router.add_route("*", "/{path:.*}", proxy)
    return app
