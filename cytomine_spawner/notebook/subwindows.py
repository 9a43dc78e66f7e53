"""Pixels classified by random subwindows and randomised trees with several outputs.

A subwindow is a small square of a picture, described by its raw values. A classifier learns from random subwindows of
annotated places which class each pixel of the *answer* has, a smaller square in the subwindow's middle. Where it is
applied, the answers of overlapping subwindows are averaged. After Dumont, Marée, Wehenkel and Geurts, "Fast multi-class
image annotation with random subwindows and multiple output randomized trees", VISAPP 2009.

Pixels are those of one level: (0, 0) is the top left of the array that is given. Any classifier of scikit-learn with
``predict_proba`` and several outputs will do; extremely randomised trees are the usual one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from .images import Pixels
from .masks import rasterize

NO_CLASS = -1
BATCH = 4096


def label_map(
    shapes: Sequence[BaseGeometry], width: int, height: int, *, x: float = 0, y: float = 0, scale: float = 1
) -> NDArray[np.int8]:
    """Which class each pixel has.

    Args:
        shapes: one geometry per class, px of the full size; where two overlap, the later class counts.
        width: of the map, in its pixels.
        height: of the map.
        x: where the map's left edge is, full-size px.
        y: where its upper edge is.
        scale: full-size px per pixel of the map.

    Returns:
        int8, shape (height, width): the number of the class, -1 where there is none.
    """
    labels = np.full((height, width), NO_CLASS, np.int8)
    for number, shape in enumerate(shapes):
        labels[rasterize(shape, width, height, x=x, y=y, scale=scale)] = number
    return labels


def sample(
    pixels: Pixels,
    labels: NDArray[np.int8],
    count: int,
    *,
    size: int,
    answer: int,
    random: np.random.Generator,
    avoid: NDArray[np.bool_] | None = None,
) -> tuple[Pixels, NDArray[np.int8]]:
    """Random subwindows to learn from, as many of each class that has room, turned and mirrored at random.

    Args:
        pixels: uint8, shape (height, width, 3).
        labels: the class of each pixel, shape (height, width); -1 where it is not known.
        count: how many in all.
        size: side of a subwindow, px.
        answer: side of the square in its middle, px, an even number less; a subwindow is used where all of the square
            has a class.
        random: the source of chance.
        avoid: True where no subwindow may reach, so that what is held out for a test is not seen.

    Returns:
        Subwindows, uint8, shape (n, size² · 3), and the classes of their answers, int8, shape (n, answer²).

    Raises:
        ValueError: sizes do not fit, or nowhere is room for a subwindow.
    """
    windows = _windows(pixels, size, answer)
    free = _count(labels != NO_CLASS, answer) == answer * answer
    if avoid is not None:
        free &= _count(np.pad(avoid, _margins(size, answer)), size) == 0
    middle = answer // 2
    height, width = free.shape
    of = np.where(free, labels[middle : middle + height, middle : middle + width], NO_CLASS)
    classes = [int(c) for c in np.unique(of) if c != NO_CLASS]
    if not classes:
        raise ValueError(
            f"There is no room for a subwindow: the annotations are smaller than {answer} px at this level, or too near to "
            "what is held out."
        )
    seen, told = [], []
    for number in classes:
        places = np.argwhere(of == number)
        for row, column in places[random.integers(0, len(places), max(1, count // len(classes)))]:
            one = windows[row, column].transpose(1, 2, 0)
            two = labels[row : row + answer, column : column + answer]
            turns, mirrored = int(random.integers(4)), bool(random.integers(2))
            one, two = np.rot90(one, turns), np.rot90(two, turns)
            seen.append((one[:, ::-1] if mirrored else one).reshape(-1))
            told.append((two[:, ::-1] if mirrored else two).reshape(-1))
    return np.stack(seen), np.stack(told)


def predict(
    model: Any, pixels: Pixels, *, size: int, answer: int, step: int, classes: int, batch: int = BATCH
) -> NDArray[np.float32]:
    """How probable each class is at each pixel: the mean of the answers that cover it.

    Args:
        model: a classifier that was fitted to what `sample` gave.
        pixels: uint8, shape (height, width, 3).
        size: side of a subwindow, px, as in `sample`.
        answer: side of the answer, px, as in `sample`.
        step: px from one subwindow to the next, at most ``answer``.
        classes: how many classes there are.
        batch: subwindows at a time; each takes 12 · size² bytes.

    Returns:
        float32, shape (height, width, classes); the classes of a pixel sum to 1.

    Raises:
        ValueError: sizes do not fit, or the model answers for others.
    """
    if not 1 <= step <= answer:
        raise ValueError(f"step must be 1 to {answer}, the side of the answer, not {step}.")
    windows = _windows(pixels, size, answer)
    # The last row and column, too, so that every pixel has an answer.
    rows, columns = (np.unique([*range(0, n, step), n - 1]) for n in windows.shape[:2])
    total = np.zeros((*pixels.shape[:2], classes), np.float32)
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        seen = windows[some[:, 0], some[:, 1]].transpose(0, 2, 3, 1).reshape(len(some), -1)
        told = _answers(model, seen, answer, classes)
        for dy in range(answer):
            for dx in range(answer):
                # Places differ, so that no pixel comes twice in one addition.
                total[some[:, 0] + dy, some[:, 1] + dx] += told[:, dy * answer + dx]
    total /= total.sum(axis=2, keepdims=True)
    return total


def _answers(model: Any, seen: Pixels, answer: int, classes: int) -> NDArray[np.float32]:
    """Shape (n, answer², classes)."""
    found = model.predict_proba(seen)
    outputs, known = (found, model.classes_) if answer > 1 else ([found], [model.classes_])
    names = np.concatenate([np.asarray(one).ravel() for one in known])
    if len(outputs) != answer * answer or not np.isin(names, np.arange(classes)).all():
        raise ValueError(
            f"The model does not answer for {answer} x {answer} px of {classes} classes: was it trained with other values?"
        )
    told = np.zeros((len(seen), answer * answer, classes), np.float32)
    for number, (output, of) in enumerate(zip(outputs, known, strict=True)):
        told[:, number, np.asarray(of, int)] = output
    return told


def _margins(size: int, answer: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """How far a subwindow reaches over its answer."""
    margin = (size - answer) // 2
    return ((margin, margin),) * 2


def _windows(pixels: Pixels, size: int, answer: int) -> NDArray[np.uint8]:
    """The subwindow for the answer whose upper left is at each place: shape (rows, columns, 3, size, size), a view."""
    # Turned, an answer that is not in the very middle would be another place's.
    if not 1 <= answer <= size or (size - answer) % 2:
        raise ValueError(
            f"answer must be {size}, the side of the subwindow, or 2, 4, 6 … less, not {answer}."
        )
    if min(pixels.shape[:2]) < size:
        raise ValueError(f"The picture must have at least {size} px a side, not {pixels.shape[:2]}.")
    padded = np.pad(pixels, (*_margins(size, answer), (0, 0)), mode="reflect")
    return sliding_window_view(padded, (size, size), axis=(0, 1))


def _count(mask: NDArray[np.bool_], side: int) -> NDArray[np.int64]:
    """How many pixels of a mask each square of a side has, by its upper left."""
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    whole = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(whole)
