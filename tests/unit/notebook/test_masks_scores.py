from __future__ import annotations

import numpy as np
import pytest
import shapely

from cytomine_spawner.notebook.masks import polygons, rasterize
from cytomine_spawner.notebook.scores import agreement, match, mean_average_precision


def blobs() -> np.ndarray:
    """A thick ring that touches two edges, an island in its hole, and a single pixel."""
    mask = np.zeros((40, 60), bool)
    mask[:30, :30] = True
    mask[8:22, 8:22] = False
    mask[12:18, 12:18] = True
    mask[35, 50] = True
    return mask


def test_a_mask_keeps_holes_and_islands_and_comes_back_from_its_outlines() -> None:
    mask = blobs()
    shapes = polygons(mask)
    assert len(shapes) == 3
    assert sum(len(p.interiors) for p in shapes) == 1
    assert all(p.is_valid for p in shapes)
    assert (rasterize(shapely.union_all(shapes), 60, 40) == mask).all()
    # Only corners are cut off.
    assert sum(p.area for p in shapes) == pytest.approx(mask.sum(), rel=0.01)


def test_place_and_scale_of_a_mask_are_those_of_the_full_size() -> None:
    mask = np.ones((3, 5), bool)
    (shape,) = polygons(mask, x=100, y=200, scale=4)
    assert shape.bounds == (100, 200, 120, 212)
    back = rasterize(shapely.box(100, 200, 120, 212), 7, 6, x=96, y=196, scale=4)
    assert back[1:4, 1:6].all()
    assert back.sum() == 15


def test_small_parts_and_small_holes_are_left_out() -> None:
    (shape,) = polygons(blobs(), least=250)
    assert not shape.interiors
    assert shape.area == pytest.approx(900, rel=0.01)


def test_a_shape_outside_the_mask_leaves_it_empty() -> None:
    assert not rasterize(shapely.box(100, 100, 200, 200), 50, 40).any()
    assert not rasterize(shapely.Polygon(), 50, 40).any()


def test_areas_agree_as_computed_by_hand() -> None:
    # 10 x 10 and its half, which twice covers the same place.
    told = agreement([shapely.box(0, 0, 10, 5), shapely.box(0, 0, 10, 5)], [shapely.box(0, 0, 10, 10)])
    assert (told.iou, told.dice) == (0.5, pytest.approx(100 / 150))
    assert agreement([], []).iou == 1.0
    assert agreement([], [shapely.box(0, 0, 1, 1)]).dice == 0.0


def test_objects_are_paired_once_and_counted() -> None:
    truth = [shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10), shapely.box(40, 0, 50, 10)]
    found = [shapely.box(0, 0, 10, 8), shapely.box(1, 0, 10, 10), shapely.box(20, 0, 30, 4)]
    told = match(found, truth)
    # The better of the two on the first; the third covers too little.
    assert told.pairs == [(1, 0, pytest.approx(0.9))]
    assert (told.precision, told.recall, told.f1) == (1 / 3, 1 / 3, 1 / 3)
    assert told.average_precision == 1 / 5
    assert len(match(found, truth, 0.4).pairs) == 2
    assert match([], truth).f1 == 0.0
    assert match([], []).f1 == 1.0
    # Of ten thresholds, 0.9 is reached at nine.
    assert mean_average_precision(found[1:2], truth[:1]) == pytest.approx(0.9)
