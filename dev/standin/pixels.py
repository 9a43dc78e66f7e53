"""Stand-in for Cytomine's core: thumbs, windows, crops and tiles, which it gets from the image server."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from aiohttp import ClientError, web

from .access import read_project
from .auth import User, caller, token_user
from .database import Connection, Row, one, transaction
from .errors import Broken, refused
from .images import find_abstract, find_instance
from .slices import find_abstract_slice, find_slice
from .web import HTTP, SETTINGS, collection, ident, number, required

# Upstream knows these; anything else (a crop asked as tif) comes as JPEG.
TYPES = {"png": "image/png", "webp": "image/webp"}
KINDS = "imageinstance|abstractimage|sliceinstance|abstractslice"


async def ask(
    request: web.Request, path: str, rest: str, data: dict[str, Any], extension: str = "png"
) -> web.Response:
    """Ask the image server for pixels; whatever fails there is a server error upstream."""
    settings = request.app[SETTINGS]
    url = f"{settings.pims_url}{settings.pims_base}/image/{quote(path)}/{rest}"
    accept = TYPES.get(extension, "image/jpeg")
    try:
        async with request.app[HTTP].post(url, json=data, headers={"Accept": accept}) as response:
            content = await response.read()
            if response.status != 200:
                raise Broken(f"image server answered {response.status} to {rest}")
    except (ClientError, TimeoutError, OSError) as error:
        raise Broken(f"no image server at {url}: {error}") from None
    return web.Response(body=content, content_type=response.content_type)


async def locate(request: web.Request, conn: Connection, user: User | None) -> Row:
    """The image or slice of the path, if the caller may read it."""
    kind, wanted = request.match_info["kind"], ident(request)
    if kind == "imageinstance":
        return await find_instance(conn, user, wanted)
    if user is None:
        raise Broken("no caller")
    find = {"abstractimage": find_abstract, "sliceinstance": find_slice, "abstractslice": find_abstract_slice}
    return await find[kind](conn, user, wanted)


def small(request: web.Request) -> str:
    """How core asks the image server for a small picture: with ``bits`` it makes one, else it may take the file's own."""
    bits = request.query.get("bits")
    if bits in (None, "max"):
        return "thumb"
    if not bits.isdecimal():
        raise Broken(f"bits is no number: {bits}")
    return "resized"


async def thumb(request: web.Request) -> web.Response:
    """GET …/thumb.{ext}: images want the token as parameter ``authorization``, slices as header."""
    images = request.match_info["kind"] in ("imageinstance", "abstractimage")
    user = await token_user(request) if images else caller(request)
    if user is None:
        raise Broken("the parameter authorization is missing")
    async with transaction(request) as conn:
        row = await locate(request, conn, user)
    size = number(request, "maxSize", 512)
    data = {"length": size, "channel": row.get("channel")}
    return await ask(request, row["path"], small(request), data, request.match_info["ext"])


async def preview(request: web.Request) -> web.Response:
    """GET …/preview.{ext}: the other way round, it wants the header."""
    user = caller(request)
    async with transaction(request) as conn:
        row = await locate(request, conn, user)
    size = number(request, "maxSize", 1024)
    data = {"length": size, "channel": row.get("channel")}
    return await ask(request, row["path"], small(request), data, request.match_info["ext"])


async def window(request: web.Request) -> web.Response:
    """GET …/window-x-y-w-h.{ext} from the top left, always in full size: maxSize and masks are ignored."""
    user = caller(request)
    box = [int(request.match_info[n]) for n in "xywh"]
    async with transaction(request) as conn:
        row = await locate(request, conn, user)
    # Of an image with several channels the window shows the reference slice, the first.
    data = {"box": box, "channel": row.get("channel", 0)}
    return await ask(request, row["path"], "window", data, request.match_info["ext"])


async def tile(request: web.Request) -> web.Response:
    """GET …/normalized-tile/zoom/{zoom}/tx/{tx}/ty/{ty}.{ext}; zoom 0 is the smallest level."""
    user = caller(request)
    place = {n: int(request.match_info[n]) for n in ("zoom", "tx", "ty")}
    async with transaction(request) as conn:
        row = await locate(request, conn, user)
    data = {**place, "channel": row["channel"]}
    return await ask(request, row["path"], "normalized-tile", data, request.match_info["ext"])


async def annotation_pixels(conn: Connection, annotation: int) -> Row:
    """Path and channel of the slide and the geometry, with its origin at the top left, as GeoJSON."""
    row = await one(
        conn,
        """SELECT a.id, a.project_id, f.filename AS path, c.channel,
             ST_AsGeoJSON(ST_Translate(ST_Scale(a.location, 1, -1), 0, i.height), 6) AS shape
           FROM (SELECT id, project_id, image_id, slice_id, location FROM user_annotation
                 UNION ALL SELECT id, project_id, image_id, slice_id, location FROM reviewed_annotation) a
           JOIN slice_instance s ON s.id = a.slice_id JOIN abstract_slice c ON c.id = s.base_slice_id
           JOIN image_instance n ON n.id = a.image_id JOIN abstract_image i ON i.id = n.base_image_id
           JOIN uploaded_file f ON f.id = i.uploaded_file_id WHERE a.id = %s""",
        annotation,
    )
    if row is None:
        raise refused(404, f"UserAnnotation {annotation} not found")
    return row


