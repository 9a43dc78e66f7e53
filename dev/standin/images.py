"""Stand-in for Cytomine's core: abstract images (uploaded slides) and their instances in projects."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import psycopg
from aiohttp import web

from .access import need_guest, read_project, read_storage
from .auth import User, caller
from .database import Connection, Row, epoch, epoch_text, every, next_id, one, transaction
from .errors import answer, refused, rejected
from .faults import keep_project
from .projects import cbir
from .pyramid import levels
from .web import SETTINGS, body, collection, command, cut, flag, ident

ABSTRACT = "be.cytomine.domain.image.AbstractImage"
INSTANCE = "be.cytomine.domain.image.ImageInstance"
SELECT_ABSTRACT = """
SELECT i.*, f.filename AS path, f.content_type, f.storage_id
FROM abstract_image i JOIN uploaded_file f ON f.id = i.uploaded_file_id
"""
SELECT_INSTANCE = """
SELECT n.*, p.name AS project_name, i.original_filename, i.width, i.height, i.depth, i.duration, i.channels,
  i.bit_per_sample, i.sample_per_pixel, i.colorspace, i.tile_size, f.filename AS path, f.content_type,
  COALESCE(n.magnification, i.magnification) AS zoomed, COALESCE(n.physical_size_x, i.physical_size_x) AS size_x,
  COALESCE(n.physical_size_y, i.physical_size_y) AS size_y, COALESCE(n.physical_size_z, i.physical_size_z) AS size_z,
  COALESCE(n.fps, i.fps) AS frames,
  (SELECT count(*) FROM user_annotation a WHERE a.image_id = n.id) AS annotations,
  (SELECT count(*) FROM reviewed_annotation a WHERE a.image_id = n.id) AS reviewed
