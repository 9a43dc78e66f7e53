"""Stand-in for Cytomine's repository service: migrates the database, then serves ontologies, storages and tags."""

from __future__ import annotations

from datetime import datetime, timezone

import psycopg
from aiohttp import web

from . import faults, ontologies, records, schema, storages, tags
from .database import POOL, connect, open_pool
from .errors import answer
from .settings import Settings
from .web import BODY_LIMIT, LOG, SETTINGS, Handler, failures, routes

PARTS = (records, ontologies, storages, tags)


async def ping(_: web.Request) -> web.Response:
    """GET /ping, the probe: the bare text under a JSON content type, as upstream."""
    return web.Response(body=b"pong", content_type="application/json")


async def _vary(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Vary"] = "Access-Control-Request-Headers"


@web.middleware
async def _unknown(request: web.Request, handler: Handler) -> web.StreamResponse:
    # The newer framework of this service has another form for unknown paths than core's.
    try:
        return await handler(request)
    except web.HTTPNotFound:
        now = datetime.now(timezone.utc).replace(tzinfo=None).isoformat(timespec="milliseconds")
        body = {"timestamp": now, "status": 404, "error": "Not Found", "path": request.path}
        return answer(body, 404)


async def prepare(settings: Settings) -> str | None:
    """Migrate, and write the image server's keys; what went wrong as one sentence, or None."""
    try:
        conn = await connect(settings)
        async with conn:
            await schema.migrate(conn, LOG.info, faults.before_step(settings))
            await schema.image_server(
                conn, settings.image_public_key, settings.image_private_key, settings.admin_email
            )
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        if error.sqlstate is None or error.sqlstate.startswith(("08", "28", "57P", "3D")):
            return f"no database at {settings.pg_host}:{settings.pg_port}: {text}"
        return f"migration failed: {text}"
    return None


async def _pool(app: web.Application):
    app[POOL] = await open_pool(app[SETTINGS])
    yield
    await app[POOL].close()


def application(settings: Settings) -> web.Application:
    """The repository's application; ``prepare`` comes first."""
    app = web.Application(middlewares=[failures, _unknown], client_max_size=BODY_LIMIT)
    app[SETTINGS] = settings
    app.on_response_prepare.append(_vary)
    app.cleanup_ctx.append(_pool)
    table = [row for part in PARTS for row in part.ROUTES]
    routes(app, [("GET", "/ping", ping), *sorted(table, key=lambda row: "{" in row[1])])
    return app
