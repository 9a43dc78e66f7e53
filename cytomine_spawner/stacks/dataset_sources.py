"""Puts a dataset from object storage or a web address into a stack, by the import that also puts in those on a volume.

The dataset is laid out on the disk with its descriptions and annotations, and with slides that are hollow: of the right
length, and no content. Each slide comes when its turn does, is uploaded and hollow again, so that no more room is needed
than the largest takes, and what is in Cytomine already is not fetched.

As a program it reads the connection from a folder, as :mod:`.datasets` does, and the storage's options (credentials, an
endpoint) from another, a file each, as a Secret is mounted::

    python -m cytomine_spawner.stacks.dataset_sources --connection /var/run/cytomine --options /var/run/options
        --url s3://bucket/DATASET_colon colon
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp

from ..objectstore import filesystem
from ..storageurls import without_secrets
from .dataset_errors import DatasetError, Interrupted
from .dataset_files import folders, read
from .dataset_progress import Progress
from .dataset_slides import ImageFiles
from .dataset_stack import Connection
from .datasets import FAULT, Imported, Importer, lines, told
from .quantity import gib

log = logging.getLogger(__name__)

PIECE = 8 * 1024 * 1024
# Slides of several files are told apart by what their small files say.
AT_ONCE = 1024 * 1024
TRIES = 3


class Source:
    """A dataset at a URL, laid out in a folder of this machine.

    Args:
        url: the dataset's folder there, with ``IMAGES`` in it.
        options: of the filesystem.
        root: an empty folder.
        name: the dataset's, where it does not say itself how it is called.
    """

    def __init__(self, url: str, options: dict[str, Any], root: Path, name: str) -> None:
        self.url = without_secrets(url)
        self._fs, self._path = filesystem(url.rstrip("/"), options)
        self._root, self._folder = root, root / "source" / f"DATASET_{name}"
        self._slides: dict[Path, tuple[str, int]] = {}

    def lay_out(self) -> None:
        """Make the folder.

        Raises:
            DatasetError: nothing is there, or it is no dataset.
            Interrupted: the storage does not answer.
        """
        found = self._asked(lambda: self._fs.find(self._path, detail=True))
        base = self._path.rstrip("/") + "/"
        inside = {str(key): entry for key, entry in found.items() if str(key).startswith(base)}
        if not inside:
            raise DatasetError(
                f"There is nothing at {self.url}. Mend the dataset's url, or put it there, and try again."
            )
        for path, entry in inside.items():
            below = PurePosixPath(path.removeprefix(base))
            if ".." in below.parts or below.is_absolute():
                raise DatasetError(
                    f"{self.url} holds a file {below}, which is in no folder of it. Remove it, and try again."
                )
            place = self._folder / below
            place.parent.mkdir(parents=True, exist_ok=True)
            size = entry.get("size")
            if size is None:
                size = self._asked(lambda: self._fs.size(path))  # noqa: B023 - called here
            if size is None:
                raise DatasetError(
                    f"The storage does not say how long {below} of {self.url} is, so it cannot be fetched."
                )
            if below.parts[0] == "IMAGES" and int(size) > AT_ONCE:
                self._slides[place] = (path, int(size))
                _hollow(place, int(size))
            else:
                self._fetch(path, int(size), place)

    @contextlib.asynccontextmanager
    async def staged(self, image: ImageFiles, say: Callable[[str, float], None]) -> AsyncIterator[None]:
        """Have a slide's files on the disk while the context lasts.

        Args:
            image: the slide.
            say: hears how far it is.

        Raises:
            DatasetError: it does not come, or finds no room.
        """
        files = [(place, *self._slides[place]) for place in image.files if place in self._slides]
        total = sum(size for _, _, size in files)
        free = shutil.disk_usage(self._root).free
        # Several files are packed into one before they are sent.
        need = total * (2 if image.is_packed else 1)
        if need > free:
            raise DatasetError(
                f"{image.name} takes {gib(need)} on its way into Cytomine, and {gib(free)} are free there. An administrator "
                "must give the import more room (StackSettings.dataset_scratch)."
            )
        came = 0

        def tell(length: int) -> None:
            nonlocal came
            came += length
            say(f"fetching {image.name}, {gib(came)} of {gib(total)}", came / max(1, total))

        try:
            for place, path, size in files:
                await asyncio.to_thread(self._fetch, path, size, place, tell)
            yield
        finally:
            for place, _, size in files:
                await asyncio.to_thread(_hollow, place, size)

    def _fetch(
        self, path: str, size: int, place: Path, tell: Callable[[int], object] = lambda _: None
    ) -> None:
        with place.open("wb") as out:
            for at in range(0, size, PIECE):
                stop = min(at + PIECE, size)
                part = self._asked(lambda: self._fs.cat_file(path, start=at, end=stop))  # noqa: B023 - called here
                if len(part) != stop - at:
                    raise DatasetError(
                        f"{place.relative_to(self._folder)} at {self.url} did not come as long as it is said to be: it was "
                        "changed meanwhile, or its server knows no ranges. Try again."
                    )
                out.write(part)
                tell(len(part))

    def _asked(self, question: Callable[[], Any]) -> Any:
        """An answer of the storage, which may be away for a moment."""
        for left in range(TRIES - 1, -1, -1):
            try:
                return question()
            except Exception as error:  # noqa: PERF203 - the loop is the wait
                kind = type(error).__name__
                # The texts of these errors may hold what was sent.
                log.debug("%s failed: %s", self.url, kind)
                status = _status(error)
                if isinstance(error, FileNotFoundError) or kind == "NotFoundError" or status == 404:
                    raise DatasetError(
                        f"Something of {self.url} is not there. Mend the dataset's url, or complete it, and try again."
                    ) from None
                if isinstance(error, PermissionError) or kind in _REFUSED or status in (401, 403):
                    raise DatasetError(
                        f"The storage refuses {self.url}. An administrator must look at the dataset's Secret."
                    ) from None
                if kind in _WRONG:
                    raise DatasetError(
                        f"{self.url} cannot be opened with the options of the dataset's Secret. An administrator must look at "
                        "both."
                    ) from None
                if not left:
                    raise Interrupted(
                        f"{self.url} could not be fetched ({kind}, {TRIES} times). Try again: it goes on from here."
                    ) from None
        raise AssertionError


# obstore's; those of HTTP have a status.
_REFUSED = ("PermissionDeniedError", "UnauthenticatedError")
_WRONG = ("UnknownConfigurationKeyError", "InvalidPathError", "NotSupportedError")


def _status(error: Exception) -> int:
    """What the server answered; 0 where it is not known."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status
    # Of a list obstore says it in words alone.
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else 0


