"""GeoJSON of any kind is read as it is, refused with a sentence, or counted as skipped."""

from __future__ import annotations

import contextlib
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytomine_spawner.notebook.annotations import frame, from_geojson, to_geojson, to_image
from cytomine_spawner.notebook.origins import said
from cytomine_spawner.notebook.shapes import InvalidGeometry, prepare
from tests.support.examples import examples

FILES = Path(__file__).parents[1] / "geojson"
SIDE = 1000
SQUARE = {"type": "Polygon", "coordinates": [[[10, 10], [30, 10], [30, 30], [10, 30], [10, 10]]]}


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(members)}


def quietly(source: Any) -> geopandas.GeoDataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return from_geojson(source)


def quietly_or_why(source: Any) -> Any:
    try:
        return quietly(source)
    except ValueError as error:
        return str(error)


def areas(data: geopandas.GeoDataFrame, *, repair: bool) -> list[float]:
    stored = prepare(list(data.geometry), [(SIDE, SIDE)] * len(data), "top-left", repair)
    return [shape.area for shape in stored]


@pytest.mark.parametrize(
    ("file", "terms", "colours"),
    [
        ("derived_names.geojson", [["Tumor: Positive"]], ["#c80000"]),
        ("colour_as_integer.geojson", [["Tumor"]], ["#c80000"]),
        ("path_class_name.geojson", [["Tumor"]], [None]),
        ("third_coordinates.geojson", [["Tumor"]], [None]),
        ("geometry_collection.geojson", [["Tumor"], ["Tumor"]], [None, None]),
        ("qupath_0.2.json", [["Tumor"], ["Tumor: Positive"], []], ["#c80000", "#c83232", None]),
        ("qupath_0.3.geojson", [["Immune cells"], ["CD3: CD8: PD1"]], ["#96c896", "#ff00ff"]),
        ("qupath_0.4.geojson", [["Stroma"], ["Tumor: Positive"], []], ["#96c896", "#c83232", None]),
        (
            "qupath_0.5_children.geojson",
            [["Region*"], ["Tumor"], [], ["Stroma"]],
            ["#0000b4", "#c80000", None, "#96c896"],
        ),
        ("qupath_0.6_hierarchy.json", [[], ["Tumor: 3+"]], [None, "#c83232"]),
        (
            "class_as_text.geojson",
            [["Tumor"], ["Tumor"], [], ["Tumor: Positive"], ["Other"], []],
            [None, "#c80000", None, None, None, None],
        ),
    ],
)
def test_a_file_gives_a_row_for_each_shape_with_its_class(
    file: str, terms: list[list[str]], colours: list[str | None]
) -> None:
    data = from_geojson(FILES / file)
    assert list(data["term_name"]) == terms
    assert [c if isinstance(c, str) else None for c in data["term_colour"]] == colours
    assert data.attrs["skipped"] == {}
    assert not data.geometry.has_z.any()


def test_a_collection_of_geometries_gives_a_row_for_each() -> None:
    data = from_geojson(FILES / "geometry_collection.geojson")
    assert [g.wkt for g in data.geometry] == [
        "POLYGON ((10 10, 30 10, 30 30, 10 30, 10 10))",
        "LINESTRING (0 0, 5 5)",
    ]


def test_what_has_no_shape_is_skipped_and_named() -> None:
    with pytest.warns(
        UserWarning, match=r"1 were skipped: features\[1\]: it is no Feature, but of the type 'name'"
    ):
        data = from_geojson(FILES / "member_that_is_no_feature.geojson")
    assert len(data) == 1
    empty = {"type": "Polygon", "coordinates": []}
    members = [
        feature(SQUARE),
        feature(None),
        feature({}),
        {"type": "Feature"},
        feature(empty),
        3,
        None,
        {"a": 1},
    ]
    with pytest.warns(UserWarning, match=r"7 were skipped: .* and 4 more"):
        data = from_geojson(collection(*members))
    assert len(data) == 1
    assert list(data.attrs["skipped"]) == [f"features[{n}]" for n in range(1, 8)]
    assert data.attrs["skipped"]["features[1]"] == "it has no geometry"
    assert data.attrs["skipped"]["features[4]"] == "it is empty"


