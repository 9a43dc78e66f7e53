"""Puts a dataset of the Bigpicture archive into a stack, by the import that also puts in those on a volume.

Each slide comes when its turn does (:mod:`.shelf`), is decrypted and checked.

As a program it reads the connection from a folder, as :mod:`.importer` does, and gets the owner's token of LS Login from
the stacks' service, to which it shows who it is by the token of its pod::

    python -m cytomine_spawner.datasets.archive --connection /var/run/cytomine
        --archive https://download.bp.nbis.se --identity /var/run/identity/token
        --tokens http://stacks:8000/services/cytomine/imports/cm-ada/archive-token sda://aa-Dataset-abc123-def456
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..common.quantity import gib
from ..common.redact import by_looks
from ..common.storageurls import SCHEME
from .errors import DatasetError, Interrupted
from .files import read
from .importer import Imported, arguments, ended, lines
from .progress import Progress
from .shelf import Remote, Shelf, import_shelf

if TYPE_CHECKING:
    from ..archive import SdaFileSystem

# The archive, the hub, or the network to them may be away for so long, in seconds; what is waited for is told meanwhile.
PATIENCE = 1800.0
# An archive that says nothing is told of within a minute.
STALL = 45.0


class Archive:
    """A dataset of the archive.

    Args:
        fs: the archive.
        dataset: the dataset's id.
    """

    def __init__(self, fs: SdaFileSystem, dataset: str) -> None:
        self._fs, self._dataset = fs, dataset

    def shelf(self, root: Path) -> Shelf:
        """The dataset, laid out in a folder ``DATASET_<name>`` of an empty folder.

        Raises:
            DatasetError: it is no dataset of slides.
            OSError: the archive, or the disk.
        """
        from ..archive.paths import component

        top = component(self._dataset)
        # fsspec's find takes whatever fails for an empty folder.
        self._fs.info(top)
        found = self._fs.find(top, detail=True)
        inside = {PurePosixPath(name.removeprefix(f"{top}/")): entry for name, entry in found.items()}
        folder = self._folder(root, list(inside))
        files = []
        for path, entry in inside.items():
            if entry.get("size") is None:
                raise DatasetError(f"The archive does not say how long {path} of {self._dataset} is.")
            below = path.relative_to(folder.name) if path.parts[0] == folder.name else path
            files.append(Remote(entry["name"], below, int(entry["size"])))
        shelf = Shelf(folder, "the archive", self._fetch)
        shelf.lay_out(files)
        return shelf

    def _folder(self, root: Path, paths: list[PurePosixPath]) -> Path:
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
        return root / plain / (named[0] if named else f"DATASET_{plain}")

    def _fetch(self, file: Remote, place: Path, tell: Callable[[int], object]) -> None:
        from fsspec.asyn import sync

        from ..archive.download import download

        reader = sync(self._fs.loop, self._fs._reader_for, file.path)
        sync(self._fs.loop, download, reader, place, tell)


class Waiting:
    """What is said while an import waits for the archive, or for the token, beside how far it is.

    Args:
        tell: hears of each change; must not block.
    """

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell, self._waits = tell, ""
        self._now = Progress(0, 0, "looking at what the archive has of it")

    def step(self, now: Progress) -> None:
        """How far the import is."""
        self._now = now
        self._tell(replace(now, waits=self._waits))

    def waits(self, why: str) -> None:
        """Why the archive is waited for; nothing if empty. Called in the archive's thread."""
        # What the archive and the hub say is others' text.
        self._waits = f"the archive: {by_looks(why)}" if why else ""
        self.step(self._now)


async def import_dataset(
    connection: tuple[str, str, str],
    fs: SdaFileSystem,
    dataset: str,
    root: Path,
    *,
    room: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> list[Imported]:
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
    waiting = Waiting(progress)
    fs.on_wait(waiting.waits)
    try:
        shelf = await asyncio.to_thread(Archive(fs, dataset).shelf, root)
        if room and shelf.size > room:
            raise DatasetError(
                f"The slides of {dataset} take {gib(shelf.size)}, and the volume of this Cytomine holds {gib(room)}. Choose a "
                "larger size for a new Cytomine."
            )
        found = await asyncio.to_thread(read, shelf.folder)
        return await import_shelf(connection, shelf, found, waiting.step, f"{SCHEME}{dataset}")
    except OSError as error:
        raise _explained(error, dataset) from error


def _explained(error: OSError, dataset: str) -> DatasetError:
    from ..archive import ArchiveError, NotGranted, NoToken, TokenRefused, Unreachable

    said = by_looks(str(error))
    if isinstance(error, NotGranted):
        return DatasetError(
            f"Your visas do not grant {dataset} any more, or the archive does not have it. {said}"
        )
    if isinstance(error, (TokenRefused, Unreachable)) and not isinstance(error, NoToken):
        return Interrupted(said)
    if isinstance(error, ArchiveError):
        return DatasetError(said)
    return Interrupted(
        f"{dataset} could not be copied ({error.strerror or type(error).__name__}). Try again."
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    from ..archive import HubToken, SdaFileSystem

    parser = arguments("cytomine_spawner.datasets.archive", __doc__)
    parser.add_argument("--archive", required=True, help="the archive's address")
    parser.add_argument("--tokens", required=True, help="where the service gives the owner's token")
    parser.add_argument("--identity", required=True, help="file with the token of this pod")
    parser.add_argument(
        "--allow-http", action="store_true", help="let tokens travel unencrypted to the archive"
    )
    parser.add_argument("--room", type=int, default=0, help="bytes that the stack's volume for slides holds")
    parser.add_argument("name", help="the dataset, as sda://ID with the id percent-encoded")
    args = parser.parse_args(argv)

    async def work(stack: tuple[str, str, str]) -> list[Imported]:
        try:
            fs = SdaFileSystem(
                args.archive,
                token=HubToken(args.tokens, identity=args.identity),
                allow_http=args.allow_http,
                patience=PATIENCE,
                stall=STALL,
                # Each slide is read once.
                cache_size=0,
                skip_instance_cache=True,
            )
        except ValueError as error:
            raise DatasetError(f"{by_looks(str(error))} An administrator must mend archive.url.") from None
        dataset = unquote(args.name.removeprefix(SCHEME))
        with tempfile.TemporaryDirectory(prefix="archive-") as folder:
            return await import_dataset(stack, fs, dataset, Path(folder), room=args.room, progress=lines())

    return ended(args.connection, work)


if __name__ == "__main__":
    # What a thread of the archive's still waits for shall not keep the pod.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
