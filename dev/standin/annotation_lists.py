"""Stand-in for Cytomine's core: searching annotations."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from . import geometry
from .access import read_project
from .annotations import CLASS, find, urls
from .auth import User, caller
from .database import Connection, Row, every, one, transaction, value
from .errors import Broken, answer, refused
from .images import find_instance
from .web import collection, flag, ident, idents

REVIEWED = "be.cytomine.domain.ontology.ReviewedAnnotation"
SHOWN = ("Meta", "WKT", "GIS", "Term", "Image", "Slice", "User", "Track", "ImageGroup", "Link", "Basic")
SELECT = f"""
SELECT a.id, a.created, a.updated, a.image_id, a.slice_id, a.project_id, a.user_id, a.geometry_compression,
  {geometry.MEASURES}, i.original_filename, COALESCE(n.instance_filename, i.original_filename) AS image_name,
  s.channel, s.z_stack, s."time", u.username, u.name AS user_name,
  (SELECT count(*) FROM reviewed_annotation r WHERE r.parent_id = a.id) AS reviews,
  (SELECT json_agg(json_build_object('id', t.id, 'term', t.term_id, 'user', t.user_id) ORDER BY t.id)
   FROM annotation_term t JOIN term ON term.id = t.term_id
   WHERE t.annotation_id = a.id AND term.deleted IS NULL) AS marks
FROM user_annotation a JOIN image_instance n ON n.id = a.image_id JOIN abstract_image i ON i.id = n.base_image_id
JOIN slice_instance si ON si.id = a.slice_id JOIN abstract_slice s ON s.id = si.base_slice_id
JOIN sec_user u ON u.id = a.user_id
"""
# An accepted copy has terms of its own.
SELECT_REVIEWED = (
    SELECT[: SELECT.index("  (SELECT count(*)")]
    + """  a.parent_id, a.review_user_id,
  (SELECT json_agg(json_build_object('id', 0, 'term', t, 'user', a.user_id) ORDER BY t) FROM unnest(a.terms) t) AS marks
"""
    + SELECT[SELECT.index("FROM user_annotation") :].replace("user_annotation", "reviewed_annotation")
)
TERM = "SELECT annotation_id FROM annotation_term"


def shows(values: Any) -> set[str]:
    """What the answer shows: what was asked for, or the default where nothing was."""
    asked = {name for name in SHOWN if f"show{name}" in values}
    if not asked:
        return {"Basic", "Meta", "Term"}
    return {name for name in asked if flag(values, f"show{name}")}


def entry(request: web.Request, row: Row, show: set[str], reviewed: bool) -> dict[str, Any]:
    """One annotation of a list."""
    item: dict[str, Any] = {"class": REVIEWED if reviewed else CLASS, "id": row["id"]}
    if "Meta" in show:
        # Upstream gives these as decimal numbers of milliseconds.
        item |= {k: round(row[k].timestamp() * 1000, 3) for k in ("created", "updated")}
        item |= {"image": row["image_id"], "slice": row["slice_id"], "project": row["project_id"]}
        item |= {"user": row["user_id"], "nbComments": 0, "reviewed": reviewed or row["reviews"] > 0}
        if reviewed:
            item |= {"reviewUser": row["review_user_id"], "parentIdent": row["parent_id"]}
        else:
            item["countReviewedAnnotations"] = row["reviews"]
    if "WKT" in show:
        item |= {"location": geometry.jts(row["wkt"]), "geometryCompression": row["geometry_compression"]}
    if "GIS" in show:
        item |= geometry.measures(row)
    if "Term" in show:
        item |= terms(row["marks"] or [])
    if "Image" in show:
        item |= {"originalFilename": row["original_filename"], "instanceFilename": row["image_name"]}
    if "Slice" in show:
        item |= {"channel": row["channel"], "zStack": row["z_stack"], "time": row["time"]}
    if "User" in show:
        item |= {"creator": row["username"], "name": row["user_name"]}
    if "Track" in show:
        item |= {"track": [], "annotationTrack": []}
    if "Meta" in show:
        item |= urls(request, row, "reviewedannotation" if reviewed else "userannotation")
    return item


def terms(marks: list[dict[str, int]]) -> dict[str, Any]:
    """``term`` and ``userByTerm`` of a list's entry."""
    by_term: dict[int, dict[str, Any]] = {}
    for mark in marks:
        one_term = by_term.setdefault(mark["term"], {"id": mark["id"], "term": mark["term"], "user": []})
        one_term["user"].append(mark["user"])
    return {"term": list(by_term), "userByTerm": list(by_term.values())}


async def _scope(conn: Connection, user: User, values: Any) -> tuple[list[str], list[Any]]:
    """The conditions on project, image and slice, after checking the rights on them."""
    project, image, piece = (values.get(n) for n in ("project", "image", "slice"))
    images = idents(values.get("images"))
    if not (project or image or piece or images):
        raise refused(400, "There is no project or image or slice filter. We cannot check acl!")
    conditions, arguments = [], []
    if project:
        if not await one(conn, "SELECT 1 FROM project WHERE id = %s", int(project)):
            raise refused(404, "ACL error: domain is null! Unable to process project auth checking")
        await read_project(conn, user, int(project))
        conditions.append("a.project_id = %s")
        arguments.append(int(project))
    wanted = [*images, *([int(image)] if image else [])]
    for name, column, numbers in (
        ("image_instance", "image_id", wanted),
        ("slice_instance", "slice_id", [piece]),
    ):
        numbers = [int(n) for n in numbers if n]
        if not numbers:
            continue
        join = (
            "image_instance n"
            if name == "image_instance"
            else "image_instance n JOIN slice_instance s ON s.image_id = n.id"
        )
        key = "n.id" if name == "image_instance" else "s.id"
        for number in numbers:
            found = await one(conn, f"SELECT n.project_id FROM {join} WHERE {key} = %s", number)
            if found is None:
                raise Broken(f"unknown {name} {number}")
            await read_project(conn, user, found["project_id"])
        conditions.append(f"a.{column} = ANY(%s)")
        arguments.append(numbers)
    return conditions, arguments


