"""Stand-in for Cytomine's core: properties, descriptions and attached files of any object."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import json
from typing import Any

import psycopg
from aiohttp import BodyPartReader, web

from .access import manage_project, membership, read_project
from .auth import User, caller
from .database import Connection, Row, epoch_text, every, next_id, one, transaction
from .errors import Broken, answer, forbidden, refused, rejected, unparsable
from .web import BODY_LIMIT, body, command, cut, ident, number, required

DOMAIN = "be.cytomine.domain."
TABLES = {
    "project.Project": "SELECT id, id AS project_id FROM project",
    "image.ImageInstance": "SELECT id, project_id FROM image_instance",
    "image.AbstractImage": "SELECT id, NULL::bigint AS project_id FROM abstract_image",
    "ontology.UserAnnotation": "SELECT id, project_id FROM user_annotation",
    "ontology.ReviewedAnnotation": "SELECT id, project_id FROM reviewed_annotation",
}


async def domain(
    conn: Connection, user: User, kind: str, wanted: int, *, write: bool = False, own: bool = False
) -> None:
    """Check that the object exists and that the caller may read, or change, what hangs on it.

    ``own`` names the object itself in the refusal (attached files) in the place of its project.
    """
    short = kind.removeprefix(DOMAIN)
    row = await one(conn, f"{TABLES[short]} WHERE id = %s", wanted) if short in TABLES else None
    if row is None:
        raise refused(404, "ACL error: domain is null! Unable to process project auth checking")
    if row["project_id"] is None:
        if not user.is_admin and not user.is_user:
            raise forbidden(short, wanted, write)
    elif own and not (user.is_admin or await membership(conn, user, row["project_id"])):
        raise forbidden(short, wanted)
    elif write and short == "project.Project":
        await manage_project(conn, user, wanted, command=True)
    else:
        await read_project(conn, user, row["project_id"], proxy=short != "project.Project", command=write)


def _place(request: web.Request) -> tuple[str, int]:
    if "kind" in request.match_info:
        return request.match_info["kind"], ident(request)
    return f"{DOMAIN}ontology.UserAnnotation", ident(request)


def _shown(row: Row, kind: str, **extra: Any) -> dict[str, Any]:
    return {
        "class": f"{DOMAIN}meta.{kind}",
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "domainClassName": row["domain_class_name"],
        "domainIdent": row["domain_ident"],
        **extra,
    }


def _property(row: Row) -> dict[str, Any]:
    return _shown(row, "Property", key=row["key"], value=row["value"])


async def _property_done(conn: Connection, row: Row, action: str, verb: str) -> web.Response:
    text = f"Property {row['key']} {verb} {row['domain_class_name']} {row['domain_ident']}"
    return command("property", action, _property(row), text, await next_id(conn))


async def _property_add(conn: Connection, user: User, kind: str, wanted: int, data: dict[str, Any]) -> Row:
    await domain(conn, user, kind, wanted, write=True)
    for name in ("key", "value"):
        if data.get(name) is None:
            raise rejected(400, f"{name} must be set! value=null")
    row = await one(
        conn,
        """INSERT INTO property (id, domain_class_name, domain_ident, key, value)
           VALUES (%s, %s, %s, %s, %s) RETURNING *""",
        *(await next_id(conn), kind, wanted, str(data["key"]), str(data["value"])),
    )
    assert row is not None
    return row


async def property_create(request: web.Request) -> web.Response:
    """POST one property, or a list."""
    user = caller(request)
    kind, wanted = _place(request)
    try:
        data = json.loads(await request.text())
    except ValueError:
        raise unparsable() from None
    async with transaction(request) as conn:
        if isinstance(data, dict):
            row = await _property_add(conn, user, kind, wanted, data)
            return await _property_done(conn, row, "Add", "added to")
        rows = [await _property_add(conn, user, kind, wanted, item) for item in data]
    text = f"propertys {','.join(str(r['id']) for r in rows)} added"
    return answer({"data": {"message": text}, "status": 200})


async def property_list(request: web.Request) -> web.Response:
    """GET the properties of an object."""
    kind, wanted = _place(request)
    async with transaction(request) as conn:
        await domain(conn, caller(request), kind, wanted)
        rows = await every(
            conn,
            "SELECT * FROM property WHERE domain_class_name = %s AND domain_ident = %s ORDER BY id",
            *(kind, wanted),
        )
    return cut(request, [_property(r) for r in rows])


async def _one_property(request: web.Request, conn: Connection, write: bool = False) -> Row:
    kind, wanted = _place(request)
    await domain(conn, caller(request), kind, wanted, write=write)
    row = await one(
        conn,
        "SELECT * FROM property WHERE domain_class_name = %s AND domain_ident = %s AND id = %s",
        *(kind, wanted, ident(request, "property")),
    )
    if row is None:
        raise refused(404, f"Property {request.match_info['property']} not found")
    return row


async def property_fetch(request: web.Request) -> web.Response:
    """GET a property by id."""
    async with transaction(request) as conn:
        return answer(_property(await _one_property(request, conn)))


async def property_by_key(request: web.Request) -> web.Response:
    """GET a property by key; a key that is there twice is a server error upstream."""
    kind, wanted = _place(request)
    key = request.match_info["key"]
    async with transaction(request) as conn:
        await domain(conn, caller(request), kind, wanted)
        rows = await every(
            conn,
            "SELECT * FROM property WHERE domain_class_name = %s AND domain_ident = %s AND key = %s",
            *(kind, wanted, key),
        )
    if len(rows) > 1:
        raise Broken("the key is there more than once")
    if not rows:
        raise refused(404, f"Property {kind.rsplit('.', 1)[-1]}{{id={wanted}}}/{key} not found")
    return answer(_property(rows[0]))


async def property_update(request: web.Request) -> web.Response:
    """PUT a property's value and key."""
    data = await body(request)
    async with transaction(request) as conn:
        old = await _one_property(request, conn, write=True)
        row = await one(
            conn,
            "UPDATE property SET key = %s, value = %s, updated = now() WHERE id = %s RETURNING *",
            *(data.get("key", old["key"]), data.get("value", old["value"]), old["id"]),
        )
        assert row is not None
        return await _property_done(conn, row, "Edit", "edited for")