def _hollow(place: Path, size: int) -> None:
    """Make a file that has a length and takes no room."""
    with place.open("wb") as empty:
        empty.truncate(size)


def options_of(folder: Path | None) -> dict[str, Any]:
    """The options in the files of a folder, by their names; what looks like JSON is read as such.

    Raises:
        DatasetError: one cannot be read.
    """
    found: dict[str, Any] = {}
    if folder is None or not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        # Kubernetes keeps its versions of a Secret beside it, in folders that begin with two dots.
        if path.name.startswith(".") or not path.is_file():
            continue
        text = path.read_text("utf-8").strip()
        try:
            found[path.name] = json.loads(text) if text.startswith(("{", "[")) else text
        except ValueError:
            raise DatasetError(
                f"The key {path.name} of the dataset's Secret is no JSON. An administrator must mend it."
            ) from None
    return found


async def import_source(
    connection: tuple[str, str, str],
    url: str,
    options: dict[str, Any],
    name: str,
    root: Path,
    progress: Callable[[Progress], None] = lambda _: None,
) -> list[Imported]:
    """Import a dataset at a URL into a stack.

    Args:
        connection: the stack's address, and its owner's public and private key.
        url: the dataset's folder.
        options: of the filesystem.
        name: the dataset's.
        root: an empty folder, with room for the largest slide.
        progress: called at each step.

    Raises:
        Interrupted: the stack or the storage does not answer; the next run goes on from there.
        DatasetError: one sentence for people.
    """
    try:
        source = Source(url, options, root, name)
    except (TypeError, ValueError) as error:
        # Their texts may hold options.
        log.debug("%s", type(error).__name__)
        raise DatasetError(
            f"{without_secrets(url)} cannot be opened with the options of the dataset's Secret. An administrator must look at "
            "both."
        ) from None
    await asyncio.to_thread(source.lay_out)
    (folder,) = await asyncio.to_thread(folders, root, [name])
    found = await asyncio.to_thread(read, folder)
    images = [replace(image, staging=source.staged) for image in found.images]
    async with aiohttp.ClientSession() as session:
        importer = Importer(Connection(*connection, session), progress)
        return await importer.run([replace(found, images=images)])


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m cytomine_spawner.stacks.dataset_sources", description=__doc__
    )
    parser.add_argument(
        "--connection", type=Path, required=True, help="folder with host, public-key, private-key"
    )
    parser.add_argument("--options", type=Path, help="folder with the filesystem's options, a file each")
    parser.add_argument(
        "--url", required=True, help="the dataset's folder, such as s3://bucket/DATASET_colon"
    )
    parser.add_argument("name", help="the dataset's name")
    args = parser.parse_args(argv)
    try:
        host, public, private = (
            (args.connection / name).read_text().strip() for name in ("host", "public-key", "private-key")
        )
        with tempfile.TemporaryDirectory(prefix="dataset-") as folder:
            done = asyncio.run(
                import_source(
                    (host, public, private),
                    args.url,
                    options_of(args.options),
                    args.name,
                    Path(folder),
                    lines(),
                )
            )
    except OSError as error:
        sys.stderr.write(f"{error.filename} cannot be read or written ({error.strerror}). Mount it there.\n")
        return 2
    except DatasetError as error:
        log.debug("import failed", exc_info=True)
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, Interrupted) else FAULT
    told(done)
    return 0


if __name__ == "__main__":
    # What a thread of the storage's still waits for shall not keep the pod.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
