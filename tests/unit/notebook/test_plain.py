"""Whatever a table or a parameter holds is written as JSON that every reader takes."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import json
import math
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.notebook.annotations import frame, from_geojson, to_geojson
from cytomine_spawner.notebook.plain import dumps, plain


class Colour(enum.Enum):
    RED = np.int64(3)


class Word(str, enum.Enum):
    RED = "red"


@dataclass
class Pair:
    one: float
    two: Any


ITSELF: list[Any] = [1]
ITSELF.append(ITSELF)
UTC = datetime.timezone.utc
SAME = uuid.UUID(int=7)
CASES: list[tuple[Any, Any]] = [
    (float("nan"), None),
    (float("-inf"), None),
    (np.float32("inf"), None),
    (np.longdouble("1.5"), 1.5),
    (np.longdouble("1e4000"), None),
    (np.int8(-3), -3),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array(2.5), 2.5),
    (np.array([[1, 2]], np.uint8), [[1, 2]]),
    (np.array([1.0, np.nan]), [1.0, None]),
    (np.array([pandas.NA, pandas.NaT, SAME], object), [None, None, str(SAME)]),
    (np.ma.masked_array([1, 2], [False, True]), [1, None]),
    (np.array([(1, 0.5)], [("a", "i4"), ("b", "f8")]), [[1, 0.5]]),
    (np.datetime64("2026-01-02T03:04"), "2026-01-02T03:04"),
    (np.datetime64("NaT"), None),
    (np.timedelta64(1500, "ms"), 1.5),
    (np.timedelta64("NaT"), None),
    (1 + 2j, "(1+2j)"),
    (pandas.NaT, None),
    (pandas.NA, None),
    (pandas.Timestamp("2026-01-02", tz="UTC"), "2026-01-02T00:00:00+00:00"),
    (pandas.Timedelta(seconds=90), 90.0),
    (pandas.Interval(0, 1), "(0, 1]"),
    (pandas.Series([1, None], dtype="Int64"), [1, None]),
    (pandas.Categorical(["a", None]), ["a", None]),
    (pandas.DataFrame({"a": [1], 2: ["x"]}), [{"a": 1, "2": "x"}]),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (datetime.time(3, 4), "03:04:00"),
    (datetime.datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    (datetime.timedelta(days=1), 86400.0),
    (decimal.Decimal("0.25"), 0.25),
    (decimal.Decimal(12345678901234567890), 12345678901234567890),
    (decimal.Decimal("NaN"), None),
    (decimal.Decimal("sNaN"), None),
    (decimal.Decimal("Infinity"), None),
    (fractions.Fraction(1, 4), 0.25),
    (SAME, str(SAME)),
    (Path("/data/a"), "/data/a"),
    (Colour.RED, 3),
    (Word.RED, "red"),
    (b"\x00\xff", "AP8="),
    (bytearray(b"a"), "YQ=="),
    ({3, 1, 2}, [1, 2, 3]),
    (range(3), [0, 1, 2]),
    (deque([1]), [1]),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    ({1: "a", None: 2, (1, 2): 3, SAME: 4}, {"1": "a", "None": 2, "(1, 2)": 3, str(SAME): 4}),
    (Pair(float("nan"), {SAME}), {"one": None, "two": [str(SAME)]}),
    (shapely.Point(1, 2), "POINT (1 2)"),
]


@pytest.mark.parametrize(("value", "expected"), CASES, ids=lambda value: str(value)[:30])
def test_a_value_is_written_as_json_has_it(value: Any, expected: Any) -> None:
    found = plain({"x": value})["x"]
    assert found == expected
    assert type(found) is type(expected)
    assert json.loads(dumps([value])) == [expected]


def test_what_holds_itself_or_nests_too_deep_is_written_as_its_text() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (ITSELF, deep, {"a": deep}):
        assert isinstance(json.loads(dumps(value)), (list, dict))


def strict(text: str) -> Any:
    """As readers do that know no NaN."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.decimals(), st.fractions(), st.uuids(),
    st.dates(), st.times(), st.datetimes(), st.timedeltas(), st.complex_numbers(), st.just(pandas.NA), st.just(pandas.NaT),
    st.floats(width=32).map(np.float32), st.integers(-128, 127).map(np.int8), st.booleans().map(np.bool_),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text() | st.integers(), inner, max_size=4), st.tuples(inner, inner)
    ),
    max_leaves=12,
)  # fmt: skip


