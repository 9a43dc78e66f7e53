"""The project of a dataset in a stack, with its ontology and terms: looked for, and made where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..common.importmarks import PROJECT
from .client import Connection, Refused
from .errors import DatasetError
from .files import Dataset
from .marks import Marks
from .shapes import Shape


class Projects:
    """Makes projects for datasets.

    Args:
        connection: to the stack, with the owner's keys.
        marks: tell what the import made.
    """

    def __init__(self, connection: Connection, marks: Marks) -> None:
        self._stack, self._marks = connection, marks

    async def put(self, dataset: Dataset) -> dict[str, Any]:
        """The project of a dataset's name, made with an ontology unless it is there.

        Raises:
            DatasetError: it is somebody else's, or has no ontology.
        """
        project = await self._known(dataset)
        if project is None:
            project = await self._made(dataset)
        if not project.get("ontology"):
            raise DatasetError(
                f"The project {dataset.name} has no ontology. Give it one in Cytomine and try again."
            )
        if dataset.description:
            await self._describe(int(project["id"]), dataset.description)
        return project

    async def _known(self, dataset: Dataset) -> dict[str, Any] | None:
        found = [p for p in await self._stack.listed("/api/project.json") if p["name"] == dataset.name]
        return min(found, key=lambda p: int(p["id"]), default=None)

    async def _made(self, dataset: Dataset) -> dict[str, Any]:
        ontologies = [o for o in await self._stack.listed("/api/ontology.json") if o["name"] == dataset.name]
        # Cytomine takes a second ontology of the same name without complaint.
        if ontologies:
            ontology = min(int(o["id"]) for o in ontologies)
        else:
            made = await self._stack.call("POST", "/api/ontology.json", {"name": dataset.name})
            ontology = int((made.get("data") or made["ontology"])["id"])
        body = {"name": dataset.name, "ontology": ontology}
        try:
            made = await self._stack.call("POST", "/api/project.json", body)
        except Refused as error:
            if error.status != 409:
                raise
            if project := await self._known(dataset):
                return project
            raise DatasetError(
                f"A project named {dataset.name} exists that you cannot see. Ask its owner, or rename the dataset, and try again."
            ) from error
        found: dict[str, Any] = made["project"]
        # One whose import is cut here counts as its owner's.
        await self._marks.made(int(found["id"]))
        return found

    async def _describe(self, project: int, text: str) -> None:
        path = f"/api/domain/{PROJECT}/{project}/description.json"
        try:
            await self._stack.call("GET", path)
        except Refused:
            await self._stack.call(
                "POST", path, {"data": text, "domainIdent": project, "domainClassName": PROJECT}
            )

    async def terms(self, ontology: int) -> dict[str, int]:
        """The numbers of an ontology's terms by name."""
        found = await self._stack.listed(f"/api/ontology/{ontology}/term.json")
        # Cytomine takes several terms of one name.
        return {t["name"]: int(t["id"]) for t in sorted(found, key=lambda t: -int(t["id"]))}

    async def add_terms(self, ontology: int, known: dict[str, int], shapes: Sequence[Shape]) -> None:
        """Make those terms of annotations that are missing; the first colour of a class counts.

        Args:
            ontology: where.
            known: the numbers by name; new ones are added.
            shapes: the annotations.
        """
        colours: dict[str, str] = {}
        for shape in shapes:
            colours.setdefault(shape.term, shape.colour)
        if not colours.keys() - {""} - known.keys():
            return
        # An answer that got lost may have made one.
        known |= await self.terms(ontology)
        for name in [term for term in colours if term and term not in known]:
            body = {"name": name, "ontology": ontology, "color": colours[name]}
            made = await self._stack.call("POST", "/api/term.json", body)
            known[name] = int((made.get("data") or made["term"])["id"])