async def _filters(conn: Connection, values: Any) -> tuple[list[str], list[Any]]:
    conditions, arguments = [], []

    def add(condition: str, *given: Any) -> None:
        conditions.append(condition)
        arguments.extend(given)

    users = idents(values.get("users")) + idents(values.get("user"))
    if users:
        add("a.user_id = ANY(%s)", users)
    wanted = idents(values.get("terms")) + idents(values.get("term"))
    reviewers = idents(values.get("reviewUsers"))
    reviewed = flag(values, "reviewed")
    if wanted:
        add("a.terms && %s::bigint[]" if reviewed else f"a.id IN ({TERM} WHERE term_id = ANY(%s))", wanted)
    if flag(values, "noTerm"):
        add("a.terms = '{}'" if reviewed else f"a.id NOT IN ({TERM})")
    if flag(values, "multipleTerm"):
        several = f"a.id IN ({TERM} GROUP BY annotation_id HAVING count(DISTINCT term_id) > 1)"
        add("cardinality(a.terms) > 1" if reviewed else several)
    if reviewed and reviewers:
        add("a.review_user_id = ANY(%s)", reviewers)
    if flag(values, "notReviewedOnly") and not reviewed:
        add("NOT EXISTS (SELECT 1 FROM reviewed_annotation r WHERE r.parent_id = a.id)")
    if values.get("bbox"):
        add("ST_Intersects(a.location, %s::geometry)", await geometry.from_query(conn, str(values["bbox"])))
    if values.get("bboxAnnotation"):
        add(
            "ST_Intersects(a.location, (SELECT location FROM user_annotation WHERE id = %s))",
            int(values["bboxAnnotation"]),
        )
    return conditions, arguments


async def _answer(
    request: web.Request, conn: Connection, values: Any, conditions: list[str], arguments: list[Any]
) -> web.Response:
    reviewed = flag(values, "reviewed")
    table = "reviewed_annotation" if reviewed else "user_annotation"
    where = " AND ".join(conditions)
    limit, offset = (int(values.get(n) or 0) for n in ("max", "offset"))
    if limit < 0 or offset < 0:
        raise Broken("negative max or offset")
    total = int(await value(conn, f"SELECT count(*) FROM {table} a WHERE {where}", *arguments))
    page = "LIMIT %s OFFSET %s" if limit else "OFFSET %s"
    size = (limit, offset) if limit else (offset,)
    show = shows(values)
    select = SELECT_REVIEWED if reviewed else SELECT
    if show <= {"Basic"}:
        select = f"SELECT a.id FROM {table} a"
    elif "GIS" not in show:
        select = select.replace(geometry.MEASURES, geometry.TEXT)
    rows = await every(
        conn,
        f"{select} WHERE {where} ORDER BY a.created DESC, a.id DESC {page}",
        *(*arguments, *size),
    )
    return collection([entry(request, r, show, reviewed) for r in rows], offset, limit, total, asked=True)


async def search(request: web.Request) -> web.Response:
    """GET /api/annotation.json, or POST /api/annotation/search.json with the same names in a JSON body."""
    user = caller(request)
    values: Any = request.query if request.method in ("GET", "HEAD") else json.loads(await request.text())
    async with transaction(request) as conn:
        conditions, arguments = await _scope(conn, user, values)
        more, extra = await _filters(conn, values)
        return await _answer(request, conn, values, conditions + more, arguments + extra)


async def included(request: web.Request) -> web.Response:
    """GET the annotations that touch a geometry or another annotation; ``user`` is needed."""
    user, query = caller(request), request.query
    async with transaction(request) as conn:
        image = await find_instance(conn, user, ident(request))
        if query.get("annotation"):
            other = (await find(conn, user, int(query["annotation"])))["id"]
            shape = str(await value(conn, "SELECT location::text FROM user_annotation WHERE id = %s", other))
        elif query.get("geometry"):
            other, shape = 0, await geometry.from_query(conn, query["geometry"])
        else:
            raise Broken("neither geometry nor annotation")
        if not query.get("user"):
            raise Broken("user is missing")
        # Upstream shows only those that carry a term.
        conditions = [
            "a.image_id = %s",
            "a.id <> %s",
            "ST_Intersects(a.location, %s::geometry)",
            f"a.id IN ({TERM})",
        ]
        more, extra = await _filters(conn, {k: query[k] for k in ("user", "terms") if k in query})
        return await _answer(request, conn, query, conditions + more, [image["id"], other, shape, *extra])


async def count(request: web.Request) -> web.Response:
    """GET /api/{project,user}/{id}/userannotation/count.json."""
    number, kind = ident(request), request.match_info["kind"]
    async with transaction(request) as conn:
        if kind == "project":
            await read_project(conn, caller(request), number)
        query = f"SELECT count(*) FROM user_annotation WHERE {kind}_id = %s"
        return answer({"total": await value(conn, query, number)})


ROUTES = [
    ("GET", "/api/annotation.json", search),
    ("POST", "/api/annotation/search.json", search),
    ("GET", "/api/imageinstance/{id}/annotation/included.json", included),
    ("GET", "/api/{kind:project|user}/{id}/userannotation/count.json", count),
]