def test_a_mark_of_the_byte_order_is_no_part_of_a_file(tmp_path: Path) -> None:
    text = json.dumps(collection(feature(SQUARE, classification="Größe")), ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.geojson").write_bytes(text.encode(encoding))
        assert list(from_geojson(tmp_path / "a.geojson")["term_name"]) == [["Größe"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no JSON", "is no JSON"),
        ('{"ü": 1}'.encode("latin-1"), "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"PK\x03\x04", "is compressed: unpack it"),
        (b"\x1f\x8b\x08", "is compressed: unpack it"),
        (b"3", "It is no GeoJSON"),
        (b"{}", "It is no GeoJSON"),
    ],
)
def test_a_file_that_is_none_is_refused_with_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.geojson").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        from_geojson(tmp_path / "a.geojson")


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"type": "Circle", "coordinates": [1, 2]}, "of the type 'Circle'"),
        ({"type": "Point"}, "no list of coordinates"),
        ({"type": "Point", "coordinates": [1]}, "no list of two numbers"),
        ({"type": "Point", "coordinates": ["1", "2"]}, "not a number"),
        ({"type": "Point", "coordinates": [None, 2]}, "not a number"),
        ({"type": "LineString", "coordinates": [[1, 2], [math.nan, 2]]}, "not a number"),
        ({"type": "LineString", "coordinates": [[1, 2], [math.inf, 2]]}, "not a number"),
        ({"type": "Polygon", "coordinates": [1]}, "no list of two numbers"),
        ({"type": "MultiPolygon", "coordinates": [1]}, "in the place of a list"),
        ({"type": "GeometryCollection"}, "no list of geometries"),
        ({"type": "GeometryCollection", "geometries": [3]}, "is no geometry, but 3"),
    ],
)
def test_a_geometry_that_cannot_be_read_is_named(geometry: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"features\[1\]: .*{words}"):
        from_geojson(collection(feature(SQUARE), feature(geometry)))


def test_a_class_that_cannot_be_read_is_named_and_not_dropped() -> None:
    for properties in ({"classification": {"id": 3}}, {"classification": True}, {"term_name": {"a": 1}}):
        with pytest.raises(ValueError, match=r"features\[0\]: .*(cannot be read|neither a name)"):
            from_geojson(collection(feature(SQUARE, **properties)))
    with pytest.raises(ValueError, match=r"features\[0\]: its properties are no object, but 3"):
        from_geojson(collection({**feature(SQUARE), "properties": 3}))


def test_an_empty_place_among_others_does_not_end_the_process() -> None:
    (found,) = from_geojson({"type": "MultiPoint", "coordinates": [[1, 2], []]}).geometry
    assert found.equals(shapely.MultiPoint([(1, 2)]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Tumor", ["Tumor"]),
        (["Tumor", "Stroma"], ["Tumor", "Stroma"]),
        ('["Tumor", "Stroma"]', ["Tumor", "Stroma"]),
        ("[Tumor", ["[Tumor"]),
        (None, ["Class"]),
        ([], ["Class"]),
        (math.nan, ["Class"]),
        ("", ["Class"]),
        (3.0, ["3"]),
    ],
)
def test_terms_are_names_and_never_letters(value: Any, expected: list[str]) -> None:
    data = from_geojson(feature(SQUARE, term_name=value, classification={"name": "Class"}))
    assert list(data["term_name"]) == [expected]