async def crop(request: web.Request) -> web.Response:
    """GET …/{crop,mask,alphamask}.{ext} of an annotation."""
    user, info = caller(request), request.match_info
    async with transaction(request) as conn:
        row = await annotation_pixels(conn, ident(request))
        await read_project(conn, user, row["project_id"], proxy=True)
    query = request.query
    options = {
        "shape": json.loads(row["shape"]),
        "mode": info["mode"],
        "channel": row["channel"],
        "length": number(request, "maxSize") or None,
        "zoom": number(request, "zoom"),
        "factor": float(query.get("increaseArea") or 1),
        "contrast": float(query.get("contrast") or 1),
        "gamma": float(query.get("gamma") or 1),
        "inverse": query.get("inverse", "").lower() == "true",
    }
    return await ask(request, row["path"], "annotation", options, info["ext"])


async def associated(request: web.Request) -> web.Response:
    """GET …/associated/{label}.{ext}: wants the token as parameter ``authorization``."""
    user = await token_user(request)
    if user is None:
        raise Broken("the parameter authorization is missing")
    async with transaction(request) as conn:
        row = await locate(request, conn, user)
    settings = request.app[SETTINGS]
    path = f"{quote(row['path'])}/associated/{quote(request.match_info['label'])}"
    try:
        async with request.app[HTTP].get(f"{settings.pims_url}{settings.pims_base}/image/{path}") as source:
            raise Broken(f"image server answered {source.status}")
    except (ClientError, TimeoutError, OSError) as error:
        raise Broken(f"Unexpected end of file from server: {error}") from None


async def download(request: web.Request) -> web.StreamResponse:
    """GET …/download: wants the token as parameter ``authorization``, which the client does not send."""
    required(request, "authorization")
    user = await token_user(request)
    if user is None:
        raise Broken("the token names no user")
    kind, wanted = request.match_info["kind"], ident(request)
    async with transaction(request) as conn:
        if kind == "uploadedfile":
            image = await one(conn, "SELECT id FROM abstract_image WHERE uploaded_file_id = %s", wanted)
            if image is None:
                raise refused(404, f"UploadedFile {wanted} not found")
            row = await find_abstract(conn, user, image["id"])
        elif kind == "abstractimage":
            row = await find_abstract(conn, user, wanted)
        else:
            row = await find_instance(conn, user, wanted)
    name = row["original_filename"].replace('"', "")
    settings = request.app[SETTINGS]
    url = f"{settings.pims_url}{settings.pims_base}/image/{quote(row['path'])}/export"
    disposition = f'form-data; name="attachment"; filename="{name}"'
    content_type = "application/octet-stream"
    if kind == "abstractimage":
        disposition, content_type = f'attachment; filename="{name}"', f"image/{row['content_type'].lower()}"
    async with request.app[HTTP].get(url) as source:
        if source.status != 200:
            raise Broken(f"image server answered {source.status}")
        known = {name: source.headers[name] for name in ("ETag", "Last-Modified") if name in source.headers}
        passed = known if kind == "abstractimage" else {}
        response = web.StreamResponse(headers={"Content-Disposition": disposition, **passed})
        response.content_type = content_type
        await response.prepare(request)
        async for chunk in source.content.iter_chunked(1 << 16):
            await response.write(chunk)
        await response.write_eof()
    return response


async def metadata(request: web.Request) -> web.Response:
    """GET /api/imageinstance/{id}/metadata.json."""
    async with transaction(request) as conn:
        row = await find_instance(conn, caller(request), ident(request))
    response = await ask(request, row["path"], "metadata", {})
    return collection(json.loads(response.body or b"[]"))  # type: ignore[arg-type]


ROUTES = [
    ("GET", f"/api/{{kind:{KINDS}}}/{{id}}/thumb.{{ext}}", thumb),
    ("GET", f"/api/{{kind:{KINDS}}}/{{id}}/preview.{{ext}}", preview),
    ("GET", "/api/{kind:imageinstance|abstractimage}/{id}/associated/{label}.{ext}", associated),
    ("GET", f"/api/{{kind:{KINDS}}}/{{id}}" + r"/window-{x:-?\d+}-{y:-?\d+}-{w:\d+}-{h:\d+}.{ext}", window),
    (
        "GET",
        r"/api/{kind:sliceinstance|abstractslice}/{id}/normalized-tile/zoom/{zoom:\d+}/tx/{tx:\d+}/ty/{ty:\d+}.{ext}",
        tile,
    ),
    (
        "GET",
        r"/api/{kind:userannotation|annotation|reviewedannotation}/{id}/{mode:crop|mask|alphamask}.{ext}",
        crop,
    ),
    ("GET", "/api/{kind:imageinstance|abstractimage|uploadedfile}/{id}/download", download),
    ("GET", "/api/imageinstance/{id}/metadata.json", metadata),
]
