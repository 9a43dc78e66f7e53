"""Annotations arrive in Cytomine, each once, also when the connection is cut on the way."""

from __future__ import annotations

from typing import Any

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from cytomine import models
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cytomine_spawner.notebook import safe, shapes
from cytomine_spawner.notebook.annotations import frame, read_annotations
from cytomine_spawner.notebook.transport import RequestFailed
from cytomine_spawner.notebook.uploads import UploadIncomplete, upload
from tests.support.examples import examples

from .conftest import HEIGHT, WIDTH, Stack


def grid(count: int, **columns: Any) -> geopandas.GeoDataFrame:
    """Small hexagons side by side, no two the same."""
    rows = []
    for n in range(count):
        x, y = 8 + (n * 11) % (WIDTH - 20), 8 + (n * 11) // (WIDTH - 20) * 11
        rows.append({**columns, "geometry": shapely.Point(x + 0.123, y).buffer(4 + n % 3 / 10, quad_segs=2)})
    return frame(rows)


def stored(image: Any) -> geopandas.GeoDataFrame:
    return read_annotations(image)


def same(data: geopandas.GeoDataFrame, ids: list[int], image: Any) -> None:
    """Every row is stored under its id, and nothing else is."""
    found = stored(image).set_index("id")
    assert len(found) == len(data)
    assert len(set(ids)) == len(ids)
    for shape, number in zip(data.geometry, ids, strict=True):
        got = shapely.normalize(found.loc[number].geometry)
        assert got.equals_exact(shapely.normalize(shape), 0.002)


def test_ids_come_in_the_order_of_the_rows(empty: Any) -> None:
    data = grid(130, term_name=["tumour"])
    ids = upload(data, empty, chunk=20, progress=False)
    same(data, ids, empty)
    assert {tuple(n) for n in stored(empty)["term_name"]} == {("tumour",)}


@pytest.mark.parametrize("how", ["answer", "half", "request"])
def test_nothing_is_lost_or_doubled_when_the_connection_is_cut_twice(
    stack: Stack, empty: Any, how: str
) -> None:
    data = grid(200)
    stack.way.lose_first(2, "POST", "/annotation.json", how)
    ids = upload(data, empty, chunk=40, progress=False)
    assert stack.way.lost == 2
    same(data, ids, empty)


def test_an_upload_that_was_broken_off_goes_on_where_it_was(stack: Stack, empty: Any) -> None:
    data = grid(120, term_name="stroma")
    sent = [0]

    def after_two(method: str, path: str) -> str:
        sent[0] += method == "POST"
        if sent[0] < 3:
            return ""
        return "answer" if method == "POST" and sent[0] == 3 else "request"

    stack.way.lose = after_two
    with pytest.raises(RequestFailed, match="see whether the stack is running"):
        upload(data, empty, chunk=20, workers=1, patience=0, progress=False)
    stack.way.lose = lambda method, path: ""
    assert len(stored(empty)) == 60
    stack.way.count.clear()
    same(data, upload(data, empty, chunk=20, workers=3, progress=False), empty)
    assert stack.way.count["POST"] == 3
    # A third time there is nothing to do.
    stack.way.count.clear()
    same(data, upload(data, empty, progress=False), empty)
    assert stack.way.count["POST"] == 0


def test_a_few_annotations_keep_all_workers_busy_too(stack: Stack, empty: Any) -> None:
    data = grid(40)
    stack.way.count.clear()
    same(data, upload(data, empty, workers=4, progress=False), empty)
    assert stack.way.count["POST"] == 4


def test_no_worker_is_left_with_the_last_part(stack: Stack, empty: Any) -> None:
    data = grid(90)
    stack.way.count.clear()
    # In parts of 40 one of two workers would send the third.
    same(data, upload(data, empty, workers=2, chunk=40, progress=False), empty)
    assert stack.way.count["POST"] == 4


def test_what_an_impatient_upload_leaves_is_counted(stack: Stack, empty: Any) -> None:
    seen = [0]

    def lose(method: str, path: str) -> str:
        seen[0] += method == "POST"
        return "request" if method == "POST" and seen[0] > 1 else ""

    stack.way.lose = lose
    with pytest.raises(
        UploadIncomplete, match=r"10 of 30 annotations are stored, 20 are not\. Run the upload again"
    ) as told:
        upload(grid(30), empty, chunk=10, workers=1, patience=0, progress=False)
    assert [i is None for i in told.value.ids] == [False] * 10 + [True] * 20


def test_the_same_shape_twice_is_stored_twice_and_stays_so(empty: Any) -> None:
    data = grid(4)
    data = frame([{"geometry": g} for g in [*data.geometry, data.geometry[0]]])
    ids = upload(data, empty, progress=False)
    same(data, ids, empty)
    again = upload(data, empty, progress=False)
    # Requests run at the same time: which of two equal shapes is stored first is chance.
    assert sorted(again) == sorted(ids)
    same(data, again, empty)
    assert not set(upload(data, empty, existing="add", progress=False)) & set(ids)
    assert len(stored(empty)) == 10


