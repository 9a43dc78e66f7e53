"""Where users, tokens and the servers' state are kept."""

from __future__ import annotations

from typing import Any

from parts.values import Problem, Values

SQLITE = "sqlite:////srv/jupyterhub/jupyterhub.sqlite"


def configure(c: Any, values: Values) -> None:
    """Choose SQLite on the hub's volume, SQLite in memory, or the database of a URL."""
    kind = values.get("hub.db.type", str, "sqlite-pvc")
    if kind == "sqlite-pvc":
        c.JupyterHub.db_url = SQLITE
    elif kind == "sqlite-memory":
        c.JupyterHub.db_url = "sqlite://"
    elif kind == "url":
        c.JupyterHub.db_url = _with_driver(values.secret("database-url", "the database's URL"))
        c.JupyterHub.db_kwargs = {"connect_args": {"connect_timeout": 10}, "pool_recycle": 600}
    else:
        raise Problem(f"the value hub.db.type is {kind!r}; it must be sqlite-pvc, sqlite-memory or url.")
    c.JupyterHub.upgrade_db = values.get("hub.db.upgrade", bool, True)


def _with_driver(url: str) -> str:
    """Name the driver that the hub's image carries, where the URL names none."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise Problem(
            "the database's URL (key database-url) is no URL; write it as postgresql://USER:PASSWORD@HOST:5432/NAME."
        )
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    return url
