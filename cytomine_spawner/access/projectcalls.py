"""What is asked of Cytomine's core on projects and who is in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tornado.httpclient import HTTPRequest

from ..cluster.store import StoreError, Unavailable
from .credentials import Core
from .projectrecord import Step

# The gateway does not take a request with it for use of the stack, which would never fall asleep.
UNATTENDED = {"X-Unattended": "1"}
WAYS = {
    Step.ADD: ("POST", ""),
    Step.ADD_MANAGER: ("POST", "/admin"),
    Step.PROMOTE: ("POST", "/admin"),
    Step.DEMOTE: ("DELETE", "/admin"),
    Step.REMOVE: ("DELETE", ""),
}


@dataclass(frozen=True)
class Project:
    """A project of a stack's Cytomine."""

    id: int
    name: str


class Refused(StoreError):
    """Core did not do one thing that was asked; others may succeed."""


class Gone(Refused):
    """Core knows no such project or user any more."""


class ProjectCalls(Core):
    """Core's lists of projects and of who is in them, through the gateway of its stack.

    Every method takes the stack's address and a token, and raises :class:`Unavailable` if core does not answer as it
    should.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def projects(self, host: str, token: str) -> list[Project]:
        """The projects in which the person of the token is, newest first."""
        found = await self._call("GET", f"{host}/api/project.json?max=0&offset=0", token)
        return [Project(int(one["id"]), str(one["name"])) for one in collection(found)]

    async def people(self, host: str, token: str, project: int) -> dict[int, str] | None:
        """What each is who is in a project, by the numbers of users; None if there is no such project."""
        try:
            found = await self._call("GET", f"{host}/api/project/{project}/user.json?max=0&offset=0", token)
        except Gone:
            return None
        return {int(one["id"]): str(one.get("role") or "") for one in collection(found)}

    async def me(self, host: str, token: str) -> int:
        """The number of the person of the token, whom core makes a user of its own at the first such call."""
        found = await self._call("GET", f"{host}/api/user/current.json", token)
        try:
            return int(found["id"])
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown() from error

    async def change(self, host: str, token: str, step: Step, project: int, user: int) -> None:
        """Make one step; one that was made before is no error."""
        method, tail = WAYS[step]
        await self._call(method, f"{host}/api/project/{project}/user/{user}{tail}.json", token)

    async def _call(self, method: str, url: str, token: str) -> Any:
        self.count += 1
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Content-Type": "application/json",
            **UNATTENDED,
        }
        answer = await self._ask(HTTPRequest(url, method, headers, b"" if method == "POST" else None))
        if answer.code == 404:
            raise Gone("Cytomine knows no such project or user any more.")
        if answer.code in (401, 502, 503, 504, 599):
            raise Unavailable(
                f"Cytomine does not answer as it should when asked for projects ({answer.code})."
            )
        if answer.code != 200:
            # Writes that meet in one project can end each other: core says 400 then, with the database's words.
            raise Refused(
                f"Cytomine refused a change of a project's members ({answer.code})."
                if method != "GET"
                else f"Cytomine refused to tell of its projects ({answer.code})."
            )
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise _unknown() from error


def collection(found: Any) -> list[dict[str, Any]]:
    """The entries of a list of core's.

    Raises:
        Unavailable: it is none.
    """
    try:
        return list(found["collection"])
    except (KeyError, TypeError) as error:
        raise _unknown() from error


def _unknown() -> Unavailable:
    return Unavailable("Cytomine's answer is not understood; is this a version that was tested?")
