"""Whatever a GeoJSON holds: each annotation is stored, counted as left out, or its file is refused; none twice or elsewhere."""

from __future__ import annotations

import io
import json
import math
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shapely import affinity, wkt
from shapely.geometry import box

from cytomine_spawner.datasets import files as dataset_files
from cytomine_spawner.datasets import geojson
from cytomine_spawner.datasets.errors import DatasetError
from cytomine_spawner.datasets.geojson import Features
from cytomine_spawner.datasets.shapes import Piece, Shape, Unfit
from tests.support.examples import examples

WIDTH, HEIGHT = 640, 360
NUMBERS = st.floats(-200, 900) | st.integers(-200, 900) | st.sampled_from([0, 0.5, 360, 640, 1e300, math.nan])
POINTS = st.lists(NUMBERS, min_size=2, max_size=3)


@st.composite
def rings(draw: st.DrawFn) -> list[list[float]]:
    x, y = draw(st.integers(-50, 700)), draw(st.integers(-50, 400))
    side = draw(st.sampled_from([0.3, 1, 7, 90, 1000]))
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    # Turned the other way, or with two corners swapped, so that it crosses itself.
    return draw(st.sampled_from([ring, ring[::-1], [ring[0], ring[2], ring[1], ring[3], ring[0]]]))


OUTLINES = st.lists(rings() | st.lists(POINTS, max_size=5), max_size=3)
LEAVES = st.one_of(
    st.fixed_dictionaries({"type": st.just("Point"), "coordinates": POINTS}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["MultiPoint", "LineString"]), "coordinates": st.lists(POINTS)}
    ),
    st.fixed_dictionaries({"type": st.just("MultiLineString"), "coordinates": st.lists(st.lists(POINTS))}),
    st.fixed_dictionaries(
        {"type": st.just("Polygon"), "coordinates": OUTLINES | st.lists(rings(), min_size=1)}
    ),
    st.fixed_dictionaries({"type": st.just("MultiPolygon"), "coordinates": st.lists(OUTLINES, max_size=2)}),
)
GEOMETRIES = st.recursive(
    LEAVES | st.none(),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("GeometryCollection"), "geometries": st.lists(inner, max_size=3)}
    ),
    max_leaves=4,
)
NAMES = st.text(max_size=8) | st.none() | st.integers() | st.floats() | st.booleans()
COLOURS = st.integers() | st.lists(st.integers(-5, 300), max_size=4) | st.text(max_size=8) | st.none()
CLASSES = (
    NAMES
    | st.lists(NAMES, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "names", "color", "colorRGB", "other"]),
        NAMES | st.lists(NAMES, max_size=2) | COLOURS,
    )
)
FEATURES = st.fixed_dictionaries(
    {
        "type": st.just("Feature"),
        "geometry": GEOMETRIES,
        "properties": st.none()
        | st.dictionaries(
            st.sampled_from(["classification", "path_class_name", "measurements"]),
            CLASSES | CLASSES.map(json.dumps),
        ),
    }
)
COLLECTIONS = st.lists(FEATURES, max_size=6).map(lambda f: {"type": "FeatureCollection", "features": f})


def stored(shape: Shape) -> list[Piece]:
    """What is stored of it: nothing if there is a reason."""
    try:
        return shape.pieces(WIDTH, HEIGHT)
    except Unfit:
        return []


def read(path: Path, document: Any) -> Features | None:
    """What is read of a document; nothing if it is refused with a sentence."""
    path.write_text(json.dumps(document))
    said = ""
    try:
        return geojson.read(path)
    except DatasetError as error:
        said = str(error)
    assert said.endswith("try again.")
    return None


