"""Stand-in for Cytomine's core: users, their keys, and the members of projects."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from .access import manage_project, need_guest, read_project
from .auth import caller
from .database import Connection, Row, epoch, every, one, transaction
from .errors import answer, refused
from .signing import signature
from .web import collection, cut, ident, window


def shown(row: Row, **extra: Any) -> dict[str, Any]:
    """A user as core shows it."""
    name, username = row["name"], row["username"]
    return {
        "id": row["id"],
        "username": username,
        "name": name,
        "firstname": row["firstname"],
        "lastname": row["lastname"],
        "fullName": name if name == username else f"{name} ({username})",
        "email": row["email"],
        "language": "EN",
        "isDeveloper": row["is_developer"],
        "created": epoch(row["created"]),
        "updated": epoch(row["updated"]),
        **extra,
    }


async def find(conn: Connection, user: int) -> Row:
    """The user's row, or 404."""
    row = await one(conn, "SELECT * FROM sec_user WHERE id = %s AND deleted IS NULL", user)
    if row is None:
        raise refused(404, f"User {user} not found")
    return row


async def current(request: web.Request) -> web.Response:
    """GET /api/user/current.json."""
    async with transaction(request) as conn:
        return answer(shown(await find(conn, caller(request).id)))


async def current_keys(request: web.Request) -> web.Response:
    """GET the caller's keys, or POST for new ones; a user made without keys does not get enabled by that."""
    user = caller(request)
    async with transaction(request) as conn:
        if request.method == "POST":
            await conn.execute(
                "UPDATE sec_user SET public_key = %s, private_key = %s WHERE id = %s",
                (str(uuid.uuid4()), str(uuid.uuid4()), user.id),
            )
        row = await find(conn, user.id)
    return answer({"primaryKey": row["public_key"], "secondaryKey": row["private_key"]})


def _keys(request: web.Request, row: Row) -> web.Response:
    user = caller(request)
    if user.id != row["id"] and not user.is_admin:
        raise refused(403, "You don't have the right to read this resource! You must be the same user!")
    return answer({"privateKey": row["private_key"], "publicKey": row["public_key"]})


async def keys_by_id(request: web.Request) -> web.Response:
    """GET /api/user/{id}/keys.json: one's own, or anybody's for an administrator."""
    async with transaction(request) as conn:
        return _keys(request, await find(conn, ident(request)))


async def keys_by_public(request: web.Request) -> web.Response:
    """GET /api/userkey/{public}/keys.json: how the image server checks an upload's signature."""
    public = request.match_info["public"]
    async with transaction(request) as conn:
        row = await one(conn, "SELECT * FROM sec_user WHERE public_key = %s", public)
    if row is None:
        raise refused(404, f"User {{publicKey={public}}} not found")
    return _keys(request, row)


async def sign(request: web.Request) -> web.Response:
    """GET /api/signature.json: a signature for the values in the query."""
    async with transaction(request) as conn:
        row = await find(conn, caller(request).id)
    query = request.query
    text = signature(
        row["private_key"] or "",
        query.get("method", "GET"),
        query.get("content-type", ""),
        query.get("date", ""),
    )
    return answer({"signature": text, "publicKey": row["public_key"]})


async def listing(request: web.Request) -> web.Response:
    """GET /api/user.json; upstream pages over users times roles, so that pages come out short."""
    need_guest(caller(request))
    limit, offset = window(request)
    async with transaction(request) as conn:
        rows = await every(
            conn,
            """SELECT u.*, r.authority FROM sec_user u JOIN sec_user_sec_role ur ON ur.sec_user_id = u.id
               JOIN sec_role r ON r.id = ur.sec_role_id WHERE u.deleted IS NULL
               ORDER BY u.username COLLATE "C", r.id""",
        )
    total = len({r["id"] for r in rows})
    part = rows[offset : offset + limit] if limit else rows[offset:]
    users: dict[int, dict[str, Any]] = {}
    for row in part:
        role = "ROLE_ADMIN" if row["authority"] == "ROLE_SUPER_ADMIN" else row["authority"]
        users[row["id"]] = shown(row, role=role)
    if users and limit and offset + limit > total:
        total = offset + len(users)
    return collection(list(users.values()), offset, limit, total)


