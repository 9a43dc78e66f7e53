"""The mock dataset is the same each time, is laid out as the archive is, and its ground truth is where it says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shapely.geometry import Point, shape

from dev import cache, dataset, host
from dev.cache import ROOT
from dev.console import Console


@pytest.fixture(scope="module")
def mock() -> Path:
    return dataset.build(Console())


@pytest.fixture(scope="module")
def skin(mock: Path) -> Path:
    return mock / dataset.SKIN / "DATASET_mock-skin"


@pytest.fixture(scope="module")
def marks(mock: Path) -> Path:
    return mock / dataset.LANDMARKS / "DATASET_mock-landmarks"


def _features(root: Path, name: str) -> list[dict[str, Any]]:
    return list(json.loads((root / "ANNOTATIONS" / f"{name}.geojson").read_text())["features"])


def _called(features: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [f for f in features if f["properties"]["classification"]["name"] == name]


# All but the large pyramid at its full size, which takes the most time.
AGAIN = """
import hashlib, json, sys
from pathlib import Path
from dev.dataset import cells, dicom, landmarks, large, tissue
slide, folder = Path(sys.argv[1]), Path(sys.argv[2])
dicom.write(slide, folder / "dicom")
cells.write(folder / "cells.ome.tif")
image = tissue.read(slide)
tissue.write(image, folder, "skin")
landmarks.write(image, folder / "IMAGES", folder / "ANNOTATIONS")
for large.DOWN in (2, 6):
    large.ACROSS = 2
    large.write(image, folder / f"pyramid-{large.DOWN}.tif")
made = sorted(p for p in folder.rglob("*") if p.is_file())
print(json.dumps({str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in made}))
"""


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The checksums of a second making, by another process than the dataset's own.

    They are kept as the dataset is, under the hash of what it is made from: who changes nothing of that makes neither
    of the two anew, and compares the two makings that there are.
    """

    def make(folder: Path) -> None:
        library = next(host.unpacked("libturbojpeg0", print).rglob("libturbojpeg.so.0*"))
        environment = {**os.environ, "TURBOJPEG": str(library), "PYTHONPATH": str(ROOT)}
        command = [dataset.python(), "-c", AGAIN, dataset.slide(), tmp_path_factory.mktemp("again")]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=300, check=True, stdout=subprocess.PIPE, text=True
        )
        (folder / "sums.json").write_text(done.stdout.splitlines()[-1])

    key = cache.digest([*sorted(dataset.HERE.glob("*.py")), dataset.REQUIREMENTS], AGAIN)
    made = cache.built("dataset-again", key, make)
    return dict(json.loads((made / "sums.json").read_text()))


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_second_making_gives_the_same_bytes(skin: Path, marks: Path, again: dict[str, str]) -> None:
    pairs = {"cells.ome.tif": skin / "IMAGES/IMAGE_4/cells.ome.tif"}
    for name in again:
        path = Path(name)
        if path.parts[0] == "dicom":
            pairs[name] = skin / "IMAGES/IMAGE_1" / path.name
        elif path.parts[0] in ("IMAGES", "ANNOTATIONS"):
            pairs[name] = marks / path
        elif path.suffix == ".geojson":
            pairs[name] = skin / "ANNOTATIONS" / path.name
    assert len(pairs) == 1 + 2 + 3 + 32
    for name, old in pairs.items():
        assert again[name] == _sum(old), name


