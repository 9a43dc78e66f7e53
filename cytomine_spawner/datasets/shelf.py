"""A dataset that is elsewhere, on this machine's disk: whole to look at, with slides that come when their turn does.

What describes the slides is copied first. Each slide is hollow, of the right length and without content, until it is to be
sent, and hollow again afterwards: no more room is needed than the largest takes, and what is in Cytomine already is not
fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import aiohttp

from ..common.quantity import gib
from .client import Connection
from .errors import DatasetError
from .files import Dataset
from .importer import Imported, Importer
from .progress import Progress
from .slides import ImageFiles

# Slides of several files are told apart by what their small files of text say.
_READ_AT_ONCE = (".vms", ".ini")
_AT_ONCE = 1024 * 1024
_SAY_SECONDS = 1.0
_ROOM = "An administrator must give the import more room (StackSettings.dataset_scratch)."


@dataclass(frozen=True)
class Remote:
    """A file of a dataset.

    Attributes:
        path: where it is there.
        below: where it belongs in the dataset's folder.
        size: its length in bytes.
    """

    path: str
    below: PurePosixPath
    size: int


# Copies a file to a place, and tells the length of each piece that came.
Fetch: TypeAlias = Callable[[Remote, Path, Callable[[int], object]], None]


class Shelf:
    """A dataset's folder.

    Args:
        folder: which; it is made.
        origin: where the dataset comes from, as people call it.
        fetch: copies one of its files.
    """

    def __init__(self, folder: Path, origin: str, fetch: Fetch) -> None:
        self.folder, self._origin, self._fetch = folder, origin, fetch
        self._slides: dict[Path, Remote] = {}
        self._fetched_files = self._fetched_bytes = 0

    @property
    def size(self) -> int:
        """The bytes of all slides."""
        return sum(file.size for file in self._slides.values())

    def lay_out(self, files: Iterable[Remote]) -> None:
        """Make the folder, with all descriptions and annotations, and slides that are hollow yet.

        Raises:
            DatasetError: a file is in no folder of it, or finds no room.
            OSError: the disk, or where the files come from.
        """
        files = list(files)
        for file in files:
            parts = file.below.parts
            # Whoever fills an archive or a bucket names the files in it.
            if not parts or ".." in parts or file.below.is_absolute() or "\0" in str(file.below):
                raise DatasetError(
                    f"{self._origin} holds a file {str(file.below)!r}, which is in no folder of the dataset. Remove it, and try "
                    "again."
                )
        folders = {parent for file in files for parent in file.below.parents}
        # Some tools mark a folder by an empty object of its name.
        files = [file for file in files if file.size or file.below not in folders]
        if both := next((file.below for file in files if file.below in folders), None):
            raise DatasetError(
                f"{self._origin} has a file and a folder that are both called {both}. Rename one of them, and try again."
            )
        slides = [file for file in files if _is_slide(file)]
        others = [file for file in files if not _is_slide(file)]
        self.folder.mkdir(parents=True, exist_ok=True)
        need, free = sum(file.size for file in others), shutil.disk_usage(self.folder).free
        if need > free:
            raise DatasetError(
                f"What describes the slides of {self._origin} takes {gib(need)}, and {gib(free)} are free for it. {_ROOM}"
            )
        for file in (*slides, *others):
            (self.folder / file.below).parent.mkdir(parents=True, exist_ok=True)
        self._slides = {self.folder / file.below: file for file in slides}
        for place, file in self._slides.items():
            _hollow(place, file.size)
        for file in others:
            self._fetch(file, self.folder / file.below, lambda _: None)

    @contextlib.asynccontextmanager
    async def staged(self, image: ImageFiles, say: Callable[[str, float], None]) -> AsyncIterator[None]:
        """Have a slide's files on the disk while the context lasts.

        Args:
            image: the slide.
            say: hears how far it is.

        Raises:
            DatasetError: it does not come, or finds no room.
        """
        files = {place: self._slides[place] for place in image.files if place in self._slides}
        await asyncio.to_thread(self._need_room, image, sum(file.size for file in files.values()))
        try:
            for number, (place, file) in enumerate(files.items(), 1):
                which = f", file {number} of {len(files)}" if len(files) > 1 else ""
                tell = self._teller(f"fetching {image.name} from {self._origin}{which}", file, say)
                tell(0)
                await asyncio.to_thread(self._fetch, file, place, tell)
                self._fetched_bytes += file.size
                self._fetched_files += 1
            yield
        finally:
            for place, file in files.items():
                await asyncio.to_thread(_hollow, place, file.size)

    def _need_room(self, image: ImageFiles, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        # Several files are packed into one before they are sent.
        need = size * (2 if image.is_packed else 1)
        if need > free:
            raise DatasetError(
                f"{image.name} takes {gib(need)} on its way into Cytomine, and {gib(free)} are free there. {_ROOM}"
            )

    def _teller(self, what: str, file: Remote, say: Callable[[str, float], None]) -> Callable[[int], object]:
        """What hears of each piece of a file."""
        done, total = self._fetched_bytes, max(1, self.size)
        here, said = 0, -_SAY_SECONDS

        def tell(length: int) -> None:
            nonlocal here, said
            here += length
            now = time.monotonic()
            # A line for each piece would be thousands for a slide; its beginning is no piece.
            if length and now - said < _SAY_SECONDS:
                return
            said = now if length else said
            so_far = f"{gib(done + here)} of {gib(total)} and {self._fetched_files} of {len(self._slides)} files so far"
            say(f"{what} ({so_far})", here / max(1, file.size))

        return tell


def _is_slide(file: Remote) -> bool:
    """Whether it may wait for its turn."""
    small = file.size <= _AT_ONCE and file.below.suffix.lower() in _READ_AT_ONCE
    return file.below.parts[0] == "IMAGES" and not small


def _hollow(place: Path, size: int) -> None:
    """Make a file of that length which takes no room."""
    with place.open("wb") as empty:
        empty.truncate(size)


async def import_shelf(
    connection: tuple[str, str, str],
    shelf: Shelf,
    dataset: Dataset,
    progress: Callable[[Progress], None],
    marked: str = "",
) -> list[Imported]:
    """Import a dataset that lies on a shelf into a stack.

    Args:
        connection: the stack's address, and its owner's public and private key.
        shelf: where its slides come from.
        dataset: what was read there.
        progress: called at each step.
        marked: as in :class:`.Importer`.

    Raises:
        Interrupted: the stack does not answer; the next run goes on from there.
        DatasetError: one sentence for people.
    """
    images = [replace(image, staging=shelf.staged) for image in dataset.images]
    async with aiohttp.ClientSession() as session:
        importer = Importer(Connection(*connection, session), progress, marked=marked)
        return await importer.run([replace(dataset, images=images)])