FROM image_instance n JOIN project p ON p.id = n.project_id JOIN abstract_image i ON i.id = n.base_image_id
JOIN uploaded_file f ON f.id = i.uploaded_file_id
"""


def _common(row: Row, url: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "path": row["path"],
        "contentType": row["content_type"],
        "filename": PurePosixPath(row["path"]).name,
        "originalFilename": row["original_filename"],
        "width": row["width"],
        "height": row["height"],
        "depth": row["depth"],
        "duration": row["duration"],
        "channels": row["channels"],
        "bitPerSample": row["bit_per_sample"],
        "samplePerPixel": row["sample_per_pixel"],
        "colorspace": row["colorspace"],
        "tileSize": row["tile_size"],
        "zoom": levels(row["width"], row["height"], row["tile_size"]),
        "isVirtual": False,
        "macroURL": None,
        "thumb": f"{url}/thumb.png?maxSize=512",
        "preview": f"{url}/thumb.png?maxSize=1024",
    }


def abstract(request: web.Request, row: Row) -> dict[str, Any]:
    """An abstract image as core shows it."""
    url = f"{request.app[SETTINGS].server_url}/api/abstractimage/{row['id']}"
    return {
        **_common(row, url),
        "class": ABSTRACT,
        "uploadedFile": row["uploaded_file_id"],
        "extrinsicChannels": row["extrinsic_channels"],
        "apparentChannels": None,
        "magnification": row["magnification"],
        "physicalSizeX": row["physical_size_x"],
        "physicalSizeY": row["physical_size_y"],
        "physicalSizeZ": row["physical_size_z"],
        "fps": row["fps"],
        "inProject": False,
        "dimensions": "XY",
    }


def instance(request: web.Request, row: Row, **extra: Any) -> dict[str, Any]:
    """An image instance as core shows it."""
    url = f"{request.app[SETTINGS].server_url}/api/imageinstance/{row['id']}"
    return {
        **_common(row, url),
        "class": INSTANCE,
        "baseImage": row["base_image_id"],
        "project": row["project_id"],
        "user": row["user_id"],
        "instanceFilename": row["instance_filename"] or row["original_filename"],
        "blindedName": None,
        "extrinsicChannels": (row["sample_per_pixel"] or 1) * row["channels"],
        "magnification": row["zoomed"],
        "physicalSizeX": row["size_x"],
        "physicalSizeY": row["size_y"],
        "physicalSizeZ": row["size_z"],
        "fps": row["frames"],
        "numberOfAnnotations": row["annotations"],
        "numberOfJobAnnotations": 0,
        "numberOfReviewedAnnotations": row["reviewed"],
        "reviewStart": epoch_text(row["review_start"]),
        "reviewStop": epoch_text(row["review_stop"]),
        "reviewUser": row["review_user_id"],
        "inReview": row["review_start"] is not None and row["review_stop"] is None,
        "reviewed": row["review_stop"] is not None,
        **extra,
    }


async def find_abstract(conn: Connection, user: User, number: int) -> Row:
    """An abstract image that the caller may read (by its storage), or the failure."""
    row = await one(conn, SELECT_ABSTRACT + "WHERE i.id = %s", number)
    if row is None:
        raise refused(404, f"AbstractImage {number} not found")
    await read_storage(conn, user, row["storage_id"])
    return row


async def find_instance(conn: Connection, user: User | None, number: int, command_: bool = False) -> Row:
    """An image instance that the caller may read (by its project), or the failure."""
    row = await one(conn, SELECT_INSTANCE + "WHERE n.id = %s", number)
    if row is None:
        if command_:
            raise rejected(404, f"class {INSTANCE} {number} not found")
        raise refused(404, f"ImageInstance {number} not found")
    if user is not None:
        await read_project(conn, user, row["project_id"], proxy=True, command=command_)
    return row


async def abstract_fetch(request: web.Request) -> web.Response:
    """GET /api/abstractimage/{id}.json."""
    async with transaction(request) as conn:
        return answer(abstract(request, await find_abstract(conn, caller(request), ident(request))))


async def abstract_list(request: web.Request) -> web.Response:
    """GET /api/abstractimage.json, newest first."""
    user = caller(request)
    need_guest(user)
    async with transaction(request) as conn:
        rows = await every(
            conn,
            SELECT_ABSTRACT
            + """WHERE f.deleted IS NULL AND (%s OR f.storage_id IN (SELECT id FROM storage WHERE user_id = %s))
                 ORDER BY i.id DESC""",
            *(user.is_admin, user.id),
        )
    return cut(request, [abstract(request, r) for r in rows])


async def abstract_of_file(request: web.Request) -> web.Response:
    """GET /api/uploadedfile/{id}/abstractimage.json."""
    number = ident(request)
    async with transaction(request) as conn:
        image = await one(
            conn, "SELECT id FROM abstract_image WHERE uploaded_file_id = %s ORDER BY id", number
        )
        if image is None:
            raise refused(404, f"AbstractImage {{uploadedFile={number}}} not found")
        return answer(abstract(request, await find_abstract(conn, caller(request), image["id"])))


async def abstract_create(request: web.Request) -> web.Response:
    """POST /api/abstractimage.json, which the image server sends in the uploader's name."""
    user, data = caller(request), await body(request)
    names = {"width": "width", "height": "height", "channels": "channels", "bitPerSample": "bit_per_sample"}
    names |= {"samplePerPixel": "sample_per_pixel", "physicalSizeX": "physical_size_x"}
    names |= {"physicalSizeY": "physical_size_y", "magnification": "magnification", "tileSize": "tile_size"}
    given = [n for n in names if data.get(n) is not None]
    async with transaction(request) as conn:
        source = await one(conn, "SELECT * FROM uploaded_file WHERE id = %s", data.get("uploadedFile"))
        if source is None:
            raise rejected(400, f"uploadedFile was not found with id: {data.get('uploadedFile')}")
        await read_storage(conn, user, source["storage_id"])
        number = await next_id(conn)
        await conn.execute(
            f"""INSERT INTO abstract_image (id, uploaded_file_id, original_filename, {", ".join(names[n] for n in given)})
                VALUES (%s, %s, %s, {", ".join(["%s"] * len(given))})""",
            (
                number,
                source["id"],
                data.get("originalFilename", source["original_filename"]),
                *(data[n] for n in given),
            ),
        )
        payload = abstract(request, await find_abstract(conn, user, number))
        return command("abstractImage", "Add", payload, f"Image {number} added", await next_id(conn))


