"""Stand-in for Cytomine's core: who may do what with a project and what is in it."""

from __future__ import annotations

from .auth import User
from .database import Connection, Row, one
from .errors import forbidden, refused, rejected

PROXY = "project.Project$HibernateProxy"


def need_guest(user: User) -> None:
    """At least a guest; an ADMIN without session is none."""
    if not user.is_guest:
        raise refused(403, "You don't have the right to perform this action! You must be guest!")


def need_user(user: User) -> None:
    """At least a user, for commands."""
    if not user.is_user:
        raise rejected(403, "You don't have the right to perform this action! You must be user!")


async def membership(conn: Connection, user: User, project: int) -> Row | None:
    """The caller's membership of a project, or None."""
    return await one(
        conn, "SELECT * FROM project_member WHERE project_id = %s AND user_id = %s", project, user.id
    )


async def read_project(
    conn: Connection, user: User, project: int, *, proxy: bool = False, command: bool = False
) -> None:
    """Members may read a project and write annotations in it, guests too, as upstream lets them."""
    if user.is_admin or await membership(conn, user, project):
        return
    raise forbidden(PROXY if proxy else "project.Project", project, command)


async def manage_project(conn: Connection, user: User, project: int, *, command: bool = False) -> None:
    """Managers may change a project."""
    row = await membership(conn, user, project)
    if user.is_admin or (row and row["manager"]):
        return
    raise forbidden("project.Project", project, command)


async def read_storage(conn: Connection, user: User, storage: int) -> None:
    """Owners may read a storage."""
    if user.is_admin or await one(
        conn, "SELECT 1 FROM storage WHERE id = %s AND user_id = %s", storage, user.id
    ):
        return
    raise forbidden("image.server.Storage", storage)


async def use_ontology(conn: Connection, user: User, ontology: int) -> None:
    """Members of a project with that ontology may use it; its owner alone may not, for want of an ACL entry."""
    used = await one(
        conn,
        """SELECT 1 FROM project p JOIN project_member m ON m.project_id = p.id
           WHERE p.ontology_id = %s AND m.user_id = %s""",
        ontology,
        user.id,
    )
    if not (user.is_admin or used):
        raise forbidden("ontology.Ontology", ontology, command=True)
