"""Stand-in for Cytomine's repository: what its objects share (caller, lists by page and size, command answers).

Core checks who asks and passes the user's id on; the repository itself trusts its callers, as upstream's does.
"""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .database import Connection, Row, every, iso, one, transaction
from .errors import Broken, Failure, answer, problem
from .web import body, ident, number

USER_HEADER = "X-Standin-User"


@dataclass(frozen=True)
class Caller:
    """The user for whom core asks; ``admin`` is the stored role, whatever core's admin session is."""

    id: int
    username: str
    admin: bool


async def caller(request: web.Request, conn: Connection) -> Caller:
    """The caller that core names."""
    text = request.headers.get(USER_HEADER, "")
    row = await one(
        conn,
        """SELECT u.id, u.username, bool_or(r.authority IN ('ROLE_ADMIN', 'ROLE_SUPER_ADMIN')) AS admin
           FROM sec_user u LEFT JOIN sec_user_sec_role ur ON ur.sec_user_id = u.id
           LEFT JOIN sec_role r ON r.id = ur.sec_role_id WHERE u.id = %s GROUP BY u.id""",
        int(text) if text.isdigit() else 0,
    )
    if row is None:
        raise Broken("the call names no user")
    return Caller(row["id"], row["username"], bool(row["admin"]))


def dates(row: Row) -> dict[str, Any]:
    """The three dates of a repository object."""
    return {"created": iso(row["created"]), "updated": iso(row["updated"]), "deleted": iso(row["deleted"])}


def missing(request: web.Request, kind: str, number_: int) -> Failure:
    """The answer for an unknown object, or one that the caller may not see."""
    return problem(404, f"Unable to find {kind} with id: {number_}", request.path)


def listed(request: web.Request, items: Sequence[Any]) -> web.Response:
    """The repository's form of a list: ``page`` and ``size`` (20), whatever ``max`` and ``offset`` say."""
    page, size = number(request, "page"), number(request, "size", 20)
    if page < 0 or size < 1:
        raise Broken("bad page or size")
    part = list(items[page * size : (page + 1) * size])
    head = {"collection": part, "offset": page * size, "perPage": size, "size": len(items)}
    return answer({**head, "totalPages": math.ceil(len(items) / size)})


def done(kind: str, action: str, data: dict[str, Any], sub: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The repository's answer to create, update and delete."""
    head = {"printMessage": True, "data": data, "commandId": str(uuid.uuid4())}
    return {**head, "command": f"be.cytomine.{action}{kind}Command", "subCommands": list(sub)}


def text_field(data: dict[str, Any], name: str) -> str:
    """A required text; upstream fails with a server error without it."""
    if not data.get(name):
        raise Broken(f"{name} is missing or empty")
    return str(data[name])


async def update_fields(
    request: web.Request, conn: Connection, table: str, columns: dict[str, str], number_: int
) -> None:
    """Write the fields of the body that have a column."""
    data = await body(request)
    for field, column in columns.items():
        if data.get(field) is not None:
            await conn.execute(f"UPDATE {table} SET {column} = %s WHERE id = %s", (data[field], number_))
    await conn.execute(f"UPDATE {table} SET updated = date_trunc('second', now()) WHERE id = %s", (number_,))


async def mark_deleted(conn: Connection, table: str, number_: int) -> None:
    """Deleting sets a date; a second time it changes nothing and still answers 200, as upstream."""
    await conn.execute(f"UPDATE {table} SET deleted = COALESCE(deleted, now()) WHERE id = %s", (number_,))


async def roles(request: web.Request) -> web.Response:
    """GET /api/role.json."""
    async with transaction(request) as conn:
        rows = await every(conn, "SELECT * FROM sec_role ORDER BY id")
    return listed(request, [role(r) for r in rows])


def role(row: Row) -> dict[str, Any]:
    """A role as the repository shows it."""
    fixed = {"updated": None, "deleted": None, "dataType": "ROLE"}
    return {"id": row["id"], "authority": row["authority"], "created": iso(row["created"]), **fixed}


async def user(request: web.Request) -> web.Response:
    """GET /api/user/{id}.json. Upstream shows the keys of that user to whoever asks."""
    wanted = ident(request)
    async with transaction(request) as conn:
        row = await one(conn, "SELECT * FROM sec_user WHERE id = %s AND deleted IS NULL", wanted)
        if row is None:
            raise missing(request, "user", wanted)
        return answer(await _user(conn, row))


async def _user(conn: Connection, row: Row) -> dict[str, Any]:
    granted = await every(
        conn,
        "SELECT r.* FROM sec_role r JOIN sec_user_sec_role ur ON ur.sec_role_id = r.id WHERE ur.sec_user_id = %s",
        row["id"],
    )
    names = {"id": "id", "username": "username", "email": "email", "name": "name", "lastname": "lastname"}
    names |= {
        "firstname": "firstname",
        "language": "language",
        "isDeveloper": "is_developer",
        "origin": "origin",
    }
    shown = {key: row[column] for key, column in names.items()}
    keys = {"privateKey": row["private_key"], "publicKey": row["public_key"]}
    return {**shown, **dates(row), **keys, "roles": [role(r) for r in granted], "dataType": "USER"}


async def user_roles(request: web.Request) -> web.Response:
    """GET /api/user/{id}/role.json."""
    async with transaction(request) as conn:
        rows = await every(
            conn, "SELECT * FROM sec_user_sec_role WHERE sec_user_id = %s ORDER BY id", ident(request)
        )
    head = [{"id": r["id"], "userId": r["sec_user_id"], "roleId": r["sec_role_id"]} for r in rows]
    tail = [{"created": iso(r["created"]), "updated": iso(r["updated"])} for r in rows]
    last = {"deleted": None, "dataType": "USER_ROLE"}
    return listed(request, [{**h, **t, **last} for h, t in zip(head, tail, strict=True)])


async def create_user(request: web.Request) -> web.Response:
    """POST /api/user.json: upstream's trap, a user without keys and storage who can never sign a request."""
    data = await body(request)
    required = ("username", "name", "firstname", "lastname", "email", "password", "language", "role")
    if any(data.get(name) is None for name in required) or "developer" not in data:
        raise Broken("fields are missing or unknown")
    async with transaction(request) as conn:
        row = await one(
            conn,
            """INSERT INTO sec_user (username, name, firstname, lastname, email, language, is_developer)
               VALUES (%s, %s, %s, %s, %s, 'ENGLISH', %s) RETURNING *""",
            *(data[n] for n in ("username", "name", "firstname", "lastname", "email")),
            bool(data["developer"]),
        )
        assert row is not None
        await conn.execute(
            "INSERT INTO sec_user_sec_role (sec_user_id, sec_role_id) SELECT %s, id FROM sec_role WHERE authority = %s",
            (row["id"], data["role"]),
        )
        return answer(done("SecUser", "Add", await _user(conn, row)))


ROUTES = [
    ("GET", "/api/role.json", roles),
    ("GET", "/api/user/{id}.json", user),
    ("GET", "/api/user/{id}/role.json", user_roles),
    ("POST", "/api/user.json", create_user),
]