def test_a_term_that_was_added_by_hand_does_not_make_an_annotation_new(empty: Any) -> None:
    data = grid(1, term_name="tumour")
    ids = upload(data, empty, progress=False)
    safe.add_term(ids[0], safe.term_ids(int(empty.project))["stroma"])
    assert upload(data, empty, progress=False) == ids
    assert upload(data, empty, terms=[], progress=False) == ids


def test_all_that_is_wrong_is_told_before_anything_is_sent(stack: Stack, empty: Any) -> None:
    bowtie = shapely.Polygon([(10, 10), (60, 60), (60, 10), (10, 60)])
    wrong = [bowtie, shapely.Point(-5, 5), shapely.Polygon(), None, shapely.Point(float("nan"), 1)]
    data = frame([{"geometry": g} for g in [shapely.Point(5, 5), *wrong]])
    stack.way.count.clear()
    with pytest.raises(
        shapes.InvalidGeometry, match=r"5 geometries cannot be stored \(row 1: self-intersection"
    ) as told:
        upload(data, empty, progress=False)
    assert told.value.reasons[2] == "it is outside the image, which has 1333 x 777 px"
    with pytest.raises(ValueError, match="no term 'necrosis'; it has: tumour, stroma"):
        upload(grid(3), empty, terms=["necrosis"], progress=False)
    with pytest.raises(ValueError, match="The image is missing"):
        upload(grid(3), progress=False)
    assert stack.way.count["POST"] == 0


def test_terms_come_from_columns_of_every_kind(stack: Stack, empty: Any) -> None:
    known = safe.term_ids(int(empty.project))
    cells = [np.array(["tumour"]), pandas.NA, float("nan"), None, ("tumour", "stroma"), "stroma"]
    ids = upload(grid(6).assign(term_name=cells), empty, progress=False)
    told = stored(empty).set_index("id").loc[ids]["term_name"]
    assert [sorted(n) for n in told] == [["tumour"], [], [], [], ["stroma", "tumour"], ["stroma"]]
    # A column of ids that lacks some is one of floats.
    for column in (
        [float(known["tumour"]), float("nan")],
        pandas.array([known["tumour"], None], dtype="Int64"),
    ):
        ids = upload(grid(2).assign(term=column), empty, existing="add", progress=False)
        assert list(stored(empty).set_index("id").loc[ids]["term_name"]) == [["tumour"], []]
    ids = upload(grid(1), empty, terms="tumour", existing="add", progress=False)
    assert list(stored(empty).set_index("id").loc[ids]["term_name"]) == [["tumour"]]
    stack.way.count.clear()
    with pytest.raises(
        ValueError, match=r"Row 1 has no terms that can be read in the column term: .* not 5\.5"
    ):
        upload(grid(2).assign(term=[known["tumour"], 5.5]), empty, progress=False)
    with pytest.raises(ValueError, match="image in row 1 must be a whole number, not nan"):
        upload(grid(2).assign(image=[empty.id, float("nan")]), progress=False)
    assert stack.way.count["POST"] == 0


def test_repair_makes_two_triangles_of_a_bowtie(empty: Any) -> None:
    bowtie = shapely.Polygon([(10, 10), (60, 60), (60, 10), (10, 60)])
    (number,) = upload(frame([{"geometry": bowtie}]), empty, repair=True, progress=False)
    (shape,) = stored(empty).geometry
    assert shape.geom_type == "MultiPolygon"
    assert shape.area == pytest.approx(1250)
    assert number


def test_what_reaches_over_the_border_is_cut_there_and_found_again(empty: Any) -> None:
    data = frame([{"geometry": shapely.box(-20, HEIGHT - 30, 40, HEIGHT + 50)}])
    ids = upload(data, empty, progress=False)
    assert stored(empty).geometry[0].bounds == (0, HEIGHT - 30, 40, HEIGHT)
    assert upload(data, empty, progress=False) == ids


