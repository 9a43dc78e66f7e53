"""Stand-in for Cytomine's core: the review of images, and accepted copies of annotations.

Whoever starts the review of an image becomes its reviewer, and only the reviewer accepts and rejects there. To accept
makes a copy with terms of its own, to reject removes the copy; the annotation itself stays as it is. A copy outlives
its annotation.
"""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from . import geometry
from .access import need_user, read_project
from .annotations import find, urls
from .auth import User, caller
from .database import Connection, Row, epoch_text, next_id, one, transaction
from .errors import Broken, answer, refused, rejected
from .images import find_instance, instance
from .web import body, command, flag, ident, idents

CLASS = "be.cytomine.domain.ontology.ReviewedAnnotation"
SELECT = f"""
SELECT a.*, {geometry.MEASURES}, i.original_filename
FROM reviewed_annotation a JOIN image_instance n ON n.id = a.image_id JOIN abstract_image i ON i.id = n.base_image_id
"""


def shown(request: web.Request, row: Row) -> dict[str, Any]:
    """An accepted copy as core shows it, the missing slash in one address included."""
    links = urls(request, row, "reviewedannotation")
    links["smallCropURL"] = links["smallCropURL"].replace("/api/", "api/", 1)
    return {
        "class": CLASS,
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "parentIdent": row["parent_id"],
        "parentClassName": "be.cytomine.domain.ontology.UserAnnotation",
        "status": 1,
        "location": geometry.jts(row["wkt"]),
        "image": row["image_id"],
        "slice": row["slice_id"],
        "project": row["project_id"],
        "user": row["user_id"],
        "reviewUser": row["review_user_id"],
        "term": row["terms"],
        "terms": row["terms"],
        "geometryCompression": row["geometry_compression"],
        "nbComments": 0,
        "reviewed": True,
        **geometry.measures(row),
        **links,
    }


async def start(request: web.Request) -> web.Response:
    """POST /api/imageinstance/{id}/review.json: become the reviewer, even where someone else is, as upstream lets one."""
    user = caller(request)
    async with transaction(request) as conn:
        number = (await find_instance(conn, user, ident(request)))["id"]
        await conn.execute(
            "UPDATE image_instance SET review_start = now(), review_user_id = %s WHERE id = %s",
            (user.id, number),
        )
        row = await find_instance(conn, user, number)
    message = f"{user.username} start reviewing on {row['instance_filename'] or 'null'}"
    return answer({"imageinstance": instance(request, row), "message": message})


async def stop(request: web.Request) -> web.Response:
    """DELETE …/review.json: close the review; with ``cancel=true`` give it up, or open a closed one again."""
    user, cancel = caller(request), flag(request.query, "cancel")
    async with transaction(request) as conn:
        row = await find_instance(conn, user, ident(request))
        if row["review_start"] is None:
            raise refused(
                400, "Image is not in review mode: image.reviewStart=null and image.reviewUser=null"
            )
        if row["review_user_id"] != user.id:
            name = await _name(conn, row["review_user_id"])
            raise refused(400, f"Review can only be validate or stop by {name}")
        if not cancel:
            change = "review_stop = now()"
        elif row["review_stop"] is None:
            change = "review_start = NULL, review_user_id = NULL"
        else:
            change = "review_stop = NULL"
        await conn.execute(f"UPDATE image_instance SET {change} WHERE id = %s", (row["id"],))
        row = await find_instance(conn, user, row["id"])
    verb = "cancel" if cancel else "validate"
    message = f"{user.username} {verb} reviewing on {row['instance_filename'] or 'null'}"
    return answer({"imageinstance": instance(request, row), "message": message})


async def _name(conn: Connection, number: int) -> str:
    row = await one(conn, "SELECT username FROM sec_user WHERE id = %s", number)
    assert row is not None
    return str(row["username"])


async def _stored(request: web.Request, conn: Connection, user: User, values: dict[str, Any]) -> web.Response:
    number = await next_id(conn)
    await conn.execute(
        """INSERT INTO reviewed_annotation (id, parent_id, image_id, slice_id, project_id, user_id, review_user_id,
             location, geometry_compression, terms)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s::geometry, %s, %s::bigint[])""",
        (number, *values.values()),
    )
    row = await one(conn, SELECT + "WHERE a.id = %s", number)
    assert row is not None
    text = f"{user.username} reviewed an annotation in {row['original_filename']} on layer {{2}}"
    payload, made = shown(request, row), await next_id(conn)
    return command("reviewedAnnotation", "Add", payload, text, made, key="reviewedannotation")


