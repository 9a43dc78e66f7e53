"""The unchanged Python client of Cytomine works with the stand-in, and meets upstream's faults where they were recorded."""

from __future__ import annotations

import signal
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import cytomine
import pytest
import requests
from cytomine import models
from PIL import Image

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


def _deleted(stack: Stack, numbers: list[int]) -> list[requests.Response]:
    """The answers to deleting them all at the same time, the earliest first."""
    head = {"Authorization": f"Bearer {stack.issuer.token('alice', 'ADMIN')}"}
    requests.get(f"{stack.local.url}/session/admin/open.json", headers=head, timeout=10).raise_for_status()
    search = stack.local.processes["repository"]
    with ThreadPoolExecutor(len(numbers)) as pool:
        # Core tells the similarity search of each that it deletes: what got there waits.
        search.send_signal(signal.SIGSTOP)
        try:
            left = {
                pool.submit(
                    requests.delete, f"{stack.local.url}/api/annotation/{n}.json", headers=head, timeout=30
                )
                for n in numbers
            }
            first, left = wait(left, timeout=20, return_when=FIRST_COMPLETED)
        finally:
            search.send_signal(signal.SIGCONT)
        return [f.result() for f in (*first, *left)]


def test_of_two_annotations_with_terms_that_are_deleted_at_once_one_stays_and_those_without_go(
    stack: Stack, work: dict[str, Any]
) -> None:
    stack.connect()
    image, project, term = work["image"].id, work["project"].id, work["terms"][0].id
    marks = ([term], [term], [], [])
    made = [models.Annotation(f"POINT({n + 1} 9)", image, m, project).save().id for n, m in enumerate(marks)]
    refused, *done = _deleted(stack, made)
    assert (refused.status_code, [d.status_code for d in done]) == (400, [200] * 3)
    stays = int(refused.url.rpartition("/")[2].removesuffix(".json"))
    text = refused.json()["errors"]
    assert text.startswith("jakarta.persistence.OptimisticLockException")
    assert f"id={stays} was aborted: ERROR: deadlock detected" in text
    assert models.Annotation().fetch(stays).term == [term]
    assert models.Annotation(id=stays).delete() is True


def test_a_crop_is_one_pixel_too_high_and_a_window_is_not(
    stack: Stack, work: dict[str, Any], tmp_path: Path
) -> None:
    stack.connect()
    image, project = work["image"], work["project"].id
    window = tmp_path / "window.png"
    # One row more at the top.
    assert image.window(100, 199, 60, 41, dest_pattern=str(window)) is True
    y0, y1 = image.height - 200, image.height - 240
    shape = f"POLYGON((100 {y0},160 {y0},160 {y1},100 {y1},100 {y0}))"
    made = models.Annotation(shape, image.id, [], project).save()
    assert made.dump(str(tmp_path / "crop.png")) is True
    with Image.open(window) as above, Image.open(tmp_path / "crop.png") as crop:
        assert crop.convert("RGB").tobytes() == above.convert("RGB").crop((0, 0, 60, 40)).tobytes()
        assert crop.convert("RGB").tobytes() != above.convert("RGB").crop((0, 1, 60, 41)).tobytes()


def test_windows_and_crops_come_as_images(stack: Stack, work: dict[str, Any], tmp_path: Path) -> None:
    stack.connect()
    shape = "POLYGON((100 100,300 100,300 200,100 200,100 100))"
    made = models.Annotation(shape, work["image"].id, [], work["project"].id).save()
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