async def instance_fetch(request: web.Request) -> web.Response:
    """GET /api/imageinstance/{id}.json."""
    async with transaction(request) as conn:
        return answer(instance(request, await find_instance(conn, caller(request), ident(request))))


async def instance_list(request: web.Request) -> web.Response:
    """GET the images of a project, newest first; ``light`` gives ids and names, oldest first."""
    project, user = ident(request), caller(request)
    async with transaction(request) as conn:
        if not await one(conn, "SELECT 1 FROM project WHERE id = %s", project):
            raise refused(404, f"Project {project} not found")
        await read_project(conn, user, project)
        light = flag(request.query, "light")
        way = "ASC" if light or request.query.get("order", "").lower() == "asc" else "DESC"
        rows = await every(conn, f"{SELECT_INSTANCE} WHERE n.project_id = %s ORDER BY n.id {way}", project)
    if light:
        name = {r["id"]: r["instance_filename"] or r["original_filename"] for r in rows}
        return cut(request, [{"id": i, "instanceFilename": n} for i, n in name.items()])
    return cut(request, [instance(request, r, projectBlind=None, projectName=None) for r in rows])


async def instances_of_abstract(request: web.Request) -> web.Response:
    """GET the instances of an abstract image."""
    async with transaction(request) as conn:
        row = await find_abstract(conn, caller(request), ident(request))
        rows = await every(conn, SELECT_INSTANCE + "WHERE n.base_image_id = %s ORDER BY n.id", row["id"])
    return cut(request, [instance(request, r) for r in rows])


async def instances_of_user(request: web.Request) -> web.Response:
    """GET the images that a user reaches through projects, in the form of upstream's database view."""
    number = ident(request)
    need_guest(caller(request))
    async with transaction(request) as conn:
        rows = await every(
            conn,
            SELECT_INSTANCE
            + """JOIN project_member m ON m.project_id = p.id WHERE m.user_id = %s ORDER BY n.id DESC""",
            number,
        )
        own = await every(
            conn, "SELECT project_id FROM project_member WHERE user_id = %s AND manager", number
        )
    managed = {r["project_id"] for r in own}
    return cut(request, [_view(r, number, r["project_id"] in managed) for r in rows])


def _view(row: Row, user: int, manager: bool) -> dict[str, Any]:
    empty = dict.fromkeys(("parentId", "deleted", "x", "y", "reviewUser"))
    return {
        **empty,
        "id": row["id"],
        "class": INSTANCE,
        "version": 0,
        "created": epoch(row["created"]),
        "updated": epoch(row["updated"]),
        "baseImage": row["base_image_id"],
        "baseImageId": row["base_image_id"],
        "project": row["project_id"],
        "projectId": row["project_id"],
        "projectName": row["project_name"],
        "projectBlind": False,
        "userId": row["user_id"],
        "userImageId": user,
        "userProjectManager": manager,
        "originalFilename": row["original_filename"],
        "instanceFilename": row["instance_filename"],
        "magnification": row["magnification"],
        "physicalSizeX": row["physical_size_x"],
        "physicalSizeY": row["physical_size_y"],
        "physicalSizeZ": row["physical_size_z"],
        "fps": row["fps"],
        "reviewStart": epoch(row["review_start"]),
        "reviewStop": epoch(row["review_stop"]),
        "reviewUserId": row["review_user_id"],
        "countImageAnnotations": row["annotations"],
        "countImageJobAnnotations": 0,
        "countImageReviewedAnnotations": row["reviewed"],
    }


