"""Stand-in for Cytomine's repository: tags and what they are put on."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .database import Connection, Row, every, one, transaction
from .errors import Broken, answer
from .records import caller, dates, done, listed, mark_deleted, missing, text_field, update_fields
from .web import body, ident

SELECT = "SELECT t.*, u.username FROM tag t JOIN sec_user u ON u.id = t.user_id "


def tag(row: Row) -> dict[str, Any]:
    """A tag as the repository shows it."""
    head = {"id": row["id"], "name": row["name"], "creatorName": row["username"]}
    return {**head, **dates(row), "dataType": "TAG"}


async def _find(request: web.Request, conn: Connection, number: int) -> Row:
    who = await caller(request, conn)
    row = await one(conn, SELECT + "WHERE t.id = %s AND (%s OR t.user_id = %s)", number, who.admin, who.id)
    if row is None:
        raise missing(request, "tag", number)
    return row


async def tag_list(request: web.Request) -> web.Response:
    """GET /api/tag.json, newest first: all for an administrator, else one's own."""
    async with transaction(request) as conn:
        who = await caller(request, conn)
        rows = await every(
            conn,
            SELECT + "WHERE t.deleted IS NULL AND (%s OR t.user_id = %s) ORDER BY t.id DESC",
            *(who.admin, who.id),
        )
    return listed(request, [tag(r) for r in rows])


async def tag_fetch(request: web.Request) -> web.Response:
    """GET /api/tag/{id}.json."""
    async with transaction(request) as conn:
        row = await _find(request, conn, ident(request))
    if row["deleted"]:
        raise missing(request, "tag", row["id"])
    return answer(tag(row))


async def tag_create(request: web.Request) -> web.Response:
    """POST /api/tag.json; the same name twice is accepted."""
    data = await body(request)
    async with transaction(request) as conn:
        who, name = await caller(request, conn), text_field(data, "name")
        row = await one(conn, "INSERT INTO tag (name, user_id) VALUES (%s, %s) RETURNING id", name, who.id)
        assert row is not None
        return answer(done("Tag", "Add", tag(await _find(request, conn, row["id"]))))


async def tag_update(request: web.Request) -> web.Response:
    """PUT /api/tag/{id}.json."""
    async with transaction(request) as conn:
        number = (await _find(request, conn, ident(request)))["id"]
        await update_fields(request, conn, "tag", {"name": "name"}, number)
        return answer(done("Tag", "Edit", tag(await _find(request, conn, number))))


async def tag_delete(request: web.Request) -> web.Response:
    """DELETE /api/tag/{id}.json."""
    async with transaction(request) as conn:
        number = (await _find(request, conn, ident(request)))["id"]
        await mark_deleted(conn, "tag", number)
        return answer(done("Tag", "Delete", tag(await _find(request, conn, number))))


def association(row: Row) -> dict[str, Any]:
    """A tag on an object as the repository shows it."""
    head = {"id": row["id"], "tagId": row["tag_id"], "domainClassName": row["domain_class_name"]}
    return {**head, "domainId": row["domain_ident"], **dates(row), "dataType": "TAG_DOMAIN_ASSOCIATION"}


async def associate(request: web.Request) -> web.Response:
    """POST a tag onto an object; the body needs tagId, domainClassName and domainId, which the client lacks."""
    data = await body(request)
    values = [data.get(n) for n in ("tagId", "domainClassName", "domainId")]
    async with transaction(request) as conn:
        await caller(request, conn)
        if None in values or not await one(
            conn, "SELECT 1 FROM tag WHERE id = %s AND deleted IS NULL", values[0]
        ):
            raise Broken("tagId, domainClassName or domainId is missing or unknown")
        row = await one(
            conn,
            """INSERT INTO tag_domain_association (tag_id, domain_class_name, domain_ident)
               VALUES (%s, %s, %s) RETURNING *""",
            *values,
        )
    assert row is not None
    return answer(done("TagDomainAssociation", "Add", association(row)))


async def associations(request: web.Request) -> web.Response:
    """GET the tags on an object."""
    async with transaction(request) as conn:
        rows = await every(
            conn,
            """SELECT * FROM tag_domain_association WHERE domain_class_name = %s AND domain_ident = %s
               AND deleted IS NULL ORDER BY id""",
            *(request.match_info["kind"], ident(request)),
        )
    return listed(request, [association(r) for r in rows])


async def dissociate(request: web.Request) -> web.Response:
    """DELETE /api/tag_domain_association/{id}.json."""
    number = ident(request)
    async with transaction(request) as conn:
        await mark_deleted(conn, "tag_domain_association", number)
        row = await one(conn, "SELECT * FROM tag_domain_association WHERE id = %s", number)
    if row is None:
        raise missing(request, "tag domain association", number)
    return answer(done("TagDomainAssociation", "Delete", association(row)))


ROUTES = [
    ("GET", "/api/tag.json", tag_list),
    ("POST", "/api/tag.json", tag_create),
    ("GET", "/api/tag/{id}.json", tag_fetch),
    ("PUT", "/api/tag/{id}.json", tag_update),
    ("DELETE", "/api/tag/{id}.json", tag_delete),
    ("POST", "/api/tag_domain_association.json", associate),
    ("POST", "/api/domain/{kind}/{id}/tag_domain_association.json", associate),
    ("GET", "/api/domain/{kind}/{id}/tag_domain_association.json", associations),
    ("DELETE", "/api/tag_domain_association/{id}.json", dissociate),
]
