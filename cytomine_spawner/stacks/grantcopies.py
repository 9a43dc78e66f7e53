"""Hides the copy of a dataset in Cytomine, shows it again, or deletes it: by core's API, in the owner's name.

Hidden is a project in which nobody is: core lists projects to those alone who are in them, to administrators too, and refuses
them to all others but administrators. Each step looks at what is there, and what is about to be done is written down before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from .grantrecord import Copy, Fate
from .projectcalls import Gone, ProjectCalls, Refused
from .projectrecord import CONTRIBUTOR, Step


class CopyCalls(ProjectCalls):
    """Core's projects with the files of their slides."""

    async def uploads(self, host: str, token: str, project: int) -> set[int]:
        """The files of the slides in a project; none if there is no such project."""
        found: set[int] = set()
        try:
            images = await self._call(
                "GET", f"{host}/api/project/{project}/imageinstance.json?max=0&offset=0", token
            )
        except Gone:
            return found
        for base in sorted({int(one["baseImage"]) for one in images["collection"]}):
            with contextlib.suppress(Gone):
                image = await self._call("GET", f"{host}/api/abstractimage/{base}.json", token)
                if image.get("uploadedFile"):
                    found.add(int(image["uploadedFile"]))
        return found

    async def drop(self, host: str, token: str, kind: str, number: int) -> None:
        """Delete a ``project`` or an ``uploadedfile``; one that is gone is no error."""
        with contextlib.suppress(Gone):
            await self._call("DELETE", f"{host}/api/{kind}/{number}.json", token)


class Copies:
    """What is done with the copies in one stack.

    Args:
        calls: core.
        host: the stack's address.
        voice: gives tokens of the owner.
        keep: writes the record down.
        settle: has the worker of members bring them into the owner's projects, and out of all others.
    """

    def __init__(
        self,
        calls: CopyCalls,
        host: str,
        voice: Callable[[], Awaitable[str]],
        *,
        keep: Callable[[], Awaitable[None]],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._calls, self._host, self._voice = calls, host, voice
        self._keep, self._settle = keep, settle

    async def hide(self, copy: Copy) -> bool:
        """Take everybody out of a copy's project.

        Returns:
            Whether its project is in the owner's list no more, either.

        Raises:
            StoreError: something is left to do.
            KubeError: the record cannot be written.
        """
        there = await self._people(copy)
        owner = await self._calls.me(self._host, await self._voice())
        copy.fate = Fate.HIDING
        stays = False
        try:
            await self._take_out(copy, {owner: there[owner]} if owner in there else {})
        except Refused:
            # No reason to leave the members in it.
            stays = True
        # Those whom the worker of members put there it takes out itself, and puts back itself: who left the stack meanwhile
        # stays out.
        await self._settle()
        there = await self._people(copy)
        await self._take_out(copy, {n: role for n, role in there.items() if not (stays and n == owner)})
        if stays:
            raise Refused(
                "all members are out of its project, and Cytomine refused to take the owner out of it"
            )
        copy.fate = Fate.HIDDEN
        await self._keep()
        listed = await self._calls.projects(self._host, await self._voice())
        return copy.project not in {one.id for one in listed}

    async def show(self, copy: Copy) -> None:
        """Put those back who were taken out of a copy's project.

        Raises:
            StoreError: something is left to do.
            KubeError: the record cannot be written.
        """
        there = await self._people(copy)
        for number, role in sorted(copy.people.items()):
            if number in there:
                continue
            step = Step.ADD if role == CONTRIBUTOR else Step.ADD_MANAGER
            # Who is gone from Cytomine, or a project that is, needs nothing.
            with contextlib.suppress(Gone):
                await self._calls.change(self._host, await self._voice(), step, copy.project, number)
        await self._settle()

    async def delete(self, copy: Copy) -> None:
        """Delete a copy's project with what hangs on it, and the slides.

        Raises:
            StoreError: something is left to do.
            KubeError: the record cannot be written.
        """
        copy.uploads |= await self._calls.uploads(self._host, await self._voice(), copy.project)
        copy.fate = Fate.DELETING
        # Without its project the slides of a copy are found no more.
        await self._keep()
        await self._drop("project", copy.project)
        for number in sorted(copy.uploads):
            await self._drop("uploadedfile", number)
        copy.fate, copy.people, copy.uploads = Fate.DELETED, {}, set()
        await self._keep()

    async def _drop(self, kind: str, number: int) -> None:
        try:
            await self._calls.drop(self._host, await self._voice(), kind, number)
        except Refused as error:
            raise Refused("Cytomine refused to delete it.") from error

    async def _people(self, copy: Copy) -> dict[int, str]:
        return await self._calls.people(self._host, await self._voice(), copy.project) or {}

    async def _take_out(self, copy: Copy, people: dict[int, str]) -> None:
        for number, role in people.items():
            copy.people.setdefault(number, role)
        await self._keep()
        for number, role in sorted(people.items()):
            # The other order would leave managers who are no members.
            for step in (Step.REMOVE,) if role == CONTRIBUTOR else (Step.DEMOTE, Step.REMOVE):
                with contextlib.suppress(Gone):
                    await self._calls.change(self._host, await self._voice(), step, copy.project, number)