async def instance_create(request: web.Request) -> web.Response:
    """POST /api/imageinstance.json: put an uploaded slide into a project."""
    user, data = caller(request), await body(request)
    base, project = data.get("baseImage"), data.get("project")
    async with transaction(request) as conn:
        if project is None:
            raise rejected(400, "project not set")
        known = await one(conn, "SELECT name FROM project WHERE id = %s", project)
        if known is None:
            raise rejected(404, f"Project {project} not found")
        await read_project(conn, user, project, command=True)
        source = await one(conn, SELECT_ABSTRACT + "WHERE i.id = %s", base)
        if source is None:
            raise rejected(400, f"baseImage was not found with id: {base}")
        await read_storage(conn, user, source["storage_id"])
        await keep_project(request.app, conn, project)
        number = await next_id(conn)
        name = source["original_filename"]
        try:
            async with conn.transaction():
                await conn.execute(
                    "INSERT INTO image_instance (id, base_image_id, project_id, user_id) VALUES (%s, %s, %s, %s)",
                    (number, base, project, user.id),
                )
        except psycopg.errors.UniqueViolation:
            raise rejected(409, f"Image {name} already map with project {known['name']}") from None
        for part in await every(conn, "SELECT id FROM abstract_slice WHERE image_id = %s ORDER BY id", base):
            await conn.execute(
                "INSERT INTO slice_instance (id, image_id, base_slice_id) VALUES (%s, %s, %s)",
                (await next_id(conn), number, part["id"]),
            )
        return await _done(request, conn, number, "Add", "added")


async def _done(request: web.Request, conn: Connection, number: int, action: str, verb: str) -> web.Response:
    row = await find_instance(conn, None, number)
    payload = instance(request, row)
    text = f"Image {payload['instanceFilename']} {verb} in project {row['project_name']}"
    return command("imageInstance", action, payload, text, await next_id(conn), key="imageinstance")


async def instance_update(request: web.Request) -> web.Response:
    """PUT /api/imageinstance/{id}.json."""
    user, data = caller(request), await body(request)
    names = {"instanceFilename": "instance_filename", "magnification": "magnification", "fps": "fps"}
    names |= {f"physicalSize{a.upper()}": f"physical_size_{a}" for a in "xyz"}
    async with transaction(request) as conn:
        number = (await find_instance(conn, user, ident(request), command_=True))["id"]
        for field, column in names.items():
            if data.get(field) is not None:
                await conn.execute(
                    f"UPDATE image_instance SET {column} = %s WHERE id = %s", (data[field], number)
                )
        await conn.execute("UPDATE image_instance SET updated = now() WHERE id = %s", (number,))
        return await _done(request, conn, number, "Edit", "edited")


async def instance_delete(request: web.Request) -> web.Response:
    """DELETE an image from its project, with its annotations; the slide stays."""
    async with transaction(request) as conn:
        number = (await find_instance(conn, caller(request), ident(request), command_=True))["id"]
        response = await _done(request, conn, number, "Delete", "deleted")
        for row in await every(conn, "SELECT id FROM user_annotation WHERE image_id = %s", number):
            await cbir(request, "DELETE", f"/cbir/images/{row['id']}")
        await conn.execute("DELETE FROM user_annotation WHERE image_id = %s", (number,))
        await conn.execute("DELETE FROM image_instance WHERE id = %s", (number,))
    return response


async def associated(request: web.Request) -> web.Response:
    """GET the associated images (label, macro): the stand-in's formats have none."""
    async with transaction(request) as conn:
        await find_instance(conn, caller(request), ident(request))
    return collection([])


ROUTES = [
    ("GET", "/api/abstractimage.json", abstract_list),
    ("POST", "/api/abstractimage.json", abstract_create),
    ("GET", "/api/abstractimage/{id}.json", abstract_fetch),
    ("GET", "/api/uploadedfile/{id}/abstractimage.json", abstract_of_file),
    ("GET", "/api/abstractimage/{id}/imageinstance.json", instances_of_abstract),
    ("POST", "/api/imageinstance.json", instance_create),
    ("GET", "/api/imageinstance/{id}.json", instance_fetch),
    ("PUT", "/api/imageinstance/{id}.json", instance_update),
    ("DELETE", "/api/imageinstance/{id}.json", instance_delete),
    ("GET", "/api/imageinstance/{id}/associated.json", associated),
    ("GET", "/api/project/{id}/imageinstance.json", instance_list),
    ("GET", "/api/user/{id}/imageinstance.json", instances_of_user),
]
