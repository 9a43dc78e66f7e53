"""Puts datasets into a stack: project, ontology with terms, images, annotations.

Each step looks first at what is there, so an import may be cut at any moment and started again: nothing is lost and
nothing doubled. What is there already is never changed, so a researcher's own work in the project is safe.

As a program it reads the connection from the folder that a stack's Secret is mounted at (``host``, ``public-key``,
``private-key``)::

    python -m cytomine_spawner.datasets.importer --connection /var/run/cytomine --root /dataset mock-skin
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from ..common.lines import LEFT_OUT, cut
from . import geojson
from .annotations import Annotations, Stored
from .client import Connection, GaveWay, Refused, Unreachable, again
from .errors import DatasetError, Interrupted
from .files import Dataset, folders, read
from .images import Images
from .marks import Marks
from .progress import Board, Pace, Progress
from .project import Projects
from .slides import ImageFiles

log = logging.getLogger(__name__)

# How the program ends when a dataset has a fault, which no other try can change: the Job's manifest knows it.
FAULT = 65
PAUSES = (1.0, 3.0, 10.0, 30.0)
# Of so many faults is said what they are.
_TOLD = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Imported:
    """What an import found or made.

    Attributes:
        dataset: its name.
        project: the project's number.
        images: how many.
        annotations: how many were found or made now; those of files that were in before are not looked at again.
        left_out: phrases on what was not imported, and why.
        pace: what was sent now, and how fast.
    """

    dataset: str
    project: int
    images: int
    annotations: int
    left_out: tuple[str, ...] = ()
    pace: Pace = field(default_factory=Pace, compare=False)


class Importer:
    """Imports datasets into one stack.

    Args:
        connection: to the stack, with the owner's keys.
        progress: called at each step; must not block.
        pauses: seconds to wait before each further try of a step while the stack does not answer, or takes it back.
        marked: by which name what is brought is marked, where a grant of the dataset can be taken away.
    """

    def __init__(
        self,
        connection: Connection,
        progress: Callable[[Progress], None] = lambda _: None,
        pauses: Sequence[float] = PAUSES,
        marked: str = "",
    ) -> None:
        self._stack, self._board, self._pauses = connection, Board(progress), pauses
        self._marked = marked

    async def run(self, datasets: Sequence[Dataset]) -> list[Imported]:
        """Import them, one after the other; one with a fault holds up none of the others.

        Raises:
            Interrupted: the stack does not answer, or fails; the next run goes on from there.
            DatasetError: one sentence for people for each that has a fault, after all others are in.
        """
        images = [image for dataset in datasets for image in dataset.images]
        steps = len(datasets) + sum(1 + len(image.annotations) for image in images)
        self._board.begin(steps, len(images))
        try:
            await self._open_session()
            user = int((await self._try(self._stack.call, "GET", "/api/user/current.json"))["id"])
            return await self._all(datasets, user)
        except GaveWay as error:
            raise Interrupted(
                f"Others keep changing the same project in Cytomine ({error}). Try again: it goes on from here."
            ) from error
        except Unreachable as error:
            raise Interrupted(
                f"The stack does not answer any more ({error}). Try again when it runs: it goes on from here."
            ) from error
        except Refused as error:
            if error.status == 401:
                raise Interrupted("The stack refused the keys. Fetch the connection again.") from error
            raise Interrupted(
                f"Cytomine failed at a call ({error.said}). Try again: it goes on from here."
            ) from error

    async def _all(self, datasets: Sequence[Dataset], user: int) -> list[Imported]:
        found = [await self._outcome(dataset, user) for dataset in datasets]
        if faults := [item for item in found if isinstance(item, str)]:
            raise DatasetError(" ".join(faults))
        return [item for item in found if not isinstance(item, str)]

    async def _outcome(self, dataset: Dataset, user: int) -> Imported | str:
        """What was imported, or a sentence that says what is wrong with the dataset."""
        try:
            return await self._dataset(dataset, user)
        except Refused as error:
            return _refused(dataset.name, error)
        except DatasetError as error:
            return str(error)

    async def _try(self, action: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        try:
            return await again(lambda: action(*arguments, **named), self._pauses)
        except Refused as error:
            # A core that started anew has forgotten the session.
            if error.status != 403 or not await self._open_session():
                raise
        return await again(lambda: action(*arguments, **named), self._pauses)

    async def _open_session(self) -> bool:
        """An administrator who comes by keys has no rights until an admin session is open."""
        call = self._stack.call
        try:
            await again(lambda: call("GET", "/session/admin/open.json"), self._pauses)
        except Refused as error:
            if error.status == 401:
                raise
            return False
        return True

    async def _dataset(self, dataset: Dataset, user: int) -> Imported:
        self._board.say(f"preparing the project {dataset.name}")
        pace, alone, marks = Pace(), asyncio.Lock(), Marks(self._stack, self._marked)
        projects = Projects(self._stack, marks)
        began = pace.clock()
        project = await self._try(projects.put, dataset)
        number, ontology = int(project["id"]), int(project["ontology"])
        terms = await self._try(projects.terms, ontology)
        self._board.finish()
        pause = min(5.0, self._pauses[0] if self._pauses else 5.0)
        images = Images(self._stack, user, self._board.uploading, pause, alone, pace, marks)
        annotations = Annotations(self._stack, user, self._board.annotating, alone, pace)
        count, faults, left_out = 0, list(dataset.faults), list(dataset.notes)
        async with contextlib.aclosing(self._uploaded(dataset, images, number)) as uploads:
            async for image, instance in uploads:
                if isinstance(instance, str):
                    faults.append(instance)
                    continue
                for path, name in _names(image).items():
                    self._board.annotating(f"annotating {image.name} from {name}")
                    stored = Stored()
                    try:
                        found = await asyncio.to_thread(geojson.read, path, name)
                        await self._try(projects.add_terms, ontology, terms, found.shapes)
                        stored = await self._try(annotations.put, path, name, found.shapes, instance, terms)
                    except Interrupted:
                        raise
                    except DatasetError as error:
                        faults.append(str(error))
                    except Refused as error:
                        faults.append(_refused(name, error))
                    else:
                        if skipped := found.skipped + stored.skipped:
                            total = len(found.shapes) + len(found.skipped)
                            left_out.append(_left_out(name, skipped, total))
                    count += stored.count
                    self._board.has_annotations(stored.count)
                    self._board.finish()
                self._board.annotating("")
        if faults:
            raise DatasetError(_several(list(dict.fromkeys(faults))))
        self._board.say(f"{dataset.name} is imported")
        pace.seconds = pace.clock() - began
        return Imported(dataset.name, number, len(dataset.images), count, tuple(left_out), pace)

    async def _uploaded(
        self, dataset: Dataset, images: Images, project: int
    ) -> AsyncGenerator[tuple[ImageFiles, dict[str, Any] | str], None]:
        """The dataset's images in their order, each as it is in Cytomine, or a sentence that says why it is not.

        The next one is on its way while the caller is busy with one. A failure of the stack comes after all that are there.
        """
        ready: asyncio.Queue[tuple[ImageFiles, dict[str, Any] | str] | None] = asyncio.Queue()

        async def upload() -> None:
            try:
                for image in dataset.images:
                    ready.put_nowait((image, await self._image(image, images, project, dataset.images)))
            finally:
                self._board.uploading("")
                ready.put_nowait(None)

        uploading = asyncio.create_task(upload())
        try:
            while (item := await ready.get()) is not None:
                yield item
            await uploading
        finally:
            uploading.cancel()
            # Its failure was told, or another is.
            await asyncio.gather(uploading, return_exceptions=True)

    async def _image(
        self, image: ImageFiles, images: Images, project: int, others: Sequence[ImageFiles]
    ) -> dict[str, Any] | str:
        self._board.uploading(f"uploading {image.name}")
        try:
            instance = await self._try(images.put, image, project, others)
        except Interrupted:
            raise
        except (DatasetError, Refused) as error:
            fault = _refused(image.name, error) if isinstance(error, Refused) else str(error)
            self._board.finish(1 + len(image.annotations))
            return fault
        self._board.finish()
        self._board.has_image()
        return instance


def _names(image: ImageFiles) -> dict[Path, str]:
    """The names by which an image's files of annotations are attached to it; no two have the same."""
    common = Counter(path.name for path in image.annotations)
    texts = {
        path: path.name if common[path.name] == 1 else f"{path.parent.name}-{path.name}"
        for path in image.annotations
    }
    return {
        path: text.encode(errors="surrogateescape").decode(errors="replace") for path, text in texts.items()
    }