def test_a_geometry_that_only_cytomine_refuses_does_not_hold_up_the_others(
    empty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = grid(60)
    bad = data.geometry[33]
    whole = shapes.Item.__post_init__

    def spoil(item: shapes.Item) -> None:
        whole(item)
        if item.row == 33:
            item.body["location"] = "POLYGON((bad"

    monkeypatch.setattr(shapes.Item, "__post_init__", spoil)
    with pytest.raises(UploadIncomplete, match=r"59 of 60.*row 33: ") as told:
        upload(data, empty, chunk=15, progress=False)
    assert list(told.value.failures) == [33]
    found = stored(empty)
    assert len(found) == 59
    assert not any(g.equals_exact(bad, 0.1) for g in found.geometry)


def test_others_annotations_and_images_are_not_taken_for_ones_own(stack: Stack, empty: Any) -> None:
    data = grid(5)
    mine = upload(data, empty, progress=False)
    carol = stack.connect("carol", "USER").current_user.id
    stack.connect()
    assert models.Project().fetch(empty.project).add_user(carol) is not False
    stack.connect("carol", "USER")
    theirs = upload(data, empty, progress=False)
    assert not set(mine) & set(theirs)
    assert len(stored(empty)) == 10


def test_several_images_go_in_one_upload(stack: Stack, empty: Any) -> None:
    second = stack.image(models.Project().fetch(empty.project), "small.png")
    data = frame([{"geometry": shapely.Point(9, 9), "image": i.id} for i in (empty, second, empty)])
    ids = upload(data, progress=False)
    assert list(read_annotations(second)["id"]) == [ids[1]]
    assert sorted(stored(empty)["id"]) == sorted([ids[0], ids[2]])


def test_simplified_outlines_are_recognised() -> None:
    rough = shapely.Point(100, 100).buffer(40, quad_segs=90)
    entry = {"id": 7, "location": rough.simplify(1).wkt, "geometryCompression": 1.0, "term": [3]}
    stored_ = shapes.Stored([entry, {**entry, "id": 8}])
    item = shapes.Item(0, 1, rough, (3,))
    assert stored_.take([item]) == {0: 7}
    assert stored_.take([shapes.Item(0, 1, rough, (4,))]) == {}
    assert stored_.take([shapes.Item(0, 1, shapely.Point(100, 100).buffer(30), (3,))]) == {}
    assert stored_.take([item]) == {0: 8}
    assert stored_.take([item]) == {}
    assert shapes.Stored([]).take([item]) == {}


point = st.tuples(st.floats(-50, 150), st.floats(-50, 150))


@settings(max_examples=examples(200))
@given(st.lists(point, min_size=3, max_size=8), st.sampled_from(["top-left", "bottom-left"]))
@example([(0.0, 0.0), (1.0, 59.634765625), (33.0, 1.0), (-1.0, 0.0)], "top-left")
def test_what_is_prepared_is_valid_inside_and_recognised(corners: Any, origin: Any) -> None:
    shape = shapely.Polygon(corners)
    try:
        (made,) = shapes.prepare([shape], [(100, 80)], origin, repair=True)
    except shapes.InvalidGeometry:
        return
    assert made.is_valid
    assert shapely.box(-0.001, -0.001, 100.001, 80.001).covers(made)
    again = shapely.from_wkt(shapes.Item(0, 1, made, ()).body["location"])
    assert shapes.keys([made]) == shapes.keys([again])
    assert np.isfinite(shapely.get_coordinates(again)).all()


@pytest.mark.parametrize("origin", ["top-left", "bottom-left"])
def test_many_are_prepared_as_one_by_one(origin: Any) -> None:
    random = np.random.default_rng(0)
    shapes_ = [
        *(shapely.Point(x, y).buffer(9) for x, y in random.uniform(-5, 105, (40, 2))),
        *(shapely.Polygon(c) for c in random.uniform(0, 80, (40, 4, 2))),
        *shapely.points(random.uniform(-5, 105, (9, 3))),
        shapely.Polygon([(1, 1), (1.0002, 1), (9, 9), (1, 1.0002)]),
        shapely.MultiPoint([(1, 2), (3, 4)]),
        shapely.box(10, 10, 60, 60) - shapely.box(20, 20, 30, 30),
        shapely.LinearRing([(1, 1), (2, 2), (3, 1)]),
        shapely.GeometryCollection([shapely.Point(1, 1)]),
        shapely.Point(float("inf"), 3),
        shapely.Polygon(),
    ]
    sizes = [(100, 80), (90, 100)] * (len(shapes_) // 2) + [(100, 80)] * (len(shapes_) % 2)

    def tried(rows: list[int]) -> dict[int, Any]:
        try:
            made = shapes.prepare([shapes_[n] for n in rows], [sizes[n] for n in rows], origin, repair=False)
        except shapes.InvalidGeometry as error:
            bad = {rows[n]: reason for n, reason in error.reasons.items()}
            return bad | (tried([n for n in rows if n not in bad]) if len(bad) < len(rows) else {})
        return {n: shape.wkt for n, shape in zip(rows, made, strict=True)}

    def alone(n: int) -> Any:
        try:
            return shapes._one(shapes_[n], *sizes[n], origin, False).wkt
        except ValueError as error:
            return str(error)

    rows = list(range(len(shapes_)))
    assert tried(rows) == {n: alone(n) for n in rows}


def test_a_clean_upload_asks_for_no_outlines(stack: Stack, empty: Any) -> None:
    lists: list[str] = []
    stack.way.lose = lambda method, path: lists.append(path) or "" if method == "GET" else ""  # type: ignore[func-returns-value]
    upload(grid(5), empty, existing="add", progress=False)
    lists = [p for p in lists if "/annotation.json" in p]
    assert lists
    assert not [p for p in lists if "showWKT=true" in p]
