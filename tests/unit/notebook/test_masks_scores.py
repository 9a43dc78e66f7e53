from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.notebook.masks import polygons, rasterize
from cytomine_spawner.notebook.scores import (
    THRESHOLDS,
    agreement,
    average_precisions,
    match,
    mean_average_precision,
    scores,
)


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


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint16])
def test_labels_that_touch_stay_apart(kind: type) -> None:
    labels = np.zeros((20, 30), kind)
    labels[2:10, 3:9], labels[2:10, 9:15], labels[10:18, 3:15] = 7, 2, 100
    labels[0, 29] = 7
    shapes = polygons(labels, x=100, y=200, scale=2)
    # By label, and the part of it that lies apart by itself.
    assert [p.bounds for p in shapes] == [
        (118, 204, 130, 220),
        (106, 204, 118, 220),
        (158, 200, 160, 202),
        (106, 220, 130, 236),
    ] or [p.bounds for p in shapes] == [
        (118, 204, 130, 220),
        (158, 200, 160, 202),
        (106, 204, 118, 220),
        (106, 220, 130, 236),
    ]
    assert shapely.intersection(shapes[0], shapes[-1]).area == 0
    assert len(polygons(labels > 0)) == 2
    assert polygons(np.zeros((5, 5), kind)) == []


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(height, width\), not \(4, 4, 3\)"):
        polygons(np.ones((4, 4, 3), bool))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_labels_come_back_from_their_outlines(seed: int, count: int) -> None:
    labels = np.random.default_rng(seed).integers(0, count + 1, (12, 16))
    for number in range(1, count + 1):
        alone = polygons((labels == number).astype(bool))
        together = [p for p in polygons(labels) if any(p.equals(a) for a in alone)]
        assert len(together) == len(alone)
    assert len(polygons(labels)) == sum(len(polygons(labels == n)) for n in range(1, count + 1))


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


def labelled(rng: np.random.Generator, move: int) -> tuple[np.ndarray, list[shapely.Polygon]]:
    """Boxes of whole pixels, one a cell of a grid at most, as a picture of labels and as polygons."""
    picture, boxes = np.zeros((240, 240), int), []
    for row in range(0, 240, 24):
        for column in range(0, 240, 24):
            if rng.random() < 0.7:
                x, y = column + 2 + rng.integers(0, move + 1), row + 2 + rng.integers(0, move + 1)
                w, h = rng.integers(10, 17, 2)
                boxes.append(shapely.box(x, y, x + w, y + h))
                picture[y : y + h, x : x + w] = len(boxes)
    return picture, boxes


@pytest.mark.parametrize("seed", range(3))
def test_all_scores_are_those_counted_pixel_by_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (a, found), (b, truth) = labelled(rng, 3), labelled(rng, 5)
    # Counted independently: a table of common pixels. Of boxes that do not overlap, none has two partners above one half.
    common = np.zeros((len(found) + 1, len(truth) + 1))
    np.add.at(common, (a, b), 1)
    inside = common[1:, 1:]
    union = common.sum(1)[1:, None] + common.sum(0)[None, 1:] - inside
    iou = inside / union

    def hits(least: float) -> np.ndarray:
        return iou[iou >= least]

    same = iou >= 0.5
    assert max(same.sum(0).max(), same.sum(1).max()) == 1
    told = scores(found, truth)
    n, both = len(found) + len(truth), ((a > 0) & (b > 0)).sum()
    assert 0 < told["hits"] < min(len(found), len(truth))
    assert (told["found"], told["reference"], told["hits"]) == (len(found), len(truth), len(hits(0.5)))
    assert told["F1"] == pytest.approx(2 * len(hits(0.5)) / n)
    assert told["hit IoU"] == pytest.approx(np.mean(hits(0.5)))
    curve = {t: len(hits(t)) / (n - len(hits(t))) for t in THRESHOLDS}
    assert average_precisions(found, truth) == pytest.approx(curve)
    assert (told["AP50"], told["AP75"]) == pytest.approx((curve[0.5], curve[0.75]))
    assert told["mean AP"] == pytest.approx(np.mean(list(curve.values())))
    assert told["Dice"] == pytest.approx(2 * both / ((a > 0).sum() + (b > 0).sum()))
    assert told["IoU"] == pytest.approx(both / ((a > 0) | (b > 0)).sum())


def test_an_outline_that_crosses_itself_counts_as_what_it_goes_around() -> None:
    bowtie = shapely.Polygon([(0, 0), (20, 20), (20, 0), (0, 20)])
    twice = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10)])
    told = scores([bowtie], [shapely.box(0, 0, 20, 20)])
    assert (told["IoU"], told["hits"]) == (0.5, 1)
    told = scores([shapely.box(0, 0, 15, 10)], [twice])
    assert (told["IoU"], told["hit IoU"]) == (1, 1)
    assert agreement([bowtie], [bowtie]).dice == 1
    assert match([bowtie], [bowtie]).f1 == 1


def test_scores_of_nothing_are_defined() -> None:
    told = scores([], [shapely.box(0, 0, 1, 1)])
    assert (told["F1"], told["mean AP"], told["Dice"], np.isnan(told["hit IoU"])) == (0, 0, 0, True)
    told = scores([], [])
    assert (told["F1"], told["mean AP"], told["Dice"]) == (1, 1, 1)
