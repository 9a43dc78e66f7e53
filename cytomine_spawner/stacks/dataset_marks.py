"""What the import brought, written down in Cytomine: a property of ours on the images that it sent, and on the projects it made.

By that alone they are told from what people put beside them: both have names that anybody may give. Before an upload its name is
noted on the project, so that an image whose import was cut is known as well.
"""

from __future__ import annotations

from contextlib import suppress

from .dataset_stack import Connection, Refused

PROJECT = "be.cytomine.domain.project.Project"
IMAGE = "be.cytomine.domain.image.ImageInstance"
# The web interface does not show properties whose keys begin so.
KEY = "@dataset-import"
BROUGHT = "brought"
_BEGUN = "sending "


class Marks:
    """Puts marks on what an import brings.

    Args:
        connection: to the stack, with the owner's keys.
    """

    def __init__(self, connection: Connection) -> None:
        self._stack = connection
        self._begun: dict[int, dict[str, int]] = {}

    async def put(self, kind: str, number: int, text: str = BROUGHT) -> None:
        """Put a mark on an image or a project."""
        await self._stack.call("POST", _path(kind, number), {"key": KEY, "value": text})

    async def begin(self, project: int, name: str) -> None:
        """A file is about to be sent under a name that no image of the project has."""
        if name not in await self._noted(project):
            await self.put(PROJECT, project, f"{_BEGUN}{name}")
            del self._begun[project]

    async def end(self, project: int, name: str, image: int = 0) -> None:
        """The image of a file is there, or will not be.

        Args:
            project: where.
            name: of the file; nothing is done if none was sent under it.
            image: the image's number; 0 if there is none.
        """
        if (note := (await self._noted(project)).get(name)) is None:
            return
        # One that was cut after this goes on behind it.
        if image and not await self._marked(IMAGE, image, BROUGHT):
            await self.put(IMAGE, image)
        with suppress(Refused):
            await self._stack.call("DELETE", _path(PROJECT, project, note))
        del self._begun[project][name]

    async def _noted(self, project: int) -> dict[str, int]:
        if project not in self._begun:
            found = await self._marked(PROJECT, project, _BEGUN)
            self._begun[project] = {text.removeprefix(_BEGUN): number for text, number in found.items()}
        return self._begun[project]

    async def _marked(self, kind: str, number: int, begins: str) -> dict[str, int]:
        found = await self._stack.listed(_path(kind, number))
        texts = {str(one["value"]): int(one["id"]) for one in found if one["key"] == KEY}
        return {text: number for text, number in texts.items() if text.startswith(begins)}


def _path(kind: str, number: int, one: int = 0) -> str:
    return f"/api/domain/{kind}/{number}/property{f'/{one}' if one else ''}.json"
