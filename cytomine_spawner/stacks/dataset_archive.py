"""Puts a dataset of the Bigpicture archive into a stack, by the import that also puts in those on a volume.

What describes the slides is copied first, and each slide when its turn comes: it is decrypted, checked, uploaded and
removed again, so that no more room is needed than the largest slides take. Slides that are in already are not fetched.

As a program it reads the connection from a folder, as :mod:`.datasets` does, and gets the owner's token of LS Login from
the stacks' service, to which it shows who it is by the token of its pod::

    python -m cytomine_spawner.stacks.dataset_archive --connection /var/run/cytomine
        --archive https://download.bp.nbis.se --identity /var/run/identity/token
        --tokens http://stacks:8000/services/cytomine/imports/cm-ada/archive-token sda://aa-Dataset-abc123-def456
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import aiohttp

from .dataset_errors import SCHEME, DatasetError, Interrupted
from .dataset_files import read
from .dataset_progress import Progress
from .dataset_slides import ImageFiles
from .dataset_stack import Connection
from .datasets import FAULT, Importer, lines, told
from .quantity import gib

if TYPE_CHECKING:
    from ..archive import SdaFileSystem

log = logging.getLogger(__name__)

# The archive, or the network to it, may be away for so long, in seconds.
PATIENCE = 1800.0
# Slides of several files are told apart by what their small files of text say.
_READ_AT_ONCE = (".vms", ".ini")
_AT_ONCE = 1024 * 1024
_SAY_SECONDS = 1.0


@dataclass(frozen=True)
class _File:
    """A file of the archive: its path there, where it lies here, and its length."""

    path: str
    place: Path
    size: int


class Shelf:
    """A dataset of the archive on this machine's disk: complete to look at, with slides that come when they are asked for.

    Args:
        fs: the archive.
        dataset: the dataset's id.
        root: an empty folder.
    """

    def __init__(self, fs: SdaFileSystem, dataset: str, root: Path) -> None:
        self._fs, self._dataset, self._root = fs, dataset, root
        self._files: dict[Path, _File] = {}
        self._slides: dict[Path, _File] = {}
        self._fetched_files = self._fetched_bytes = 0

    @property
    def size(self) -> int:
        """The bytes of all slides."""
        return sum(file.size for file in self._slides.values())

    async def lay_out(self) -> Path:
        """Make the folder, with all descriptions and annotations, and slides that are empty yet.

        Returns:
            the folder ``DATASET_<name>``.

        Raises:
            DatasetError: it is no dataset of slides.
            OSError: the archive, or the disk.
        """
        from ..archive.paths import component

        top = component(self._dataset)
        # fsspec's find takes whatever fails for an empty folder.
        await asyncio.to_thread(self._fs.info, top)
        found = await asyncio.to_thread(self._fs.find, top, detail=True)
        inside = {PurePosixPath(name.removeprefix(f"{top}/")): entry for name, entry in found.items()}
        folder = self._folder(list(inside))
        for path, entry in inside.items():
            below = path.relative_to(folder.name) if path.parts[0] == folder.name else path
            place = folder / below
            if not place.resolve().is_relative_to(self._root.resolve()):
                raise DatasetError(
                    f"The dataset {self._dataset} has a file {path}, which is in no folder of it."
                )
            if entry.get("size") is None:
                raise DatasetError(f"The archive does not say how long {path} of {self._dataset} is.")
            self._files[place] = _File(entry["name"], place, int(entry["size"]))
        await asyncio.to_thread(self._make_empty)
        for place, file in self._files.items():
            is_slide = place.relative_to(folder).parts[0] == "IMAGES"
            if is_slide:
                self._slides[place] = file
            if not is_slide or (file.size <= _AT_ONCE and place.suffix.lower() in _READ_AT_ONCE):
                await self._fetch(file)
        return folder

    def _folder(self, paths: list[PurePosixPath]) -> Path:
        tops = {path.parts[0] for path in paths}
        named = sorted(top for top in tops if top.startswith("DATASET_"))
        if len(named) > 1:
            raise DatasetError(
                f"{self._dataset} holds several datasets ({', '.join(named[:3])}). Ask for each under its own id."
            )
        if not named and "IMAGES" not in tops:
            raise DatasetError(
                f"{self._dataset} holds no folder IMAGES, so there are no slides in it for Cytomine. Read it in the notebook."
            )
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self._dataset).strip("-.") or "archive"
        return self._root / plain / (named[0] if named else f"DATASET_{plain}")

    def _make_empty(self) -> None:
        for file in self._files.values():
            file.place.parent.mkdir(parents=True, exist_ok=True)
        _hollow(*self._files.values())

    @contextlib.asynccontextmanager
    async def staged(self, image: ImageFiles, say: Callable[[str, float], None]) -> AsyncIterator[None]:
        """Have a slide's files on the disk while the context lasts.

        Args:
            image: the slide.
            say: hears how far it is.

        Raises:
            DatasetError: it does not come, or finds no room.
        """
        files = [self._slides[place] for place in image.files if place in self._slides]
        await asyncio.to_thread(self._need_room, image, sum(file.size for file in files))
        try:
            for number, file in enumerate(files):
                await self._come(file, image, number, len(files), say)
            yield
        finally:
            await asyncio.to_thread(_hollow, *files)

    def _need_room(self, image: ImageFiles, size: int) -> None:
        free = shutil.disk_usage(self._root).free
        # Several files are packed into one before they are sent.
        need = size * (2 if image.is_packed else 1)
        if need > free:
            raise DatasetError(
                f"{image.name} takes {gib(need)} on its way into Cytomine, and {gib(free)} are free there. An administrator "
                "must give the import more room (StackSettings.archive_scratch)."
            )

    async def _come(
        self, file: _File, image: ImageFiles, number: int, count: int, say: Callable[[str, float], None]
    ) -> None:
        done, total = self._fetched_bytes, max(1, self.size)
        here, said = 0, -_SAY_SECONDS

        def tell(length: int) -> None:
            nonlocal here, said
            here += length
            # A line for each piece would be thousands for a slide.
            if (now := time.monotonic()) - said < _SAY_SECONDS:
                return
            said = now
            which = f", file {number + 1} of {count}" if count > 1 else ""
            all_ = f"{gib(done + here)} of {gib(total)} and {self._fetched_files} of {len(self._slides)} files so far"
            say(f"fetching {image.name} from the archive{which} ({all_})", here / max(1, file.size))

        await self._fetch(file, tell)
        self._fetched_bytes += file.size
        self._fetched_files += 1

    async def _fetch(self, file: _File, tell: Callable[[int], object] = lambda _: None) -> None:
        from fsspec.asyn import sync

        from ..archive.download import download

        def work() -> None:
            reader = sync(self._fs.loop, self._fs._reader_for, file.path)
            sync(self._fs.loop, download, reader, file.place, tell)

        await asyncio.to_thread(work)


def _hollow(*files: _File) -> None:
    """Make them files of the right length that take no room."""
    for file in files:
        with file.place.open("wb") as empty:
            empty.truncate(file.size)


async def import_dataset(
    connection: tuple[str, str, str],
    fs: SdaFileSystem,
    dataset: str,
    root: Path,
    *,
    room: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Any:
    """Import a dataset of the archive into a stack.

    Args:
        connection: the stack's address, and its owner's public and private key.
        fs: the archive, opened with the owner's token.
        dataset: the dataset's id.
        root: an empty folder, with room for the largest slide.
        room: bytes that the stack's volume for slides holds; 0 if that is not known.
        progress: called at each step.

    Raises:
        Interrupted: the stack or the archive does not answer; the next run goes on from there.
        DatasetError: one sentence for people.
    """
    shelf = Shelf(fs, dataset, root)
    try:
        folder = await shelf.lay_out()
        if room and shelf.size > room:
            raise DatasetError(
                f"The slides of {dataset} take {gib(shelf.size)}, and the volume of this Cytomine holds {gib(room)}. Choose a "
                "larger size for a new Cytomine."
            )
        found = await asyncio.to_thread(read, folder)
        async with aiohttp.ClientSession() as session:
            images = [replace(image, staging=shelf.staged) for image in found.images]
            importer = Importer(Connection(*connection, session), progress)
            return await importer.run([replace(found, images=images)])
    except OSError as error:
        raise _explained(error, dataset) from error


def _explained(error: OSError, dataset: str) -> DatasetError:
    from ..archive import ArchiveError, NotGranted, TokenRefused, Unreachable

    if isinstance(error, NotGranted):
        return DatasetError(
            f"Your visas do not grant {dataset} any more, or the archive does not have it. {error}"
        )
    if isinstance(error, (TokenRefused, Unreachable)):
        return Interrupted(str(error))
    if isinstance(error, ArchiveError):
        return DatasetError(str(error))
    return Interrupted(
        f"{dataset} could not be copied ({error.strerror or type(error).__name__}). Try again."
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    from ..archive import HubToken, SdaFileSystem

    parser = argparse.ArgumentParser(
        prog="python -m cytomine_spawner.stacks.dataset_archive", description=__doc__
    )
    parser.add_argument(
        "--connection", type=Path, required=True, help="folder with host, public-key, private-key"
    )
    parser.add_argument("--archive", required=True, help="the archive's address")
    parser.add_argument("--tokens", required=True, help="where the service gives the owner's token")
    parser.add_argument("--identity", required=True, help="file with the token of this pod")
    parser.add_argument(
        "--allow-http", action="store_true", help="let tokens travel unencrypted to the archive"
    )
    parser.add_argument("--room", type=int, default=0, help="bytes that the stack's volume for slides holds")
    parser.add_argument("name", help="the dataset, as sda://ID with the id percent-encoded")
    args = parser.parse_args(argv)
    try:
        host, public, private = (
            (args.connection / name).read_text().strip() for name in ("host", "public-key", "private-key")
        )
        fs = SdaFileSystem(
            args.archive,
            token=HubToken(args.tokens, identity=args.identity),
            allow_http=args.allow_http,
            patience=PATIENCE,
            # Each slide is read once.
            cache_size=0,
            skip_instance_cache=True,
        )
        with tempfile.TemporaryDirectory(prefix="archive-") as folder:
            done = asyncio.run(
                import_dataset(
                    (host, public, private),
                    fs,
                    unquote(args.name.removeprefix(SCHEME)),
                    Path(folder),
                    room=args.room,
                    progress=lines(),
                )
            )
    except OSError as error:
        sys.stderr.write(f"{error.filename or error} cannot be read ({error.strerror}). Mount it there.\n")
        return 2
    except DatasetError as error:
        log.debug("import failed", exc_info=True)
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, Interrupted) else FAULT
    told(done)
    return 0


if __name__ == "__main__":
    # What a thread of the archive's still waits for shall not keep the pod.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
