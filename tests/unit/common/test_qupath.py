"""The class of a feature and the features of a document, in every form that QuPath writes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from cytomine_spawner.common.qupath import FeatureClass, class_of, colour, features, is_feature

FILES = Path(__file__).parents[1] / "geojson"
RED = "#c80000"


def told(name: str) -> list[tuple[str, str | None] | None]:
    """Name and colour of the class of each feature of a file."""
    document = json.loads((FILES / name).read_text())
    found = [class_of(one.get("properties") or {}) for _, one in features(document) if is_feature(one)]
    return [(one.name, one.colour) if one else None for one in found]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        # The last of the first file is the root, which is no object.
        ("qupath_0.2.json", [("Tumor", RED), ("Tumor: Positive", "#c83232"), None]),
        ("qupath_0.3.geojson", [("Immune cells", "#96c896"), ("CD3: CD8: PD1", "#ff00ff")]),
        ("qupath_0.4.geojson", [("Stroma", "#96c896"), ("Tumor: Positive", "#c83232"), None]),
        (
            "qupath_0.5_children.geojson",
            [("Region*", "#0000b4"), ("Tumor", RED), None, ("Stroma", "#96c896")],
        ),
        ("qupath_0.6_hierarchy.json", [None, ("Tumor: 3+", "#c83232")]),
        (
            "class_as_text.geojson",
            [("Tumor", None), ("Tumor", RED), None, ("Tumor: Positive", None), ("Other", None), None],
        ),
        ("derived_names.geojson", [("Tumor: Positive", RED)]),
        ("colour_as_integer.geojson", [("Tumor", RED)]),
        ("path_class_name.geojson", [("Tumor", None)]),
    ],
)
def test_a_class_is_read_in_every_form(file: str, expected: list[Any]) -> None:
    assert told(file) == expected


@pytest.mark.parametrize(
    "nothing",
    [None, "", "  ", math.nan, {}, [], {"name": None}, {"names": []}, {"color": [1, 2, 3]}, "{}", "[]"],
)
def test_what_says_nothing_is_no_class(nothing: Any) -> None:
    assert class_of({"classification": nothing}) is None
    assert class_of({"classification": nothing, "path_class_name": "Other"}) == FeatureClass("Other")


def test_a_number_is_the_name_that_it_was_before_a_column_lacked_some() -> None:
    assert [class_of({"classification": n}) for n in (3, 3.0, 0)] == [
        FeatureClass("3"),
        FeatureClass("3"),
        FeatureClass("0"),
    ]
    assert class_of({"classification": {"name": 2}}) == FeatureClass("2")
    huge = 10**400
    found = class_of({"classification": {"name": huge, "colorRGB": huge, "color": [huge, 0, 0]}})
    assert found == FeatureClass(str(huge))


def test_a_text_that_only_begins_like_an_object_is_a_name() -> None:
    assert class_of({"classification": "{tumour}"}) == FeatureClass("{tumour}")
    assert class_of({"classification": "[1] Tumor"}) == FeatureClass("[1] Tumor")
    assert class_of({"classification": '["Tumor"]'}) == FeatureClass("Tumor")


@pytest.mark.parametrize(
    "wrong",
    [
        True,
        {"id": 3},
        ["Tumor", "Stroma"],
        {"names": ["Tumor", {}]},
        {"parentClass": "Tumor"},
        {"name": [[]]},
    ],
)
def test_what_is_no_class_is_said_and_not_dropped(wrong: Any) -> None:
    with pytest.raises(ValueError, match="cannot be read as"):
        class_of({"classification": wrong})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-3670016, RED),
        (0xC80000, RED),
        (0xFFC80000, RED),
        ([200, 0, 0], RED),
        ([200.0, 0, 0, 0.5], RED),
        ("#C80000", RED),
        ("c80000", RED),
        (-1, "#ffffff"),
        (0, "#000000"),
        (None, None),
        (True, None),
        (math.nan, None),
        (2**40, None),
        ([300, 0, 0], None),
        ([1, 2], None),
        (["a", 1, 2], None),
        ("red", None),
        ({}, None),
    ],
)
def test_a_colour_is_read_in_every_form(value: Any, expected: str | None) -> None:
    assert colour(value) == expected


def test_features_come_once_each_with_their_place() -> None:
    document = json.loads((FILES / "qupath_0.5_children.geojson").read_text())
    assert [where for where, _ in features(document)] == [
        "features[0]",
        "features[0].childObjects[0]",
        "features[0].childObjects[0].childObjects[0]",
        "features[0].childObjects[1]",
    ]
    hierarchy = json.loads((FILES / "qupath_0.6_hierarchy.json").read_text())
    assert [where for where, _ in features(hierarchy)] == [
        "root.childObjects[0]",
        "root.childObjects[0].childObjects[0]",
    ]
    point = {"type": "Point", "coordinates": [1, 2]}
    for one in (point, {"type": "Feature", "geometry": point, "properties": {}}):
        assert list(features(one)) == [("the feature", one)]
        assert list(features([one])) == [("[0]", one)]
    collection = {"type": "FeatureCollection", "features": [point, 3]}
    assert list(features(collection)) == [("features[0]", point), ("features[1]", 3)]
    assert list(features([collection]))[1] == ("[0].features[1]", 3)


@pytest.mark.parametrize(
    "wrong", [None, 3, "Point", {}, {"type": "FeatureCollection"}, {"type": "name"}, {"features": 3}]
)
def test_what_is_no_geojson_is_said(wrong: Any) -> None:
    with pytest.raises(ValueError, match="It is no GeoJSON"):
        list(features(wrong))


def test_depth_is_no_limit() -> None:
    depth = sys.getrecursionlimit() + 10
    feature: dict[str, Any] = {"type": "Feature", "geometry": None, "properties": {}}
    derived: dict[str, Any] = {"name": "a"}
    for _ in range(depth):
        feature = {**feature, "properties": {"childObjects": [feature]}}
        derived = {"name": "a", "parentClass": derived}
    assert sum(1 for _ in features(feature)) == depth + 1
    found = class_of({"classification": derived})
    assert found is not None
    assert found.name == ": ".join(["a"] * (depth + 1))
