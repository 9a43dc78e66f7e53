"""Small pictures of a scanner's file that has one of its own: upstream's image server ends there, and so does the stand-in."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cytomine
import pytest
import requests
from cytomine import models
from PIL import Image

from cytomine_spawner.notebook import images
from cytomine_spawner.notebook.transport import RequestFailed, guard
from dev import dataset
from dev.console import Console
from dev.standin.local import Local
from tests.support.standin import Issuer, slides


@dataclass
class Scan:
    """A scanner's slide and a plain one in a project."""

    local: Local
    token: str
    slide: int
    plain: int
    keys: dict[str, str]

    def ask(self, path: str, role: str = "core") -> requests.Response:
        query = "&" if "?" in path else "?"
        return requests.get(
            f"http://127.0.0.1:{self.local.ports[role]}/api/{path}{query}authorization=Bearer%20{self.token}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=20,
        )


@pytest.fixture(scope="module")
def scan(standins: tuple[Local, Issuer], tmp_path_factory: pytest.TempPathFactory) -> Scan:
    local, issuer = standins
    token = issuer.token("thumbs", "ADMIN")
    head = {"Authorization": f"Bearer {token}"}
    keys = requests.get(f"{local.url}/api/user/current/keys", headers=head, timeout=10).json()
    client = cytomine.Cytomine.connect(local.url, keys["primaryKey"], keys["secondaryKey"], use_cache=False)
    ontology = models.Ontology("thumbs").save()
    project = models.Project("thumbs", ontology.id).save()
    storage = next(s.id for s in models.StorageCollection().fetch() if s.userId == client.current_user.id)
    made: Path = dataset.build(Console()) / dataset.SKIN / "DATASET_mock-skin/IMAGES/IMAGE_2/skin.svs"
    files = [made, slides(tmp_path_factory.mktemp("thumbs"))["slide.tif"]]
    ids = [
        client.upload_image(str(file), storage, project.id, sync=True).images[0]["imageInstances"][0].id
        for file in files
    ]
    return Scan(local, token, *ids, keys)


@pytest.mark.parametrize(
    "path", ["thumb.png", "thumb.jpg?maxSize=64&bits=max", "preview.png?maxSize=256", "associated/label.png"]
)
def test_the_files_own_picture_ends_the_image_server_and_core_says_500(scan: Scan, path: str) -> None:
    assert scan.ask(f"imageinstance/{scan.slide}/{path}").status_code == 500
    assert scan.ask(f"imageinstance/{scan.slide}/thumb.png?bits=8").status_code == 200


@pytest.mark.parametrize("path", ["thumb.png?maxSize=64", "preview.jpg?maxSize=64", "thumb.webp?maxSize=64"])
def test_a_picture_made_from_the_pixels_is_shown(scan: Scan, path: str) -> None:
    answer = scan.ask(f"imageinstance/{scan.slide}/{path}&bits=8")
    assert Image.open(io.BytesIO(answer.content)).size == (48, 64)
    assert scan.ask(f"imageinstance/{scan.slide}/{path}&bits=x").status_code == 500


@pytest.mark.parametrize("path", ["thumb.png", "preview.png", "thumb.png?bits=max", "preview.png?bits=16"])
def test_a_file_without_one_is_shown_either_way(scan: Scan, path: str) -> None:
    assert scan.ask(f"imageinstance/{scan.plain}/{path}").status_code == 200


@pytest.mark.parametrize("path", ["thumb.png", "preview.png?maxSize=64", "thumb.png?bits=max&maxSize=64"])
def test_the_gateways_stand_in_asks_as_the_gateway_does(scan: Scan, path: str) -> None:
    assert scan.ask(f"imageinstance/{scan.slide}/{path}", "gateway").status_code == 200


def test_the_library_asks_for_the_slides_pixels_wherever_it_runs(scan: Scan) -> None:
    core = f"http://127.0.0.1:{scan.local.ports['core']}"
    client = cytomine.Cytomine.connect(core, scan.keys["primaryKey"], scan.keys["secondaryKey"])
    guard(client, connect_timeout=5, read_timeout=30, retries=0)
    assert images.thumb(scan.slide, 64).shape == (64, 48, 3)
    assert images.preview(scan.slide, 64).shape == (64, 48, 3)
    with pytest.raises(RequestFailed):
        images.get_bytes(f"imageinstance/{scan.slide}/preview.png", {})


def test_core_answers_for_parts_that_are_not_there_as_upstreams(scan: Scan) -> None:
    assert scan.ask("meilisearch/facets").status_code == 500
    assert scan.ask("meilisearch/search?query=x").status_code == 500
    assert scan.ask("app-engine/tasks").status_code == 404
