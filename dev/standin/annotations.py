"""Stand-in for Cytomine's core: making, changing and deleting annotations.

Each new annotation costs one crop by the image server and one call to the similarity search, as upstream;
where one of them fails nothing is stored and the answer is a server error.
"""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import json
from typing import Any

from aiohttp import FormData, web

from . import geometry
from .access import read_project
from .auth import User, caller
from .database import Connection, Row, epoch_text, every, next_id, one, transaction, value
from .errors import Broken, Failure, answer, refused, rejected
from .faults import DEADLOCK, keep_project
from .pixels import ask
from .projects import cbir
from .web import SETTINGS, command, cut, ident, idents, number

CLASS = "be.cytomine.domain.ontology.UserAnnotation"
SELECT = f"""
SELECT a.*, {geometry.MEASURES}, COALESCE(n.instance_filename, i.original_filename) AS image_name, i.width, i.height,
  ARRAY(SELECT DISTINCT t.term_id FROM annotation_term t JOIN term ON term.id = t.term_id
        WHERE t.annotation_id = a.id AND term.deleted IS NULL ORDER BY 1) AS terms
FROM user_annotation a JOIN image_instance n ON n.id = a.image_id JOIN abstract_image i ON i.id = n.base_image_id
"""


def urls(request: web.Request, row: Row, kind: str = "userannotation") -> dict[str, str]:
    """The addresses in an annotation; they begin with core's SERVER_URL, whoever asks."""
    server = request.app[SETTINGS].server_url
    crop = f"{server}/api/{kind}/{row['id']}/crop.png"
    page = f"{server}/#/project/{row['project_id']}/image/{row['image_id']}/annotation/{row['id']}"
    return {"cropURL": crop, "smallCropURL": f"{crop}?maxSize=256", "url": crop, "imageURL": page}


def shown(request: web.Request, row: Row) -> dict[str, Any]:
    """An annotation as core shows it."""
    return {
        "class": CLASS,
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "location": geometry.jts(row["wkt"]),
        "image": row["image_id"],
        "slice": row["slice_id"],
        "project": row["project_id"],
        "user": row["user_id"],
        "term": row["terms"],
        "geometryCompression": row["geometry_compression"],
        "nbComments": 0,
        "reviewed": row["reviewed"],
        **geometry.measures(row),
        **urls(request, row),
    }


async def find(conn: Connection, user: User | None, annotation: int, command_: bool = False) -> Row:
    """An annotation that the caller may read, or the failure. Any member of its project may change it, too."""
    row = await one(conn, SELECT + "WHERE a.id = %s", annotation)
    if row is None:
        raise refused(404, f"Annotation {annotation} not found")
    if user is not None:
        await read_project(conn, user, row["project_id"], proxy=True, command=command_)
    return row


async def fetch(request: web.Request) -> web.Response:
    """GET /api/annotation/{id}.json."""
    async with transaction(request) as conn:
        return answer(shown(request, await find(conn, caller(request), ident(request))))


async def add_term(conn: Connection, annotation: int, term: int, user: int) -> int:
    """Put a term on an annotation; the id of the association."""
    association = await next_id(conn)
    await conn.execute(
        """INSERT INTO annotation_term (id, annotation_id, term_id, user_id) VALUES (%s, %s, %s, %s)
           ON CONFLICT DO NOTHING""",
        (association, annotation, term, user),
    )
    return association


async def _place(conn: Connection, user: User, data: dict[str, Any]) -> Row:
    """Image, slice, project and file of a new annotation; a project in the body does not count."""
    wanted, image = data.get("slice"), data.get("image")
    if wanted is None and image is None:
        raise rejected(400, "Cannot retrieve slice or image")
    row = await one(
        conn,
        """SELECT n.id AS image_id, n.project_id, s.id AS slice_id, c.channel, i.height, f.filename AS path
           FROM image_instance n JOIN slice_instance s ON s.image_id = n.id
           JOIN abstract_slice c ON c.id = s.base_slice_id JOIN abstract_image i ON i.id = n.base_image_id
           JOIN uploaded_file f ON f.id = i.uploaded_file_id
           WHERE s.id = %s OR (%s::bigint IS NULL AND n.id = %s) ORDER BY s.id""",
        *(wanted, wanted, image),
    )
    if row is None:
        kind, missing = ("SliceInstance", wanted) if wanted is not None else ("ImageInstance", image)
        raise rejected(404, f"{kind} with id {missing}")
    await read_project(conn, user, row["project_id"], proxy=True, command=True)
    return row


# What is known of the images, by slice and image as they were asked for.
Places = dict[tuple[Any, Any], Row]


