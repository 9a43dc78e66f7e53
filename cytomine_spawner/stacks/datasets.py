"""Puts datasets into a stack: project, ontology with terms, images, annotations.

Each step looks first at what is there, so an import may be cut at any moment and started again: nothing is lost and
nothing doubled. What is there already is never changed, so a researcher's own work in the project is safe.

As a program it reads the connection from the folder that a stack's Secret is mounted at (``host``, ``public-key``,
``private-key``)::

    python -m cytomine_spawner.stacks.datasets --connection /var/run/cytomine --root /dataset mock-skin
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from . import dataset_geojson
from .dataset_annotations import Annotations
from .dataset_errors import DatasetError, Interrupted
from .dataset_files import Dataset, folders, read
from .dataset_images import Images
from .dataset_shapes import Shape
from .dataset_slides import ImageFiles
from .dataset_stack import Connection, GaveWay, Refused, Unreachable, again
from .sentences import LEFT_OUT, cut

log = logging.getLogger(__name__)

PROJECT = "be.cytomine.domain.project.Project"
# How the program ends when a dataset has a fault, which no other try can change: the Job's manifest knows it.
FAULT = 65
PAUSES = (1.0, 3.0, 10.0, 30.0)
# Of so many faults is said what they are.
_TOLD = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far an import is.

    Attributes:
        done: finished steps.
        total: all steps: one for each dataset, image and annotation file.
        what: what is done now, as a phrase: "uploading skin.svs".
        fraction: of the running step, 0 to 1.
    """

    done: int
    total: int
    what: str
    fraction: float = 0.0


@dataclass(frozen=True)
class Imported:
    """What an import found or made.

    Attributes:
        dataset: its name.
        project: the project's number.
        images: how many.
        annotations: how many were found or made now; those of files that were in before are not looked at again.
        left_out: phrases on what was not imported, and why.
    """

    dataset: str
    project: int
    images: int
    annotations: int
    left_out: tuple[str, ...] = ()