def test_the_pyramid_is_the_same_each_time_and_takes_bounded_memory(
    tmp_path: Path, again: dict[str, str]
) -> None:
    program = """
import resource, sys
from pathlib import Path
from dev.dataset import large, tissue
image = tissue.read(Path(sys.argv[1]))
for large.DOWN in (2, 6):
    large.ACROSS = 2
    large.write(image, Path(sys.argv[2]) / f"pyramid-{large.DOWN}.tif")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    command = [dataset.python(), "-c", program, dataset.slide(), tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, timeout=300, check=True, capture_output=True, text=True
    )
    small, tall = map(int, done.stdout.split())
    # Three times the pixels (158 MB more) cost about a sixteenth of them.
    assert tall - small < 60_000
    names = ["pyramid-2.tif", "pyramid-6.tif"]
    assert [_sum(tmp_path / name) for name in names] == [again[name] for name in names]


@pytest.mark.parametrize("name", ["skin", "marks"])
def test_the_description_names_every_file_with_its_checksum(
    name: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(name)
    assert sorted(p.name for p in root.iterdir()) == ["ANNOTATIONS", "IMAGES", "METADATA"]
    named = set()
    for kind in ("image", "annotation"):
        for file in ET.parse(root / "METADATA" / f"{kind}.xml").iter("FILE"):
            path = root / file.attrib["filename"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.attrib["checksum"]
            named.add(path)
    assert named == {
        p for folder in ("IMAGES", "ANNOTATIONS") for p in (root / folder).rglob("*.*") if p.is_file()
    }
    described = ET.parse(root / "METADATA/dataset.xml")
    for tag, kind in (("IMAGE_REF", "image"), ("ANNOTATION_REF", "annotation")):
        aliases = [e.attrib["alias"] for e in described.iter(tag)]
        assert aliases == [
            e.attrib["alias"] for e in ET.parse(root / "METADATA" / f"{kind}.xml").iter(kind.upper())
        ]


def test_every_annotation_is_valid_and_inside_its_image(skin: Path, marks: Path) -> None:
    sizes = {
        "skin": (2220, 2967),
        "skin-large": (17760, 17802),
        "cells": (2048, 1536),
        "landmarks": (520, 660),
    }
    count = 0
    for root in (skin, marks):
        for path in (root / "ANNOTATIONS").iterdir():
            width, height = sizes[path.stem.rpartition("-")[0]]
            for feature in json.loads(path.read_text())["features"]:
                geometry = shape(feature["geometry"])
                left, top, right, bottom = geometry.bounds
                assert geometry.is_valid
                assert not geometry.is_empty
                assert 0 <= left < right + 1 <= width + 1, path
                assert 0 <= top < bottom + 1 <= height + 1, path
                count += 1
    assert count > 700


def test_tissue_is_dark_and_outside_it_is_light(skin: Path) -> None:
    with Image.open(skin / "IMAGES/IMAGE_2/skin.svs") as image:
        grey = image.convert("L")
    outlines = [shape(f["geometry"]) for f in _features(skin, "skin-tissue")]
    inside, outside = [], []
    for x in range(30, 2220, 60):
        for y in range(30, 2967, 60):
            hit = any(p.contains(Point(x, y)) for p in outlines)
            (inside if hit else outside).append(grey.getpixel((x, y)))
    assert sum(inside) / len(inside) < 190 < 235 < sum(outside) / len(outside)
    areas = _features(skin, "skin-areas")
    assert {f["properties"]["use"] for f in areas} == {"train", "test"}
    for feature in _called(areas, "Background"):
        assert not any(p.intersects(shape(feature["geometry"])) for p in outlines)


def test_reference_nuclei_are_dark_and_inside_their_region(skin: Path) -> None:
    with Image.open(skin / "IMAGES/IMAGE_2/skin.svs") as image:
        red = image.convert("RGB").getchannel("R")
    features = _features(skin, "skin-nuclei")
    regions = {
        f["properties"]["region"]: shape(f["geometry"]) for f in _called(features, "Region of interest")
    }
    nuclei = _called(features, "Nucleus")
    assert set(regions) == {"a", "b", "c"}
    assert len(nuclei) > 200
    dark = 0
    for feature in nuclei:
        nucleus = shape(feature["geometry"])
        assert regions[feature["properties"]["region"]].contains(nucleus)
        place = nucleus.representative_point()
        dark += red.getpixel((int(place.x), int(place.y))) < 140
    assert dark / len(nuclei) > 0.95


def test_synthetic_nuclei_are_bright_where_they_were_drawn_and_never_touch(skin: Path) -> None:
    with Image.open(skin / "IMAGES/IMAGE_4/cells.ome.tif") as image:
        planes = []
        for number in range(3):
            image.seek(number)
            planes.append(image.copy())
    features = _features(skin, "cells-nuclei")
    nuclei = [shape(f["geometry"]) for f in features]
    assert len(nuclei) > 150
    for number, (feature, nucleus) in enumerate(zip(features, nuclei, strict=True)):
        x, y = int(nucleus.centroid.x), int(nucleus.centroid.y)
        assert planes[0].getpixel((x, y)) > 80
        assert (planes[2].getpixel((x, y)) > 60) == feature["properties"]["marker"]
        assert all(nucleus.disjoint(other) for other in nuclei[:number])
    bright = Image.Image.point(planes[0], lambda v: 255 if v > 70 else 0).histogram()[255]
    assert bright == pytest.approx(sum(n.area for n in nuclei), rel=0.05)


def test_landmarks_lie_on_the_same_tissue_in_every_image(marks: Path) -> None:
    # The pixels around a landmark, brightness aside, are like those of the first image; elsewhere they are not.
    def around(number: int, name: str, shift: int) -> list[float]:
        (feature,) = _called(_features(marks, f"landmarks-{number:02}"), name)
        x, y = (round(v) for v in feature["geometry"]["coordinates"])
        path = marks / f"IMAGES/IMAGE_{number}/landmarks-{number:02}.png"
        with Image.open(path) as image:
            part = image.convert("L").crop((x - 8 + shift, y - 8, x + 8 + shift, y + 8)).resize((8, 8))
        values = [float(v) for v in part.tobytes()]
        mean = sum(values) / len(values)
        size = sum((v - mean) ** 2 for v in values) ** 0.5 or 1.0
        return [(v - mean) / size for v in values]

    for name in ("Follicle centre", "Cyst tip", "Flap tip"):
        first = around(1, name, 0)
        for shift, low in ((0, True), (40, False)):
            alike = [
                sum(a * b for a, b in zip(first, around(n, name, shift), strict=True)) for n in range(2, 17)
            ]
            assert (sum(alike) / len(alike) > 0.45) == low, (name, shift, alike)