async def add(
    request: web.Request, conn: Connection, user: User, data: dict[str, Any], places: Places | None = None
) -> int:
    """Store one annotation and tell the similarity search about it; its id.

    ``places`` keeps what is known of the images, for the others of the same transaction.
    """
    if data.get("location") is None:
        raise rejected(400, "Annotation must have a valid geometry:null")
    places, wanted = {} if places is None else places, (data.get("slice"), data.get("image"))
    if wanted not in places:
        places[wanted] = await _place(conn, user, data)
        await keep_project(request.app, conn, places[wanted]["project_id"])
    place = places[wanted]
    row = await one(
        conn,
        """INSERT INTO user_annotation (id, image_id, slice_id, project_id, user_id, location, created, updated)
           VALUES (nextval('hibernate_sequence'), %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp())
           RETURNING id, ST_AsGeoJSON(ST_Translate(ST_Scale(location, 1, -1), 0, %s), 6) AS shape""",
        *(place["image_id"], place["slice_id"], place["project_id"], user.id),
        await geometry.fit(conn, data["location"], place["image_id"]),
        place["height"],
    )
    assert row is not None
    for term in idents(data.get("term")):
        if not await one(conn, "SELECT 1 FROM term WHERE id = %s AND deleted IS NULL", term):
            raise rejected(404, "Term null not found")
        await add_term(conn, row["id"], term, user.id)
    for key, text in _properties(data).items():
        await conn.execute(
            "INSERT INTO property (id, domain_class_name, domain_ident, key, value) VALUES (%s, %s, %s, %s, %s)",
            (await next_id(conn), CLASS, row["id"], key, str(text)),
        )
    await _index(request, row, place)
    return int(row["id"])


def _properties(data: dict[str, Any]) -> dict[str, Any]:
    """The properties in the body of a new annotation: an object; upstream fails at anything else."""
    found = {}
    for name in ("property", "properties"):
        part = data.get(name)
        if not isinstance(part, (dict, type(None))):
            raise Broken(f"{name} is no object")
        found |= part or {}
    return found


async def _index(request: web.Request, row: Row, place: Row) -> None:
    options = {
        "shape": json.loads(row["shape"]),
        "mode": "crop",
        "length": 256,
        "channel": place["channel"],
    }
    crop = await ask(request, place["path"], "annotation", options)
    with_file = _multipart(row["id"], bytes(crop.body))  # type: ignore[arg-type]
    path = f"/cbir/images?storage={place['project_id']}&index=annotation"
    await cbir(request, "POST", path, data=with_file)


def _multipart(annotation: int, content: bytes) -> Any:
    form = FormData()
    form.add_field("image", content, filename=str(annotation), content_type="image/png")
    return form


async def create(request: web.Request) -> web.Response:
    """POST /api/annotation.json: one, or a list."""
    user = caller(request)
    try:
        data = json.loads(await request.text())
    except ValueError:
        raise refused(400, "Json not valid") from None
    async with transaction(request) as conn:
        if isinstance(data, list):
            return await _bulk(request, conn, user, data)
        if not isinstance(data, dict):
            raise refused(400, "Json not valid")
        annotation = await add(request, conn, user, data)
        await _simplify(request, conn, annotation)
        return await done(request, conn, user, annotation, "Add", "added an annotation in")


async def _bulk(request: web.Request, conn: Connection, user: User, items: list[Any]) -> web.Response:
    places: Places = {}
    added = [await _bulk_item(request, conn, user, item, places) for item in items]
    if None in added:
        return web.Response(body=b"invalid json string", content_type="application/json")
    text = f"userannotations {','.join(map(str, added))} added"
    return answer({"data": {"message": text}, "status": 200})


async def _bulk_item(
    request: web.Request, conn: Connection, user: User, item: Any, places: Places
) -> int | None:
    # A wrong geometry is dropped and spoils the answer, the rest is stored; any other failure stores nothing.
    try:
        return await add(request, conn, user, item, places)
    except Failure as failure:
        if failure.status != 400:
            raise Broken(f"bulk: {failure}") from None
        return None


async def done(
    request: web.Request, conn: Connection, user: User, annotation: int, action: str, verb: str
) -> web.Response:
    """Core's answer to a command on an annotation."""
    row = await find(conn, None, annotation)
    owner = await one(conn, "SELECT username FROM sec_user WHERE id = %s", row["user_id"])
    assert owner is not None
    text = f"{user.username} {verb} {row['image_name']} on layer {owner['username']}"
    return command("userAnnotation", action, shown(request, row), text, await next_id(conn))


