"""The unchanged Python client of Cytomine works with the stand-in, and meets upstream's faults where they were recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cytomine
import pytest
import requests
from cytomine import models

from dev.standin.local import Local
from tests.support.standin import Issuer, slides


class Stack:
    """A running stack, its people's keys, and a slide in a project."""

    def __init__(self, local: Local, issuer: Issuer, files: dict[str, Path]) -> None:
        self.local, self.issuer, self.files = local, issuer, files

    def keys(self, name: str, role: str = "ADMIN") -> tuple[str, str]:
        head = {"Authorization": f"Bearer {self.issuer.token(name, role)}"}
        answer = requests.get(f"{self.local.url}/api/user/current/keys", headers=head, timeout=10)
        answer.raise_for_status()
        return answer.json()["primaryKey"], answer.json()["secondaryKey"]

    def connect(self, name: str = "alice", role: str = "ADMIN") -> Any:
        return cytomine.Cytomine.connect(self.local.url, *self.keys(name, role), use_cache=False)

    def storage(self, connection: Any) -> int:
        mine = connection.current_user.id
        return next(s.id for s in models.StorageCollection().fetch() if s.userId == mine)


@pytest.fixture(scope="module")
def stack(standins: tuple[Local, Issuer], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return Stack(*standins, slides(tmp_path_factory.mktemp("client")))


@pytest.fixture(scope="module")
def work(stack: Stack) -> dict[str, Any]:
    """A project with two terms and a slide."""
    connection = stack.connect()
    ontology = models.Ontology("tissue").save()
    terms = [models.Term(n, ontology.id, c).save() for n, c in (("tumour", "#ff0000"), ("stroma", "#00ff00"))]
    project = models.Project("trial", ontology.id).save()
    slide = str(stack.files["slide.tif"])
    uploaded = connection.upload_image(
        slide, stack.storage(connection), project.id, {"stain": "HE"}, sync=True
    )
    image = uploaded.images[0]["imageInstances"][0]
    return {"ontology": ontology, "terms": terms, "project": project, "image": image, "uploaded": uploaded}


def test_wrong_keys_connect_to_nobody(stack: Stack) -> None:
    connection = cytomine.Cytomine.connect(stack.local.url, "no", "keys", use_cache=False)
    assert connection.current_user is False


def test_an_upload_becomes_an_image_of_the_project_with_its_properties(
    stack: Stack, work: dict[str, Any]
) -> None:
    stack.connect()
    (image,) = models.ImageInstanceCollection().fetch_with_filter("project", work["project"].id)
    assert (image.width, image.height, image.physicalSizeX, image.contentType) == (
        1536,
        1024,
        0.25,
        "PYRTIFF",
    )
    found = models.PropertyCollection(image).fetch()
    assert [(p.key, p.value) for p in found] == [("stain", "HE")]
    assert image.reference_slice().image == image.id


def test_a_thousand_annotations_are_stored_and_found_again(stack: Stack, work: dict[str, Any]) -> None:
    stack.connect()
    image, project, term = work["image"].id, work["project"].id, work["terms"][0].id
    batch = models.AnnotationCollection()
    for n in range(1000):
        x, y = 10 + n % 40 * 30, 10 + n // 40 * 30
        shape = f"POLYGON(({x} {y},{x + 20} {y},{x + 20} {y + 20},{x} {y + 20},{x} {y}))"
        batch.append(models.Annotation(shape, image, [term], project))
    assert batch.save() is True
    found = models.AnnotationCollection(project=project, showWKT=True, showTerm=True, showGIS=True).fetch()
    assert len(found) == 1000
    assert {tuple(a.term) for a in found} == {(term,)}
    assert {a.area for a in found} == {25.0}


def test_annotations_take_terms_change_and_go(stack: Stack, work: dict[str, Any]) -> None:
    stack.connect()
    first, second = work["terms"]
    made = models.Annotation("POINT(700 700)", work["image"].id, [first.id], work["project"].id).save()
    assert models.AnnotationTerm(made.id, second.id).save()
    assert sorted(models.Annotation().fetch(made.id).term) == [first.id, second.id]
    made = models.Annotation().fetch(made.id)
    made.location = "POINT(710 710)"
    assert made.update().location == "POINT (710 710)"
    assert made.delete() is True
    assert models.Annotation().fetch(made.id) is False


def test_windows_and_crops_come_as_images(stack: Stack, work: dict[str, Any], tmp_path: Path) -> None:
    stack.connect()
    shape = "POLYGON((100 100,300 100,300 200,100 200,100 100))"
    made = models.Annotation(shape, work["image"].id, [], work["project"].id).save()
    from PIL import Image

    for name, done, size in (
        ("crop.png", made.dump(str(tmp_path / "crop.png")), (200, 100)),
        ("mask.png", made.dump(str(tmp_path / "mask.png"), mask=True), (200, 100)),
        (
            "window.png",
            work["image"].window(0, 0, 64, 32, dest_pattern=str(tmp_path / "window.png")),
            (64, 32),
        ),
    ):
        assert done is True, name
        with Image.open(tmp_path / name) as image:
            assert image.size == size, name


def test_tags_descriptions_and_attached_files(stack: Stack, work: dict[str, Any], tmp_path: Path) -> None:
    stack.connect()
    project = work["project"]
    assert models.Tag("urgent").save().name == "urgent"
    assert models.Description(project, "<p>first</p>").save()
    assert models.Description(project).fetch().data == "<p>first</p>"
    kept = models.AttachedFile(project, filename=str(stack.files["note.txt"])).upload()
    assert kept.download(str(tmp_path / "copy.txt")) is True
    assert (tmp_path / "copy.txt").read_bytes() == b"hello\n"


def test_an_image_dump_fails_as_upstream(stack: Stack, work: dict[str, Any], tmp_path: Path) -> None:
    stack.connect()
    with pytest.raises(Exception, match="Could not dump the image"):
        work["image"].dump(str(tmp_path / "thumb.jpg"), max_size=256)


def test_closing_the_admin_session_takes_the_rights_away_until_it_is_opened(stack: Stack) -> None:
    connection = stack.connect("frank")
    assert connection.close_admin_session()
    assert models.ProjectCollection().fetch() is False
    assert connection.open_admin_session()
    assert models.ProjectCollection().fetch() is not False


def test_a_member_reads_the_project_and_a_stranger_does_not(stack: Stack, work: dict[str, Any]) -> None:
    stack.connect("bob", "USER")
    assert models.Project().fetch(work["project"].id) is False
    member = cytomine.Cytomine.get_instance().current_user.id
    stack.connect()
    url = f"project/{work['project'].id}/user/{member}.json"
    assert cytomine.Cytomine.get_instance().post(url)
    stack.connect("bob", "USER")
    assert models.Project().fetch(work["project"].id).name == "trial"
