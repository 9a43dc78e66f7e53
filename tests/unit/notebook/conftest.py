"""One stack of stand-ins for all tests of the notebook's library, with a project and slides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cytomine
import numpy as np
import pytest
import requests
from cytomine import models
from PIL import Image

from cytomine_spawner.notebook.transport import guard
from dev.standin.local import Local
from tests.support.cutting import Way
from tests.support.standin import Issuer, slides

# Neither side is a multiple of the tile, and they differ.
WIDTH, HEIGHT = 1333, 777


def picture() -> np.ndarray:
    """Every pixel says where it is: red the column, green the row, blue both coarsely."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    blue = (columns // 256) * 16 + rows // 256
    return np.stack([columns % 256, rows % 256, blue], axis=2).astype(np.uint8)


@dataclass
class Stack:
    """A running stack; ``way`` is the client's way to it."""

    local: Local
    issuer: Issuer
    way: Way
    files: dict[str, Path]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def connect(self, name: str = "alice", role: str = "ADMIN") -> Any:
        head = {"Authorization": f"Bearer {self.issuer.token(name, role)}"}
        keys = requests.get(f"{self.local.url}/api/user/current/keys", headers=head, timeout=10).json()
        client = cytomine.Cytomine.connect(self.way.url, keys["primaryKey"], keys["secondaryKey"])
        return guard(client, connect_timeout=5, read_timeout=30, retries=3)

    def project(self, terms: tuple[str, ...] = ("tumour", "stroma")) -> Any:
        name = f"project {next(self.numbers)}"
        ontology = models.Ontology(name).save()
        colours = itertools.cycle(("#ff0000", "#00aa00", "#0000ff"))
        for term, colour in zip(terms, colours, strict=False):
            models.Term(term, ontology.id, colour).save()
        return models.Project(name, ontology.id).save()

    def image(self, project: Any, file: str = "corners.png") -> Any:
        client = cytomine.Cytomine.get_instance()
        mine = client.current_user.id
        storage = next(s.id for s in models.StorageCollection().fetch() if s.userId == mine)
        uploaded = client.upload_image(str(self.files[file]), storage, project.id, sync=True)
        return uploaded.images[0]["imageInstances"][0]


@pytest.fixture(scope="session")
def _stack(standins: tuple[Local, Issuer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    local, issuer = standins
    folder = tmp_path_factory.mktemp("notebook")
    files = slides(folder)
    files["corners.png"] = folder / "corners.png"
    Image.fromarray(picture()).save(files["corners.png"])
    way = Way(local.url)
    try:
        yield Stack(local, issuer, way, files)
    finally:
        way.close()


@pytest.fixture
def stack(_stack: Stack) -> Stack:
    """The stack, with a whole way to it, and alice connected."""
    _stack.way.lose = lambda method, path: ""
    _stack.way.count.clear()
    _stack.connect()
    return _stack


@pytest.fixture(scope="session")
def _work(_stack: Stack) -> dict[str, Any]:
    _stack.connect()
    project = _stack.project()
    return {"project": project, "image": _stack.image(project), "slide": _stack.image(project, "slide.tif")}


@pytest.fixture
def project(stack: Stack, _work: dict[str, Any]) -> Any:
    """A project with the terms tumour and stroma, shared by the tests."""
    return _work["project"]


@pytest.fixture
def image(stack: Stack, _work: dict[str, Any]) -> Any:
    """The image of ``picture()``, of unknown pixel size, shared by the tests."""
    return _work["image"]


@pytest.fixture
def slide(stack: Stack, _work: dict[str, Any]) -> Any:
    """A pyramid of 1536 x 1024 px, 0.25 microns each, shared by the tests."""
    return _work["slide"]


@pytest.fixture
def empty(stack: Stack) -> Any:
    """An image of a project of its own: nobody else's annotations are on it."""
    return stack.image(stack.project())
