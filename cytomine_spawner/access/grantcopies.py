"""Hides the copy of a dataset in Cytomine, shows it again, or deletes it: by core's API, in the owner's name.

Hidden is a project in which nobody is: core lists projects to those alone who are in them, to administrators too, and refuses
them to all others but administrators. Each step looks at what is there, and what is about to be done is written down before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ..common.importmarks import KEY, MADE, PROJECT, brought, is_of
from .grantrecord import Copy, Fate
from .projectcalls import Gone, ProjectCalls, Refused, collection
from .projectrecord import CONTRIBUTOR, Step


@dataclass(frozen=True)
class Inside:
    """What is in a copy's project.

    Attributes:
        images: those that the import of the dataset brought.
        uploads: the files of these.
        others: how many images somebody else, or another import, put there.
        files: how many files are attached to the project.
        is_made: whether an import made the project.
        is_noted: whether it was written down what the import of the dataset brought.
    """

    images: frozenset[int] = frozenset()
    uploads: frozenset[int] = frozenset()
    others: int = 0
    files: int = 0
    is_made: bool = False
    is_noted: bool = False

    @property
    def is_unmarked(self) -> bool:
        """Whether there are slides, and what an import brought was not written down when it did."""
        return bool(self.others) and not self.is_noted

    @property
    def stays(self) -> str:
        """Why the project stays once what was brought is gone; empty if it goes."""
        if self.others:
            slides = "another slide is" if self.others == 1 else f"{self.others} other slides are"
            return f"The project stays, as {slides} in it."
        if self.files:
            return "The project stays, as files are attached to it."
        return "" if self.is_made else "The project stays, as no import is known to have made it."


class CopyCalls(ProjectCalls):
    """Core's projects with the files of their slides."""

    async def inside(self, host: str, token: str, project: int, dataset: str) -> Inside | None:
        """What is in a project of the token's owner; None if there is no such project.

        Args:
            host: the stack's address.
            token: of the owner.
            project: its number.
            dataset: the name of the dataset whose images are told from others.
        """
        images, uploads = set(), set()
        own = unquote(dataset)
        owner = await self.me(host, token)
        try:
            marks = await self._marks(host, token, project)
            there = await self._list(host, token, f"project/{project}/imageinstance")
            files = await self._list(host, token, f"domain/{PROJECT}/{project}/attachedfile")
        except Gone:
            return None
        for one in there:
            with contextlib.suppress(Gone):
                # Managers of the project could write marks for images that they put there themselves, of anybody's slides.
                if brought(int(one["id"]), own) not in marks or one.get("user") != owner:
                    continue
                images.add(int(one["id"]))
                image = await self._call(
                    "GET", f"{host}/api/abstractimage/{int(one['baseImage'])}.json", token
                )
                if image.get("uploadedFile"):
                    uploads.add(int(image["uploadedFile"]))
        others = len(there) - len(images)
        is_made = MADE in marks
        is_noted = is_made or any(is_of(mark, own) for mark in marks)
        return Inside(frozenset(images), frozenset(uploads), others, len(files), is_made, is_noted)

    async def drop(self, host: str, token: str, kind: str, number: int) -> None:
        """Delete a ``project``, an ``imageinstance`` or an ``uploadedfile``; one that is gone is no error."""
        with contextlib.suppress(Gone):
            await self._call("DELETE", f"{host}/api/{kind}/{number}.json", token)

    async def _marks(self, host: str, token: str, project: int) -> set[str]:
        found = await self._list(host, token, f"domain/{PROJECT}/{project}/property")
        return {str(one["value"]) for one in found if one.get("key") == KEY}

    async def _list(self, host: str, token: str, path: str) -> list[dict[str, Any]]:
        return collection(await self._call("GET", f"{host}/api/{path}.json?max=0&offset=0", token))


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

    async def delete(self, copy: Copy, dataset: str) -> bool:
        """Delete what the import brought, with its annotations, and its project if that holds nothing else.

        Args:
            copy: which.
            dataset: the name of its dataset.

        Returns:
            Whether that was done; not where nobody wrote down what the import brought.

        Raises:
            StoreError: something is left to do.
            KubeError: the record cannot be written.
        """
        found = await self._inside(copy, dataset)
        if found.is_unmarked and copy.fate is not Fate.DELETING:
            return False
        copy.images |= found.images
        copy.uploads |= found.uploads
        copy.fate = Fate.DELETING
        # Without its project the slides of a copy are found no more.
        await self._keep()
        for number in sorted(copy.images):
            await self._drop("imageinstance", number)
        for number in sorted(copy.uploads):
            await self._drop("uploadedfile", number)
        # Somebody may have put something into it meanwhile.
        copy.stays = (await self._inside(copy, dataset)).stays
        if copy.stays:
            # Whoever was taken out of it has to reach what is left.
            await self.show(copy)
        else:
            await self._drop("project", copy.project)
        copy.fate, copy.people, copy.images, copy.uploads = Fate.DELETED, {}, set(), set()
        await self._keep()
        return True

    async def _inside(self, copy: Copy, dataset: str) -> Inside:
        found = await self._calls.inside(self._host, await self._voice(), copy.project, dataset)
        return found or Inside(is_made=True)

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
