"""Numbers and terms are taken in whatever NumPy and pandas made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest

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
