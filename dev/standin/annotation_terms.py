"""Stand-in for Cytomine's core: terms on annotations."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .access import membership
from .annotations import add_term, find
from .auth import User, caller
from .database import Connection, Row, epoch_text, every, next_id, one, transaction
from .errors import Broken, forbidden, refused, rejected
from .web import answer, body, command, cut, ident

CLASS = "be.cytomine.domain.ontology.AnnotationTerm"


def shown(row: Row) -> dict[str, Any]:
    """A term on an annotation as core shows it."""
    return {
        "class": CLASS,
        "id": row["id"],
        "created": epoch_text(row["created"]),
        "updated": epoch_text(row["updated"]),
        "userannotation": row["annotation_id"],
        "term": row["term_id"],
        "user": row["user_id"],
    }


async def _annotation(conn: Connection, user: User, number: int) -> None:
    row = await one(conn, "SELECT project_id FROM user_annotation WHERE id = %s", number)
    if row is None:
        raise refused(404, f"Annotation annotationIdent=null-userannotation={number} not found")
    if not (user.is_admin or await membership(conn, user, row["project_id"])):
        raise forbidden("ontology.UserAnnotation", number)


async def _done(conn: Connection, row: Row, action: str, verb: str) -> web.Response:
    name = await one(conn, "SELECT name FROM term WHERE id = %s", row["term_id"])
    assert name is not None
    text = f"Term {name['name']} is {verb} annotation {row['annotation_id']}"
    return command("annotationTerm", action, shown(row), text, await next_id(conn), key="annotationterm")


async def _add(conn: Connection, user: User, annotation: int, term: int) -> web.Response:
    await _annotation(conn, user, annotation)
    if not await one(conn, "SELECT 1 FROM term WHERE id = %s AND deleted IS NULL", term):
        raise refused(400, f"term was not found with id: {term}")
    there = await one(
        conn,
        "SELECT 1 FROM annotation_term WHERE annotation_id = %s AND term_id = %s AND user_id = %s",
        *(annotation, term, user.id),
    )
    if there:
        what = f"AnnotationTerm with annotation={annotation} and term {term} and user {user.username}"
        raise refused(400, f"{what} already exist!")
    number = await add_term(conn, annotation, term, user.id)
    row = await one(conn, "SELECT * FROM annotation_term WHERE id = %s", number)
    assert row is not None
    return await _done(conn, row, "Add", "added to")


async def add(request: web.Request) -> web.Response:
    """POST /api/annotation/{id}/term/{term}.json; the body must repeat both ids."""
    user, data = caller(request), await body(request)
    if data.get("userannotation") is None or data.get("term") is None:
        raise Broken("the body lacks userannotation or term")
    async with transaction(request) as conn:
        return await _add(conn, user, ident(request), ident(request, "term"))


async def replace(request: web.Request) -> web.Response:
    """POST …/clearBefore.json: this term in the place of the caller's others."""
    user, annotation = caller(request), ident(request)
    async with transaction(request) as conn:
        await _annotation(conn, user, annotation)
        await conn.execute(
            "DELETE FROM annotation_term WHERE annotation_id = %s AND user_id = %s", (annotation, user.id)
        )
        return await _add(conn, user, annotation, ident(request, "term"))


async def fetch(request: web.Request) -> web.Response:
    """GET /api/annotation/{id}/term/{term}.json."""
    annotation, term = ident(request), ident(request, "term")
    async with transaction(request) as conn:
        await find(conn, caller(request), annotation)
        row = await one(
            conn,
            "SELECT * FROM annotation_term WHERE annotation_id = %s AND term_id = %s ORDER BY id",
            *(annotation, term),
        )
        if row is None:
            raise refused(
                404,
                f"AnnotationTerm UserAnnotation{{id={annotation}}}-TermResponse[id={term}]-null not found",
            )
    return answer(shown(row))


async def listing(request: web.Request) -> web.Response:
    """GET /api/annotation/{id}/term.json."""
    annotation = ident(request)
    async with transaction(request) as conn:
        await find(conn, caller(request), annotation)
        rows = await every(
            conn, "SELECT * FROM annotation_term WHERE annotation_id = %s ORDER BY id", annotation
        )
    return cut(request, [shown(r) for r in rows])


async def delete(request: web.Request) -> web.Response:
    """DELETE the caller's term from an annotation."""
    user, annotation, term = caller(request), ident(request), ident(request, "term")
    async with transaction(request) as conn:
        await find(conn, user, annotation, command_=True)
        row = await one(
            conn,
            "DELETE FROM annotation_term WHERE annotation_id = %s AND term_id = %s AND user_id = %s RETURNING *",
            *(annotation, term, user.id),
        )
        if row is None:
            what = f"{{term={term}, userannotation={annotation}, user={user.id}}}"
            raise rejected(404, f"Annotation-term not found {what}")
        return await _done(conn, row, "Delete", "deleted from")


ROUTES = [
    ("GET", "/api/annotation/{id}/term.json", listing),
    ("GET", r"/api/annotation/{id:\d+}/term/{term:\d+}.json", fetch),
    ("POST", r"/api/annotation/{id:\d+}/term/{term:\d+}.json", add),
    ("DELETE", r"/api/annotation/{id:\d+}/term/{term:\d+}.json", delete),
    ("POST", r"/api/annotation/{id:\d+}/term/{term:\d+}/clearBefore.json", replace),
]