def test_other_properties_are_columns() -> None:
    properties = {"name": "a", "geometry": "b", "children": ["c"]}
    (row,) = from_geojson({**feature(SQUARE), "properties": properties}).to_dict("records")
    assert (row["name"], row["property geometry"], row["children"]) == ("a", "b", ["c"])
    inside = from_geojson(FILES / "qupath_0.5_children.geojson")
    assert "childObjects" not in inside


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    for file in sorted(FILES.glob("*json")):
        data = quietly(file)
        to_geojson(data, tmp_path / "a.geojson")
        again = from_geojson(tmp_path / "a.geojson")
        assert [g.wkt for g in again.geometry] == [g.wkt for g in data.geometry]
        assert list(again["term_name"]) == list(data["term_name"])
        told = json.loads((tmp_path / "a.geojson").read_text(), parse_constant=pytest.fail)
        for one, colour in zip(told["features"], data["term_colour"], strict=True):
            assert (one["properties"].get("classification") is None) == (not one["properties"]["term_name"])
            if isinstance(colour, str):
                packed = "#" + bytes(one["properties"]["classification"]["color"]).hex()
                assert packed == colour
    (measured,) = to_geojson(from_geojson(FILES / "nan_in_a_measurement.geojson"))["features"]
    assert measured["properties"]["measurements"] == {"Nucleus/Cell area ratio": None}


def test_a_class_that_is_written_has_a_colour_because_qupath_refuses_others() -> None:
    rows = [{"term_name": [n], "geometry": shapely.Point(1, 2)} for n in ("a", "b", "a")]
    told = [f["properties"]["classification"] for f in to_geojson(frame(rows))["features"]]
    assert [c["name"] for c in told] == ["a", "b", "a"]
    assert told[0] == told[2]
    assert told[0]["color"] != told[1]["color"]
    assert all(len(c["color"]) == 3 for c in told)


@pytest.mark.parametrize(
    ("file", "area"),
    [
        ("bowtie.geojson", 200),
        ("overlapping_parts.geojson", 17500),
        ("nested_parts.geojson", 40000),
        ("hole_outside_its_shell.geojson", 40000),
    ],
)
def test_an_invalid_shape_is_refused_or_repaired_to_what_it_goes_around(file: str, area: float) -> None:
    data = from_geojson(FILES / file)
    with pytest.raises(InvalidGeometry, match=r"row 0: .*pass repair=True\.$"):
        areas(data, repair=False)
    assert areas(data, repair=True) == [area]


# Any document: geometries of all kinds, whole and broken, classes in all forms, and members that are no features.

NUMBERS = st.one_of(st.integers(-50, 1050), st.floats(-50, 1050, width=32))
PLACES = st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), st.lists(NUMBERS, min_size=3, max_size=3))


@st.composite
def boxes(draw: st.DrawFn) -> list[list[float]]:
    x, y = draw(st.integers(-20, 900)), draw(st.integers(-20, 900))
    w, h = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    third = draw(st.sampled_from([[], [5], [5.5]]))
    return [[*p, *third] for p in ([x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y])]


@st.composite
def rings(draw: st.DrawFn) -> list[list[float]]:
    found = draw(st.lists(PLACES, min_size=3, max_size=6))
    return [*found, found[0]]


def geometry(kind: str, coordinates: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), "coordinates": coordinates})


