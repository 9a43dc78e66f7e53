"""The images of a dataset in a stack: looked for, and uploaded where they are missing."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from .dataset_files import DatasetError, ImageFiles, unreadable
from .dataset_stack import Connection, Refused

# An upload waits for the import: so long may nothing come back.
UPLOAD_SILENCE_SECONDS = 1800.0


class Images:
    """Puts images into projects.

    Args:
        connection: to the stack, with the owner's keys.
        user: the owner's number in Cytomine.
        say: hears what is done, and which part of it is.
        pause: seconds between two looks at an upload that an earlier run had begun.
    """

    def __init__(
        self, connection: Connection, user: int, say: Callable[[str, float], None], pause: float
    ) -> None:
        self._stack, self._user, self._say, self._pause = connection, user, say, pause

    async def find(self, image: ImageFiles, project: int) -> dict[str, Any] | None:
        """The image in a project, if it is there."""
        # An import by reference, without an upload, names an image by its alias.
        names = {image.name, image.alias}
        found = await self._stack.listed(f"/api/project/{project}/imageinstance.json")
        fitting = [i for i in found if {i.get("originalFilename"), i.get("instanceFilename")} & names]
        return min(fitting, key=lambda i: int(i["id"]), default=None)

    async def put(self, image: ImageFiles, project: int) -> dict[str, Any]:
        """The image in a project, uploaded unless it is there.

        Raises:
            DatasetError: Cytomine did not take it, or a file cannot be read.
        """
        if found := await self.find(image, project):
            return found
        storage = await self._storage()
        await self._settle(image.name, project)
        if found := await self.find(image, project):
            return found
        await asyncio.to_thread(open_all, image)
        try:
            await self._upload(image, storage, project)
        except Refused as error:
            if error.status in (401, 403) or error.status >= 500:
                raise  # nothing of the image's
            raise DatasetError(
                f"Cytomine did not take {image.name} ({error.status}: {error}). Mend the file and try again."
            ) from error
        if found := await self.find(image, project):
            return found
        raise DatasetError(f"Cytomine took {image.name} but does not show it. Mend the file and try again.")

    async def _settle(self, name: str, project: int) -> None:
        """Wait for an upload that an earlier run had begun and Cytomine still works on."""
        for _ in range(60):
            files = await self._stack.listed("/api/uploadedfile.json")
            busy = [
                f
                for f in files
                if f.get("originalFilename") == name
                and project in (f.get("projects") or [])
                and _is_busy(int(f.get("status") or 0))
            ]
            if not busy:
                return
            self._say(f"waiting for an earlier upload of {name}", 0.0)
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
                path = Path(folder) / image.name
                await asyncio.to_thread(_pack, image, path)
            size = path.stat().st_size
            with path.open("rb") as source:
                form = aiohttp.MultipartWriter("form-data", boundary=secrets.token_hex(16))
                part = form.append_payload(aiohttp.BufferedReaderPayload(source, filename=image.name))
                part.set_content_disposition("form-data", name="files[]", filename=image.name)
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
                    watching.cancel()

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


def _pack(image: ImageFiles, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as content:
        for path in image.files:
            content.write(path, f"{image.alias}/{path.name}")


def open_all(image: ImageFiles) -> None:
    """Find out whether an image's files can be read, before any is sent.

    Raises:
        DatasetError: one cannot.
    """
    try:
        for path in image.files:
            path.open("rb").close()
    except OSError as error:
        raise unreadable(error, image.files[0]) from None
