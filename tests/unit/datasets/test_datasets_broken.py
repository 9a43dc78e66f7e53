"""A dataset with a fault is named with its cause and its cure, holds up no other, and comes whole once it is mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytomine_spawner.datasets import files as dataset_files
from cytomine_spawner.datasets import geojson, importer, shapes, slides
from cytomine_spawner.datasets.client import Connection, Refused
from cytomine_spawner.datasets.errors import DatasetError, Interrupted
from tests.support.importing import Stack, feature, make, picture, square, whole

pytest_plugins = ["tests.support.importstack"]
# Each annotation costs core a crop; how many there are is nothing to a fault elsewhere.
FEW = 12


def _spoil_annotations(folder: Path) -> None:
    next((folder / "ANNOTATIONS").iterdir()).write_text("{")


def _spoil_slide(folder: Path) -> None:
    next((folder / "IMAGES/IMAGE_2").iterdir()).write_bytes(b"no image")


def _lose_slide(folder: Path) -> None:
    next((folder / "IMAGES/IMAGE_2").iterdir()).unlink()


def _spoil_description(folder: Path) -> None:
    (folder / "METADATA").mkdir()
    (folder / "METADATA/dataset.xml").write_text("<")


@pytest.mark.parametrize("spoil", [_spoil_annotations, _spoil_slide, _lose_slide, _spoil_description])
def test_a_broken_dataset_holds_up_no_other_and_comes_whole_once_it_is_mended(
    stack: Stack, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    case = spoil.__name__.replace("_", "")
    bad, good = f"a{case}", f"z{case}"
    sound = make(tmp_path / "whole", bad, count=FEW) / f"uuid-{bad}"
    root = make(tmp_path / "root", good, count=FEW)
    place = root / sound.name
    shutil.copytree(sound, place)
    spoil(place / f"DATASET_{bad}")
    for _ in range(2):
        with pytest.raises(DatasetError, match=rf"{bad}.* try again\.$") as caught:
            stack.run(root)
        assert not isinstance(caught.value, Interrupted)
        whole(stack, good, FEW)
    # Whoever asks for the good one alone hears nothing of the other.
    assert [item.dataset for item in stack.run(root, good)] == [good]
    shutil.rmtree(place)
    shutil.copytree(sound, place)
    assert [item.dataset for item in stack.run(root)] == [bad, good]
    whole(stack, bad, FEW)
    whole(stack, good, FEW)


def test_the_programs_end_tells_a_fault_of_the_dataset_from_a_stack_that_is_away(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "root", "ends")
    keys = stack.connection(tmp_path / "keys")
    command = [f"--connection={keys}", f"--root={root}", "--"]
    assert importer.main([*command, "ends"]) == 0
    assert importer.main([*command, "absent"]) == importer.FAULT
    said = capsys.readouterr().err
    assert "There is no dataset absent" in said
    assert said.endswith("try again.\n")
    monkeypatch.setattr(importer, "again", lambda action, _: action())
    (keys / "host").write_text("http://127.0.0.1:9")
    assert importer.main([*command, "ends"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_description_that_cannot_be_read_is_named_where_its_dataset_is_looked_for(tmp_path: Path) -> None:
    root = make(tmp_path, "folder")
    _spoil_description(next(root.glob("*/*")))
    with pytest.raises(DatasetError, match=r"no dataset alias .*dataset\.xml is not valid XML"):
        dataset_files.folders(root, ["alias"])


def test_a_file_that_nobody_may_read_is_named(stack: Stack, tmp_path: Path) -> None:
    folder = next(make(tmp_path, "closed").glob("*/*"))
    # A link to a loop: not even an administrator can open it.
    image = next((folder / "IMAGES/IMAGE_1").iterdir())
    files = dataset_files.ImageFiles("IMAGE_1", [image])
    image.unlink()
    image.symlink_to(image)
    with pytest.raises(DatasetError, match=r"closed-1\.png cannot be read .* try again"):
        slides.open_all(files)


BOWTIE = {"type": "Polygon", "coordinates": [[[10, 10], [30, 30], [30, 10], [10, 30], [10, 10]]]}


def test_a_broken_feature_costs_itself_and_is_counted(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = feature(square(5000, 5000, 10), "cell")
    root = make(
        tmp_path, "skips", [feature(square(10, 10, 10), "cell"), outside, feature(BOWTIE, "cell"), {}]
    )
    for _ in range(2):
        (done,) = stack.run(root)
        assert done.annotations == 1
        (said,) = done.left_out
        assert said.startswith("3 of 4 annotations of skips-1-all.geojson (")
        assert "feature 1: it lies outside of the image" in said
        assert "feature 2: it crosses itself" in said
        assert len(stack.inside("skips")["annotations"]) == 1
    keys = stack.connection(tmp_path / "keys")
    assert importer.main([f"--connection={keys}", f"--root={root}"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Left out: 3 of 4 annotations of skips-1-all.geojson (")


def test_what_cytomine_alone_refuses_costs_itself_and_is_counted(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its simplification may spoil what was whole; here a place that no image has stands for that.
    root = make(tmp_path, "spoilt", [feature(square(10 + 20 * n, 10, 10), "cell") for n in range(25)])
    original = shapes.Shape.pieces

    def pieces(self: shapes.Shape, *size: float) -> list[shapes.Piece]:
        found = original(self, *size)
        places = {"feature 3": "POLYGON ((0 0, 9 9, 9 0, 0 9, 0 0))", "feature 7": "nonsense"}
        return [shapes.Piece(p.key, places.get(self.place, p.wkt)) for p in found]

    monkeypatch.setattr(shapes.Shape, "pieces", pieces)
    (done,) = stack.run(root)
    assert done.annotations == 23
    assert len(stack.inside("spoilt")["annotations"]) == 23
    (said,) = done.left_out
    assert said.startswith("2 of 25 annotations of spoilt-1-all.geojson (feature 3: Cytomine says ")


def test_what_cytomine_fails_at_costs_itself_if_it_takes_others(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path, "fails", [feature(square(10 + 20 * n, 10, 10), "cell") for n in range(4)])
    original = Connection.call
    ill = [True]

    async def call(self: Connection, method: str, path: str, body: Any = None, **named: Any) -> Any:
        bad = "POLYGON ((50 350" in str(body) or (ill[0] and path == "/api/annotation.json")
        if method == "POST" and bad:
            raise Refused(500, "<html>")
        return await original(self, method, path, body, **named)

    monkeypatch.setattr(Connection, "call", call)
    with pytest.raises(Interrupted, match="Cytomine failed at a call"):
        stack.start(root, lambda _: None, (0.0,))
    ill[0] = False
    (done,) = stack.run(root)
    assert (done.annotations, len(done.left_out)) == (3, 1)
    assert "feature 2: Cytomine fails at it (500)" in done.left_out[0]


def test_a_file_of_which_nothing_lies_on_its_image_is_refused_and_attached_to_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    root = make(tmp_path, "elsewhere", [feature(square(5000, 5000, 10), "cell")])
    for _ in range(2):
        with pytest.raises(
            DatasetError, match=r"Nothing of elsewhere-1-all\.geojson can be put onto .* try again"
        ):
            stack.run(root)
        assert len(stack.inside("elsewhere")["images"]) == 2
    next(root.rglob("*.geojson")).write_text('{"type": "FeatureCollection", "features": []}')
    assert [d.annotations for d in stack.run(root)] == [0]


def test_an_image_or_a_file_with_a_fault_holds_up_no_other_of_its_dataset(
    stack: Stack, tmp_path: Path
) -> None:
    root = make(tmp_path, "parts", [feature(square(10, 10, 10), "cell")])
    folder = root / "uuid-parts/DATASET_parts"
    next(root.rglob("parts-2.png")).write_bytes(b"no image")
    picture(folder / "IMAGES/IMAGE_3/parts-3.png")
    (folder / "ANNOTATIONS/parts-1-bad.geojson").write_text("{")
    (folder / "ANNOTATIONS/other.geojson").write_text("{}")
    (folder / "ANNOTATIONS/parts-3-a.geojson").write_text(json.dumps(feature(square(20, 20, 10), "cell")))
    with pytest.raises(DatasetError) as caught:
        stack.run(root)
    for said in (
        "parts-1-bad.geojson is no GeoJSON",
        "did not take parts-2.png",
        "ANNOTATIONS/other.geojson of",
    ):
        assert said in str(caught.value)
    found = stack.inside("parts")
    assert found["images"] == ["parts-1.png", "parts-3.png"]
    assert len(found["annotations"]) == 2


def test_a_file_that_is_no_image_is_named(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "noimage")
    next(root.rglob("noimage-1.png")).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"did not take noimage-1\.png"):
        stack.run(root)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "ANNOTATIONS/x-1-all.geojson").write_text("{"), "is no GeoJSON"),
        (lambda f: (f / "ANNOTATIONS/x-1-all.geojson").write_text('{"features":[{}]}'), "has no geometry"),
        (lambda f: (f / "IMAGES/IMAGE_1/s.mrxs").write_bytes(b"x"), "is a slide with a folder of its own"),
        (lambda f: (f / "IMAGES/IMAGE_1/more.png").write_bytes(b""), "several files"),
        (lambda f: next((f / "IMAGES/IMAGE_1").iterdir()).unlink(), "is empty"),
        (lambda f: (f / "METADATA").mkdir() or (f / "METADATA/dataset.xml").write_text("<"), "not valid XML"),
        (
            lambda f: (
                (f / "METADATA").mkdir()
                or (f / "METADATA/annotation.xml").write_text(
                    '<S><ANNOTATION><IMAGE_REF alias="IMAGE_1"/><FILE filename="../../../x"/></ANNOTATION></S>'
                )
            ),
            "is missing",
        ),
    ],
)
def test_a_faulty_dataset_is_named_with_its_fault(
    tmp_path: Path, spoil: Callable[[Path], Any], says: str
) -> None:
    folder = next(make(tmp_path, "x").glob("*/DATASET_x"))
    spoil(folder)

    def read() -> None:
        for image in dataset_files.read(folder).images:
            for path in image.annotations:
                geojson.read(path)

    with pytest.raises(DatasetError, match=says) as caught:
        read()
    assert str(folder) in str(caught.value)


def test_no_dataset_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder"):
        dataset_files.find(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no dataset"):
        dataset_files.find(tmp_path)
