"""Stand-in for Cytomine's repository: storages and uploaded files."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

from typing import Any

from aiohttp import web

from .database import Connection, Row, every, one, transaction
from .errors import Broken, answer
from .records import caller, dates, done, listed, mark_deleted, missing, text_field, update_fields
from .web import SETTINGS, body, ident

OWN = "(SELECT id FROM storage WHERE user_id = %s)"
FILE_COLUMNS = {
    "filename": "filename",
    "originalFilename": "original_filename",
    "ext": "ext",
    "contentType": "content_type",
    "size": "size",
    "status": "status",
    "projects": "projects",
    "parent": "parent_id",
}


def storage(row: Row) -> dict[str, Any]:
    """A storage as the repository shows it."""
    return {
        "id": row["id"],
        "userId": row["user_id"],
        "name": row["name"],
        **dates(row),
        "dataType": "STORAGE",
    }


async def _storage(request: web.Request, conn: Connection, number: int) -> Row:
    who = await caller(request, conn)
    row = await one(conn, "SELECT * FROM storage WHERE id = %s", number)
    if row is None or not (who.admin or row["user_id"] == who.id):
        raise missing(request, "storage", number)
    return row


async def storage_list(request: web.Request) -> web.Response:
    """GET /api/storage.json: everybody's for an administrator, else one's own."""
    async with transaction(request) as conn:
        who = await caller(request, conn)
        rows = await every(
            conn,
            "SELECT * FROM storage WHERE deleted IS NULL AND (%s OR user_id = %s) ORDER BY created, id",
            *(who.admin, who.id),
        )
    return listed(request, [storage(r) for r in rows])


async def storage_fetch(request: web.Request) -> web.Response:
    """GET /api/storage/{id}.json."""
    async with transaction(request) as conn:
        row = await _storage(request, conn, ident(request))
    if row["deleted"]:
        raise missing(request, "storage", row["id"])
    return answer(storage(row))


async def storage_create(request: web.Request) -> web.Response:
    """POST /api/storage.json."""
    data = await body(request)
    async with transaction(request) as conn:
        who = await caller(request, conn)
        row = await one(
            conn,
            "INSERT INTO storage (name, user_id) VALUES (%s, %s) RETURNING *",
            text_field(data, "name"),
            who.id,
        )
    assert row is not None
    return answer(done("Storage", "Add", storage(row)))


async def storage_update(request: web.Request) -> web.Response:
    """PUT /api/storage/{id}.json."""
    async with transaction(request) as conn:
        number = (await _storage(request, conn, ident(request)))["id"]
        await update_fields(request, conn, "storage", {"name": "name"}, number)
        return answer(done("Storage", "Edit", storage(await _storage(request, conn, number))))


async def storage_delete(request: web.Request) -> web.Response:
    """DELETE /api/storage/{id}.json."""
    async with transaction(request) as conn:
        number = (await _storage(request, conn, ident(request)))["id"]
        await mark_deleted(conn, "storage", number)
        return answer(done("Storage", "Delete", storage(await _storage(request, conn, number))))


async def uploaded(request: web.Request, conn: Connection, row: Row, thumb: bool = True) -> dict[str, Any]:
    """An uploaded file as the repository shows it."""
    image = await one(
        conn, "SELECT id FROM abstract_image WHERE uploaded_file_id = %s ORDER BY id", row["id"]
    )
    url = (
        f"{request.app[SETTINGS].server_url}/api/abstractimage/{image['id']}/thumb.png"
        if image and thumb
        else None
    )
    return {
        "id": row["id"],
        "user": row["user_id"],
        "parent": row["parent_id"],
        "storage": row["storage_id"],
        "filename": row["filename"],
        "originalFilename": row["original_filename"],
        "ext": row["ext"],
        "contentType": row["content_type"],
        "size": row["size"],
        "path": row["filename"],
        "status": row["status"],
        "projects": row["projects"],
        **dates(row),
        "thumbnailUrl": url,
        "dataType": "UPLOADED_FILE",
    }


async def _file(request: web.Request, conn: Connection, number: int) -> Row:
    who = await caller(request, conn)
    row = await one(
        conn,
        f"SELECT * FROM uploaded_file WHERE id = %s AND (%s OR storage_id IN {OWN})",
        *(number, who.admin, who.id),
    )
    if row is None:
        raise missing(request, "uploaded file", number)
    return row


async def file_list(request: web.Request) -> web.Response:
    """GET /api/uploadedfile.json, newest first unless ``sort`` says else; ``parent`` is ignored."""
    # Upstream ignores `order` where it gets `sort`.
    way = "ASC" if request.query.get("sort") else "DESC"
    async with transaction(request) as conn:
        who = await caller(request, conn)
        rows = await every(
            conn,
            f"""SELECT * FROM uploaded_file WHERE deleted IS NULL AND (%s OR storage_id IN {OWN})
                ORDER BY id {way}""",
            *(who.admin, who.id),
        )
        return listed(request, [await uploaded(request, conn, r) for r in rows])


async def file_fetch(request: web.Request) -> web.Response:
    """GET /api/uploadedfile/{id}.json."""
    async with transaction(request) as conn:
        row = await _file(request, conn, ident(request))
        if row["deleted"]:
            raise missing(request, "uploaded file", row["id"])
        return answer(await uploaded(request, conn, row))


async def file_create(request: web.Request) -> web.Response:
    """POST /api/uploadedfile.json, which the image server sends in the uploader's name."""
    data = await body(request)
    async with transaction(request) as conn:
        who = await caller(request, conn)
        store = data.get("storage")
        if not isinstance(store, int):
            raise Broken("no storage")
        await _storage(request, conn, store)
        names = [n for n in FILE_COLUMNS if data.get(n) is not None]
        columns = ", ".join(FILE_COLUMNS[n] for n in names)
        row = await one(
            conn,
            f"""INSERT INTO uploaded_file (user_id, storage_id, {columns})
                VALUES (%s, %s, {", ".join(["%s"] * len(names))}) RETURNING *""",
            *(who.id, store, *(data[n] for n in names)),
        )
        assert row is not None
        return answer(done("UploadedFile", "Add", await uploaded(request, conn, row)))