@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(COLLECTIONS)
def test_each_annotation_is_stored_once_or_counted(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.geojson"
    found = read(path, document)
    if found is None:
        assert document["features"], "an empty file is no fault"
        return
    # Each feature is read or counted, and none is both.
    places = Counter(shape.place for shape in found.shapes)
    refused = [said.partition(": ")[0] for said in found.skipped]
    assert sorted({*places, *refused}) == sorted(f"feature {n}" for n in range(len(document["features"])))
    assert not places.keys() & set(refused)
    pieces = [(shape, piece) for shape in found.shapes for piece in stored(shape)]
    assert len({piece.key for _, piece in pieces}) == len(pieces), "two would be taken for one"
    border = box(0, 0, WIDTH, HEIGHT)
    for shape, piece in pieces:
        got = wkt.loads(piece.wkt)
        assert border.buffer(1e-6).covers(got), "Cytomine would cut it again"
        assert got.geom_type in ("Point", "MultiPoint", "LineString", "Polygon", "MultiPolygon")
        # The right way up, and nowhere else: turned back it lies where the file has it.
        back = affinity.translate(affinity.scale(got, 1, -1, origin=(0, 0)), 0, HEIGHT)
        assert shape.geometry.buffer(1e-5).covers(back)
    for shape in found.shapes:
        if shape.geometry.geom_type in ("Polygon", "MultiPolygon") and (own := stored(shape)):
            inside = shape.geometry.intersection(border).area
            assert sum(wkt.loads(p.wkt).area for p in own) == pytest.approx(inside, abs=1e-2)
    # The same file gives the same keys, whatever stands before an annotation.
    again = geojson.read(path)
    assert [s.key for s in again.shapes] == [s.key for s in found.shapes]


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(COLLECTIONS)
def test_what_geopandas_reads_is_read_or_counted(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    try:
        frame = geopandas.read_file(io.StringIO(json.dumps(document)))
    except Exception:
        return  # geopandas does not read it either
    if (found := read(tmp_path_factory.getbasetemp() / "frame.geojson", document)) is None:
        return
    places = {shape.place for shape in found.shapes}
    assert len(places) + len(found.skipped) == len(frame)


PARTS = st.text("ab1-_. ", min_size=1, max_size=5).filter(lambda t: t.strip(". ") == t)


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(st.sets(PARTS, min_size=1, max_size=4), PARTS, st.sampled_from(["", "-tissue", "_2", " x", "y", "0"]))
def test_a_file_is_never_put_on_a_slide_that_it_is_not_named_after(
    tmp_path_factory: pytest.TempPathFactory, slides: set[str], name: str, rest: str
) -> None:
    folder = tmp_path_factory.mktemp("set") / "DATASET_x"
    for number, slide in enumerate(sorted(slides)):
        path = folder / f"IMAGES/I{number}" / f"{slide}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    path = folder / "ANNOTATIONS" / f"{name}{rest}.geojson"
    path.parent.mkdir()
    path.write_text("[]")
    found = dataset_files.read(folder)
    given_to = [image for image in found.images if image.annotations]
    assert len(given_to) + len(found.faults) == 1
    stem = f"{name}{rest}"
    for image in given_to:
        own = image.main.stem
        assert stem == own or (stem.startswith(own) and stem[len(own)] in "-_. (")
        longer = [
            s
            for s in slides
            if len(s) > len(own) and (stem == s or stem.startswith(tuple(f"{s}{d}" for d in "-_. (")))
        ]
        assert not longer, "another slide's name fits better"


# As disks take them: anything but a slash and a zero, up to so many bytes.
FILES = (
    st.text(min_size=1, max_size=20).filter(lambda t: not {"/", "\0"} & set(t))
    | st.sampled_from(
        ["HE", "Größe", "Gro\u0308ße", "a b", "50%", ".DS_Store", "._a", "a#b;c,d", "a\"\\'", "-a"]
    )
).map(lambda t: f"{t}.png")
LEFT_BEHIND = st.sampled_from([".DS_Store", "._HE.png", "Thumbs.db", "desktop.ini", "__MACOSX/HE.png"])


@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["CASE_1", "CASE_2", "Fälle 3"]), st.sets(FILES, min_size=1, max_size=4), min_size=1
    ),
    st.sets(LEFT_BEHIND, max_size=3),
)
@example({"CASE_1": {"Größe.png", "Gro\u0308ße.png"}}, {".DS_Store"})
@example({"CASE_1": {"HE.png"}, "CASE_2": {"HE.png", "CASE_1-HE.png"}}, set())
def test_whatever_images_are_called_each_is_one_with_a_name_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, folders: dict[str, set[str]], left: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("set") / "DATASET_x"
    for case, names in folders.items():
        for name in names | left:
            path = folder / "IMAGES" / case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    wanted = {(c, n) for c, names in folders.items() for n in names if not n.startswith(".")}
    if {c for c, _ in wanted} != set(folders):
        with pytest.raises(DatasetError, match=r"is empty|has no images"):
            dataset_files.read(folder)
        return
    images = dataset_files.read(folder).images
    # Each once, and nothing of what systems left.
    assert Counter((i.folder, i.main.name) for i in images) == Counter(wanted)
    # It is found again by what it was sent as, which no server on the way changes, and people see different names.
    assert len({i.sent for i in images}) == len(images)
    assert all(i.sent.isascii() and not set(i.sent) & set(" %#&;,+='\"\\/?()") for i in images)
    assert len({unicodedata.normalize("NFC", i.name) for i in images}) == len(images)
    assert [i.sent for i in dataset_files.read(folder).images] == [i.sent for i in images]


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(PARTS, st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True), max_size=4),
    st.sampled_from(["", "{urn:bp}", "{urn:other}"]),
    st.booleans(),
)
def test_the_metadata_puts_each_file_on_the_slide_that_it_names_and_nowhere_else(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, list[int]], space: str, together: bool
) -> None:
    folder = tmp_path_factory.mktemp("set") / "DATASET_x"
    for number in range(3):
        path = folder / f"IMAGES/I{number}/slide{number}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    files = {f"{name}{n}.geojson": of[0] for n, (name, of) in enumerate(sorted(named.items()))}
    (folder / "ANNOTATIONS").mkdir()
    (folder / "METADATA").mkdir()
    for name in files:
        (folder / "ANNOTATIONS" / name).write_text("[]")
    root = ET.Element(f"{space}ANNOTATION_SET")
    groups = [[f for f in files if files[f] == n] for n in range(3)] if together else [[f] for f in files]
    for group in filter(None, groups):
        element = ET.SubElement(root, f"{space}ANNOTATION")
        ET.SubElement(element, f"{space}IMAGE_REF", alias=f"I{files[group[0]]}")
        for name in group:
            ET.SubElement(element, f"{space}FILE", filename=f"ANNOTATIONS/{name}")
    ET.ElementTree(root).write(folder / "METADATA/annotation.xml", encoding="utf-8")
    found = dataset_files.read(folder)
    assert found.faults == []
    assert {p.name: image.alias for image in found.images for p in image.annotations} == {
        name: f"I{number}" for name, number in files.items()
    }
    assert sum(len(image.annotations) for image in found.images) == len(files)
