"""Stand-in for Cytomine's web-ui: a small page at the same place, and the configuration that the real one reads."""

from __future__ import annotations

import hashlib
from email.utils import formatdate

from aiohttp import web

from .errors import answer
from .settings import Settings, env
from .web import SETTINGS

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Cytomine (stand-in)</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:1rem/1.5 sans-serif;margin:3rem auto;max-width:40rem;padding:0 1rem}</style></head>
<body><main><h1>Cytomine (stand-in)</h1>
<p>This page stands in for Cytomine's user interface on machines that cannot pull its images.
The API of this stack works: use the Python client.</p>
<p role="status" id="core">Asking the server…</p></main>
<script>
fetch("/server/ping").then(r => r.ok ? r.json() : Promise.reject(r.status))
  .then(p => document.getElementById("core").textContent = "The server at " + p.serverURL + " is alive.")
  .catch(e => document.getElementById("core").textContent = "The server does not answer (" + e + ").");
</script></body></html>
"""
STARTED = formatdate(usegmt=True)


async def configuration(_: web.Request) -> web.Response:
    """GET /configuration.json, from the variables of upstream's image."""
    numbers = {
        "DIGITAL_ZOOM_INCREMENT": 3,
        "VIEWER_ANNOTATIONS_REFRESH_INTERVAL": 3000,
        "MEMBERS_ACTIVITY_REFRESH_INTERVAL": 30000,
        "STORAGE_REFRESH_INTERVAL": 30000,
        "ONGOING_UPLOAD_REFRESH_INTERVAL": 3000,
        "WS_POSITION_KEEP_ALIVE_INTERVAL": 30000,
    }
    names = (
        "CYTOMINE_COMMERCIAL_VERSION",
        "CORE_URL",
        "IAM_URL",
        "PIMS_URL",
        "APPENGINE_URL",
        "CBIR_URL",
        "SAM_URL",
    )
    flags = {"APPENGINE_ENABLED": env("APPENGINE_ENABLED").lower() == "true"}
    body = {**numbers, **{name: env(name) for name in names}, **flags}
    return answer(body)


async def page(request: web.Request) -> web.Response:
    """GET / and, as the real one for its routes, any other path."""
    etag = hashlib.sha256(PAGE.encode()).hexdigest()[:16]
    head = {"ETag": f'"{etag}"', "Last-Modified": STARTED}
    return web.Response(
        body=PAGE.encode() if request.method == "GET" else None, content_type="text/html", headers=head
    )


def application(settings: Settings) -> web.Application:
    """The web-ui's application."""
    app = web.Application()
    app[SETTINGS] = settings
    app.router.add_get("/configuration.json", configuration)
    app.router.add_get("/{path:.*}", page)
    return app