class Importer:
    """Imports datasets into one stack.

    Args:
        connection: to the stack, with the owner's keys.
        progress: called at each step; must not block.
        pauses: seconds to wait before each further try of a step while the stack does not answer, or takes it back.
    """

    def __init__(
        self,
        connection: Connection,
        progress: Callable[[Progress], None] = lambda _: None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._stack, self._progress, self._pauses = connection, progress, pauses
        self._done = self._total = 0

    async def run(self, datasets: Sequence[Dataset]) -> list[Imported]:
        """Import them, one after the other; one with a fault holds up none of the others.

        Raises:
            Interrupted: the stack does not answer, or fails; the next run goes on from there.
            DatasetError: one sentence for people for each that has a fault, after all others are in.
        """
        self._done, self._total = 0, sum(1 + sum(1 + len(i.annotations) for i in d.images) for d in datasets)
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
                f"Cytomine failed at a call ({error.status}: {error}). Try again: it goes on from here."
            ) from error

    async def _all(self, datasets: Sequence[Dataset], user: int) -> list[Imported]:
        pause = min(5.0, self._pauses[0] if self._pauses else 5.0)
        images = Images(self._stack, user, self._say, pause)
        annotations = Annotations(self._stack, user, self._say)
        found = [await self._outcome(dataset, images, annotations) for dataset in datasets]
        if faults := [item for item in found if isinstance(item, str)]:
            raise DatasetError(" ".join(faults))
        return [item for item in found if not isinstance(item, str)]

    async def _outcome(self, dataset: Dataset, images: Images, annotations: Annotations) -> Imported | str:
        """What was imported, or a sentence that says what is wrong with the dataset."""
        try:
            return await self._dataset(dataset, images, annotations)
        except Refused as error:
            if error.status == 401 or error.status >= 500:
                raise
            text = f"Cytomine refuses a part of {dataset.name} ({error.status}: {error})"
            return f"{text}. Mend the dataset and try again."
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

    def _say(self, what: str, fraction: float = 0.0) -> None:
        self._progress(Progress(self._done, self._total, what, fraction))

    async def _dataset(self, dataset: Dataset, images: Images, annotations: Annotations) -> Imported:
        self._say(f"preparing the project {dataset.name}")
        project = await self._try(self._project, dataset)
        number, ontology = int(project["id"]), int(project["ontology"])
        terms = await self._try(self._known_terms, ontology)
        self._done += 1
        count, faults, left_out = 0, list(dataset.faults), list(dataset.notes)
        for image in dataset.images:
            self._say(f"uploading {image.name}")
            try:
                instance = await self._try(images.put, image, number, dataset.images)
            except Interrupted:
                raise
            except DatasetError as error:
                faults.append(str(error))
                self._done += 1 + len(image.annotations)
                continue
            self._done += 1
            for path, name in _names(image).items():
                self._say(f"annotating {image.name} from {name}")
                try:
                    found = await asyncio.to_thread(dataset_geojson.read, path, name)
                    await self._try(self._add_terms, ontology, terms, found.shapes)
                    stored = await self._try(annotations.put, path, name, found.shapes, instance, terms)
                except Interrupted:
                    raise
                except DatasetError as error:
                    faults.append(str(error))
                else:
                    count += stored.count
                    if skipped := found.skipped + stored.skipped:
                        total = len(found.shapes) + len(found.skipped)
                        left_out.append(_left_out(name, skipped, total))
                self._done += 1
        if faults:
            raise DatasetError(_several(list(dict.fromkeys(faults))))
        self._say(f"{dataset.name} is imported")
        return Imported(dataset.name, number, len(dataset.images), count, tuple(left_out))

    async def _project(self, dataset: Dataset) -> dict[str, Any]:
        async def known() -> dict[str, Any] | None:
            found = [p for p in await self._stack.listed("/api/project.json") if p["name"] == dataset.name]
            return min(found, key=lambda p: int(p["id"]), default=None)

        project = await known()
        if project is None:
            ontologies = [
                o for o in await self._stack.listed("/api/ontology.json") if o["name"] == dataset.name
            ]
            # Cytomine takes a second ontology of the same name without complaint.
            if ontologies:
                ontology = min(int(o["id"]) for o in ontologies)
            else:
                made = await self._stack.call("POST", "/api/ontology.json", {"name": dataset.name})
                ontology = int((made.get("data") or made["ontology"])["id"])
            try:
                made = await self._stack.call(
                    "POST", "/api/project.json", {"name": dataset.name, "ontology": ontology}
                )
                project = made["project"]
            except Refused as error:
                if error.status != 409:
                    raise
                if (project := await known()) is None:
                    raise DatasetError(
                        f"A project named {dataset.name} exists that you cannot see. Ask its owner, or rename the dataset, and try again."
                    ) from error
        if not project.get("ontology"):
            raise DatasetError(
                f"The project {dataset.name} has no ontology. Give it one in Cytomine and try again."
            )
        if dataset.description:
            await self._describe(int(project["id"]), dataset.description)
        return project

    async def _describe(self, project: int, text: str) -> None:
        path = f"/api/domain/{PROJECT}/{project}/description.json"
        try:
            await self._stack.call("GET", path)
        except Refused:
            await self._stack.call(
                "POST", path, {"data": text, "domainIdent": project, "domainClassName": PROJECT}
            )

    async def _known_terms(self, ontology: int) -> dict[str, int]:
        found = await self._stack.listed(f"/api/ontology/{ontology}/term.json")
        # Cytomine takes several terms of one name.
        return {t["name"]: int(t["id"]) for t in sorted(found, key=lambda t: -int(t["id"]))}

    async def _add_terms(self, ontology: int, known: dict[str, int], shapes: Sequence[Shape]) -> None:
        """Make those terms of annotations that are missing; the first colour of a class counts."""
        colours: dict[str, str] = {}
        for shape in shapes:
            colours.setdefault(shape.term, shape.colour)
        if not colours.keys() - {""} - known.keys():
            return
        # An answer that got lost may have made one.
        known |= await self._known_terms(ontology)
        for name in [term for term in colours if term and term not in known]:
            body = {"name": name, "ontology": ontology, "color": colours[name]}
            made = await self._stack.call("POST", "/api/term.json", body)
            known[name] = int((made.get("data") or made["term"])["id"])


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


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m cytomine_spawner.stacks.datasets", description=__doc__)
    parser.add_argument(
        "--connection", type=Path, required=True, help="folder with host, public-key, private-key"
    )
    parser.add_argument("--root", type=Path, required=True, help="folder with the datasets")
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets to import; all if none is named")
    args = parser.parse_args(argv)
    last = [""]

    def say(now: Progress) -> None:
        part = f" ({now.fraction:.0%})" if now.fraction else ""
        line = f"{now.done} of {now.total} steps done, {now.what}{part}"
        if line != last[0]:
            last[0] = line
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    try:
        host, public, private = (
            (args.connection / name).read_text().strip() for name in ("host", "public-key", "private-key")
        )
        done = asyncio.run(import_datasets(host, public, private, args.root, args.names, say))
    except OSError as error:
        sys.stderr.write(
            f"{error.filename} cannot be read ({error.strerror}). Mount the stack's connection there." + "\n"
        )
        return 2
    except DatasetError as error:
        log.debug("import failed", exc_info=True)
        sys.stderr.write(f"{error}\n")
        return 1 if isinstance(error, Interrupted) else FAULT
    for item in done:
        counts = f"{item.images} images, {item.annotations} annotations"
        sys.stdout.write(f"{item.dataset}: project {item.project}, {counts}\n")
    # The last line is what a person is told of an import that ended well.
    if left := [phrase for item in done for phrase in item.left_out]:
        sys.stdout.write(f"{LEFT_OUT}{'; '.join(left)}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
