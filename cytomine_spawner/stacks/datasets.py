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
import math
import secrets
import sys
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from .dataset_files import Dataset, DatasetError, ImageFiles, Shape, find, shapes
from .dataset_stack import Connection, Refused, Unreachable, again

log = logging.getLogger(__name__)

IMAGE = "be.cytomine.domain.image.ImageInstance"
PROJECT = "be.cytomine.domain.project.Project"
# Upstream computes a crop for each new annotation: 130 ms each on a small machine.
CHUNK = 20
CHUNK_SECONDS = 120.0
# An upload waits for the import: so long may nothing come back.
UPLOAD_SILENCE_SECONDS = 1800.0
PAUSES = (1.0, 3.0, 10.0, 30.0)
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
    """What an import found or made: the project's id and counts."""

    dataset: str
    project: int
    images: int
    annotations: int


class Importer:
    """Imports datasets into one stack.

    Args:
        connection: to the stack, with the owner's keys.
        progress: called at each step; must not block.
        pauses: seconds to wait before each further try of a step while the stack does not answer.
    """

    def __init__(
        self,
        connection: Connection,
        progress: Callable[[Progress], None] = lambda _: None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._stack, self._progress, self._pauses = connection, progress, pauses
        self._done = self._total = self._user = 0

    async def run(self, datasets: Sequence[Dataset]) -> list[Imported]:
        """Import them, one after the other.

        Raises:
            DatasetError: one sentence for people; what was imported stays, and the next run goes on from there.
        """
        self._done, self._total = 0, sum(1 + sum(1 + len(i.annotations) for i in d.images) for d in datasets)
        try:
            await self._open_session()
            self._user = int((await self._try(self._stack.call, "GET", "/api/user/current.json"))["id"])
            return [await self._dataset(d) for d in datasets]
        except Unreachable as error:
            raise DatasetError(
                f"The stack does not answer any more ({error}). Start the import again when it runs; it goes on from here."
            ) from error
        except Refused as error:
            if error.status == 401:
                raise DatasetError("The stack refused the keys. Fetch the connection again.") from error
            raise DatasetError(f"Cytomine refused a call ({error.status}): {error}") from error

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

    async def _dataset(self, dataset: Dataset) -> Imported:
        self._say(f"preparing the project {dataset.name}")
        wanted = {path: shapes(path) for image in dataset.images for path in image.annotations}
        colours = {s.term: s.colour for part in wanted.values() for s in part if s.term}
        project = await self._try(self._project, dataset)
        terms = await self._try(self._terms, int(project["ontology"]), colours)
        self._done += 1
        count = 0
        for image in dataset.images:
            self._say(f"uploading {image.name}")
            instance = await self._try(self._image, image, int(project["id"]))
            self._done += 1
            for path in image.annotations:
                count += len(wanted[path])
                self._say(f"annotating {image.name} from {path.name}")
                await self._try(self._annotations, path, wanted[path], instance, terms)
                self._done += 1
        self._say(f"{dataset.name} is imported")
        return Imported(dataset.name, int(project["id"]), len(dataset.images), count)

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
                        f"A project named {dataset.name} exists that you cannot see. Ask its owner, or rename the dataset."
                    ) from error
        if not project.get("ontology"):
            raise DatasetError(
                f"The project {dataset.name} has no ontology. Give it one in Cytomine, and start again."
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

    async def _terms(self, ontology: int, colours: dict[str, str]) -> dict[str, int]:
        known = {
            t["name"]: int(t["id"]) for t in await self._stack.listed(f"/api/ontology/{ontology}/term.json")
        }
        for name, colour in colours.items():
            if name not in known:
                body = {"name": name, "ontology": ontology, "color": colour}
                made = await self._stack.call("POST", "/api/term.json", body)
                known[name] = int((made.get("data") or made["term"])["id"])
        return known

    async def _find_image(self, image: ImageFiles, project: int) -> dict[str, Any] | None:
        # An import by reference, without an upload, names an image by its alias.
        names = {image.name, image.alias}
        found = await self._stack.listed(f"/api/project/{project}/imageinstance.json")
        fitting = [i for i in found if {i.get("originalFilename"), i.get("instanceFilename")} & names]
        return min(fitting, key=lambda i: int(i["id"]), default=None)

    async def _image(self, image: ImageFiles, project: int) -> dict[str, Any]:
        if found := await self._find_image(image, project):
            return found
        storage = await self._storage()
        await self._settle(image.name, project)
        if found := await self._find_image(image, project):
            return found
        try:
            await self._upload(image, storage, project)
        except Refused as error:
            raise DatasetError(
                f"Cytomine did not take {image.name} ({error.status}: {error}). Look at its upload in Cytomine's storage."
            ) from error
        if found := await self._find_image(image, project):
            return found
        raise DatasetError(
            f"Cytomine took {image.name} but does not show it. Look at its upload in Cytomine's storage."
        )

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
            self._say(f"waiting for an earlier upload of {name}")
            await asyncio.sleep(min(5.0, self._pauses[0] if self._pauses else 5.0))

    async def _storage(self) -> int:
        found = await self._stack.listed("/api/storage.json")
        # An administrator sees everybody's.
        own = [int(s["id"]) for s in found if s.get("userId", s.get("user")) == self._user]
        if not own:
            raise DatasetError(
                "You have no storage in Cytomine. Open Cytomine once in the browser, and start again."
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

    async def _annotations(
        self, path: Path, wanted: list[Shape], instance: dict[str, Any], terms: dict[str, int]
    ) -> None:
        number, height = int(instance["id"]), int(instance["height"])
        attached = f"/api/domain/{IMAGE}/{number}/attachedfile.json"
        if any(f["filename"] == path.name for f in await self._stack.listed(attached)):
            return
        missing = await self._missing(wanted, instance, terms)
        left = len(missing)
        for start in range(0, left, CHUNK):
            self._say(f"annotating {instance['instanceFilename']} from {path.name}", start / left)
            body = [
                {
                    "location": shape.wkt(height),
                    "image": number,
                    "project": int(instance["project"]),
                    **({"term": [terms[shape.term]]} if shape.term else {}),
                }
                for shape in missing[start : start + CHUNK]
            ]
            await self._stack.call("POST", "/api/annotation.json", body, seconds=CHUNK_SECONDS)
        # A bulk call with a bad geometry stores the others and answers 200.
        if missing and (lost := await self._missing(wanted, instance, terms)):
            raise DatasetError(
                f"Cytomine did not store {len(lost)} of {len(wanted)} annotations of {path.name}, the first near "
                f"{lost[0].centroid[0]:.0f}, {lost[0].centroid[1]:.0f}. Mend their geometry, and start again."
            )
        await self._attach(path, number)

    async def _missing(
        self, wanted: list[Shape], instance: dict[str, Any], terms: dict[str, int]
    ) -> list[Shape]:
        """Those that are not stored: Cytomine keeps the centre of what it simplifies within a pixel or so."""
        stored = await self._stack.listed(
            "/api/annotation.json",
            image=instance["id"],
            project=instance["project"],
            user=self._user,
            showBasic="true",
            showMeta="true",
            showGIS="true",
            showTerm="true",
        )
        height = int(instance["height"])
        grid: dict[tuple[tuple[int, ...], int, int], list[tuple[float, float]]] = {}
        for item in stored:
            x, y = float(item["centroid"]["x"]), height - float(item["centroid"]["y"])
            key = tuple(sorted(int(t) for t in item.get("term") or []))
            grid.setdefault((key, int(x // 64), int(y // 64)), []).append((x, y))
        missing = []
        for shape in wanted:
            x, y = shape.centroid
            key = (terms[shape.term],) if shape.term else ()
            reach = max(1.5, shape.extent / 100)
            cells = range(-1 - int(reach // 64), 2 + int(reach // 64))
            near = [
                (math.dist((x, y), place), spot, place)
                for i in cells
                for j in cells
                if (spot := grid.get((key, int(x // 64) + i, int(y // 64) + j)))
                for place in spot
            ]
            best = min(near, key=lambda n: n[0], default=None)
            if best is None or best[0] > reach:
                missing.append(shape)
            else:
                best[1].remove(best[2])
        return missing

    async def _attach(self, path: Path, image: int) -> None:
        """Attach the file itself: the exact truth for scripts, and the sign that all of it is stored."""
        content = await asyncio.to_thread(path.read_bytes)
        form = aiohttp.MultipartWriter("form-data", boundary=secrets.token_hex(16))
        part = form.append(content, {"Content-Type": "application/geo+json"})
        part.set_content_disposition("form-data", name="files[]", filename=path.name)
        await self._stack.call(
            "POST",
            "/api/attachedfile.json",
            content=form,
            domainClassName=IMAGE,
            domainIdent=image,
            filename=path.name,
        )


def _is_busy(status: int) -> bool:
    # 0, 10, 20, …: under way; 11, 21, …: failed; from 100 on: done.
    return status < 100 and status % 10 == 0


def _pack(image: ImageFiles, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as content:
        for path in image.files:
            content.write(path, f"{image.alias}/{path.name}")


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
        DatasetError: one sentence for people.
    """
    found = await asyncio.to_thread(find, root)
    if unknown := set(names) - {d.name for d in found}:
        have = ", ".join(d.name for d in found)
        raise DatasetError(f"There is no dataset {', '.join(sorted(unknown))} in {root}. It holds {have}.")
    async with aiohttp.ClientSession() as session:
        importer = Importer(Connection(url, public_key, private_key, session), progress)
        return await importer.run([d for d in found if not names or d.name in names])


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
        return 1
    for item in done:
        counts = f"{item.images} images, {item.annotations} annotations"
        sys.stdout.write(f"{item.dataset}: project {item.project}, {counts}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
