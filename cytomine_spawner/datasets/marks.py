"""What the import brought, written down in Cytomine: a property of ours on the project, for each image that it sent and each dataset.

By that alone it is told from what people put beside it: both have names that anybody may give. It is not on the images: every
member may write there, and put images of anybody's into a project, while only its managers write on a project. Before an upload
its name is noted there as well, so that an image whose import was cut is known.
"""

from __future__ import annotations

from contextlib import suppress

from ..common.importmarks import KEY, MADE, PROJECT, brought
from .client import Connection, Refused

IMAGE = "be.cytomine.domain.image.ImageInstance"
_BEGUN = "sending "


class Marks:
    """Puts marks on what an import brings.

    Args:
        connection: to the stack, with the owner's keys.
        dataset: as in :func:`brought`.
    """

    def __init__(self, connection: Connection, dataset: str = "") -> None:
        self._stack, self._dataset = connection, dataset
        self._there: dict[int, dict[str, int]] = {}

    async def made(self, project: int) -> None:
        """Mark a project that the import made."""
        await self._put(project, MADE)

    async def begin(self, project: int, name: str) -> None:
        """A file is about to be sent under a name that no image of the project has."""
        if f"{_BEGUN}{name}" not in await self._marks(project):
            # An answer may be lost: it is looked at again then.
            del self._there[project]
            await self._put(project, f"{_BEGUN}{name}")

    async def end(self, project: int, name: str, image: int = 0) -> None:
        """The image of a file is there, or will not be.

        Args:
            project: where.
            name: of the file; nothing is done if none was sent under it.
            image: the image's number; 0 if there is none.
        """
        marks = await self._marks(project)
        if (note := marks.get(f"{_BEGUN}{name}")) is None:
            return
        # One that was cut after this goes on behind it.
        if image and (mark := brought(image, self._dataset)) not in marks:
            await self._put(project, mark)
            marks[mark] = 0
        with suppress(Refused):
            await self._stack.call("DELETE", _path(project, note))
        del marks[f"{_BEGUN}{name}"]

    async def _put(self, project: int, text: str) -> None:
        await self._stack.call("POST", _path(project), {"key": KEY, "value": text})

    async def _marks(self, project: int) -> dict[str, int]:
        """The marks on a project, with the properties' numbers."""
        if project not in self._there:
            found = await self._stack.listed(_path(project))
            self._there[project] = {str(one["value"]): int(one["id"]) for one in found if one["key"] == KEY}
        return self._there[project]


def _path(project: int, one: int = 0) -> str:
    return f"/api/domain/{PROJECT}/{project}/property{f'/{one}' if one else ''}.json"
