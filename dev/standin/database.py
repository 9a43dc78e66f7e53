"""Stand-in for Cytomine: access to the stack's PostGIS."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import psycopg
from aiohttp import web
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from .settings import Settings

Connection = psycopg.AsyncConnection[dict[str, Any]]
Row = dict[str, Any]
POOL: web.AppKey[AsyncConnectionPool[Connection]] = web.AppKey("pool", AsyncConnectionPool)


def conninfo(settings: Settings) -> str:
    """The connection string; every statement is cut after 60 s."""
    return psycopg.conninfo.make_conninfo(
        host=settings.pg_host,
        port=settings.pg_port,
        dbname=settings.pg_name,
        user=settings.pg_user,
        password=settings.pg_password or None,
        connect_timeout=max(2, int(settings.connect_timeout)),
        application_name=f"standin-{settings.role}",
        options="-c statement_timeout=60000 -c timezone=UTC",
    )


async def connect(settings: Settings) -> Connection:
    """One connection outside the pool."""
    return await psycopg.AsyncConnection.connect(conninfo(settings), row_factory=dict_row)


async def open_pool(settings: Settings) -> AsyncConnectionPool[Connection]:
    """The role's pool; connections that a database restart has broken are replaced before use."""
    pool = AsyncConnectionPool(
        conninfo(settings),
        min_size=1,
        max_size=8,
        # A database that comes back is found within seconds, and calls until then fail in time.
        timeout=8,
        reconnect_timeout=5,
        kwargs={"row_factory": dict_row},
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    await pool.open(wait=True, timeout=settings.connect_timeout)
    return pool


@contextlib.asynccontextmanager
async def transaction(request: web.Request) -> AsyncIterator[Connection]:
    """One transaction: committed at the end, rolled back on any exception."""
    async with request.app[POOL].connection() as conn:
        yield conn


async def one(conn: Connection, query: str, *args: Any) -> Row | None:
    """The first row, or None."""
    return await (await conn.execute(query, args)).fetchone()


async def every(conn: Connection, query: str, *args: Any) -> list[Row]:
    """All rows."""
    return await (await conn.execute(query, args)).fetchall()


async def value(conn: Connection, query: str, *args: Any) -> Any:
    """The first column of the first row, or None."""
    row = await one(conn, query, *args)
    return next(iter(row.values())) if row else None


async def next_id(conn: Connection) -> int:
    """The next id of the sequence that all of core's objects and commands share."""
    return int(await value(conn, "SELECT nextval('hibernate_sequence')"))


def epoch_text(moment: datetime | None) -> str | None:
    """Milliseconds as a text, as core's objects show dates."""
    return None if moment is None else str(int(moment.timestamp() * 1000))


def epoch(moment: datetime | None) -> int | None:
    """Milliseconds as a number, as core's users show dates."""
    return None if moment is None else int(moment.timestamp() * 1000)


def iso(moment: datetime | None) -> str | None:
    """Seconds without a zone, as the repository's objects show dates."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S")
