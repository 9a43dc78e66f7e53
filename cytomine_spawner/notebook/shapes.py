"""Geometries on their way to Cytomine: checked, cut at the image's border, and recognised again afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

from .errors import CytomineError
from .origins import Origin, to_cytomine
from .repair import KINDS, of_dimension, repaired

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Digits after the point that are sent, in px; two of them must be the same to recognise a geometry.
DIGITS, SAME = 3, 2


class InvalidGeometry(CytomineError, ValueError):
    """Geometries that Cytomine would refuse, found before anything was sent.

    Attributes:
        reasons: what is wrong, by row number (from 0).
        repairable: the rows that ``repair=True`` would make valid; none where it was passed.
    """

    def __init__(self, reasons: dict[int, str], repairable: Collection[int] = ()) -> None:
        self.reasons, self.repairable = reasons, tuple(repairable)
        shown = "; ".join(f"row {n}: {text}" for n, text in list(reasons.items())[:3])
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        cure = "Drop or redraw them."
        if len(self.repairable) == len(reasons):
            cure = "Drop or redraw them, or pass repair=True."
        elif self.repairable:
            cure = f"Drop or redraw them, or pass repair=True for {len(self.repairable)} of them and drop the others."
        super().__init__(f"{len(reasons)} geometries cannot be stored ({shown}{more}). {cure}")


class _Repairable(ValueError):
    """An invalid geometry, of which something is left when it is repaired."""


@dataclass
class Item:
    """One annotation that is to be stored.

    Attributes:
        row: its number in the caller's frame.
        image: the image's id.
        shape: the geometry in Cytomine's coordinates, inside the image.
        terms: ids of its terms.
        id: its id in Cytomine, once it is known.
    """

    row: int
    image: int
    shape: BaseGeometry
    terms: tuple[int, ...]
    id: int | None = None
    reason: str = ""
    body: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        wkt = shapely.to_wkt(self.shape, rounding_precision=DIGITS, trim=True)
        self.body = {"location": wkt, "image": self.image, "term": list(self.terms)}


def prepare(
    shapes: Sequence[BaseGeometry], sizes: Sequence[tuple[int, int]], origin: Origin, repair: bool
) -> list[BaseGeometry]:
    """Geometries as Cytomine stores them: its coordinates, rounded, valid, inside the image.

    Args:
        shapes: px.
        sizes: width and height of each geometry's image.
        origin: that of ``shapes``.
        repair: make invalid ones valid (`repair.repaired`) instead of refusing them.

    Raises:
        InvalidGeometry: naming the rows and reasons.
    """
    done, reasons, repairable = _plain(shapes, sizes, origin), {}, []
    for n, (shape, (width, height)) in enumerate(zip(shapes, sizes, strict=True)):
        if done[n] is not None:
            continue
        try:
            done[n] = _one(shape, width, height, origin, repair)
        except (ValueError, shapely.errors.GEOSException) as error:
            reasons[n] = str(error)
            if isinstance(error, _Repairable):
                repairable.append(n)
    if reasons:
        raise InvalidGeometry(reasons, repairable)
    return [shape for shape in done if shape is not None]


def _plain(
    shapes: Sequence[Any], sizes: Sequence[tuple[int, int]], origin: Origin
) -> list[BaseGeometry | None]:
    """What `_one` gives for those that need neither cutting nor repair, all at once; None for the others."""
    done: list[BaseGeometry | None] = [None] * len(shapes)
    rows = np.array(
        [n for n, s in enumerate(shapes) if isinstance(s, BaseGeometry) and s.geom_type in KINDS], int
    )
    array = shapely.force_2d(np.array([shapes[n] for n in rows], dtype=object))
    frames = np.array([sizes[n] for n in rows], float).reshape(-1, 2)
    points, owner = shapely.get_coordinates(array, return_index=True)
    if origin == "top-left":
        points[:, 1] = frames[owner, 1] - points[:, 1]
    inside = (points >= 0) & (points <= frames[owner])  # what is no number is not
    fits = np.bincount(owner, ~inside.all(axis=1), len(rows)) == 0
    fits &= ~shapely.is_empty(array)
    # Of the others some cannot be given coordinates.
    rows, array, points = rows[fits], array[fits], points[fits[owner]]
    good = shapely.is_valid(array)
    rounded = shapely.set_coordinates(array, np.round(points, DIGITS))
    good &= shapely.is_valid(rounded)
    for n, shape in zip(rows[good], rounded[good], strict=True):
        done[n] = shape
    return done


def _one(shape: Any, width: int, height: int, origin: Origin, repair: bool) -> BaseGeometry:
    if not isinstance(shape, BaseGeometry) or shape.is_empty:
        raise ValueError("there is no geometry")
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise ValueError("a coordinate is not a number")
    shape = shapely.force_2d(shape)
    # Before it is turned over, so that a place that is named is where the caller has it.
    shape = _valid(shape, repair)
    shape = to_cytomine(shape, height) if origin == "top-left" else shape
    frame = shapely.box(0, 0, width, height)
    if not frame.covers(shape):
        shape = of_dimension(shape.intersection(frame), shapely.get_dimensions(shape))
        if shape.is_empty:
            raise ValueError(f"it is outside the image, which has {width} x {height} px")
    rounded = _rounded(shape)
    if not rounded.is_valid:
        # Rounding may fold a sliver over itself. GEOS multiplies where NumPy divides: the last bit would be another than that
        # of the text that is sent, and the annotation not recognised.
        precise = shapely.set_precision(shape, 10.0**-DIGITS)
        rounded = _rounded(of_dimension(precise, shapely.get_dimensions(shape)))
        if rounded.is_empty:
            raise ValueError(f"nothing is left of it where coordinates have {DIGITS} digits after the point")
    return rounded


def _rounded(shape: BaseGeometry) -> BaseGeometry:
    return shapely.transform(shape, lambda c: np.round(c, DIGITS))


def _valid(shape: BaseGeometry, repair: bool) -> BaseGeometry:
    if shape.geom_type in KINDS and shape.is_valid:
        return shape
    dimensions = {shapely.get_dimensions(p) for p in shapely.get_parts(shape)}
    if len(dimensions) > 1:
        raise ValueError("it has areas, lines or points in one: make a row of each, by the table's explode()")
    wrong = explain_validity(shape).lower()
    if shape.geom_type not in KINDS:
        wrong = f"{shape.geom_type} cannot be an annotation"
    made = repaired(shape)
    if made.is_empty:
        raise ValueError(f"{wrong}, and nothing is left of it when it is repaired")
    if not repair:
        raise _Repairable(wrong)
    return made


def keys(shapes: Iterable[BaseGeometry]) -> list[bytes]:
    """What two geometries have in common that are the same, whatever their rings start with."""
    array = np.asarray(list(shapes), dtype=object)
    if not len(array):
        return []
    rounded = shapely.transform(array, lambda c: np.round(c, SAME) + 0.0)
    return list(shapely.to_wkb(shapely.normalize(rounded)))


class Stored:
    """Annotations that Cytomine has, to find those of ours among them; each is given out once."""

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        self.ids = [int(e["id"]) for e in entries]
        self._terms = [frozenset(int(t) for t in e.get("term") or ()) for e in entries]
        self._loss = np.array([float(e.get("geometryCompression") or 0) for e in entries])
        shapes = np.asarray(shapely.from_wkt([e["location"] for e in entries]), dtype=object).reshape(-1)
        self._bounds: NDArray[Any] = shapely.bounds(shapes).reshape(-1, 4)
        self._area = shapely.area(shapes)
        self._kind = shapely.get_type_id(shapes)
        self._free = set(range(len(entries)))
        self._by_key: dict[bytes, list[int]] = defaultdict(list)
        for n, key in enumerate(keys(shapes)):
            self._by_key[key].append(n)

    def take(self, items: Sequence[Item]) -> dict[int, int]:
        """The ids of the items that are here, by the items' place in the list; what is found is taken."""
        found: dict[int, int] = {}
        left = []
        for n, (item, key) in enumerate(zip(items, keys(i.shape for i in items), strict=True)):
            wanted = frozenset(item.terms)
            here = [c for c in self._by_key.get(key, ()) if c in self._free and wanted <= self._terms[c]]
            if here:
                self._give(found, n, min(here, key=lambda c: (self._terms[c] != wanted, self.ids[c])))
            else:
                left.append(n)
        if self._free:
            for n in left:
                self._similar(found, n, items[n])
        return found

    def _give(self, found: dict[int, int], n: int, candidate: int) -> None:
        self._free.discard(candidate)
        found[n] = self.ids[candidate]

    def _similar(self, found: dict[int, int], n: int, item: Item) -> None:
        # Cytomine may have left out points: its loss, in px, says how far the outline may have moved.
        free = np.fromiter(self._free, dtype=int)
        if not len(free):
            return
        tolerance = 0.05 + 2 * self._loss[free]
        near = (np.abs(self._bounds[free] - item.shape.bounds) <= tolerance[:, None]).all(axis=1)
        near &= self._kind[free] == shapely.get_type_id(item.shape)
        near &= np.abs(self._area[free] - item.shape.area) <= tolerance * max(1.0, item.shape.length)
        wanted = frozenset(item.terms)
        candidates = [int(c) for c in free[near] if self._terms[c] == wanted]
        if candidates:
            self._give(found, n, min(candidates, key=lambda c: self.ids[c]))
