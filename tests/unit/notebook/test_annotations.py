"""Coordinates are right at all corners, and tables say what Cytomine has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from cytomine import models
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.notebook import images, regions, safe
from cytomine_spawner.notebook.annotations import (
    frame,
    from_geojson,
    origin_of,
    read_annotations,
    statistics,
    to_cytomine,
    to_geojson,
    to_image,
)
from cytomine_spawner.notebook.reviews import review
from cytomine_spawner.notebook.uploads import upload

from .conftest import HEIGHT, WIDTH, Stack, picture

CORNERS = {
    "top left": ((0, 0), (0, HEIGHT - 30)),
    "top right": ((WIDTH - 40, 0), (WIDTH - 40, HEIGHT - 30)),
    "bottom left": ((0, HEIGHT - 30), (0, 0)),
    "bottom right": ((WIDTH - 40, HEIGHT - 30), (WIDTH - 40, 0)),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_pixels_below_an_annotation_are_those_of_its_place(empty: Any, corner: str) -> None:
    (x, y), (left, low) = CORNERS[corner]
    (number,) = upload(frame([{"geometry": shapely.box(x, y, x + 40, y + 30)}]), empty, progress=False)
    # What Cytomine has, by the client: its origin is bottom left.
    raw = shapely.from_wkt(models.Annotation().fetch(number).location)
    assert raw.bounds == (left, low, left + 40, low + 30)
    (row,) = read_annotations(empty).itertuples()
    assert row.geometry.bounds == (x, y, x + 40, y + 30)
    # The picture below the annotation is the one at that place.
    expected = picture()[y : y + 30, x : x + 40]
    assert np.array_equal(regions.crop(number), expected)
    assert np.array_equal(regions.region(empty, x, y, 40, 30), expected)


@given(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.integers(1, 100_000))
def test_there_and_back_is_where_one_was(x: float, y: float, height: int) -> None:
    back = to_image(to_cytomine(shapely.Point(x, y), height), height)
    assert (back.x, back.y) == pytest.approx((x, y), abs=1e-9 * max(1, abs(y), height))


def _drawn(empty: Any, name: str = "tumour") -> dict[str, int]:
    known = safe.term_ids(int(empty.project))
    shape = "POLYGON((10 10,60 10,60 40,10 40,10 10))"
    models.Annotation(shape, empty.id, [known[name]], empty.project).save()
    models.Annotation("POINT(100 7)", empty.id, [], empty.project).save()
    return known


def test_a_table_has_terms_users_and_times(stack: Stack, empty: Any) -> None:
    known = _drawn(empty)
    data = read_annotations(empty)
    assert list(data["user_name"]) == ["alice", "alice"]
    assert list(data["term"]) == [[known["tumour"]], []]
    assert list(data["term_name"]) == [["tumour"], []]
    assert (data["user"] == images.user_id()).all()
    assert str(data["created"].dt.tz) == "UTC"
    assert data.geometry[1].equals(shapely.Point(100, HEIGHT - 7))
    low = read_annotations(empty, origin="bottom-left")
    assert low.geometry[1].equals(shapely.Point(100, 7))
    assert origin_of(low) == "bottom-left"


def test_a_table_can_be_narrowed_down(stack: Stack, empty: Any) -> None:
    known = _drawn(empty)
    assert len(read_annotations(empty, terms=[known["stroma"]])) == 0
    assert len(read_annotations(empty, terms=[known["tumour"], known["stroma"]])) == 1
    assert len(read_annotations(project=empty.project, users=[images.user_id()])) == 2
    nobody = read_annotations(empty, users=[99999999])
    assert (len(nobody), "geometry" in nobody, nobody.geometry.area.sum()) == (0, True, 0)
    with pytest.raises(ValueError, match="Either an image or a project"):
        read_annotations()


def test_accepted_annotations_are_told_apart(stack: Stack, empty: Any) -> None:
    known = _drawn(empty)
    first = read_annotations(empty)["id"][0]
    review(first)
    assert list(read_annotations(empty)["reviewed"]) == [True, False]
    (accepted,) = read_annotations(empty, reviewed=True).itertuples()
    assert (accepted.geometry.area, accepted.term_name, accepted.parent) == (1500, ["tumour"], first)
    assert len(read_annotations(empty, reviewed=True, terms=[known["tumour"]])) == 1
    assert len(read_annotations(empty, reviewed=True, terms=[known["stroma"]])) == 0


def test_geojson_goes_to_a_file_and_back_into_another_image(stack: Stack, empty: Any, tmp_path: Path) -> None:
    _drawn(empty)
    data = read_annotations(empty)
    to_geojson(data, tmp_path / "a.geojson")
    written = json.loads((tmp_path / "a.geojson").read_text())
    # QuPath reads no class without a colour.
    assert written["features"][0]["properties"]["classification"] == {
        "name": "tumour",
        "color": [230, 159, 0],
    }
    other = stack.image(stack.project())
    ids = upload(from_geojson(tmp_path / "a.geojson"), other, progress=False)
    # Several at a time: they are stored in any order.
    again = read_annotations(other).set_index("id").loc[ids]
    assert all(a.equals(b) for a, b in zip(data.geometry, again.geometry, strict=True))
    assert list(again["term_name"]) == [["tumour"], []]
    low = read_annotations(empty, origin="bottom-left")
    assert to_geojson(low, image=empty)["features"][1]["geometry"] == written["features"][1]["geometry"]


def test_statistics_are_those_of_the_raw_wkt(slide: Any) -> None:
    known = safe.term_ids(int(slide.project))
    shapes = [
        ("POLYGON((10 10,60 10,60 40,10 40,10 10))", ["tumour"]),
        ("POLYGON((100 100,300 100,200 300,100 100))", ["tumour", "stroma"]),
        # A hole, and two parts.
        (
            "POLYGON((400 400,500 400,500 500,400 500,400 400),(420 420,450 420,450 440,420 440,420 420))",
            ["stroma"],
        ),
        ("MULTIPOLYGON(((600 10,610 10,610 20,600 10)),((700 10,720 10,720 20,700 20,700 10)))", ["tumour"]),
    ]
    for wkt, names in shapes:
        models.Annotation(wkt, slide.id, [known[n] for n in names], slide.project).save()
    table = statistics(read_annotations(slide), slide)
    by_hand = {
        "tumour": 50 * 30 + 200 * 200 / 2 + 10 * 10 / 2 + 20 * 10,
        "stroma": 200 * 200 / 2 + 100 * 100 - 30 * 20,
    }
    for name, area in by_hand.items():
        row = table.loc[(name, "alice")]
        assert row["area_px"] == pytest.approx(area)
        assert row["area_um2"] == pytest.approx(area * 0.25**2)
        assert row["share"] == pytest.approx(area / (1536 * 1024))
    # Other tests draw on this slide, too, without a term.
    assert [table.loc[(name, "alice"), "count"] for name in by_hand] == [3, 2]
