"""Numbers and terms are taken in whatever NumPy and pandas made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.notebook.values import marks, names, whole


@pytest.mark.parametrize(
    "value", [7, 7.0, np.int64(7), np.uint8(7), np.float32(7), np.array(7), np.array(7.0)]
)
def test_a_whole_number_of_any_kind_is_pythons(value: Any) -> None:
    assert whole(value, "x") == 7
    assert type(whole(value, "x")) is int


@pytest.mark.parametrize(
    "value", [7.5, float("nan"), float("inf"), "7", b"7", None, True, np.True_, [7], np.array([7, 8])]
)
def test_what_is_no_whole_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x must be a whole number, not "):
        whole(value, "x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tumour", ["tumour"]),
        (["tumour", "stroma"], ["tumour", "stroma"]),
        (("tumour",), ["tumour"]),
        ({"tumour"}, ["tumour"]),
        (np.array(["tumour", "stroma"]), ["tumour", "stroma"]),
        (np.array(["tumour"], dtype=object), ["tumour"]),
        (pandas.Series(["tumour"], index=[5]), ["tumour"]),
        (pandas.array(["tumour", None], dtype="string"), ["tumour"]),
        (np.str_("tumour"), ["tumour"]),
        (np.array("tumour"), ["tumour"]),
        (5, [5]),
        (5.0, [5]),
        (np.int64(5), [5]),
        (np.float64(5), [5]),
        (np.array([5, 6]), [5, 6]),
        ([5.0, float("nan")], [5]),
        (None, []),
        (float("nan"), []),
        (pandas.NA, []),
        (pandas.NaT, []),
        ([pandas.NA, None], []),
        ([], []),
        (np.array([]), []),
        ("", []),
        (" ", []),
    ],
)
def test_terms_in_a_cell_are_read_in_every_form(value: Any, expected: list[Any]) -> None:
    assert marks(value) == expected
    assert names(value) == [str(one) for one in expected]


@pytest.mark.parametrize("value", [5.5, True, {"name": "tumour"}, b"tumour", [5.5], object()])
def test_what_is_no_term_is_said(value: Any) -> None:
    with pytest.raises(ValueError, match="A term's id must be a whole number"):
        marks(value)


CELLS: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    lambda v: np.array(v, object),
    np.array,
    pandas.Series,
    lambda v: pandas.array(v, dtype="string" if v and isinstance(v[0], str) else "Int64"),
    lambda v: [*v, None, pandas.NA, float("nan"), ""],
    lambda v: [v[:1], v[1:]],
]
WORDS = st.text(min_size=1, max_size=8).filter(lambda t: t.strip() == t and "\0" not in t)


@given(
    st.lists(WORDS, max_size=4) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.sampled_from(CELLS),
)
def test_a_term_is_never_lost_split_or_doubled_whatever_holds_it(
    terms: list[Any], cell: Callable[[list[Any]], Any]
) -> None:
    found = marks(cell(terms))
    assert found == terms
    assert all(isinstance(one, str) or type(one) is int for one in found)


@given(st.sampled_from("bhilqBHILQ"), st.data())
def test_a_whole_number_is_the_same_in_every_type_that_has_it(kind: str, data: st.DataObject) -> None:
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    value = data.draw(st.integers(int(low), int(high)))
    for one in (
        value,
        np.array(value, kind)[()],
        np.array([value], kind)[0],
        pandas.Series([value], dtype=kind)[0],
    ):
        assert (whole(one, "x"), type(whole(one, "x"))) == (value, int)


@given(st.floats())
def test_a_float_is_a_whole_number_or_refused(value: float) -> None:
    for one in (value, np.float64(value)):
        if value.is_integer():
            assert whole(one, "x") == value
        else:
            with pytest.raises(ValueError, match=r"^x must be a whole number, not "):
                whole(one, "x")