async def property_delete(request: web.Request) -> web.Response:
    """DELETE a property."""
    async with transaction(request) as conn:
        row = await _one_property(request, conn, write=True)
        await conn.execute("DELETE FROM property WHERE id = %s", (row["id"],))
        return await _property_done(conn, row, "Delete", "deleted for")


async def positions(request: web.Request) -> web.Response:
    """GET the centres of a user's annotations on an image that have a property, and its values."""
    user, image, key = ident(request, "user"), ident(request, "image"), required(request, "key")
    async with transaction(request) as conn:
        row = await one(conn, "SELECT project_id FROM image_instance WHERE id = %s", image)
        if row is None:
            raise refused(404, f"ImageInstance {image} not found")
        await read_project(conn, caller(request), row["project_id"])
        rows = await every(
            conn,
            """SELECT DISTINCT a.id, ST_X(ST_Centroid(a.location)) AS x, ST_Y(ST_Centroid(a.location)) AS y, p.value
               FROM user_annotation a JOIN property p ON p.domain_ident = a.id
               WHERE p.key = %s AND a.image_id = %s AND a.user_id = %s ORDER BY a.id""",
            *(key, image, user),
        )
    return cut(
        request, [{"idAnnotation": r["id"], "x": r["x"], "y": r["y"], "value": r["value"]} for r in rows]
    )


async def property_keys(request: web.Request) -> web.Response:
    """GET the keys that occur in a project, on annotations or on images."""
    project = number(request, "idProject")
    table, kind = {
        "annotation": ("user_annotation", "ontology.UserAnnotation"),
        "imageinstance": ("image_instance", "image.ImageInstance"),
    }[request.match_info["what"]]
    async with transaction(request) as conn:
        await read_project(conn, caller(request), project)
        rows = await every(
            conn,
            f"""SELECT DISTINCT p.key FROM property p JOIN {table} d ON d.id = p.domain_ident
                WHERE d.project_id = %s AND p.domain_class_name = %s ORDER BY 1""",
            *(project, DOMAIN + kind),
        )
    return cut(request, [r["key"] for r in rows])


async def _description(conn: Connection, kind: str, wanted: int) -> Row | None:
    query = "SELECT * FROM description WHERE domain_class_name = %s AND domain_ident = %s"
    return await one(conn, query, kind, wanted)


async def description(request: web.Request) -> web.Response:
    """GET, POST, PUT and DELETE the one description of an object."""
    user, method = caller(request), request.method
    kind, wanted = _place(request)
    data = await body(request) if method in ("POST", "PUT") else {}
    async with transaction(request) as conn:
        await domain(conn, user, kind, wanted, write=method not in ("GET", "HEAD"))
        row = await _description(conn, kind, wanted)
        if method == "POST" and data.get("data") is None:
            raise rejected(400, "data must be set! value=null")
        if method == "POST" and row is not None:
            raise rejected(409, f"Description already exists for {kind} {wanted}")
        if method != "POST" and row is None:
            where = json.dumps({"domainIdent": wanted, "domainClassName": kind}, separators=(",", ":"))
            raise refused(404, f"Description {where} not found")
        if method in ("GET", "HEAD"):
            assert row is not None
            return answer(_shown(row, "Description", data=row["data"]))
        return await _description_done(conn, kind, wanted, method, data, row)


