"""The unchanged Python client of Cytomine, signing with its keys, through the gateway's side for notebooks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cytomine
import pytest
import requests
from cytomine import models
from PIL import Image

from dev.standin.local import Local
from tests.support.gateway import MISSING, REASON, Door, running
from tests.support.standin import Issuer, local_stack, slides

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
URL = "http://cm-ada.stacks.localhost:8000"


class Stack:
    """A stack of stand-ins behind a gateway; the identity is asked about tokens as always."""

    def __init__(self, local: Local, issuer: Issuer, door: Door, files: dict[str, Path]) -> None:
        self.local, self.issuer, self.door, self.files = local, issuer, door, files
        self.url = f"http://127.0.0.1:{door.ports[8081]}"

    def keys(self, name: str, role: str) -> tuple[str, str]:
        head = {"Authorization": f"Bearer {self.issuer.token(name, role)}"}
        core = f"http://127.0.0.1:{self.local.ports['core']}"
        found = requests.get(f"{core}/api/user/current/keys", headers=head, timeout=10).json()
        return found["primaryKey"], found["secondaryKey"]

    def connect(self, name: str = "ada", role: str = "ADMIN") -> Any:
        return cytomine.Cytomine.connect(self.url, *self.keys(name, role), use_cache=False)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, nginx = tmp_path_factory.mktemp("client"), tmp_path_factory.mktemp("gateway")
    (folder / "files").mkdir()
    with local_stack(folder, url=URL) as (local, issuer):
        others = {who: local.ports[who] for who in ("core", "pims", "web-ui")}
        with running(nginx, url=URL, others=others) as door:
            yield Stack(local, issuer, door, slides(folder / "files"))


@pytest.fixture(scope="module")
def work(stack: Stack) -> dict[str, Any]:
    """A project with a slide, uploaded through the gateway."""
    connection = stack.connect()
    ontology = models.Ontology("tissue").save()
    project = models.Project("trial", ontology.id).save()
    mine = connection.current_user.id
    storage = next(s.id for s in models.StorageCollection().fetch() if s.userId == mine)
    uploaded = connection.upload_image(str(stack.files["slide.tif"]), storage, project.id, sync=True)
    return {"project": project, "image": uploaded.images[0]["imageInstances"][0]}


def test_it_connects_uploads_and_annotates(stack: Stack, work: dict[str, Any]) -> None:
    stack.connect()
    (image,) = models.ImageInstanceCollection().fetch_with_filter("project", work["project"].id)
    assert (image.width, image.height) == (1536, 1024)
    shape = "POLYGON((100 100,300 100,300 200,100 200,100 100))"
    assert models.Annotation(shape, image.id, [], work["project"].id).save()


def test_crops_come_from_addresses_in_cores_answers(
    stack: Stack, work: dict[str, Any], tmp_path: Path
) -> None:
    stack.connect()
    shape = "POLYGON((100 100,300 100,300 200,100 200,100 100))"
    made = models.Annotation(shape, work["image"].id, [], work["project"].id).save()
    assert made.cropURL.startswith(f"{stack.url}/")
    assert made.dump(str(tmp_path / "crop.png")) is True
    with Image.open(tmp_path / "crop.png") as crop:
        assert crop.size == (200, 100)
    kept = models.AttachedFile(work["project"], filename=str(stack.files["note.txt"])).upload()
    assert kept.download(str(tmp_path / "copy.txt")) is True
    assert (tmp_path / "copy.txt").read_bytes() == b"hello\n"


def test_a_member_sees_who_the_owner_is_and_not_her_keys(stack: Stack, work: dict[str, Any]) -> None:
    owner = stack.connect().current_user.id
    _, private = stack.keys("ada", "ADMIN")
    stack.connect("bob", "USER")
    found = models.User().fetch(owner)
    assert found.username == "ada"
    assert (found.privateKey, found.publicKey) == (None, None)
    assert not found.keys()
    core = f"http://127.0.0.1:{stack.local.ports['core']}"
    head = {"Authorization": f"Bearer {stack.issuer.token('bob', 'USER')}"}
    # upstream would have shown them
    assert private in requests.get(f"{core}/api/user/{owner}.json", headers=head, timeout=10).text


def test_wrong_keys_connect_to_nobody(stack: Stack) -> None:
    connection = cytomine.Cytomine.connect(stack.url, "no", "keys", use_cache=False)
    assert connection.current_user is False
