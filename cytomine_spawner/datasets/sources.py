"""Puts a dataset from object storage or a web address into a stack, by the import that also puts in those on a volume.

Each slide comes when its turn does (:mod:`.shelf`).

As a program it reads the connection from a folder, as :mod:`.importer` does, and the storage's options (credentials, an
endpoint) from another, a file each, as a Secret is mounted::

    python -m cytomine_spawner.datasets.sources --connection /var/run/cytomine --options /var/run/options
        --url s3://bucket/DATASET_colon colon
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import aiohttp
from yarl import URL

from ..common.objectstore import filesystem
from ..common.storageurls import without_secrets
from .errors import DatasetError, Interrupted
from .files import folders, read
from .importer import Imported, arguments, ended, lines
from .progress import Progress
from .shelf import Remote, Shelf, import_shelf

log = logging.getLogger(__name__)

PIECE = 8 * 1024 * 1024
TRIES = 3
# A server's pages may link in circles.
_DEEP = 32


class Source:
    """A dataset at a URL.

    Args:
        url: the dataset's folder there, with ``IMAGES`` in it.
        options: of the filesystem.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = without_secrets(url)
        if options and url.startswith(("http://", "https://")):
            told = {**dict(options.get("client_kwargs") or {})}
            told["trace_configs"] = [*told.get("trace_configs", ()), _staying(URL(url))]
            options = {**options, "client_kwargs": told}
        self._fs, self._path = filesystem(url.rstrip("/"), options)

    def shelf(self, folder: Path) -> Shelf:
        """The dataset, laid out in a folder.

        Raises:
            DatasetError: nothing is there, or it is no dataset.
            Interrupted: the storage does not answer.
        """
        files = []
        for path, (below, size) in self._listed().items():
            if size is None:
                size = self._asked(lambda: self._fs.size(path))  # noqa: B023 - called here
            if size is None:
                raise DatasetError(
                    f"The storage does not say how long {below} of {self.url} is, so it cannot be fetched."
                )
            files.append(Remote(path, below, int(size)))
        if not files:
            raise DatasetError(
                f"There is nothing at {self.url}. Mend the dataset's url, or put it there, and try again."
            )
        shelf = Shelf(folder, self.url, self._fetch)
        shelf.lay_out(files)
        return shelf

    def _listed(self) -> dict[str, tuple[PurePosixPath, Any]]:
        """All files by their paths, with where they belong and how long they are, if that is known.

        fsspec's own find goes wherever a page of a web server links to, and leaves out folders that do not answer.
        """
        kinds = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else tuple(self._fs.protocol)
        web = "https" in kinds
        base = self._path.rstrip("/") + "/"
        found: dict[str, tuple[PurePosixPath, Any]] = {}
        seen, folders = {base}, [base]
        while folders:
            folder = folders.pop()
            for entry in self._asked(lambda: self._entries(folder)):  # noqa: B023 - called here
                path = str(entry["name"])
                below = path.removeprefix(base)
                if not path.startswith(base) or (web and not _names_a_file(below)):
                    continue
                if entry["type"] != "directory":
                    found[path] = PurePosixPath(unquote(below) if web else below), entry.get("size")
                elif (further := path.rstrip("/") + "/") not in seen and below.count("/") < _DEEP:
                    seen.add(further)
                    folders.append(further)
        return found

    def _entries(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._fs.ls(folder.rstrip("/"), detail=True))
        except FileNotFoundError:
            if folder != self._path.rstrip("/") + "/":
                raise
            return []

    def _fetch(self, file: Remote, place: Path, tell: Callable[[int], object]) -> None:
        with place.open("wb") as out:
            for at in range(0, file.size, PIECE):
                stop = min(at + PIECE, file.size)
                part = self._asked(lambda: self._fs.cat_file(file.path, start=at, end=stop))  # noqa: B023 - called here
                if len(part) != stop - at:
                    raise DatasetError(
                        f"{file.below} at {self.url} did not come as long as it is said to be: it was "
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
                if isinstance(error, DatasetError):
                    raise
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


def _staying(url: URL) -> aiohttp.TraceConfig:
    """What keeps requests, which may hold credentials, from following a server's answer to another one."""

    async def look(_session: object, _context: object, asked: aiohttp.TraceRequestRedirectParams) -> None:
        headers = asked.response.headers
        to = asked.url.join(URL(headers.get("Location") or headers.get("URI") or ""))
        if to.origin() != url.origin():
            raise DatasetError(
                f"{without_secrets(str(url))} sends on to {to.origin()}, which is not to see what is in the dataset's Secret. "
                "Give the address that it leads to as the dataset's url."
            )

    found = aiohttp.TraceConfig()
    found.on_request_redirect.append(look)
    return found


def _names_a_file(below: str) -> bool:
    """Whether a page's link leads to a file or folder below it, and to nothing else that a page links to.

    Those are how it is sorted, parts of it, and the folder above.
    """
    parts = [unquote(part) for part in below.removesuffix("/").split("/")]
    return not {"?", "#"} & set(below) and not any(
        part in ("", ".", "..") or {"/", "\0"} & set(part) for part in parts
    )


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
        source = Source(url, options)
    except (TypeError, ValueError) as error:
        # Their texts may hold options.
        log.debug("%s", type(error).__name__)
        raise DatasetError(
            f"{without_secrets(url)} cannot be opened with the options of the dataset's Secret. An administrator must look at "
            "both."
        ) from None
    shelf = await asyncio.to_thread(source.shelf, root / "source" / f"DATASET_{name}")
    (folder,) = await asyncio.to_thread(folders, root, [name])
    found = await asyncio.to_thread(read, folder)
    return await import_shelf(connection, shelf, found, progress)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = arguments("cytomine_spawner.datasets.sources", __doc__)
    parser.add_argument("--options", type=Path, help="folder with the filesystem's options, a file each")
    parser.add_argument(
        "--url", required=True, help="the dataset's folder, such as s3://bucket/DATASET_colon"
    )
    parser.add_argument("name", help="the dataset's name")
    args = parser.parse_args(argv)

    async def work(stack: tuple[str, str, str]) -> list[Imported]:
        options = options_of(args.options)
        with tempfile.TemporaryDirectory(prefix="dataset-") as folder:
            return await import_source(stack, args.url, options, args.name, Path(folder), lines())

    return ended(args.connection, work)


if __name__ == "__main__":
    # What a thread of the storage's still waits for shall not keep the pod.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