async def file_update(request: web.Request) -> web.Response:
    """PUT /api/uploadedfile/{id}.json: the image server tells how the import goes."""
    async with transaction(request) as conn:
        number = (await _file(request, conn, ident(request)))["id"]
        await update_fields(request, conn, "uploaded_file", FILE_COLUMNS, number)
        row = await _file(request, conn, number)
        return answer(done("UploadedFile", "Edit", await uploaded(request, conn, row)))


async def file_delete(request: web.Request) -> web.Response:
    """DELETE /api/uploadedfile/{id}.json, even where its image is in a project."""
    async with transaction(request) as conn:
        number = (await _file(request, conn, ident(request)))["id"]
        await mark_deleted(conn, "uploaded_file", number)
        row = await _file(request, conn, number)
        return answer(done("UploadedFile", "Delete", await uploaded(request, conn, row, thumb=False)))


ROUTES = [
    ("GET", "/api/storage.json", storage_list),
    ("POST", "/api/storage.json", storage_create),
    ("GET", "/api/storage/{id}.json", storage_fetch),
    ("PUT", "/api/storage/{id}.json", storage_update),
    ("DELETE", "/api/storage/{id}.json", storage_delete),
    ("GET", "/api/uploadedfile.json", file_list),
    ("POST", "/api/uploadedfile.json", file_create),
    ("GET", "/api/uploadedfile/{id}.json", file_fetch),
    ("PUT", "/api/uploadedfile/{id}.json", file_update),
    ("DELETE", "/api/uploadedfile/{id}.json", file_delete),
]
