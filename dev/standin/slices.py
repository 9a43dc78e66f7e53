"""Stand-in for Cytomine's core: slices, the single planes of an image."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .access import read_project
from .auth import User, caller
from .database import Connection, Row, epoch_text, every, next_id, one, transaction
from .errors import answer, refused, rejected
from .images import find_abstract, find_instance
from .web import body, command, cut, ident

SELECT_ABSTRACT = (
    "SELECT s.*, f.filename AS path FROM abstract_slice s JOIN uploaded_file f ON f.id = s.uploaded_file_id "
)
SELECT_INSTANCE = """
SELECT s.*, a.channel, a.z_stack, a."time", a.channel_name, a.uploaded_file_id, n.project_id, n.base_image_id,
  f.filename AS path, i.width, i.height
FROM slice_instance s JOIN abstract_slice a ON a.id = s.base_slice_id JOIN image_instance n ON n.id = s.image_id
JOIN uploaded_file f ON f.id = a.uploaded_file_id JOIN abstract_image i ON i.id = n.base_image_id
"""


def shown(row: Row, kind: str, **extra: Any) -> dict[str, Any]:
    """A slice as core shows it."""
    return {
        "class": f"be.cytomine.domain.image.{kind}",
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "image": row["image_id"],
        "uploadedFile": row["uploaded_file_id"],
        "path": row["path"],
        "channel": row["channel"],
        "zStack": row["z_stack"],
        "time": row["time"],
        "rank": 0,
        "channelName": row["channel_name"],
        "channelColor": None,
        "zName": None,
        **extra,
    }


def _instance(row: Row) -> dict[str, Any]:
    return shown(row, "SliceInstance", project=row["project_id"], baseSlice=row["base_slice_id"])


async def find_slice(conn: Connection, user: User, number: int) -> Row:
    """A slice instance that the caller may read, or the failure."""
    row = await one(conn, SELECT_INSTANCE + "WHERE s.id = %s", number)
    if row is None:
        raise refused(404, f"SliceInstance {number} not found")
    await read_project(conn, user, row["project_id"], proxy=True)
    return row


async def find_abstract_slice(conn: Connection, user: User, number: int) -> Row:
    """An abstract slice that the caller may read, or the failure."""
    row = await one(conn, SELECT_ABSTRACT + "WHERE s.id = %s", number)
    if row is None:
        raise refused(404, f"AbstractSlice {number} not found")
    image = await find_abstract(conn, user, row["image_id"])
    return {**row, "width": image["width"], "height": image["height"]}


async def fetch(request: web.Request) -> web.Response:
    """GET /api/sliceinstance/{id}.json."""
    async with transaction(request) as conn:
        return answer(_instance(await find_slice(conn, caller(request), ident(request))))


async def of_image(request: web.Request) -> web.Response:
    """GET the slices of an image instance."""
    async with transaction(request) as conn:
        image = await find_instance(conn, caller(request), ident(request))
        rows = await every(conn, SELECT_INSTANCE + "WHERE s.image_id = %s ORDER BY s.id", image["id"])
    return cut(request, [_instance(r) for r in rows])


async def reference(request: web.Request) -> web.Response:
    """GET the slice on which annotations without a slice are put: the first."""
    async with transaction(request) as conn:
        image = await find_instance(conn, caller(request), ident(request))
        row = await one(conn, SELECT_INSTANCE + "WHERE s.image_id = %s ORDER BY s.id", image["id"])
    if row is None:
        raise refused(404, f"SliceInstance {{image={image['id']}}} not found")
    return answer(_instance(row))


async def of_abstract(request: web.Request) -> web.Response:
    """GET the slices of an abstract image."""
    async with transaction(request) as conn:
        image = await find_abstract(conn, caller(request), ident(request))
        rows = await every(conn, SELECT_ABSTRACT + "WHERE s.image_id = %s ORDER BY s.id", image["id"])
    return cut(request, [shown(r, "AbstractSlice") for r in rows])


async def create(request: web.Request) -> web.Response:
    """POST /api/abstractslice.json, which the image server sends in the uploader's name."""
    user, data = caller(request), await body(request)
    async with transaction(request) as conn:
        image = await one(conn, "SELECT id FROM abstract_image WHERE id = %s", data.get("image"))
        if image is None:
            raise rejected(400, f"image was not found with id: {data.get('image')}")
        owner = await find_abstract(conn, user, image["id"])
        number = await next_id(conn)
        await conn.execute(
            """INSERT INTO abstract_slice (id, image_id, uploaded_file_id, channel, z_stack, "time", channel_name)
               VALUES (%s, %s, %s, %s, %s, %s, %s)""",
            (
                *(number, image["id"], owner["uploaded_file_id"]),
                *(data.get(n, 0) for n in ("channel", "zStack", "time")),
                data.get("channelName"),
            ),
        )
        payload = shown(await find_abstract_slice(conn, user, number), "AbstractSlice")
        return command("abstractSlice", "Add", payload, f"Slice {number} added", await next_id(conn))


ROUTES = [
    ("GET", "/api/sliceinstance/{id}.json", fetch),
    ("GET", "/api/imageinstance/{id}/sliceinstance.json", of_image),
    ("GET", "/api/imageinstance/{id}/sliceinstance/reference.json", reference),
    ("GET", "/api/abstractimage/{id}/abstractslice.json", of_abstract),
    ("POST", "/api/abstractslice.json", create),
]