async def _project(conn: Connection, request: web.Request) -> int:
    project = ident(request)
    if not await one(conn, "SELECT 1 FROM project WHERE id = %s", project):
        raise refused(404, f"Project {project} not found")
    return project


async def members(request: web.Request) -> web.Response:
    """GET the users of a project, with their role in it, newest first."""
    async with transaction(request) as conn:
        project = await _project(conn, request)
        await read_project(conn, caller(request), project)
        rows = await every(
            conn,
            """SELECT u.*, m.manager, m.representative FROM project_member m JOIN sec_user u ON u.id = m.user_id
               WHERE m.project_id = %s ORDER BY u.id DESC""",
            project,
        )
    role = {(True, True): "representative", (True, False): "manager"}
    return cut(
        request,
        [shown(r, role=role.get((r["manager"], r["representative"]), "contributor")) for r in rows],
    )


async def managers(request: web.Request) -> web.Response:
    """GET the managers of a project."""
    async with transaction(request) as conn:
        project = await _project(conn, request)
        await read_project(conn, caller(request), project)
        rows = await every(
            conn,
            """SELECT u.* FROM project_member m JOIN sec_user u ON u.id = m.user_id
               WHERE m.project_id = %s AND m.manager ORDER BY u.id""",
            project,
        )
    return cut(request, [shown(r) for r in rows])


async def creator(request: web.Request) -> web.Response:
    """GET the creator of a project, as a list."""
    async with transaction(request) as conn:
        project = await _project(conn, request)
        await read_project(conn, caller(request), project)
        rows = await every(
            conn, "SELECT u.* FROM sec_user u JOIN project p ON p.creator_id = u.id WHERE p.id = %s", project
        )
    return cut(request, [shown(r) for r in rows])


async def of_ontology(request: web.Request) -> web.Response:
    """GET the users of an ontology: upstream has no ACL entries for ontologies and shows none."""
    ident(request)
    return collection([])


async def member_change(request: web.Request) -> web.Response:
    """POST and DELETE a member, or the member's manager role (``…/admin.json``), which may outlast the membership."""
    admin = request.path.endswith("/admin.json")
    async with transaction(request) as conn:
        project = await _project(conn, request)
        await manage_project(conn, caller(request), project)
        user = (await find(conn, ident(request, "user")))["id"]
        if request.method == "POST":
            await conn.execute(
                """INSERT INTO project_member (project_id, user_id, manager) VALUES (%s, %s, %s)
                   ON CONFLICT (project_id, user_id)
                   DO UPDATE SET manager = project_member.manager OR EXCLUDED.manager, reader = true""",
                (project, user, admin),
            )
        else:
            await conn.execute(
                f"UPDATE project_member SET {'manager' if admin else 'reader'} = false "  # noqa: S608 - fixed names
                "WHERE project_id = %s AND user_id = %s",
                (project, user),
            )
            await conn.execute("DELETE FROM project_member WHERE NOT manager AND NOT reader")
    return answer({"data": {"message": "OK"}})


ROUTES = [
    ("GET", "/api/user/current.json", current),
    ("GET", "/api/user/current/keys", current_keys),
    ("POST", "/api/user/current/keys", current_keys),
    ("GET", "/api/userkey/{public}/keys.json", keys_by_public),
    ("GET", "/api/user/{id}/keys.json", keys_by_id),
    ("GET", "/api/signature.json", sign),
    ("GET", "/api/user.json", listing),
    ("GET", "/api/project/{id}/user.json", members),
    ("GET", "/api/project/{id}/admin.json", managers),
    ("GET", "/api/project/{id}/creator.json", creator),
    ("GET", "/api/ontology/{id}/user.json", of_ontology),
    ("POST", "/api/project/{id}/user/{user}.json", member_change),
    ("DELETE", "/api/project/{id}/user/{user}.json", member_change),
    ("POST", "/api/project/{id}/user/{user}/admin.json", member_change),
    ("DELETE", "/api/project/{id}/user/{user}/admin.json", member_change),
]
