"""How well one set of shapes agrees with another: areas (Dice, IoU) and objects (F1, average precision).

An outline that crosses itself, and others that are invalid, count as the area that they go around (`repair.repaired`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from .repair import repaired

# The thresholds of IoU over which the average is taken, as in the Data Science Bowl 2018 and StarDist.
THRESHOLDS = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))


@dataclass(frozen=True)
class Agreement:
    """Of areas.

    Attributes:
        iou: intersection over union, 0 to 1; 1 where both are empty.
        dice: twice the intersection over the sum, 0 to 1.
        found: area of the first, px².
        truth: area of the second, px².
    """

    iou: float
    dice: float
    found: float
    truth: float


@dataclass(frozen=True)
class Matching:
    """Of objects.

    Attributes:
        pairs: (number in found, number in truth, their IoU), each number at most once.
        found: how many were found.
        truth: how many there are.
    """

    pairs: list[tuple[int, int, float]]
    found: int
    truth: int

    @property
    def precision(self) -> float:
        """Which part of what was found is true."""
        return len(self.pairs) / self.found if self.found else float(not self.truth)

    @property
    def recall(self) -> float:
        """Which part of what is true was found."""
        return len(self.pairs) / self.truth if self.truth else float(not self.found)

    @property
    def f1(self) -> float:
        """Their harmonic mean, 2 TP / (2 TP + FP + FN)."""
        total = self.found + self.truth
        return 2 * len(self.pairs) / total if total else 1.0

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN) at this threshold."""
        union = self.found + self.truth - len(self.pairs)
        return len(self.pairs) / union if union else 1.0


def agreement(found: Sequence[BaseGeometry], truth: Sequence[BaseGeometry]) -> Agreement:
    """Compare the areas that two sets of polygons cover; what overlaps counts once."""
    a, b = (shapely.union_all(_valid(shapes)) for shapes in (found, truth))
    both, either = a.intersection(b).area, a.union(b).area
    total = a.area + b.area
    return Agreement(
        both / either if either else 1.0, 2 * both / total if total else 1.0, float(a.area), float(b.area)
    )


def _valid(shapes: Sequence[BaseGeometry]) -> NDArray[np.object_]:
    """The shapes, those made valid that are not: nothing can be intersected with an invalid one."""
    array = np.array(list(shapes), object)
    for n in np.flatnonzero(~(shapely.is_valid(array) | shapely.is_missing(array))):
        array[n] = repaired(shapely.force_2d(array[n]))
    return array


def overlaps(found: Sequence[BaseGeometry], truth: Sequence[BaseGeometry]) -> list[tuple[int, int, float]]:
    """The pairs (number in found, number in truth, IoU) that share area, the best first."""
    if not len(found) or not len(truth):
        return []
    a, b = _valid(found), _valid(truth)
    i, j = shapely.STRtree(b).query(a, predicate="intersects")
    both = shapely.area(shapely.intersection(a[i], b[j]))
    either = shapely.area(a[i]) + shapely.area(b[j]) - both
    pairs = [
        (int(m), int(n), float(s / u))
        for m, n, s, u in zip(i, j, both, either, strict=True)
        if s > 0 and u > 0
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def match(found: Sequence[BaseGeometry], truth: Sequence[BaseGeometry], least: float = 0.5) -> Matching:
    """Pair objects that are the same: the pairs of the largest IoU first, each object once.

    Args:
        found: polygons, px.
        truth: polygons, px.
        least: IoU from which two are the same; from 0.5 on the pairing is the only one possible, if the
            objects of one set do not overlap.
    """
    return _pair(overlaps(found, truth), len(found), len(truth), least)


def _pair(candidates: list[tuple[int, int, float]], found: int, truth: int, least: float) -> Matching:
    pairs: list[tuple[int, int, float]] = []
    used_a: set[int] = set()
    used_b: set[int] = set()
    for m, n, score in candidates:
        if score >= least and m not in used_a and n not in used_b:
            used_a.add(m)
            used_b.add(n)
            pairs.append((m, n, score))
    return Matching(pairs, found, truth)


def average_precisions(
    found: Sequence[BaseGeometry], truth: Sequence[BaseGeometry], thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float]:
    """TP / (TP + FP + FN) at each threshold of IoU, 0 to 1."""
    return _precisions(overlaps(found, truth), len(found), len(truth), thresholds)


def _precisions(
    candidates: list[tuple[int, int, float]], found: int, truth: int, thresholds: Sequence[float]
) -> dict[float, float]:
    return {t: _pair(candidates, found, truth, t).average_precision for t in thresholds}


def mean_average_precision(
    found: Sequence[BaseGeometry], truth: Sequence[BaseGeometry], thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """The mean of TP / (TP + FP + FN) over thresholds of IoU."""
    return float(np.mean(list(average_precisions(found, truth, thresholds).values())))


def scores(
    found: Sequence[BaseGeometry], truth: Sequence[BaseGeometry], least: float = 0.5
) -> dict[str, float]:
    """All measures of this module at once: a row of a benchmark's table.

    Args:
        found: polygons, px.
        truth: polygons, px.
        least: IoU from which two objects are the same.

    Returns:
        ``found``, ``reference``, ``hits`` (counts of objects), ``precision``, ``recall``, ``F1`` (objects at ``least``),
        ``AP50``, ``AP75`` (TP / (TP + FP + FN) at an IoU of 0.5 and 0.75), ``mean AP`` (over `THRESHOLDS`), ``hit IoU``
        (mean IoU of the hits; NaN where there are none), ``Dice``, ``IoU`` (areas).
    """
    candidates, sizes = overlaps(found, truth), (len(found), len(truth))
    told, curve = _pair(candidates, *sizes, least), _precisions(candidates, *sizes, THRESHOLDS)
    areas = agreement(found, truth)
    return {
        "found": told.found,
        "reference": told.truth,
        "hits": len(told.pairs),
        "precision": told.precision,
        "recall": told.recall,
        "F1": told.f1,
        "AP50": curve[0.5],
        "AP75": curve[0.75],
        "mean AP": float(np.mean(list(curve.values()))),
        "hit IoU": float(np.mean([p[2] for p in told.pairs])) if told.pairs else float("nan"),
        "Dice": areas.dice,
        "IoU": areas.iou,
    }
