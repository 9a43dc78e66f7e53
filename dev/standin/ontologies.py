"""Stand-in for Cytomine's repository: ontologies, terms and their relations."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

from typing import Any

from aiohttp import web

from .database import Connection, Row, every, one, transaction
from .errors import Broken, answer
from .records import Caller, caller, dates, done, listed, mark_deleted, missing, text_field, update_fields
from .web import body, ident

MEMBER = "SELECT 1 FROM project p JOIN project_member m ON m.project_id = p.id WHERE m.user_id = %s AND "


async def shown_terms(conn: Connection, ontology: int, deleted: bool = False) -> list[dict[str, Any]]:
    """The terms of an ontology, each with its children, after their relation was deleted too, as upstream."""
    state = "true" if deleted else "deleted IS NULL"
    rows = await every(conn, f"SELECT * FROM term WHERE ontology_id = %s AND {state} ORDER BY id", ontology)
    pairs = await every(
        conn,
        """SELECT r.term1_id AS parent, r.term2_id AS child FROM relation_term r JOIN term t ON t.id = r.term1_id
           WHERE t.ontology_id = %s ORDER BY r.id""",
        ontology,
    )
    known = {r["id"]: r for r in rows}
    below: dict[int, list[int]] = {}
    for pair in pairs:
        below.setdefault(pair["parent"], []).append(pair["child"])

    def build(number: int, path: tuple[int, ...]) -> dict[str, Any]:
        kids = [k for k in below.get(number, []) if k in known and k not in path]
        return term(known[number], [build(k, (*path, k)) for k in kids])

    return [build(r["id"], (r["id"],)) for r in rows]


def term(row: Row, children: list[dict[str, Any]]) -> dict[str, Any]:
    """A term as the repository shows it."""
    head = {"id": row["id"], "name": row["name"], "color": row["color"], "ontologyId": row["ontology_id"]}
    return {**head, **dates(row), "comment": row["comment"], "children": children, "dataType": "TERM"}


async def ontology(conn: Connection, row: Row) -> dict[str, Any]:
    """An ontology as the repository shows it, with its terms."""
    terms = await shown_terms(conn, row["id"])
    head = {"name": row["name"], "id": row["id"], "terms": terms}
    return {**head, **dates(row), "user": row["user_id"], "dataType": "ONTOLOGY"}


# Upstream keeps who may read what by number alone. Ontologies are counted apart from all else, so that the first one has the
# number of a storage, and a member is given that in its place.
IMAGE_SERVERS_STORAGE = 1


async def readable(conn: Connection, who: Caller, number: int) -> bool:
    """Administrators, its owner, and members of a project with that ontology, but for the very first one."""
    if number == IMAGE_SERVERS_STORAGE and not who.admin:
        return False
    own = await one(conn, "SELECT 1 FROM ontology WHERE id = %s AND user_id = %s", number, who.id)
    return who.admin or bool(own or await one(conn, MEMBER + "p.ontology_id = %s", who.id, number))


async def _find(request: web.Request, conn: Connection, number: int) -> Row:
    row = await one(conn, "SELECT * FROM ontology WHERE id = %s", number)
    if row is None or not await readable(conn, await caller(request, conn), number):
        raise missing(request, "ontology", number)
    return row


async def _visible(request: web.Request, conn: Connection) -> list[Row]:
    who = await caller(request, conn)
    return await every(
        conn, "SELECT * FROM ontology WHERE deleted IS NULL AND user_id = %s ORDER BY id", who.id
    )


async def ontology_list(request: web.Request) -> web.Response:
    """GET /api/ontology.json: those that the caller made, for administrators too."""
    async with transaction(request) as conn:
        rows = await _visible(request, conn)
        return listed(request, [await ontology(conn, r) for r in rows])


async def ontology_light(request: web.Request) -> web.Response:
    """GET /api/ontology_light.json: ids and names."""
    async with transaction(request) as conn:
        return listed(request, [{"id": r["id"], "name": r["name"]} for r in await _visible(request, conn)])


async def ontology_fetch(request: web.Request) -> web.Response:
    """GET /api/ontology/{id}.json."""
    async with transaction(request) as conn:
        row = await _find(request, conn, ident(request))
        if row["deleted"]:
            raise missing(request, "ontology", row["id"])
        return answer(await ontology(conn, row))


async def ontology_create(request: web.Request) -> web.Response:
    """POST /api/ontology.json; the same name twice is accepted."""
    data = await body(request)
    async with transaction(request) as conn:
        who, name = await caller(request, conn), text_field(data, "name")
        row = await one(
            conn, "INSERT INTO ontology (name, user_id) VALUES (%s, %s) RETURNING *", name, who.id
        )
        assert row is not None
        return answer(done("Ontology", "Add", await ontology(conn, row)))


async def ontology_update(request: web.Request) -> web.Response:
    """PUT /api/ontology/{id}.json."""
    async with transaction(request) as conn:
        number = (await _find(request, conn, ident(request)))["id"]
        await update_fields(request, conn, "ontology", {"name": "name"}, number)
        row = await _find(request, conn, number)
        return answer(done("Ontology", "Edit", await ontology(conn, row)))


async def ontology_delete(request: web.Request) -> web.Response:
    """DELETE an ontology with its terms, even where a project uses it."""
    async with transaction(request) as conn:
        number = (await _find(request, conn, ident(request)))["id"]
        rows = await every(
            conn,
            "UPDATE term SET deleted = now() WHERE ontology_id = %s AND deleted IS NULL RETURNING *",
            number,
        )
        await mark_deleted(conn, "ontology", number)
        row = await _find(request, conn, number)
        terms = [term(r, []) for r in rows]
        data = {**await ontology(conn, row), "terms": terms}
        return answer(done("Ontology", "Delete", data, [done("Term", "Delete", t) for t in terms]))


async def _term(request: web.Request, conn: Connection, number: int) -> dict[str, Any]:
    row = await one(conn, "SELECT * FROM term WHERE id = %s", number)
    if row is None or not await readable(conn, await caller(request, conn), row["ontology_id"]):
        raise missing(request, "term", number)
    every_term = await shown_terms(conn, row["ontology_id"], deleted=True)
    return next(t for t in every_term if t["id"] == number)


async def term_fetch(request: web.Request) -> web.Response:
    """GET /api/term/{id}.json."""
    async with transaction(request) as conn:
        data = await _term(request, conn, ident(request))
        if data["deleted"]:
            raise missing(request, "term", data["id"])
        return answer(data)


async def term_create(request: web.Request) -> web.Response:
    """POST /api/term.json, into any ontology; ``parent`` is ignored."""
    data = await body(request)
    async with transaction(request) as conn:
        await caller(request, conn)
        name, color, number = text_field(data, "name"), text_field(data, "color"), data.get("ontology")
        if not await one(conn, "SELECT 1 FROM ontology WHERE id = %s AND deleted IS NULL", number):
            raise Broken("unknown ontology")
        row = await one(
            conn,
            "INSERT INTO term (name, color, ontology_id, comment) VALUES (%s, %s, %s, %s) RETURNING *",
            *(name, color, number, data.get("comment")),
        )
        assert row is not None
        return answer(done("Term", "Add", term(row, [])))


async def term_update(request: web.Request) -> web.Response:
    """PUT /api/term/{id}.json."""
    async with transaction(request) as conn:
        number = (await _term(request, conn, ident(request)))["id"]
        await update_fields(
            request, conn, "term", {"name": "name", "color": "color", "comment": "comment"}, number
        )
        return answer(done("Term", "Edit", await _term(request, conn, number)))


async def term_delete(request: web.Request) -> web.Response:
    """DELETE /api/term/{id}.json, even where annotations carry it."""
    async with transaction(request) as conn:
        number = (await _term(request, conn, ident(request)))["id"]
        await mark_deleted(conn, "term", number)
        return answer(done("Term", "Delete", await _term(request, conn, number)))


async def terms_of_ontology(request: web.Request) -> web.Response:
    """GET the terms of an ontology; one that the caller may not read is a server error upstream."""
    number = ident(request)
    async with transaction(request) as conn:
        if not await one(conn, "SELECT 1 FROM ontology WHERE id = %s", number):
            return listed(request, [])
        if not await readable(conn, await caller(request, conn), number):
            raise Broken("no right to read the ontology")
        return listed(request, await shown_terms(conn, number))


async def terms_of_project(request: web.Request) -> web.Response:
    """GET the terms of a project; more than one page of them is a server error upstream."""
    number = ident(request)
    async with transaction(request) as conn:
        who = await caller(request, conn)
        row = await one(conn, "SELECT ontology_id FROM project WHERE id = %s", number)
        if row is None or row["ontology_id"] is None:
            return listed(request, [])
        if not (who.admin or await one(conn, MEMBER + "p.id = %s", who.id, number)):
            raise Broken("no right to read the project")
        terms = await shown_terms(conn, row["ontology_id"])
    if len(terms) > int(request.query.get("size", 20)):
        raise Broken("more terms than fit a page")
    return listed(request, terms)


def relation(row: Row) -> dict[str, Any]:
    """A relation of two terms as the repository shows it."""
    head = {"id": row["id"], "term1Id": row["term1_id"], "term2Id": row["term2_id"]}
    tail = {"relationId": row["relation_id"], "name": None, "dataType": "TERM_RELATION"}
    return {**head, **dates(row), **tail}


async def relation_create(request: web.Request) -> web.Response:
    """POST /api/relation/parent/term.json."""
    data = await body(request)
    async with transaction(request) as conn:
        pair = [data.get("term1"), data.get("term2")]
        for number in pair:
            if not isinstance(number, int):
                raise Broken("term1 or term2 is missing")
            await _term(request, conn, number)
        row = await one(
            conn, "INSERT INTO relation_term (term1_id, term2_id) VALUES (%s, %s) RETURNING *", *pair
        )
        assert row is not None
        return answer(done("TermRelation", "Add", relation(row)))


async def relation_delete(request: web.Request) -> web.Response:
    """DELETE /api/relation/parent/term1/{a}/term2/{b}.json."""
    async with transaction(request) as conn:
        first, second = ident(request, "a"), ident(request, "b")
        await _term(request, conn, first)
        row = await one(
            conn,
            """UPDATE relation_term SET deleted = now() WHERE term1_id = %s AND term2_id = %s AND deleted IS NULL
               RETURNING *""",
            *(first, second),
        )
        if row is None:
            raise missing(request, "term relation", first)
        return answer(done("TermRelation", "Delete", relation(row)))


ROUTES = [
    ("GET", "/api/ontology.json", ontology_list),
    ("GET", "/api/ontology_light.json", ontology_light),
    ("POST", "/api/ontology.json", ontology_create),
    ("GET", "/api/ontology/{id}.json", ontology_fetch),
    ("PUT", "/api/ontology/{id}.json", ontology_update),
    ("DELETE", "/api/ontology/{id}.json", ontology_delete),
    ("POST", "/api/term.json", term_create),
    ("GET", "/api/term/{id}.json", term_fetch),
    ("PUT", "/api/term/{id}.json", term_update),
    ("DELETE", "/api/term/{id}.json", term_delete),
    ("GET", "/api/ontology/{id}/term.json", terms_of_ontology),
    ("GET", "/api/project/{id}/term.json", terms_of_project),
    ("POST", "/api/relation/{kind}/term.json", relation_create),
    ("DELETE", "/api/relation/{kind}/term1/{a}/term2/{b}.json", relation_delete),
]
