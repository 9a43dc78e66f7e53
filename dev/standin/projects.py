"""Stand-in for Cytomine's core: projects. Making and deleting one calls the similarity search (cbir)."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

from typing import Any

import psycopg
from aiohttp import ClientError, web

from .access import manage_project, membership, need_guest, need_user, read_project, use_ontology
from .auth import User, caller
from .database import Connection, Row, epoch, epoch_text, every, next_id, one, transaction
from .errors import Broken, answer, plain, rejected
from .web import HTTP, SETTINGS, body, command, cut, flag, ident, idents

CLASS = "be.cytomine.domain.project.Project"
COLUMNS = {
    "name": "name",
    "ontology": "ontology_id",
    "blindMode": "blind_mode",
    "hideAdminsLayers": "hide_admins_layers",
    "hideUsersLayers": "hide_users_layers",
    "areImagesDownloadable": "images_downloadable",
    "isReadOnly": "is_read_only",
    "isClosed": "is_closed",
    "isRestricted": "is_restricted",
}
SELECT = """
SELECT p.*, o.name AS ontology_name,
  (SELECT count(*) FROM image_instance i WHERE i.project_id = p.id) AS images,
  (SELECT count(*) FROM user_annotation a WHERE a.project_id = p.id) AS annotations,
  (SELECT count(*) FROM reviewed_annotation a WHERE a.project_id = p.id) AS reviewed,
  (SELECT count(*) FROM project_member m WHERE m.project_id = p.id) AS members
FROM project p LEFT JOIN ontology o ON o.id = p.ontology_id
"""


def shown(row: Row, **extra: Any) -> dict[str, Any]:
    """A project as core shows it."""
    return {
        "class": CLASS,
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "name": row["name"],
        "ontology": row["ontology_id"],
        "ontologyName": row["ontology_name"],
        "blindMode": row["blind_mode"],
        "areImagesDownloadable": row["images_downloadable"],
        "numberOfSlides": 0,
        "numberOfImages": row["images"],
        "numberOfAnnotations": row["annotations"],
        "numberOfJobAnnotations": 0,
        "numberOfReviewedAnnotations": row["reviewed"],
        "isClosed": row["is_closed"],
        "isReadOnly": row["is_read_only"],
        "hideUsersLayers": row["hide_users_layers"],
        "hideAdminsLayers": row["hide_admins_layers"],
        "isRestricted": row["is_restricted"],
        **extra,
    }


async def cbir(request: web.Request, method: str, path: str, **arguments: Any) -> None:
    """Call the similarity search; upstream fails with a server error when nothing answers there."""
    url = request.app[SETTINGS].cbir_url + path
    try:
        async with request.app[HTTP].request(method, url, **arguments) as response:
            await response.read()
            if response.status >= 400:
                raise Broken(f"cbir answered {response.status} to {method} {path}")
    except (ClientError, TimeoutError, OSError) as error:
        raise Broken(f"no cbir at {url}: {error}") from None


async def find(conn: Connection, project: int) -> Row | None:
    """The project's row, with its counts."""
    return await one(conn, SELECT + "WHERE p.id = %s", project)


async def fetch(request: web.Request) -> web.Response:
    """GET /api/project/{id}.json."""
    project, user = ident(request), caller(request)
    async with transaction(request) as conn:
        row = await find(conn, project)
        if row is None:
            raise plain(404, f"Project not found with filters : {{id={project}}}")
        await read_project(conn, user, project)
    return answer(shown(row))


async def _list(
    request: web.Request, condition: str = "true", *args: Any, newest: bool = True
) -> web.Response:
    user = caller(request)
    need_guest(user)
    query = request.query
    mine = "true" if user.is_admin else "p.id IN (SELECT project_id FROM project_member WHERE user_id = %s)"
    values = list(args) if user.is_admin else [*args, user.id]
    order = {"name": "p.name", "created": "p.created"}.get(query.get("sort", ""), "p.id")
    way = query.get("order", "desc" if newest else "asc").lower()
    way = "ASC" if way == "asc" else "DESC"
    async with transaction(request) as conn:
        rows = await every(conn, f"{SELECT} WHERE {condition} AND {mine} ORDER BY {order} {way}", *values)
        return cut(request, [shown(row, **(await _extras(conn, user, row, query))) for row in rows])


async def _extras(conn: Connection, user: User, row: Row, query: Any) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if flag(query, "withMembersCount"):
        extra["membersCount"] = row["members"]
    if flag(query, "withLastActivity"):
        extra["lastActivity"] = epoch(row["updated"])
    if flag(query, "withCurrentUserRoles"):
        own = await membership(conn, user, row["id"])
        roles = {"admin": bool(own and own["manager"]), "representative": bool(own and own["representative"])}
        extra["currentUserRoles"] = roles
    return extra


