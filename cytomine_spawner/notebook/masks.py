"""Between pixels and outlines: masks as polygons, polygons as masks.

Coordinates are those of the rest of this package: px of the full-size image, origin top left, a pixel's corner at
whole numbers and its centre at a half.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from .repair import repaired
from .values import whole

CHUNK = 1 << 20


def polygons(
    mask: NDArray[np.generic],
    *,
    x: float = 0,
    y: float = 0,
    scale: float = 1,
    simplify: float = 0,
    least: float = 0,
) -> list[shapely.Polygon]:
    """The outlines of a mask or of labelled objects, with their holes, as valid polygons.

    Args:
        mask: shape (height, width); what is not zero is inside. Whole numbers are labels: what has another number is another
            object, also where the two touch.
        x: where the mask's left edge is, full-size px.
        y: where its upper edge is.
        scale: full-size px per pixel of the mask.
        simplify: how far an outline may be off, full-size px.
        least: parts and holes with a smaller area are left out, px² of the full size.

    Returns:
        One for each connected part, those of the smallest label first.

    Raises:
        ValueError: the mask does not have two dimensions.
    """
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ValueError(f"The mask must have the shape (height, width), not {array.shape}.")
    found: list[shapely.Polygon] = []
    for top, left, part in _objects(array):
        found += _outlines(part, x + left * scale, y + top * scale, scale, simplify, least)
    return found


def _objects(array: NDArray[np.generic]) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """The masks of the objects, each as small as it can be, and the row and column where it begins."""
    if array.dtype.kind not in "iu":
        yield 0, 0, array.astype(bool)
        return
    rows, columns = np.nonzero(array)
    labels = array[rows, columns]
    order = np.argsort(labels, kind="stable")
    rows, columns, labels = rows[order], columns[order], labels[order]
    first = np.ones(len(labels), bool)
    first[1:] = labels[1:] != labels[:-1]
    for here, end in itertools.pairwise([*np.flatnonzero(first), len(labels)]):
        r, c = rows[here:end], columns[here:end]
        top, left = int(r.min()), int(c.min())
        yield top, left, array[top : r.max() + 1, left : c.max() + 1] == labels[here]


def _outlines(
    mask: NDArray[np.bool_], x: float, y: float, scale: float, simplify: float, least: float
) -> list[shapely.Polygon]:
    # A border of nothing closes what touches the edge.
    padded = np.pad(mask.astype(np.float32), 1)
    lines = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset).filled(0.5, 2)
    found: list[shapely.Polygon] = []
    for points, offsets in zip(*lines, strict=True):
        place = (points - 0.5) * scale + (x, y)
        rings = [place[a:b] for a, b in itertools.pairwise(offsets)]
        holes = [ring for ring in rings[1:] if len(ring) > 3 and shapely.Polygon(ring).area >= least]
        shape: BaseGeometry = shapely.Polygon(rings[0], holes)
        if simplify:
            shape = shape.simplify(simplify)
        # A part is one polygon; repaired, it may fall into several.
        parts = [shape] if shape.is_valid else list(shapely.get_parts(repaired(shape)))
        found += [
            p for p in parts if p.geom_type == "Polygon" and not p.is_empty and p.area >= max(least, 1e-9)
        ]
    return found


def rasterize(
    shape: BaseGeometry, width: int, height: int, *, x: float = 0, y: float = 0, scale: float = 1
) -> NDArray[np.bool_]:
    """A geometry as a mask: which pixels have their centre inside.

    Args:
        shape: full-size px; a union of several for a mask of all of them. Of an invalid one, what it goes around.
        width: of the mask, in its pixels.
        height: of the mask, in its pixels.
        x: where the mask's left edge is, full-size px.
        y: where its upper edge is.
        scale: full-size px per pixel of the mask.

    Returns:
        bool, shape (height, width).
    """
    width, height = whole(width, "width"), whole(height, "height")
    mask = np.zeros((height, width), bool)
    if shape.is_empty:
        return mask
    if not shape.is_valid:
        shape = repaired(shapely.force_2d(shape))
    left, top, right, bottom = ((v - o) / scale for v, o in zip(shape.bounds, (x, y, x, y), strict=True))
    x0, x1 = max(0, int(left)), min(width, int(right) + 1)
    y0, y1 = max(0, int(top)), min(height, int(bottom) + 1)
    if x0 >= x1 or y0 >= y1:
        return mask
    shapely.prepare(shape)
    columns = x + (np.arange(x0, x1) + 0.5) * scale
    rows = max(1, CHUNK // (x1 - x0))
    for start in range(y0, y1, rows):
        end = min(y1, start + rows)
        lines = y + (np.arange(start, end) + 0.5) * scale
        mask[start:end, x0:x1] = shapely.contains_xy(shape, columns[None, :], lines[:, None])
    return mask
