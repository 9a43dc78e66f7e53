"""Stand-in for Cytomine's core: the application, and its start.

Core needs the migrated database and mongo when it starts. Where one is missing upstream's process does not end:
it lives on with its port closed, and only a probe brings it back. The stand-in does the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import psycopg
from aiohttp import ClientError, web
from psycopg_pool import PoolTimeout

from . import (
    annotation_lists,
    annotation_terms,
    annotations,
    auth,
    images,
    metadata,
    ontologies,
    pixels,
    projects,
    records,
    reviews,
    schema,
    slices,
    storages,
    tags,
    users,
)
from .database import POOL, connect, open_pool
from .errors import Broken, answer
from .settings import Settings
from .web import (
    BODY_LIMIT,
    HTTP,
    LOG,
    SETTINGS,
    Handler,
    add_headers,
    failures,
    http_session,
    preflight,
    routes,
)

OWN = (
    users,
    projects,
    annotation_lists,
    annotation_terms,
    reviews,
    metadata,
    slices,
    images,
    pixels,
    annotations,
)
FORWARDED = (records, ontologies, storages, tags)


async def ping(request: web.Request) -> web.Response:
    """GET /server/ping, the probe."""
    settings = request.app[SETTINGS]
    return answer(
        {"alive": True, "version": "0.0.0", "serverURL": settings.server_url, "serverID": settings.server_id}
    )


async def forward(request: web.Request) -> web.Response:
    """Pass a call on to the repository service, in the caller's name."""
    user = auth.caller(request)
    url = request.app[SETTINGS].repository_url + request.path_qs
    head = {records.USER_HEADER: str(user.id)}
    if "Content-Type" in request.headers:
        head["Content-Type"] = request.headers["Content-Type"]
    try:
        async with request.app[HTTP].request(
            request.method, url, data=await request.read() or None, headers=head
        ) as response:
            content = await response.read()
            return web.Response(body=content, status=response.status, content_type=response.content_type)
    except (ClientError, TimeoutError, OSError) as error:
        raise Broken(f"no repository at {url}: {error}") from None


async def search(request: web.Request) -> web.Response:
    """GET /api/meilisearch/…: there is no text search here, and upstream's core fails where it finds none."""
    auth.caller(request)
    raise Broken("no text search")


async def _pool(app: web.Application):
    app[POOL] = await open_pool(app[SETTINGS])
    yield
    await app[POOL].close()


def application(settings: Settings) -> web.Application:
    """Core's application; ``start`` below checks first what it needs."""
    app = web.Application(middlewares=[preflight, failures, auth.authenticate], client_max_size=BODY_LIMIT)
    app[SETTINGS] = settings
    app[auth.SESSIONS], app[auth.KEYSET] = auth.Sessions(), auth.KeySet()
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(http_session)
    app.cleanup_ctx.append(_pool)
    routes(app, [("GET", "/server/ping", ping), *auth.ROUTES])
    forwarded: Iterable[tuple[str, str, Handler]] = (
        (m, p, forward) for part in FORWARDED for m, p, _ in part.ROUTES
    )
    own: list[tuple[str, str, Handler]] = [row for part in OWN for row in part.ROUTES]
    own.append(("GET", "/api/meilisearch/{rest:.+}", search))
    # Fixed paths before those with a variable, so that /api/user/current.json is no id.
    table = sorted([*own, *forwarded], key=lambda row: "{" in row[1])
    routes(app, table)
    return app


async def check(settings: Settings) -> str | None:
    """What keeps core from starting, as one sentence, or None."""
    if not settings.repository_url:
        return "REPOSITORY_URL is not set"
    try:
        conn = await connect(settings)
        async with conn:
            if not await schema.current(conn):
                return (
                    "the database's schema is missing or old; the repository service has to migrate it first"
                )
    except (psycopg.Error, PoolTimeout, OSError) as error:
        return f"no database at {settings.pg_host}:{settings.pg_port}: {' '.join(str(error).split())}"
    try:
        opening = asyncio.open_connection(settings.mongo_host, settings.mongo_port)
        _, writer = await asyncio.wait_for(opening, settings.connect_timeout)
        writer.close()
    except (OSError, asyncio.TimeoutError) as error:
        return f"no mongo at {settings.mongo_host}:{settings.mongo_port}: {error or 'no answer'}"
    return None


async def ready(settings: Settings) -> bool:
    """Whether core may start; the reason why not is in the log."""
    reason = await check(settings)
    if reason is None:
        return True
    LOG.error("Application run failed: %s. The process lives on with its port closed, as upstream's.", reason)
    return False
