"""A repaired shape covers what its outline goes around: nothing is taken out because it is there twice."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomine_spawner.notebook.masks import rasterize
from cytomine_spawner.notebook.repair import repaired
from cytomine_spawner.notebook.shapes import InvalidGeometry, prepare
from tests.support.examples import examples


def ring(x: float, y: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(x, y), (right, y), (right, bottom), (x, bottom)]


STAR = [(np.cos(a), np.sin(a)) for a in np.pi / 2 + np.arange(5) * 4 * np.pi / 5]
# Its outline goes around the five points once, and around the middle twice: ten triangles from the centre.
STAR_AREA = 5 * np.sin(np.pi / 5) * (np.sin(np.pi / 10) / np.sin(7 * np.pi / 10))
CASES = {
    "a bow tie": (shapely.Polygon([(10, 10), (30, 30), (30, 10), (10, 30)]), 200),
    "parts that overlap": (
        shapely.MultiPolygon([shapely.box(100, 100, 200, 200), shapely.box(150, 150, 250, 250)]),
        17500,
    ),
    "a part inside another": (
        shapely.MultiPolygon([shapely.box(100, 100, 300, 300), shapely.box(150, 150, 250, 250)]),
        40000,
    ),
    "the same part twice": (shapely.MultiPolygon([shapely.box(0, 0, 10, 10)] * 2), 100),
    "a hole outside its shell": (
        shapely.Polygon(ring(100, 100, 300, 300), [ring(400, 400, 450, 450)]),
        40000,
    ),
    "holes that overlap": (
        shapely.Polygon(ring(0, 0, 200, 200), [ring(10, 10, 110, 110), ring(60, 60, 160, 160)]),
        22500,
    ),
    "a hole over the border": (shapely.Polygon(ring(0, 0, 100, 100), [ring(50, 50, 150, 150)]), 7500),
    "a hole in a hole": (
        shapely.Polygon(ring(0, 0, 100, 100), [ring(10, 10, 90, 90), ring(20, 20, 80, 80)]),
        3600,
    ),
    "a star drawn in one go": (shapely.Polygon(STAR), STAR_AREA),
    "an outline drawn twice": (shapely.Polygon([*ring(0, 0, 10, 10), *ring(0, 0, 10, 10)]), 100),
    "a hole reached by a cut": (
        shapely.Polygon(
            [(0, 0), (30, 0), (30, 30), (0, 30), (0, 0), (10, 10), (10, 20), (20, 20), (20, 10), (10, 10)]
        ),
        800,
    ),
    "a spike": (shapely.Polygon([(0, 0), (10, 0), (10, 10), (10, 20), (10, 10), (0, 10)]), 100),
    "a collection of areas": (
        shapely.GeometryCollection(
            [shapely.box(0, 0, 2, 2), shapely.GeometryCollection([shapely.box(1, 1, 3, 3)])]
        ),
        7,
    ),
    "a valid one": (shapely.Polygon(ring(0, 0, 10, 10), [ring(2, 2, 4, 4)]), 96),
}


@pytest.mark.parametrize("case", CASES)
def test_a_repaired_shape_has_the_area_that_its_outline_goes_around(case: str) -> None:
    shape, area = CASES[case]
    made = repaired(shape)
    assert made.is_valid
    assert made.area == pytest.approx(area)
    assert repaired(shape.reverse()).area == pytest.approx(area)


@settings(max_examples=examples(200))
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=7),
        min_size=1,
        max_size=3,
    )
)
def test_each_pixel_is_inside_that_any_part_goes_around(outlines: list[list[tuple[int, int]]]) -> None:
    made = repaired(shapely.MultiPolygon([shapely.Polygon(o) for o in outlines]))
    assert made.is_valid
    # Counted independently: the sum of the angles under which the outline is seen. No line meets these places.
    x, y = (
        v.ravel() + 0.0137 * n
        for n, v in enumerate(np.meshgrid(np.arange(12) + 0.31, np.arange(12) + 0.53), 1)
    )
    inside = np.zeros(x.shape, bool)
    far = np.ones(x.shape, bool)
    for outline in outlines:
        points = np.array([*outline, outline[0]], float)
        around = np.arctan2(points[:, 1, None] - y, points[:, 0, None] - x)
        steps = (np.diff(around, axis=0) + np.pi) % (2 * np.pi) - np.pi
        inside |= np.abs(steps.sum(axis=0)) > 1
        with np.errstate(invalid="ignore"):  # an outline of a single place
            far &= shapely.distance(shapely.LineString(points), shapely.points(x, y)) > 1e-6
    assert (shapely.contains_xy(made, x, y) == inside)[far].all()


def test_what_cannot_be_repaired_is_told_without_a_cure_that_does_not_help() -> None:
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 2, 2), shapely.LineString([(5, 5), (6, 6)])])
    flat = shapely.Polygon([(0, 0), (10, 0), (0, 0)])
    for repair in (False, True):
        with pytest.raises(InvalidGeometry) as told:
            prepare([shapely.Point(-1, 1), mixed, flat, None], [(9, 9)] * 4, "top-left", repair)
        assert "pass repair=True" not in str(told.value)
        assert told.value.repairable == ()
        assert "a row of each" in told.value.reasons[1]
        assert "nothing is left of it" in told.value.reasons[2]
    bowtie = CASES["a bow tie"][0]
    with pytest.raises(InvalidGeometry, match=r"or pass repair=True for 1 of them and drop the others\.$"):
        prepare([bowtie, None], [(99, 99)] * 2, "top-left", False)
    with pytest.raises(InvalidGeometry, match=r"or pass repair=True\.$"):
        prepare([bowtie], [(99, 99)], "top-left", False)


def test_a_fault_is_named_where_the_caller_has_it() -> None:
    bowtie = CASES["a bow tie"][0]
    for origin in ("top-left", "bottom-left"):
        with pytest.raises(InvalidGeometry, match=r"self-intersection\[20 20\]"):
            prepare([bowtie], [(500, 500)], origin, False)


def test_a_ring_is_stored_as_the_line_that_it_is() -> None:
    (made,) = prepare([shapely.LinearRing([(1, 1), (5, 1), (5, 5)])], [(9, 9)], "bottom-left", True)
    assert (made.geom_type, made.length) == ("LineString", pytest.approx(8 + 32**0.5))


def test_a_mask_of_an_invalid_shape_is_what_it_goes_around() -> None:
    shape = shapely.MultiPolygon([shapely.box(0, 0, 4, 4), shapely.box(2, 2, 6, 6)])
    assert rasterize(shape, 6, 6).sum() == 16 + 16 - 4