@given(values)
def test_any_value_is_written_as_json_and_read_back_as_it_was_written(value: Any) -> None:
    assert strict(dumps(value)) == plain(value)
    assert plain(plain(value)) == plain(value)


# -- GeoJSON ----------------------------------------------------------------------------------------------


def test_a_measurement_that_is_no_number_is_written_as_null(tmp_path: Path) -> None:
    source = tmp_path / "in.geojson"
    shape = {"type": "Point", "coordinates": [1, 2]}
    properties = {"measurements": {"ratio": float("nan"), "area": 3.5}, "score": float("inf")}
    feature = {"type": "Feature", "geometry": shape, "properties": properties}
    source.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    to_geojson(from_geojson(source), tmp_path / "out.geojson")
    (written,) = strict((tmp_path / "out.geojson").read_text())["features"]
    assert written["properties"]["measurements"] == {"ratio": None, "area": 3.5}
    assert written["properties"]["score"] is None


@given(st.lists(st.tuples(values, values), min_size=1, max_size=4))
def test_a_frame_of_any_columns_is_written_whole(rows: list[tuple[Any, Any]]) -> None:
    made = frame([{"a": a, 7: b, "geometry": shapely.Point(n, 0)} for n, (a, b) in enumerate(rows)])
    features = strict(dumps(to_geojson(made)))["features"]
    assert [f["geometry"]["coordinates"] for f in features] == [[n, 0] for n in range(len(rows))]
    assert all({"a", "7"} <= set(f["properties"]) for f in features)


def test_the_geometry_column_may_have_another_name_and_others_may_hold_geometries() -> None:
    made = frame([{"id": 1, "geometry": shapely.Point(1, 2), "term_name": ["tumour"]}]).rename_geometry(
        "outline"
    )
    made["centre"] = geopandas.GeoSeries([shapely.Point(5, 6)])
    made["geometry"] = "a word"
    (feature,) = to_geojson(made)["features"]
    assert feature["geometry"] == {"type": "Point", "coordinates": [1, 2]}
    assert feature["properties"]["geometry"] == "a word"
    assert feature["properties"]["centre"] == "POINT (5 6)"
    assert feature["properties"]["classification"]["name"] == "tumour"
    assert feature["properties"]["id"] == 1


def test_a_term_may_be_a_word_a_list_an_array_or_missing() -> None:
    names: list[Any] = [
        "tumour",
        ["tumour", "x"],
        np.array(["tumour"]),
        ("tumour",),
        None,
        [],
        pandas.NA,
        math.nan,
    ]
    made = frame([{"geometry": shapely.Point(0, 0), "term_name": name} for name in names])
    labels = [f["properties"].get("classification", {}).get("name") for f in to_geojson(made)["features"]]
    assert labels == ["tumour"] * 4 + [None] * 4


def test_a_missing_geometry_is_written_as_null_and_a_coordinate_that_is_none_is_refused() -> None:
    made = frame([{"geometry": shapely.Point(0, 0)}, {"geometry": None}])
    assert [f["geometry"] is None for f in to_geojson(made)["features"]] == [False, True]
    made = frame(
        [{"geometry": shapely.Point(0, 0)}, {"geometry": shapely.LineString([(0, 0), (float("inf"), 1)])}]
    )
    with pytest.raises(ValueError, match="Row 1 has a coordinate that is no finite number"):
        to_geojson(made)
