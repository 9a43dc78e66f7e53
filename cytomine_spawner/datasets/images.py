"""The images of a dataset in a stack: looked for, and uploaded where they are missing."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from .client import Connection, Refused
from .errors import DatasetError
from .marks import Marks
from .progress import Pace
from .slides import ImageFiles, open_all, pack
from .turns import LateForm, Turn

# An upload waits for the import: so long may nothing come back.
UPLOAD_SILENCE_SECONDS = 1800.0


class Images:
    """Puts images into projects.

    Args:
        connection: to the stack, with the owner's keys.
        user: the owner's number in Cytomine.
        say: hears what is done, and which part of it is.
        pause: seconds between two looks at an upload that an earlier run had begun.
        alone: held by whoever changes a project.
        pace: is told of each upload.
        marks: tell what the import brought.
    """

    def __init__(
        self,
        connection: Connection,
        user: int,
        say: Callable[[str, float], None],
        pause: float,
        alone: asyncio.Lock,
        pace: Pace,
        marks: Marks,
    ) -> None:
        self._stack, self._user, self._say, self._pause = connection, user, say, pause
        self._alone, self._pace, self._marks = alone, pace, marks

    async def find(
        self, image: ImageFiles, project: int, others: Sequence[ImageFiles] = ()
    ) -> dict[str, Any] | None:
        """The image in a project, if it is there.

        Args:
            image: which.
            project: where.
            others: all images of its dataset, whose names are not taken for this one's.
        """
        found = await self._stack.listed(f"/api/project/{project}/imageinstance.json")
        sent = {image.upload or image.name, image.sent}
        if own := [i for i in found if i.get("originalFilename") in sent]:
            return min(own, key=lambda i: int(i["id"]))
        # An import by reference, without an upload, names an image by its alias, and earlier versions sent each under its
        # file's name: if that can only be this image it is.
        names = {image.alias, f"{image.alias}.zip", image.main.name}
        for other in others:
            if other.alias != image.alias:
                names -= {other.alias, f"{other.alias}.zip", other.main.name, other.upload, other.sent}
        old = [i for i in found if {i.get("originalFilename"), i.get("instanceFilename")} & names]
        return min(old, key=lambda i: int(i["id"]), default=None)

    async def put(self, image: ImageFiles, project: int, others: Sequence[ImageFiles] = ()) -> dict[str, Any]:
        """The image in a project, uploaded unless it is there, under the name that people are to see.

        Raises:
            DatasetError: Cytomine did not take it, or a file cannot be read.
        """
        found = await self.find(image, project, others)
        if found is None:
            found = await self._add(image, project, others)
        await self._marks.end(project, image.sent, int(found["id"]))
        return await self._rename(found, image)

    async def _add(self, image: ImageFiles, project: int, others: Sequence[ImageFiles]) -> dict[str, Any]:
        storage = await self._storage()
        await self._settle(image, project)
        if found := await self.find(image, project, others):
            return found
        try:
            async with image.staged(self._say):
                await asyncio.to_thread(open_all, image)
                await self._marks.begin(project, image.sent)
                await self._upload(image, storage, project)
        except Refused as error:
            if error.status in (401, 403) or error.status >= 500:
                raise  # nothing of the image's
            await self._marks.end(project, image.sent)
            raise DatasetError(
                f"Cytomine did not take {image.name} ({error.said}). Mend the file and try again."
            ) from error
        if found := await self.find(image, project, others):
            return found
        raise DatasetError(f"Cytomine took {image.name} but does not show it. Mend the file and try again.")

    async def _rename(self, instance: dict[str, Any], image: ImageFiles) -> dict[str, Any]:
        """Give an image the name that people are to see, unless somebody gave it another."""
        sent = {image.upload, image.sent}
        if instance.get("instanceFilename") not in sent or instance["instanceFilename"] == image.name:
            return instance
        changed = {**instance, "instanceFilename": image.name}
        # Core shares the project's row and then wants it alone, as it does for a new annotation: its database would end one.
        async with self._alone:
            await self._stack.call("PUT", f"/api/imageinstance/{instance['id']}.json", changed)
        return changed

    async def _settle(self, image: ImageFiles, project: int) -> None:
        """Wait for an upload that an earlier run had begun and Cytomine still works on."""
        # What is unpacked is entered anew, without the project.
        sent = {image.upload, image.sent}
        for _ in range(60):
            files = await self._stack.listed("/api/uploadedfile.json")
            busy = [
                f
                for f in files
                if f.get("originalFilename") in sent
                and (project in (f.get("projects") or [project]))
                and _is_busy(int(f.get("status") or 0))
            ]
            if not busy:
                return
            self._say(f"waiting for an earlier upload of {image.name}", 0.0)
            await asyncio.sleep(self._pause)

    async def _storage(self) -> int:
        found = await self._stack.listed("/api/storage.json")
        # An administrator sees everybody's.
        own = [int(s["id"]) for s in found if s.get("userId", s.get("user")) == self._user]
        if not own:
            raise DatasetError(
                "You have no storage in Cytomine. Open Cytomine once in the browser and try again."
            )
        return min(own)

    async def _upload(self, image: ImageFiles, storage: int, project: int) -> None:
        with tempfile.TemporaryDirectory(prefix="dataset-") as folder:
            path = image.files[0]
            if image.is_packed:
                path = Path(folder) / "slide.zip"
                await asyncio.to_thread(pack, image, path)
            size = path.stat().st_size
            turn, began = Turn(self._alone), self._pace.clock()
            with path.open("rb") as source:
                form = LateForm(turn.take, secrets.token_hex(16))
                part = form.append_payload(aiohttp.BufferedReaderPayload(source, filename=image.sent))
                part.set_content_disposition("form-data", name="files[]", filename=image.sent)
                watching = asyncio.create_task(self._watch(source, size, image.name))
                try:
                    await self._stack.call(
                        "POST",
                        "/upload",
                        content=form,
                        seconds=UPLOAD_SILENCE_SECONDS,
                        idStorage=storage,
                        storage=storage,
                        idProject=project,
                        projects=project,
                        sync="true",
                    )
                finally:
                    turn.give_back()
                    watching.cancel()
            self._pace.uploaded(self._pace.clock() - began - turn.waited)

    async def _watch(self, source: Any, size: int, name: str) -> None:
        while not source.closed:
            await asyncio.sleep(1)
            try:
                at = source.tell()
            except ValueError:
                return
            self._say(f"uploading {name}", min(1.0, at / max(1, size)))


def _is_busy(status: int) -> bool:
    # 0, 10, 20, …: under way; 11, 21, …: failed; from 100 on: done.
    return status < 100 and status % 10 == 0
