"""Annotations are read from every GeoJSON that QuPath and others write; what is broken costs nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import shape

from cytomine_spawner.common import qupath
from cytomine_spawner.datasets import geojson as dataset_geojson
from cytomine_spawner.datasets.errors import DatasetError
from cytomine_spawner.datasets.geojson import Features

SQUARE = {"type": "Polygon", "coordinates": [[[10, 10], [30, 10], [30, 30], [10, 30], [10, 10]]]}
TUMOR = "#c80000"


def feature(properties: Any = None, geometry: Any = SQUARE, **more: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties or {}, **more}


def read(folder: Path, document: Any, encoding: str = "utf-8") -> Features:
    path = folder / "a.geojson"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode(encoding))
    return dataset_geojson.read(path)


# What each version of QuPath writes of a square of the class Tumor, and of a class that is derived from it.
QUPATH = {
    "0.2": feature(
        {
            "classification": {"name": "Tumor", "colorRGB": -3670016},
            "isLocked": False,
            "measurements": [{"name": "Area", "value": 400.0}],
        },
        id="PathAnnotationObject",
    ),
    "0.2, derived": feature(
        {
            "classification": {
                "parentClass": {"name": "Tumor", "colorRGB": -3670016},
                "name": "Positive",
                "colorRGB": -377282,
            }
        },
        id="PathCellObject",
        nucleusGeometry=SQUARE,
    ),
    "0.2, without a class": feature({"classification": {}}, id="PathDetectionObject"),
    "0.3": feature(
        {
            "object_type": "annotation",
            "classification": {"name": "Tumor", "colorRGB": -3670016},
            "isLocked": False,
        }
    ),
    "0.4": feature(
        {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
        id="1f0c7c5e-7a53-4b0a-9f0e-2f1a9c7c7b1d",
    ),
    "0.4, derived": feature(
        {"objectType": "cell", "classification": {"names": ["Tumor", "Positive"], "color": [250, 62, 62]}},
        nucleusGeometry=SQUARE,
    ),
    "0.5, half transparent": feature(
        {"objectType": "detection", "classification": {"name": "Tumor", "color": [200, 0, 0, 128]}}
    ),
    "0.6": feature(
        {
            "objectType": "annotation",
            "name": "a region",
            "color": [1, 2, 3],
            "classification": {"name": "Tumor", "color": [200, 0, 0]},
            "isLocked": True,
            "measurements": {"Area": 400.0, "Ratio": "NaN"},
            "metadata": {"ANNOTATION_DESCRIPTION": "b"},
        }
    ),
}


@pytest.mark.parametrize("version", QUPATH)
def test_each_version_of_qupath_gives_the_class_and_its_colour(tmp_path: Path, version: str) -> None:
    wanted = {
        "0.2, derived": ("Tumor: Positive", "#fa3e3e"),
        "0.4, derived": ("Tumor: Positive", "#fa3e3e"),
        "0.2, without a class": ("", dataset_geojson.COLOURS[0]),
    }.get(version, ("Tumor", TUMOR))
    one = QUPATH[version]
    for document in ({"type": "FeatureCollection", "features": [one]}, [one], one):
        found = read(tmp_path, document)
        (annotation,) = found.shapes
        assert found.skipped == []
        assert (annotation.term, annotation.colour) == wanted
        assert annotation.geometry.equals(shape(SQUARE))


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ({"classification": "Tumor"}, ("Tumor", None)),
        ({"classification": " Tumor "}, ("Tumor", None)),
        ({"classification": json.dumps({"name": "Tumor", "color": [200, 0, 0]})}, ("Tumor", TUMOR)),
        ({"classification": json.dumps({"names": ["Tumor", "Positive"]})}, ("Tumor: Positive", None)),
        ({"classification": "[Tumor"}, ("[Tumor", None)),
        ({"classification": {"name": "Tumor", "color": -3670016}}, ("Tumor", TUMOR)),
        ({"classification": {"name": "Tumor", "color": "#C80000"}}, ("Tumor", TUMOR)),
        ({"classification": {"name": "Tumor", "color": [200.0, 0.0, 0.0]}}, ("Tumor", TUMOR)),
        ({"classification": {"name": "Tumor", "color": [300, 0, 0]}}, ("Tumor", None)),
        ({"classification": {"name": "Tumor", "color": "red"}}, ("Tumor", None)),
        ({"classification": {"name": 3.0}}, ("3", None)),
        ({"classification": ["Tumor"]}, ("Tumor", None)),
        ({"path_class_name": "Tumor", "path_class_id": 1}, ("Tumor", None)),
        ({"classification": None, "path_class_name": "Tumor"}, ("Tumor", None)),
        ({"classification": None}, None),
        ({"classification": float("nan")}, None),
        ({"classification": ""}, None),
        ({"classification": {"name": None}}, None),
        ({}, None),
    ],
)
def test_a_class_is_read_in_every_form(
    properties: dict[str, Any], wanted: tuple[str, str | None] | None
) -> None:
    found = qupath.class_of(properties)
    assert (found and (found.name, found.colour)) == wanted


@pytest.mark.parametrize(
    "classification",
    [True, ["a", "b"], {"label": "Tumor"}, {"name": ["a", {}]}, {"name": "a", "parentClass": 5}],
)
def test_what_is_no_class_costs_its_feature_alone(tmp_path: Path, classification: Any) -> None:
    found = read(tmp_path, [feature({"classification": classification}), feature()])
    assert len(found.shapes) == 1
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("feature 0: ")
    assert "class" in found.skipped[0]


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\ud800"])
def test_a_class_that_no_database_keeps_costs_its_feature_alone(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, [feature({"classification": name}), feature()])
    assert (len(found.shapes), len(found.skipped)) == (1, 1)


def test_the_import_and_the_notebook_read_the_same_classes(tmp_path: Path) -> None:
    geojson = pytest.importorskip("cytomine_spawner.notebook.geojson")
    values = [one["properties"].get("classification") for one in QUPATH.values()]
    values += [
        "Tumor",
        ' {"name": "a", "color": 255}',
        "",
        None,
        3,
        3.5,
        float("nan"),
        ["a"],
        {"name": ["a", "b"]},
        {},
    ]
    values += [["a", "b"], True, {"x": 1}, {"name": True}, {"names": ["a", None, " "], "colorRGB": [1, 2, 3]}]
    for value in values:
        for key in ("classification", "path_class_name"):
            (tmp_path / "one.geojson").write_text(json.dumps([feature({key: value})]))
            told: list[Any] = []
            try:
                (row,) = geojson.from_geojson(tmp_path / "one.geojson").to_dict("records")
                told.append((row["term_name"], row["term_colour"]))
            except ValueError:
                told.append("refused")
            try:
                (shape,) = dataset_geojson.read(tmp_path / "one.geojson").shapes
                # The import gives each term a colour, by its name where the file says none.
                usual = shape.colour in dataset_geojson.COLOURS
                told.append(([shape.term] if shape.term else [], None if usual else shape.colour))
            except DatasetError:
                told.append("refused")
            assert told[0] == told[1], value


@pytest.mark.parametrize("children", ["childObjects", "children"])
def test_objects_inside_of_others_come_each_once(tmp_path: Path, children: str) -> None:
    cell = feature({"objectType": "cell", "classification": {"name": "Positive"}})
    deep = feature({"objectType": "annotation", children: [feature({children: [cell, cell]})]})
    root = feature({"objectType": "root", children: [deep, feature()]}, geometry=None)
    for document in (
        {"root": root, "tmaGrid": {}},
        [root],
        {"type": "FeatureCollection", "features": [root]},
    ):
        found = read(tmp_path, document)
        assert found.skipped == []
        assert [a.term for a in found.shapes] == ["", "", "Positive", "Positive", ""]
        assert len({a.key for a in found.shapes}) == 5


def test_a_hierarchy_of_any_depth_is_read(tmp_path: Path) -> None:
    text = json.dumps(feature())
    one = text.replace('"properties": {}', '"properties": {"childObjects": [%s]}')
    for _ in range(150):
        text = one % text
    assert len(read(tmp_path, text).shapes) == 151


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ({"type": "name", "properties": {}}, "it is no feature"),
        (5, "it is no feature"),
        (None, "it is no feature"),
        (feature(geometry=None), "it has no geometry"),
        (feature(geometry={"type": "Polygon", "coordinates": []}), "it has no geometry"),
        (feature(geometry={"type": "Polygon", "coordinates": [[]]}), "not as its kind has them"),
        (feature(geometry={"type": "GeometryCollection", "geometries": []}), "it has no geometry"),
        (feature(geometry={"type": "GeometryCollection"}), "no geometries"),
        (feature(geometry={"type": "Circle", "coordinates": [1, 2]}), "the kind Circle"),
        (feature(geometry={"type": "Point", "coordinates": [1]}), "no numbers"),
        (feature(geometry={"type": "Point", "coordinates": ["1", "2"]}), "no numbers"),
        (feature(geometry={"type": "Point", "coordinates": [1, float("inf")]}), "no finite numbers"),
        (feature(geometry={"type": "Point", "coordinates": [1, 10**400]}), "no finite numbers"),
        (feature(geometry={"type": "LineString", "coordinates": [[1, 1]]}), "no whole LineString"),
        (feature(geometry={"type": "Polygon", "coordinates": [[[1, 1], [2, 2]]]}), "no whole Polygon"),
        (
            feature(
                geometry={
                    "type": "Polygon",
                    "coordinates": [[[10, 10], [30, 30], [30, 10], [10, 30], [10, 10]]],
                }
            ),
            "it crosses itself near 20, 20",
        ),
        ({**feature(), "properties": [1]}, "its properties are no object"),
    ],
)
def test_one_broken_feature_costs_itself_and_is_said_with_its_number(
    tmp_path: Path, member: Any, why: str
) -> None:
    found = read(tmp_path, {"type": "FeatureCollection", "features": [feature(), member, feature()]})
    assert len(found.shapes) == 2
    (said,) = found.skipped
    assert said.startswith("feature 1: ")
    assert why in said


def test_a_collection_is_as_many_annotations_of_one_class(tmp_path: Path) -> None:
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    lines = {"type": "MultiLineString", "coordinates": [line["coordinates"], [[7, 7], [9, 7]]]}
    inner = {"type": "GeometryCollection", "geometries": [line]}
    whole = {"type": "GeometryCollection", "geometries": [SQUARE, inner, lines]}
    found = read(tmp_path, feature({"classification": {"name": "Tumor"}}, whole))
    assert [a.geometry.geom_type for a in found.shapes] == ["Polygon", *["LineString"] * 3]
    assert {a.term for a in found.shapes} == {"Tumor"}
    assert len({a.key for a in found.shapes}) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_of_the_byte_order_and_third_coordinates_are_no_fault(tmp_path: Path, encoding: str) -> None:
    deep = {"type": "Polygon", "coordinates": [[[*p, 3.0] for p in SQUARE["coordinates"][0]]]}
    found = read(tmp_path, [feature({"classification": "Größe", "a": float("nan")}, deep)], encoding)
    assert found.shapes[0].term == "Größe"
    assert not found.shapes[0].geometry.has_z


def test_an_annotation_has_its_key_wherever_it_stands_in_its_file(tmp_path: Path) -> None:
    others = [feature({"classification": str(n)}) for n in range(3)]
    before = {a.term: a.key for a in read(tmp_path, others).shapes}
    after = {a.term: a.key for a in read(tmp_path, [feature(), *reversed(others)]).shapes}
    assert before.items() <= after.items()
    twice = [a.key for a in read(tmp_path, [feature(), feature()]).shapes]
    assert len(set(twice)) == 2
    assert dataset_geojson.read(tmp_path / "a.geojson", "b").shapes[0].key not in twice


@pytest.mark.parametrize("document", ["{", "5", '{"features": 5}', "{}", "[" * 100_000, '"text"', "\x00"])
def test_what_is_no_geojson_is_refused(tmp_path: Path, document: str) -> None:
    with pytest.raises(DatasetError, match=r"a\.geojson is no GeoJSON .* try again"):
        read(tmp_path, document)


def test_a_file_in_which_nothing_can_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds nothing that can be stored \(feature 0: it is no feature"):
        read(tmp_path, [[]])
    assert read(tmp_path, {"type": "FeatureCollection", "features": []}) == Features()
