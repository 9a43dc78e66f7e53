"""What is stored of an annotation: inside of the image, the right way up, and never of another kind."""

from __future__ import annotations

from typing import Any

import pytest
from shapely import affinity, wkt
from shapely.geometry import box, shape

from cytomine_spawner.datasets import shapes
from cytomine_spawner.datasets.shapes import Shape, Unfit

WIDTH, HEIGHT = 640, 360


def stored(geometry: dict[str, Any]) -> list[Any]:
    """What is stored of a geometry, turned back to count from the top left."""
    pieces = [piece for part in shapes.read(geometry) for piece in Shape(part, key="k").pieces(WIDTH, HEIGHT)]
    back = [
        affinity.translate(affinity.scale(wkt.loads(p.wkt), 1, -1, origin=(0, 0)), 0, HEIGHT) for p in pieces
    ]
    assert all(b.is_valid and box(0, 0, WIDTH, HEIGHT).covers(b) for b in back)
    return back


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [3.25, 4.5]},
        {"type": "Point", "coordinates": [640, 0]},
        {"type": "MultiPoint", "coordinates": [[1, 2], [30, 40]]},
        {"type": "LineString", "coordinates": [[0, 0], [10, 0], [10, 30]]},
        {"type": "LineString", "coordinates": [[0, 5], [10, 5]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [8, 0], [8, 4], [0, 0]]]},
        {
            "type": "Polygon",
            "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]], [[1, 1], [3, 1], [3, 4], [1, 1]]],
        },
        {
            "type": "MultiPolygon",
            "coordinates": [[[[0, 0], [4, 0], [4, 4], [0, 0]]], [[[10, 10], [10, 13], [13, 13], [10, 10]]]],
        },
    ],
)
def test_what_is_inside_is_stored_as_it_is(geometry: dict[str, Any]) -> None:
    (one,) = stored(geometry)
    assert one.equals(shape(geometry))
    assert one.geom_type == geometry["type"]


def square(x: float, y: float, side: float) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def test_an_area_is_cut_at_the_border() -> None:
    (corner,) = stored(square(600, 300, 200))
    assert corner.equals(box(600, 300, 640, 360))
    # An arch that enters the image with both feet.
    arch = [
        [100, 400],
        [100, 300],
        [120, 300],
        [120, 380],
        [200, 380],
        [200, 300],
        [220, 300],
        [220, 400],
        [100, 400],
    ]
    (two,) = stored({"type": "Polygon", "coordinates": [arch]})
    assert two.geom_type == "MultiPolygon"
    assert two.equals(box(100, 300, 120, 360).union(box(200, 300, 220, 360)))


def test_a_line_that_leaves_and_comes_back_is_several() -> None:
    pieces = stored({"type": "LineString", "coordinates": [[600, 100], [700, 100], [700, 110], [600, 110]]})
    assert [p.wkt for p in pieces] == ["LINESTRING (600 100, 640 100)", "LINESTRING (640 110, 600 110)"]
    (part,) = shapes.read(
        {"type": "LineString", "coordinates": [[600, 100], [700, 100], [700, 110], [600, 110]]}
    )
    assert [p.key for p in Shape(part, key="k").pieces(WIDTH, HEIGHT)] == ["k.0", "k.1"]


def test_points_are_stored_where_they_are_inside() -> None:
    near = stored({"type": "MultiPoint", "coordinates": [[5, 5], [5.25, 5.25], [-1, 50]]})
    assert sorted(p.wkt for p in near) == ["POINT (5 5)", "POINT (5.25 5.25)"]


@pytest.mark.parametrize(
    ("geometry", "why"),
    [
        (square(5000, 5000, 10), "outside of the image"),
        (square(640, 10, 10), "outside of the image"),
        ({"type": "Point", "coordinates": [-0.5, 3]}, "outside of the image"),
        ({"type": "LineString", "coordinates": [[640, -5], [645, 0]]}, "outside of the image"),
        (square(10, 10, 0.5), "less than a pixel"),
        (square(639.5, 10, 10), "less than a pixel"),
    ],
)
def test_what_cytomine_would_refuse_says_why(geometry: dict[str, Any], why: str) -> None:
    (part,) = shapes.read(geometry)
    with pytest.raises(Unfit, match=why):
        Shape(part).pieces(WIDTH, HEIGHT)


def test_nothing_is_cut_where_the_width_is_not_known() -> None:
    (part,) = shapes.read(square(5000, 10, 10))
    assert Shape(part, key="k").pieces(None, 100)[0].wkt.startswith("POLYGON ((5000 90,")