async def _description_done(
    conn: Connection, kind: str, wanted: int, method: str, data: dict[str, Any], row: Row | None
) -> web.Response:
    if method == "POST":
        await conn.execute(
            "INSERT INTO description (id, domain_class_name, domain_ident, data) VALUES (%s, %s, %s, %s)",
            (await next_id(conn), kind, wanted, str(data["data"])),
        )
    elif method == "PUT" and row:
        await conn.execute(
            "UPDATE description SET data = %s, updated = now() WHERE id = %s",
            (data.get("data", row["data"]), row["id"]),
        )
    shown = await _description(conn, kind, wanted)
    assert shown is not None
    if method == "DELETE":
        await conn.execute("DELETE FROM description WHERE id = %s", (shown["id"],))
    action, verb = {"POST": ("Add", "created"), "PUT": ("Edit", "updated"), "DELETE": ("Delete", "deleted")}[
        method
    ]
    payload = _shown(shown, "Description", data=shown["data"])
    return command("description", action, payload, f"Description for {kind} {verb}", await next_id(conn))


def _attached(row: Row) -> dict[str, Any]:
    url = f"/api/attachedfile/{row['id']}/download"
    return _shown(row, "AttachedFile", filename=row["filename"], url=url, key=row["key"])


ATTACHED = "SELECT id, created, updated, domain_class_name, domain_ident, filename, key FROM attached_file "


async def attached_create(request: web.Request) -> web.Response:
    """POST /api/attachedfile.json: a multipart form; class and id of the object are in the query."""
    user, kind = caller(request), request.query.get("domainClassName")
    if not kind or "domainIdent" not in request.query:
        raise Broken("domainClassName or domainIdent is missing")
    wanted = number(request, "domainIdent")
    async with transaction(request) as conn:
        await domain(conn, user, kind, wanted, own=True)
        part = await (await request.multipart()).next()
        if not isinstance(part, BodyPartReader):
            raise Broken("no file in the form")
        content = bytes(await part.read())
        if len(content) > BODY_LIMIT:
            raise Broken("file too large")
        row = await one(
            conn,
            """INSERT INTO attached_file (id, domain_class_name, domain_ident, filename, key, data)
               VALUES (%s, %s, %s, %s, %s, %s) RETURNING *""",
            *(await next_id(conn), kind, wanted, request.query.get("filename") or part.filename or "file"),
            *(request.query.get("key"), psycopg.Binary(content)),
        )
    assert row is not None
    return answer(_attached(row))


async def attached_list(request: web.Request) -> web.Response:
    """GET the attached files of an object."""
    kind, wanted = _place(request)
    async with transaction(request) as conn:
        await domain(conn, caller(request), kind, wanted, own=True)
        rows = await every(
            conn, ATTACHED + "WHERE domain_class_name = %s AND domain_ident = %s ORDER BY id", kind, wanted
        )
    return cut(request, [_attached(r) for r in rows])


async def _one_attached(request: web.Request, conn: Connection) -> Row:
    row = await one(conn, "SELECT * FROM attached_file WHERE id = %s", ident(request))
    if row is None:
        raise refused(404, f"AttachedFile {ident(request)} not found")
    await domain(conn, caller(request), row["domain_class_name"], row["domain_ident"], own=True)
    return row


async def attached_fetch(request: web.Request) -> web.Response:
    """GET /api/attachedfile/{id}.json."""
    async with transaction(request) as conn:
        return answer(_attached(await _one_attached(request, conn)))


async def attached_download(request: web.Request) -> web.Response:
    """GET /api/attachedfile/{id}/download."""
    async with transaction(request) as conn:
        row = await _one_attached(request, conn)
    disposition = f"attachment; filename={row['filename']}".replace("\r", "").replace("\n", "")
    head = {"Content-Disposition": disposition}
    return web.Response(body=bytes(row["data"]), content_type="application/octet-stream", headers=head)


async def attached_delete(request: web.Request) -> web.Response:
    """DELETE /api/attachedfile/{id}.json."""
    async with transaction(request) as conn:
        row = await _one_attached(request, conn)
        await conn.execute("DELETE FROM attached_file WHERE id = %s", (row["id"],))
        text = f"AttachedFileCommand {row['id']} deleted from {row['domain_class_name']}"
        return command("attachedFile", "Delete", _attached(row), text, await next_id(conn))


BASE = "/api/domain/{kind}/{id}"
ROUTES = [
    ("POST", BASE + "/property.json", property_create),
    ("GET", BASE + "/property.json", property_list),
    ("POST", "/api/annotation/{id}/property.json", property_create),
    ("GET", "/api/annotation/{id}/property.json", property_list),
    ("GET", BASE + "/property/{property}.json", property_fetch),
    ("PUT", BASE + "/property/{property}.json", property_update),
    ("DELETE", BASE + "/property/{property}.json", property_delete),
    ("GET", BASE + "/key/{key}/property.json", property_by_key),
    ("GET", "/api/{what:annotation|imageinstance}/property/key.json", property_keys),
    ("GET", "/api/user/{user}/imageinstance/{image}/annotationposition.json", positions),
    *((m, BASE + "/description.json", description) for m in ("GET", "POST", "PUT", "DELETE")),
    ("POST", "/api/attachedfile.json", attached_create),
    ("GET", BASE + "/attachedfile.json", attached_list),
    ("GET", "/api/attachedfile/{id}.json", attached_fetch),
    ("GET", "/api/attachedfile/{id}/download", attached_download),
    ("DELETE", "/api/attachedfile/{id}.json", attached_delete),
]