async def listing(request: web.Request) -> web.Response:
    """GET /api/project.json: the caller's; an administrator of another name than ``admin`` sees no more."""
    user = caller(request)
    if user.is_admin and user.username == "admin":
        return await _list(request)
    return await _list(request, "p.id IN (SELECT project_id FROM project_member WHERE user_id = %s)", user.id)


async def of_user(request: web.Request) -> web.Response:
    """GET the projects of a user."""
    condition = "p.id IN (SELECT project_id FROM project_member WHERE user_id = %s)"
    return await _list(request, condition, ident(request))


async def of_ontology(request: web.Request) -> web.Response:
    """GET the projects with an ontology."""
    return await _list(request, "p.ontology_id = %s", ident(request), newest=False)


async def _ontology(conn: Connection, user: User, given: Any) -> int | None:
    if given is None:
        return None
    number = int(given) if str(given).isdigit() else None
    if number is None or not await one(conn, "SELECT 1 FROM ontology WHERE id = %s", number):
        text = "null" if number is None else number
        what = f"class be.cytomine.domain.ontology.Ontology with id {text}"
        raise rejected(404, f"ACL error: {what} was not found! Unable to process auth checking")
    await use_ontology(conn, user, number)
    return number


async def create(request: web.Request) -> web.Response:
    """POST /api/project.json."""
    user, data = caller(request), await body(request)
    async with transaction(request) as conn:
        need_user(user)
        ontology = await _ontology(conn, user, data.get("ontology"))
        if data.get("name") is None:
            raise rejected(400, "Cannot persist object: name must not be null")
        name, project = str(data["name"]), await next_id(conn)
        try:
            async with conn.transaction():
                await conn.execute(
                    "INSERT INTO project (id, name, ontology_id, creator_id) VALUES (%s, %s, %s, %s)",
                    (project, name, ontology, user.id),
                )
        except psycopg.errors.UniqueViolation:
            raise rejected(409, f"Project {name} already exist!") from None
        await conn.execute("INSERT INTO project_member VALUES (%s, %s, true, true)", (project, user.id))
        for members, manager in ((data.get("users"), False), (data.get("admins"), True)):
            await conn.execute(
                """INSERT INTO project_member (project_id, user_id, manager)
                   SELECT %s, id, %s FROM sec_user WHERE id = ANY(%s) ON CONFLICT DO NOTHING""",
                (project, manager, idents(members or [])),
            )
        await cbir(request, "POST", "/cbir/storages", json={"name": str(project)})
        row = await find(conn, project)
        number = await next_id(conn)
    assert row is not None
    return command("project", "Add", shown(row), f"Project {project} ({name}) added", number)


async def update(request: web.Request) -> web.Response:
    """PUT /api/project/{id}.json; a name that is taken is a server error upstream."""
    user, project, data = caller(request), ident(request), await body(request)
    async with transaction(request) as conn:
        if await find(conn, project) is None:
            raise rejected(404, f"class {CLASS} {project} not found")
        await manage_project(conn, user, project, command=True)
        for key, column in COLUMNS.items():
            if key in data:
                text = str(data[key]) if key == "name" else data[key]
                await _write(conn, project, column, text)
        row = await find(conn, project)
        number = await next_id(conn)
    assert row is not None
    return command("project", "Edit", shown(row), f"Project {project}  ({row['name']}) edited", number)


async def _write(conn: Connection, project: int, column: str, value: Any) -> None:
    try:
        await conn.execute(
            f"UPDATE project SET {column} = %s, updated = now() WHERE id = %s", (value, project)
        )
    except psycopg.errors.UniqueViolation:
        raise Broken("the name is taken") from None


async def delete(request: web.Request) -> web.Response:
    """DELETE a project with its images' instances and annotations; the slides stay."""
    user, project = caller(request), ident(request)
    async with transaction(request) as conn:
        row = await find(conn, project)
        if row is None:
            raise rejected(404, f"class {CLASS} {project} not found")
        await manage_project(conn, user, project, command=True)
        await conn.execute("DELETE FROM project WHERE id = %s", (project,))
        await cbir(request, "DELETE", f"/cbir/storages/{project}")
        number = await next_id(conn)
    return command("project", "Delete", shown(row), f"Project {project} ({row['name']}) deleted", number)


ROUTES = [
    ("GET", "/api/project.json", listing),
    ("POST", "/api/project.json", create),
    ("GET", "/api/project/{id}.json", fetch),
    ("PUT", "/api/project/{id}.json", update),
    ("DELETE", "/api/project/{id}.json", delete),
    ("GET", "/api/user/{id}/project.json", of_user),
    ("GET", "/api/ontology/{id}/project.json", of_ontology),
]