def _refused(name: str, error: Refused) -> str:
    """A sentence on what Cytomine did not take.

    Raises:
        Refused: it is nothing of the dataset's.
    """
    if error.status == 401 or error.status >= 500:
        raise error
    return f"Cytomine refuses a part of {name} ({error.said}). Mend the dataset and try again."


def _left_out(name: str, skipped: Sequence[str], total: int) -> str:
    """A phrase on the annotations of a file that were not imported."""
    few = "; ".join(cut(text, 120) for text in skipped[:_TOLD])
    more = "; ..." if len(skipped) > _TOLD else ""
    return f"{len(skipped)} of {total} annotations of {name} ({few}{more})"


def _several(faults: Sequence[str]) -> str:
    """Sentences on the first of many faults, and how many more there are."""
    rest = len(faults) - _TOLD
    if rest <= 0:
        return " ".join(faults)
    return (
        f"{rest} {'part has' if rest == 1 else 'parts have'} faults beside these: {' '.join(faults[:_TOLD])}"
    )


async def import_datasets(
    url: str,
    public_key: str,
    private_key: str,
    root: Path,
    names: Sequence[str] = (),
    progress: Callable[[Progress], None] = lambda _: None,
) -> list[Imported]:
    """Import the datasets below a folder into a stack.

    Args:
        url: the stack's address.
        public_key: of the owner.
        private_key: of the owner.
        root: the folder with the datasets.
        names: the datasets to import; none means all.
        progress: called at each step.

    Raises:
        Interrupted: the stack does not answer, or fails; the next run goes on from there.
        DatasetError: one sentence for people for each that has a fault, after all others are in.
    """
    places = await asyncio.to_thread(folders, root, names)
    found = [await asyncio.to_thread(_read, place) for place in places]
    faults = [item for item in found if isinstance(item, str)]
    whole = [item for item in found if not isinstance(item, str)]
    done: list[Imported] = []
    async with aiohttp.ClientSession() as session:
        importer = Importer(Connection(url, public_key, private_key, session), progress)
        try:
            done = await importer.run(whole) if whole else []
        except Interrupted:
            raise
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        raise DatasetError(" ".join(faults))
    return done


