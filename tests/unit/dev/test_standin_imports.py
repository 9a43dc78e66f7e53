"""Where no answer was recorded the stand-in follows upstream's source, and is no kinder: names, archives, annotations."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.standin import archive, uploads
from dev.standin.readers import Unreadable
from tests.support.importing import Stack, picture

pytest_plugins = ["tests.support.importstack"]


@pytest.mark.parametrize(
    ("disposition", "name", "disk"),
    [
        ('form-data; name="files[]"; filename="a.png"', "a.png", "a.png"),
        ('form-data; name="files[]"; filename="H47%20HSIL.png"', "H47%20HSIL.png", "H47%20HSIL.png"),
        ('form-data; name="files[]"; filename="a b+(1).png"', "a b+(1).png", "a-b--1-.png"),
        ("form-data; name=\"files[]\"; filename*=utf-8''Gr%C3%B6%C3%9Fe.png", "Größe.png", "Größe.png"),
        ('form-data; name="files[]"; filename="a\\"b;c.png"', 'a"b;c.png', "a-b;c.png"),
    ],
)
def test_the_name_of_an_upload_is_read_as_it_stands_in_the_form(
    disposition: str, name: str, disk: str
) -> None:
    assert uploads.named(disposition) == name
    assert uploads.on_disk(name) == disk


def pack(folder: Path, *names: str) -> Path:
    path = folder / "upload" / "x.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as content:
        for name in names:
            content.writestr(name, "[Virtual Microscope Specimen]\n" if name.endswith(".vms") else "x")
    return path


@pytest.mark.parametrize(
    ("names", "main", "image"),
    [
        (["a/s.mrxs", "a/s/Slidedat.ini", "a/s/Data0000.dat"], "a/s.mrxs", "a"),
        (["s.mrxs", "s/Slidedat.ini"], "s.mrxs", "s.mrxs"),
        (["a/s.vms", "a/s.jpg"], "a/s.vms", "a"),
        (["a/1.dcm", "a/2.dcm"], "a/1.dcm", "a"),
        (["1.dcm"], "1.dcm", "original.WSIDICOM"),
    ],
)
def test_an_archive_is_one_slide_with_the_name_of_its_folder_or_its_main_file(
    tmp_path: Path, names: list[str], main: str, image: str
) -> None:
    path = pack(tmp_path, *names)
    inside = archive.unpack(path)
    assert inside == path.parent / "processed" / main
    assert archive.name("x.zip", path, inside) == image


@pytest.mark.parametrize(
    "names", [["s.mrxs"], ["s.mrxs", "s/Data0000.dat"], ["a/1.dcm", "a/x.txt"], ["a.png"]]
)
def test_an_archive_that_is_no_whole_slide_is_not_taken(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(Unreadable):
        archive.unpack(pack(tmp_path, *names))


@pytest.fixture(scope="module")
def image(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("kinder")
    picture(root / "uuid/DATASET_kinder/IMAGES/I/a.png")
    (done,) = stack.run(root)
    (one,) = stack.get(f"/api/project/{done.project}/imageinstance.json?max=0")["collection"]
    return dict(one)


def post(stack: Stack, image: dict[str, Any], **more: Any) -> requests.Response:
    body = {"image": image["id"], "project": image["project"], **more}
    return requests.post(f"{stack.local.url}/api/annotation.json", json=body, headers=stack.head, timeout=30)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("POLYGON((1 1, 1.5 1, 1.5 9, 1 1))", "Annotation dimension not valid"),
        ("POLYGON((639.5 1, 700 1, 700 9, 639.5 1))", "Annotation dimension not valid"),
        ("MULTIPOINT((1 1), (1.2 1.2))", "Annotation dimension not valid"),
        ("MULTILINESTRING((1 1, 9 9), (20 20, 30 30))", "MultiLineString is not a valid geometry type!"),
        ("LINESTRING(600 10, 700 10, 700 20, 600 20)", "MultiLineString is not a valid geometry type!"),
        (
            "GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(1 1, 9 9))",
            "GeometryCollection is not a valid geometry type!",
        ),
    ],
)
def test_what_core_s_source_refuses_is_refused(
    stack: Stack, image: dict[str, Any], location: str, says: str
) -> None:
    answer = post(stack, image, location=location)
    assert answer.status_code == 400
    assert says in answer.text


def test_an_annotation_brings_its_properties_and_is_found_by_them(
    stack: Stack, image: dict[str, Any]
) -> None:
    made = post(stack, image, location="POLYGON((10 20, 30 20, 30 40, 10 40, 10 20))", properties={"@k": "v"})
    number = made.json()["annotation"]["id"]
    assert (
        post(stack, image, location="POINT(5 5)", properties=[{"key": "@k", "value": "v"}]).status_code == 500
    )
    user = stack.get("/api/user/current.json")["id"]
    path = f"/api/user/{user}/imageinstance/{image['id']}/annotationposition.json"
    (found,) = stack.get(f"{path}?key=@k&max=0")["collection"]
    assert found == {"idAnnotation": number, "x": 20.0, "y": 30.0, "value": "v"}
    assert stack.get(f"{path}?key=other")["collection"] == []