POLYGONS = st.lists(st.one_of(boxes(), rings()), max_size=3)
SIMPLE = st.one_of(
    geometry("Polygon", st.lists(boxes(), min_size=1, max_size=1)),
    geometry("Point", st.one_of(PLACES, st.just([]))),
    geometry("MultiPoint", st.lists(PLACES, max_size=3)),
    geometry("LineString", st.lists(PLACES, max_size=4)),
    geometry("MultiLineString", st.lists(st.lists(PLACES, min_size=2, max_size=4), max_size=3)),
    geometry("Polygon", POLYGONS),
    geometry("MultiPolygon", st.lists(POLYGONS, max_size=3)),
)
GEOMETRIES = st.recursive(
    SIMPLE,
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("GeometryCollection"), "geometries": st.lists(inner, max_size=3)}
    ),
    max_leaves=4,
)
COLOURS = st.sampled_from([[200, 0, 0], [1, 2, 3, 128], -3670016, None])
# A class in some form, and the name that it stands for.
CLASSES = st.sampled_from(
    [
        ({}, None),
        ({"classification": None}, None),
        ({"classification": {}}, None),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": "Tumor: Positive"}, "Tumor: Positive"),
        ({"classification": {"name": "Tumor", "color": [200, 0, 0]}}, "Tumor"),
        ({"classification": {"name": "Tumor", "colorRGB": -3670016}}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]}}, "Tumor: Positive"),
        ({"classification": {"name": "Positive", "parentClass": {"name": "Tumor"}}}, "Tumor: Positive"),
        ({"classification": '{"name": "Tumor", "color": [200, 0, 0]}'}, "Tumor"),
        ({"path_class_name": "Tumor"}, "Tumor"),
        ({"term_name": "Tumor"}, "Tumor"),
        ({"term_name": ["Tumor"]}, "Tumor"),
    ]
)
OTHERS = st.sampled_from(
    [{"type": "name", "properties": {}}, {"type": "Feature", "geometry": None, "properties": None}]
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], dict[int, str | None], int]:
    """A document; the class of each feature that has a geometry by its number; and how many members have none."""
    members: list[Any] = []
    called: dict[int, str | None] = {}
    others = 0
    for number in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 4)) == 0:
            members.append(draw(OTHERS))
            others += 1
            continue
        told, name = draw(CLASSES)
        members.append(feature(draw(GEOMETRIES), n=number, **told))
        called[number] = name
    return collection(*members), called, others


def flat(shape: Any) -> list[Any]:
    """The parts of a geometry that are no collections and not empty, without third coordinates."""
    if shape is None:
        return []
    if shape.geom_type == "GeometryCollection":
        return [one for part in shape.geoms for one in flat(part)]
    return [] if shape.is_empty else [shapely.force_2d(shape)]


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_what_geopandas_reads_is_imported_refused_or_counted_and_never_lost_doubled_or_mirrored(
    made: tuple[dict[str, Any], dict[int, str | None], int],
) -> None:
    document, called, others = made
    ours = quietly_or_why(document)
    if isinstance(ours, str):
        assert ours.startswith("Nothing was read, because of features[")
        return
    assert said(ours) == "top-left"
    # Every member has rows or is counted.
    with_rows = {int(n) for n in ours["n"]} if len(ours) else set()
    counted = {where for where, reason in ours.attrs["skipped"].items() if "a part of it" not in reason}
    assert len(with_rows) + len(counted) == len(called) + others
    for number, rows in ours.groupby("n") if len(ours) else ():
        name = called[int(number)]
        assert list(rows["term_name"]) == [[name] if name else []] * len(rows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = geopandas.read_file(io.BytesIO(json.dumps(document).encode()))
    except Exception:  # what geopandas cannot read has no second opinion
        return
    for number in called:
        there = theirs[theirs["n"] == number] if "n" in theirs else theirs[:0]
        wanted = [part for shape in there.geometry for part in flat(shape)]
        found = list(ours.loc[ours["n"] == number].geometry) if number in with_rows else []
        assert [g.geom_type for g in found] == [g.geom_type for g in wanted]
        for a, b in zip(found, wanted, strict=True):
            assert shapely.get_coordinates(a).tolist() == shapely.get_coordinates(b).tolist()
            assert a.area == pytest.approx(b.area)
        # And in Cytomine it lies where it was, or is refused.
        for shape in found:
            with contextlib.suppress(InvalidGeometry):
                (stored,) = prepare([shape], [(SIDE, SIDE)], "top-left", False)
                back = to_image(stored, SIDE)
                if shapely.box(0, 0, SIDE, SIDE).covers(shape):
                    assert back.equals_exact(shape, 0.001)
                else:
                    # What is left at the border is where it was.
                    assert shape.buffer(0.01).covers(back)
