"""The comparison with the recordings finds what differs; else the contract would hold for anything."""

from __future__ import annotations

import pytest

from tests.support.compare import Comparison, Ids


def compare(recorded: object, live: object, ids: Ids | None = None) -> list[str]:
    comparison = Comparison(ids or Ids(), "/api/x.json")
    comparison.value("body", recorded, live)
    return comparison.problems


@pytest.mark.parametrize(
    ("recorded", "live"),
    [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": None}, {"a": 0}),
        ({"a": True}, {"a": 1}),
        ({"a": []}, {"a": None}),
        ({"a": ["x"]}, {"a": ["x", "y"]}),
        ({"name": "one"}, {"name": "two"}),
        ({"created": "<DATE:epoch-ms-string>"}, {"created": 1795505374816}),
        ({"created": "<DATE:epoch-ms-number>"}, {"created": "1795505374816"}),
        ({"created": "<DATE:iso>"}, {"created": "2026-11-24T07:29:17Z"}),
        ({"key": "<PUBLIC_KEY>"}, {"key": ""}),
        ({"url": "<HOST>/api/x/12/crop.png"}, {"url": "http://127.0.0.1:1/api/y/12/crop.png"}),
        ({"location": "POINT (1 1)"}, {"location": "POINT (1 2)"}),
        ({"location": "POINT (1 1)"}, {"location": "POINT(1 1)"}),
    ],
)
def test_a_difference_is_found(recorded: object, live: object) -> None:
    assert compare(recorded, live)


def test_ids_may_differ_but_must_hang_together() -> None:
    ids = Ids()
    assert not compare({"project": 89}, {"project": 1018}, ids)
    assert not compare({"project": 89}, {"project": 1018}, ids)
    assert compare({"project": 89}, {"project": 1019}, ids)
    assert not compare({"term": [89]}, {"term": [7]}, ids)


def test_the_same_shape_written_from_another_corner_is_the_same() -> None:
    old, new = "POLYGON ((0 0, 1 0, 1 1, 0 0))", "POLYGON ((1 1, 0 0, 1 0, 1 1))"
    assert not compare({"location": old}, {"location": new})