def _read(folder: Path) -> Dataset | str:
    """A dataset, or a sentence that says what is wrong with it."""
    try:
        return read(folder)
    except DatasetError as error:
        return str(error)


def lines() -> Callable[[Progress], None]:
    """What writes how far an import is: a line for each change."""
    last = [""]

    def say(now: Progress) -> None:
        line = str(now)
        if line != last[0]:
            last[0] = line
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    return say


def told(done: Sequence[Imported]) -> None:
    """Write what was imported."""
    for item in done:
        counts = f"{item.images} images, {item.annotations} annotations"
        sent = f"; {item.pace}" if str(item.pace) else ""
        # One line each, whatever a dataset is called: the service reads the project's number there.
        # None begins as what was left out does.
        sys.stdout.write(f"Imported {cut(item.dataset)}: project {item.project}, {counts}{sent}\n")
    # The last line is what a person is told of an import that ended well.
    if left := [phrase for item in done for phrase in item.left_out]:
        sys.stdout.write(f"{LEFT_OUT}{' '.join('; '.join(left).split())}.\n")


def arguments(module: str, doc: str | None) -> argparse.ArgumentParser:
    """What each program that imports is told."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc)
    parser.add_argument(
        "--connection", type=Path, required=True, help="folder with host, public-key, private-key"
    )
    return parser


def ended(
    connection: Path, work: Callable[[tuple[str, str, str]], Coroutine[Any, Any, list[Imported]]]
) -> int:
    """How a program ends: what was imported, or a sentence that says what is wrong.

    Args:
        connection: the folder with the stack's address and keys.
        work: the import, with the three.
    """
    try:
        host, public, private = (
            (connection / name).read_text().strip() for name in ("host", "public-key", "private-key")
        )
    except OSError as error:
        sys.stderr.write(
            f"{error.filename} cannot be read ({error.strerror}). Mount the stack's connection there.\n"
        )
        return 2
    try:
        done = asyncio.run(work((host, public, private)))
    except OSError as error:
        sys.stderr.write(
            f"{error.filename or error} cannot be read or written ({error.strerror}). Give the import a volume there.\n"
        )
        return 2
    except DatasetError as error:
        log.debug("import failed", exc_info=True)
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, Interrupted) else FAULT
    told(done)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = arguments("cytomine_spawner.datasets.importer", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with the datasets")
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets to import; all if none is named")
    args = parser.parse_args(argv)
    return ended(
        args.connection, lambda stack: import_datasets(*stack, args.root, args.names, progress=lines())
    )


if __name__ == "__main__":
    sys.exit(main())
