"""Stand-in for Cytomine's image server (PIMS): uploads, health, and the pixels that core asks for.

As upstream's it serves pixels without asking who calls: nothing but core, and the gateway for the paths of the
upload, may ever reach it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web

from . import faults, slide
from .errors import answer
from .settings import Settings
from .uploads import upload
from .web import LOG, SETTINGS, Handler, http_session

FORMATS = {
    "BMP": "BMP",
    "JPEG": "JPEG",
    "OMETIFF": "OME-TIFF",
    "PLANARTIFF": "Planar TIFF",
    "PNG": "PNG",
    "PYRTIFF": "Pyramidal TIFF",
    "SVS": "Leica Aperio SVS",
    "WEBP": "WebP",
    "WSIDICOM": "WSI Dicom",
}
BUSY: web.AppKey[asyncio.Semaphore] = web.AppKey("busy", asyncio.Semaphore)


async def ping(_: web.Request) -> web.Response:
    """GET /ims/ping, the liveness probe."""
    return answer({"ping": "pong"})


async def disk_usage(request: web.Request) -> web.Response:
    """GET /ims/disk-usage, the readiness probe: fails where the image volume is not there."""
    root = Path(request.app[SETTINGS].images)
    usage = await asyncio.to_thread(shutil.disk_usage, root)
    own = await asyncio.to_thread(lambda: sum(p.stat().st_size for p in root.rglob("*") if p.is_file()))
    body = {
        "mount_point": str(root),
        "mount_available_size": usage.free,
        "mount_total_size": usage.total,
        "mount_used_size": usage.used,
        "mount_used_size_percentage": round(100 * usage.used / usage.total, 2),
        "used_size": own,
        "used_size_percentage": round(100 * own / usage.total, 4),
    }
    return answer(body)


async def formats(_: web.Request) -> web.Response:
    """GET /ims/formats: those that the stand-in reads."""
    fixed = {"remarks": "", "convertible": False, "readable": True, "writable": False, "importable": True}
    items = [{"id": i, "name": n, **fixed, "plugin": "pims.formats.common"} for i, n in FORMATS.items()]
    return answer({"items": items, "size": len(items)})


async def info(request: web.Request) -> web.Response:
    """GET /ims/info: version and settings; those that mean nothing here have upstream's type and no value."""
    settings = request.app[SETTINGS]
    texts = {
        "api_base_path": settings.pims_base,
        "root": settings.images,
        "dataset_path": settings.datasets,
        "pending_path": settings.pending,
        "writing_path": settings.writing,
        "checker_resolution_file": "",
        "default_image_size_safety_mode": "SAFE_REJECT",
        "default_annotation_origin": "LEFT_TOP",
        "internal_url_core": settings.core_url,
        "cache_url": "",
        "task_queue_url": "",
        "meilisearch_url": "",
        "meilisearch_key": "",
    }
    flags = ("cache_enabled", "cache_image_format_metadata", "cache_image_responses", "cache_responses")
    flags += ("task_queue_enabled", "auto_delete_multi_file_format_archive", "auto_delete_collection_archive")
    numbers = (
        "image_response_cache_control_max_age",
        "max_pixels_complete_histogram",
        "vips_cache_max_items",
    )
    numbers += ("max_length_complete_histogram", "vips_cache_max_memory", "vips_cache_max_files")
    body = {
        **texts,
        **dict.fromkeys((*flags, "auto_delete_failed_upload"), False),
        **dict.fromkeys(numbers, 0),
        "output_size_limit": 10000,
    }
    return answer({"version": "0.0.0-standin", "settings": body})


def _file(request: web.Request) -> Path:
    root = Path(request.app[SETTINGS].images).resolve()
    path = (root / request.match_info["path"]).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise web.HTTPNotFound(text=json.dumps({"detail": "not found"}), content_type="application/json")
    return path


def _render(kind: str, path: Path, data: dict[str, Any], accept: str) -> tuple[bytes, str]:
    channel = data.get("channel")
    if kind in ("thumb", "resized"):
        image = slide.thumb(path, data["length"], channel)
    elif kind == "window":
        image = slide.window(path, data["box"], channel)
    elif kind == "normalized-tile":
        image = slide.tile(path, data["zoom"], data["tx"], data["ty"], channel)
    else:
        image = slide.annotation(path, data)
    return slide.encode(image, accept)


def _cut(request: web.Request) -> web.Response:
    """End the connection without an answer, as upstream's worker does that ends."""
    LOG.error("Worker was sent SIGSEGV at %s", request.path)
    if request.transport:
        request.transport.abort()
    return web.Response()


async def associated(request: web.Request) -> web.Response:
    """GET /ims/image/{path}/associated/{label}: the stand-in reads none."""
    if await asyncio.to_thread(slide.has_thumbnail, _file(request)):
        return _cut(request)
    return answer({"detail": "not found"}, status=404)


async def pixels(request: web.Request) -> web.Response:
    """POST /ims/image/{path}/{thumb,resized,window,normalized-tile,annotation}: internal, between the stand-ins.

    Upstream's thumb takes the file's own thumbnail where it has one, and with Debian's libraries its worker ends there.
    """
    path, kind, data = _file(request), request.match_info["what"], await request.json()
    if kind == "thumb" and await asyncio.to_thread(slide.has_thumbnail, path):
        return _cut(request)
    try:
        async with faults.worker(request.app), request.app[BUSY]:
            content, content_type = await asyncio.to_thread(
                _render, kind, path, data, request.headers.get("Accept", "")
            )
    except (slide.Unreadable, KeyError, ValueError) as error:
        return answer({"detail": str(error)}, status=400)
    return web.Response(body=content, content_type=content_type)


async def metadata(request: web.Request) -> web.Response:
    """POST /ims/image/{path}/metadata: internal, between the stand-ins."""
    return answer(await asyncio.to_thread(slide.metadata, _file(request)))


async def export(request: web.Request) -> web.FileResponse:
    """GET /ims/image/{path}/export: the stored file."""
    return web.FileResponse(_file(request))


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The traceback of the unforeseen goes to the log."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:
        LOG.exception("%s %s failed", request.method, request.path)
        return answer({"detail": "Internal Server Error"}, status=500)


def prepare(settings: Settings) -> str | None:
    """Check the log's settings and that the image volume can be written; what went wrong as one sentence, or None."""
    try:
        Path(settings.log_config).read_bytes()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return _unwritable(settings.images) or _unwritable(settings.writing)


def _unwritable(folder: str) -> str | None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / ".standin-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"the folder {folder} cannot be written: {error}"
    return None


def application(settings: Settings) -> web.Application:
    """The image server's application; ``prepare`` comes first."""
    app = web.Application(middlewares=[failures], client_max_size=1024**3)
    app[SETTINGS] = settings
    app[BUSY] = asyncio.Semaphore(2)
    app.cleanup_ctx.append(http_session)
    base = settings.pims_base
    app.router.add_get(f"{base}/ping", ping)
    app.router.add_get(f"{base}/disk-usage", disk_usage)
    app.router.add_get(f"{base}/formats", formats)
    app.router.add_get(f"{base}/info", info)
    app.router.add_post(f"{base}/upload", upload)
    what = "{what:thumb|resized|window|normalized-tile|annotation}"
    app.router.add_post(f"{base}/image/{{path:.+}}/{what}", pixels)
    app.router.add_post(f"{base}/image/{{path:.+}}/metadata", metadata)
    app.router.add_get(f"{base}/image/{{path:.+}}/export", export)
    app.router.add_get(f"{base}/image/{{path:.+}}/associated/{{label}}", associated)
    return app
