"""Stand-in for Cytomine's similarity search (cbir): takes every call and finds nothing.

It reads bodies to their end, chunked ones too: core fails where they are cut.
"""

from __future__ import annotations

from aiohttp import web

from .errors import answer
from .settings import Settings
from .web import SETTINGS


async def health(_: web.Request) -> web.Response:
    """GET /health, the probe."""
    return answer({"status": "ok"})


async def accept(request: web.Request) -> web.Response:
    """Any call below /cbir/."""
    async for _ in request.content.iter_chunked(1 << 16):
        pass
    return answer({})


async def search(request: web.Request) -> web.Response:
    """POST /cbir/search: nothing is similar."""
    await accept(request)
    return answer({"query": "", "index": "annotation", "storage": [], "similarities": []})


def application(settings: Settings) -> web.Application:
    """The similarity search's application."""
    app = web.Application(client_max_size=1024**3)
    app[SETTINGS] = settings
    app.router.add_get("/health", health)
    app.router.add_post("/cbir/search", search)
    app.router.add_route("*", "/cbir/{path:.*}", accept)
    return app