async def update(request: web.Request) -> web.Response:
    """PUT /api/annotation/{id}.json: the location; terms in the body do not count."""
    user = caller(request)
    try:
        data = json.loads(await request.text())
    except ValueError:
        raise refused(400, "Json not valid") from None
    async with transaction(request) as conn:
        row = await find(conn, user, ident(request), command_=True)
        shape = await geometry.fit(conn, data.get("location"), row["image_id"], new=False)
        if data.get("image") is None and data.get("slice") is None:
            raise Broken("the body lacks image and slice")
        await conn.execute(
            "UPDATE user_annotation SET location = %s, updated = clock_timestamp() WHERE id = %s",
            (shape, row["id"]),
        )
        return await done(request, conn, user, row["id"], "Edit", "edited annotation from")


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/annotation/{id}.json.

    Of two that delete annotations with terms in one project at the same time upstream's database rolls one back: its
    trigger wants the project's row alone, which both share by then. Here it is the one that comes later.
    """
    user, annotation = caller(request), ident(request)
    async with transaction(request) as conn:
        row = await find(conn, user, annotation, command_=True)
        lock = "SELECT pg_try_advisory_xact_lock(7072, hashtext(%s::text))"
        if row["terms"] and not await value(conn, lock, row["project_id"]):
            raise Failure(400, {"errors": DEADLOCK.format(annotation)})
        response = await done(request, conn, user, annotation, "Delete", "deleted an annotation in")
        await conn.execute("DELETE FROM user_annotation WHERE id = %s", (annotation,))
        await cbir(request, "DELETE", f"/cbir/images/{annotation}")
    return response


async def _simplify(request: web.Request, conn: Connection, annotation: int) -> None:
    most = number(request, "maxPoint", request.app[SETTINGS].annotation_max_points)
    for tolerance in (1, 2, 4, 8, 16, 32, 64):
        points = await one(
            conn, "SELECT ST_NPoints(location) AS n FROM user_annotation WHERE id = %s", annotation
        )
        if points is None or points["n"] <= max(most, 4):
            return
        await conn.execute(
            """UPDATE user_annotation SET location = ST_SimplifyPreserveTopology(location, %s), geometry_compression = %s
               WHERE id = %s""",
            (tolerance, tolerance, annotation),
        )


async def simplify(request: web.Request) -> web.Response:
    """PUT /api/annotation/{id}/simplify.json: fewer points, at most ``maxPoint`` where that keeps the shape."""
    async with transaction(request) as conn:
        row = await find(conn, caller(request), ident(request))
        await _simplify(request, conn, row["id"])
        return answer(shown(request, await find(conn, None, row["id"])))


async def fill(request: web.Request) -> web.Response:
    """POST /api/annotation/{id}/fill.json: without its holes."""
    user = caller(request)
    async with transaction(request) as conn:
        row = await find(conn, user, ident(request))
        await conn.execute(
            """UPDATE user_annotation SET updated = clock_timestamp(), location =
                 CASE WHEN GeometryType(location) = 'POLYGON' THEN ST_MakePolygon(ST_ExteriorRing(location))
                      WHEN GeometryType(location) = 'MULTIPOLYGON' THEN (SELECT ST_Multi(ST_Union(
                        ST_MakePolygon(ST_ExteriorRing(d.geom)))) FROM ST_Dump(location) d)
                      ELSE location END WHERE id = %s""",
            (row["id"],),
        )
        return await done(request, conn, user, row["id"], "Edit", "edited annotation from")


async def geometries(request: web.Request) -> web.Response:
    """GET /api/userannotation.json: upstream's list of those with a surface or length, oldest first."""
    user = caller(request)
    async with transaction(request) as conn:
        rows = await every(
            conn,
            """SELECT id, project_id FROM user_annotation WHERE GeometryType(location) <> 'POINT'
               AND (%s OR project_id IN (SELECT project_id FROM project_member WHERE user_id = %s)) ORDER BY id""",
            *(user.is_admin, user.id),
        )
    server = request.app[SETTINGS].server_url
    url = "{}/api/userannotation/{}/crop.png?maxSize=256"
    items = [{"id": r["id"], "container": r["project_id"], "url": url.format(server, r["id"])} for r in rows]
    return cut(request, items)


ROUTES = [
    ("POST", "/api/annotation.json", create),
    ("POST", "/api/userannotation.json", create),
    ("GET", "/api/userannotation.json", geometries),
    ("GET", "/api/{kind:annotation|userannotation}/{id}.json", fetch),
    ("PUT", "/api/{kind:annotation|userannotation}/{id}.json", update),
    ("DELETE", "/api/{kind:annotation|userannotation}/{id}.json", delete),
    ("PUT", "/api/annotation/{id}/simplify.json", simplify),
    ("POST", "/api/annotation/{id}/fill.json", fill),
]
