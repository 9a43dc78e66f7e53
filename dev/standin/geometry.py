"""Stand-in for Cytomine's core: annotation geometries, read, checked, cut and measured by PostGIS."""

# ruff: noqa: S608 - only fixed names are put into statements
from __future__ import annotations

import re
from typing import Any

import psycopg

from .database import Connection, Row, one, value
from .errors import Broken, rejected

WIDTHS = "image_instance n JOIN abstract_image i ON i.id = n.base_image_id"


def jts(text: str) -> str:
    """PostGIS's WKT in upstream's writing: ``POLYGON ((0 0, 1 0, ...))``."""
    head, _, rest = text.partition("(")
    if not rest:
        return text
    body = re.sub(r",\s*", ", ", rest[:-1])
    if head.strip() == "MULTIPOINT" and "(" not in body:
        body = ", ".join(f"({p})" for p in body.split(", "))
    return f"{head.strip()} ({body})"


async def parse(conn: Connection, text: Any) -> str:
    """The geometry of a WKT as hexadecimal EWKB, or 400."""
    return await _read(conn, "SELECT g::text AS hex, ST_IsValid(g) AS valid FROM read_wkt(%s) g", text)


async def fit(conn: Connection, text: Any, image: int, *, new: bool = True) -> str:
    """The part of a WKT's geometry that is inside the image, as hexadecimal EWKB, or 400.

    Of a new annotation upstream takes width and height for whole numbers, and refuses none of either; of lines it does not
    look at them, and of annotations that are changed neither.
    """
    return await _read(
        conn,
        f"""SELECT valid, kind, outside, c.geom::text AS hex, upper(GeometryType(c.geom)) AS stored,
              {str(new).lower()} AND NOT outside AND GeometryType(c.geom) <> 'LINESTRING' AND ST_NPoints(c.geom) > 1
                AND (ST_XMax(c.geom) - ST_XMin(c.geom) < 1 OR ST_YMax(c.geom) - ST_YMin(c.geom) < 1) AS thin
            FROM (SELECT g.valid, upper(GeometryType(g.geom)) AS kind,
              CASE WHEN g.valid THEN ST_IsEmpty(g.geom) OR NOT ST_Intersects(g.geom, b.box) END AS outside,
              CASE WHEN NOT g.valid OR ST_CoveredBy(g.geom, b.box) THEN g.geom
                   ELSE ST_Intersection(g.geom, b.box) END AS geom
            FROM (SELECT geom, ST_IsValid(geom) AS valid FROM read_wkt(%s) geom) g,
                 (SELECT ST_MakeEnvelope(0, 0, i.width, i.height) AS box FROM {WIDTHS} WHERE n.id = %s) b) c""",
        text,
        image,
    )


async def _read(conn: Connection, query: str, text: Any, *more: Any) -> str:
    try:
        row = await one(conn, query, str(text), *more)
    except psycopg.DataError:  # a zero byte, refused before it is sent
        row = None
    if row is None or not row["valid"]:
        raise rejected(400, "Annotation location is not valid")
    if row.get("outside"):
        raise rejected(400, f"Cannot extract boundaries for {row['kind']} EMPTY")
    if row.get("thin"):
        raise rejected(400, "Annotation dimension not valid")
    if row.get("stored") in ("MULTILINESTRING", "GEOMETRYCOLLECTION"):
        name = {"MULTILINESTRING": "MultiLineString"}.get(row["stored"], "GeometryCollection")
        raise rejected(400, f"{name} is not a valid geometry type!")
    return str(row["hex"])


async def from_query(conn: Connection, text: str) -> str:
    """A filter geometry: WKT, or ``x1,y1,x2,y2``; anything else is a server error upstream."""
    parts = text.split(",")
    try:
        async with conn.transaction():
            if len(parts) == 4 and all(re.fullmatch(r"-?[\d.]+", p.strip()) for p in parts):
                return str(
                    await value(conn, "SELECT ST_MakeEnvelope(%s, %s, %s, %s)::text", *map(float, parts))
                )
            return str(await value(conn, "SELECT ST_GeomFromText(%s)::text", text))
    except psycopg.Error as error:
        raise Broken(f"bad geometry: {error}") from None


TEXT = "ST_AsText(a.location) AS wkt"
MEASURES = f"""
{TEXT}, ST_Area(a.location) AS area, ST_Length(a.location) + ST_Perimeter(a.location) AS length,
ST_X(ST_Centroid(a.location)) AS cx, ST_Y(ST_Centroid(a.location)) AS cy,
COALESCE(n.physical_size_x, i.physical_size_x) AS size_x, COALESCE(n.physical_size_y, i.physical_size_y) AS size_y
"""


def measures(row: Row) -> dict[str, Any]:
    """Area in square microns and perimeter in millimetres where the pixel size is known, else in pixels."""
    known = row["size_x"] is not None and row["size_y"] is not None
    area = row["area"] * (row["size_x"] * row["size_y"] if known else 1)
    length = row["length"] * (row["size_x"] / 1000 if known else 1)
    return {
        "area": float(area),
        "areaUnit": "micron²" if known else "pixels²",
        "perimeter": float(length),
        "perimeterUnit": "mm" if known else "pixels",
        "centroid": {"x": row["cx"], "y": row["cy"]},
    }
