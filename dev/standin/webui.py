"""Stand-in for Cytomine's web-ui: a small page at the same place, and the configuration that the real one reads.

The page's files are in web/; keycloak-js and OpenLayers come from npm, at the image's build or by ``webassets``.
"""

from __future__ import annotations

import hashlib
import mimetypes
import time
from pathlib import Path

from aiohttp import web

from .errors import answer
from .settings import Settings, env
from .web import SETTINGS

HERE = Path(__file__).resolve().parent / "web"
# The page's name for each library, and its place below node_modules.
LIBRARIES = {
    "keycloak.js": "keycloak-js/dist/keycloak.min.js",
    "ol.js": "ol/dist/ol.js",
    "ol.css": "ol/ol.css",
}
OWN = ("app.js", "api.js", "page.js", "viewer.js", "style.css")
MODULES = "STANDIN_NODE_MODULES"
STARTED = time.time()


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
    # Upstream's image says so whatever its variables say.
    flags = {"APPENGINE_ENABLED": True}
    body = {**numbers, **{name: env(name) for name in names}, **flags}
    response = answer(body)
    # Upstream's image writes a file at its start.
    response.etag = hashlib.sha256(bytes(response.body)).hexdigest()[:16]  # type: ignore[arg-type]
    response.last_modified = STARTED
    return response


def _file(path: Path, request: web.Request) -> web.Response:
    content = path.read_bytes()
    etag = hashlib.sha256(content).hexdigest()[:16]
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    response = web.Response(body=content if request.method == "GET" else None, content_type=kind)
    response.etag = etag
    response.last_modified = path.stat().st_mtime
    # The name of a file says nothing of its version.
    response.headers["Cache-Control"] = "no-cache"
    if any(known.value == etag for known in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
    response.enable_compression()
    return response


async def asset(request: web.Request) -> web.Response:
    """GET /assets/{name}: the page's own files and its libraries."""
    name = request.match_info["name"]
    if name in OWN:
        return _file(HERE / name, request)
    path = Path(env(MODULES, default="/opt/standin/node_modules")) / LIBRARIES.get(name, "none")
    if name not in LIBRARIES or not path.is_file():
        raise web.HTTPNotFound
    return _file(path, request)


async def page(request: web.Request) -> web.Response:
    """GET / and, as the real one for its routes, any other path."""
    return _file(HERE / "index.html", request)


def application(settings: Settings) -> web.Application:
    """The web-ui's application."""
    app = web.Application()
    app[SETTINGS] = settings
    app.router.add_get("/configuration.json", configuration)
    app.router.add_get("/assets/{name}", asset)
    app.router.add_get("/{path:.*}", page)
    return app