async def accept(request: web.Request) -> web.Response:
    """POST /api/annotation/{id}/review.json: accept it, once the image is in one's review.

    The copy gets the annotation's terms and those of the body. With any term upstream's core writes them, and asks the
    repository to write the same before its own transaction has ended: each waits for the other without a limit. Here
    that is a server error. The official client sends a form under a JSON content type, which is one upstream, too.
    """
    user = caller(request)
    try:
        data = json.loads(await request.text() or "{}")
    except ValueError:
        raise Broken("the body is no JSON") from None
    async with transaction(request) as conn:
        parent = await find(conn, user, ident(request))
        image = await find_instance(conn, user, parent["image_id"])
        if image["review_start"] is None or image["review_stop"] is not None:
            raise refused(400, "Cannot accept annotation, enable image review mode!")
        if image["review_user_id"] != user.id:
            name = await _name(conn, image["review_user_id"])
            raise refused(
                400, f"You must be the image reviewer to accept annotation. Image reviewer is {name}"
            )
        if await one(conn, "SELECT 1 FROM reviewed_annotation WHERE parent_id = %s", parent["id"]):
            raise refused(400, "Annotation is already accepted!")
        need_user(user)
        if parent["terms"] or idents(data.get("terms")):
            raise Broken("core and repository wait for each other")
        keys = ("id", "image_id", "slice_id", "project_id", "user_id")
        values = {key: parent[key] for key in keys} | {"reviewer": user.id, "location": parent["location"]}
        values |= {"geometry_compression": parent["geometry_compression"], "terms": []}
        return await _stored(request, conn, user, values)


async def create(request: web.Request) -> web.Response:
    """POST /api/reviewedannotation.json: an accepted copy from all its data, whether the image is in review or not."""
    user, data = caller(request), await body(request)
    need_user(user)
    async with transaction(request) as conn:
        for name in ("project", "image", "slice", "user", "reviewUser", "location"):
            if data.get(name) is None:
                raise rejected(400, f"{name} must be set!")
        if data.get("terms") is None:
            raise rejected(400, "Term list was not found")
        await read_project(conn, user, int(data["project"]), command=True)
        image = await find_instance(conn, user, int(data["image"]), command_=True)
        location, terms, parent = (
            await geometry.parse(conn, data["location"]),
            idents(data["terms"]),
            int(data.get("parentIdent") or -1),
        )
        for term in terms:
            found = await one(
                conn,
                "SELECT 1 FROM term t JOIN project p ON p.ontology_id = t.ontology_id"
                " WHERE t.id = %s AND p.id = %s AND t.deleted IS NULL",
                *(term, image["project_id"]),
            )
            if found is None:
                what = f"Term {term} is null or is not in ontology from the annotation project"
                raise rejected(400, what)
        if await one(conn, "SELECT 1 FROM reviewed_annotation WHERE parent_id = %s", parent):
            raise rejected(409, f"Annotation {parent} has already been reviewed")
        values = {
            "parent": parent,
            "image": image["id"],
            "slice": int(data["slice"]),
            "project": image["project_id"],
            "user": int(data["user"]),
            "reviewer": int(data["reviewUser"]),
            "location": location,
            "compression": float(data.get("geometryCompression") or 0),
            "terms": terms,
        }
        return await _stored(request, conn, user, values)


async def reject(request: web.Request) -> web.Response:
    """DELETE /api/annotation/{id}/review.json: remove the accepted copy, also where the annotation is gone."""
    user = caller(request)
    async with transaction(request) as conn:
        row = await one(conn, SELECT + "WHERE a.parent_id = %s", ident(request))
        if row is None:
            raise refused(400, "This annotation is not accepted, you cannot reject it!")
        reviewer = (await find_instance(conn, None, row["image_id"]))["review_user_id"]
        if reviewer is not None and reviewer != user.id:
            name = await _name(conn, reviewer)
            raise refused(
                400, f"You must be the image reviewer to reject annotation. Image reviewer is  {name}"
            )
        await read_project(conn, user, row["project_id"])
        need_user(user)
        if not user.is_admin and row["review_user_id"] != user.id:
            text = "You don't have the right to read this resource! You must be the same user!"
            raise refused(403, text)
        await conn.execute("DELETE FROM reviewed_annotation WHERE id = %s", (row["id"],))
        text = f"Annotation {user.username} review deleted in {row['original_filename']} on layer {{2}}"
        payload, made = shown(request, row), await next_id(conn)
        return command(
            "reviewedAnnotation", "Delete", payload, text, made, key="reviewedannotation", printed=False
        )


ROUTES = [
    ("POST", "/api/imageinstance/{id}/review.json", start),
    ("PUT", "/api/imageinstance/{id}/review.json", start),
    ("DELETE", "/api/imageinstance/{id}/review.json", stop),
    ("POST", "/api/reviewedannotation.json", create),
    ("POST", "/api/annotation/{id}/review.json", accept),
    ("DELETE", "/api/annotation/{id}/review.json", reject),
]
