"""Whatever a GeoJSON holds: each annotation is stored, counted as left out, or its file is refused; none twice or elsewhere."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import affinity, wkt
from shapely.geometry import box

from cytomine_spawner.stacks import dataset_files, dataset_geojson
from cytomine_spawner.stacks.dataset_errors import DatasetError
from cytomine_spawner.stacks.dataset_geojson import Features
from cytomine_spawner.stacks.dataset_shapes import Piece, Shape, Unfit
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
        return dataset_geojson.read(path)
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
    again = dataset_geojson.read(path)
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
