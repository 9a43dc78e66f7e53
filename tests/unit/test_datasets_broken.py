"""A dataset with a fault is named with its cause and its cure, holds up no other, and comes whole once it is mended."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytomine_spawner.stacks import dataset_files, dataset_images, datasets
from cytomine_spawner.stacks.dataset_files import DatasetError
from tests.support.importing import Stack, feature, make, square, whole

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
        assert not isinstance(caught.value, dataset_files.Interrupted)
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
    keys = tmp_path / "keys"
    keys.mkdir()
    secret = {"public-key": stack.keys["primaryKey"], "private-key": stack.keys["secondaryKey"]}
    for name, text in {"host": stack.local.url, **secret}.items():
        (keys / name).write_text(text)
    command = [f"--connection={keys}", f"--root={root}", "--"]
    assert datasets.main([*command, "ends"]) == 0
    assert datasets.main([*command, "absent"]) == datasets.FAULT
    said = capsys.readouterr().err
    assert "There is no dataset absent" in said
    assert said.endswith("try again.\n")
    monkeypatch.setattr(datasets, "again", lambda action, _: action())
    (keys / "host").write_text("http://127.0.0.1:9")
    assert datasets.main([*command, "ends"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_description_that_cannot_be_read_is_named_where_its_dataset_is_looked_for(tmp_path: Path) -> None:
    root = make(tmp_path, "folder")
    _spoil_description(next(root.glob("*/*")))
    with pytest.raises(DatasetError, match=r"no dataset alias .*dataset\.xml is not valid XML"):
        dataset_files.folders(root, ["alias"])


@pytest.mark.parametrize(
    "text",
    [
        '{"features": 5}',
        '{"features": [[]]}',
        '[{"type": "Polygon", "coordinates": [1, 2]}]',
        '[{"type": "Point", "coordinates": [1]}]',
        '[{"type": "Point", "coordinates": ["1", "2"]}]',
        '[{"type": "GeometryCollection", "geometries": []}]',
        '[{"type": "Circle", "coordinates": [1, 2]}]',
        '[{"geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": [1]}]',
        "[" * 100_000,
    ],
)
def test_no_annotation_file_is_so_strange_that_it_is_not_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "strange.geojson"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"strange\.geojson.* try again\."):
        dataset_files.shapes(path)


def test_a_file_that_nobody_may_read_is_named(stack: Stack, tmp_path: Path) -> None:
    folder = next(make(tmp_path, "closed").glob("*/*"))
    # A link to a loop: not even an administrator can open it.
    image = next((folder / "IMAGES/IMAGE_1").iterdir())
    files = dataset_files.ImageFiles("IMAGE_1", [image])
    image.unlink()
    image.symlink_to(image)
    with pytest.raises(DatasetError, match=r"closed-1\.png cannot be read .* try again"):
        dataset_images.open_all(files)


def test_geometries_that_cytomine_drops_are_named(stack: Stack, tmp_path: Path) -> None:
    outside = feature(square(5000, 5000, 10), "cell")
    root = make(tmp_path, "outside", [feature(square(10, 10, 10), "cell"), outside])
    with pytest.raises(DatasetError, match=r"outside-1-all\.geojson"):
        stack.run(root)


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
                dataset_files.shapes(path)

    with pytest.raises(DatasetError, match=says) as caught:
        read()
    assert str(folder) in str(caught.value)


def test_no_dataset_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder"):
        dataset_files.find(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no dataset"):
        dataset_files.find(tmp_path)
