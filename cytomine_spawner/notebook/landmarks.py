"""Landmarks found by extremely randomised trees that look at several resolutions at once.

For each landmark, a classifier learns to tell places near it from others, by the grey values around a place at full
size, at half of it, and so on. To find it, places around where it was in the training images are tried; the answer is
the mean of the best ones. After Vandaele and others, "Landmark detection in 2D bioimages for geometric morphometrics: a
multi-resolution tree-based approach", Scientific Reports 8, 2018.

Coordinates are px, (x, y) with their origin at the top left and a pixel's centre at a half. Fitting needs the package's
extra ``analysis``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

Floats: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.float64]

# Examples of other places in an image: anywhere around, and near the landmark, where it matters most.
FAR, NEAR = 300, 150
# Found coarsely first, then px by px so far around.
COARSE, FINE = 2, 10
# Which places take part in the mean: those nearly as probable as the best.
GOOD = 0.8
# Places that are described at a time, and that are tried for one landmark at most.
BATCH, PLACES = 16_384, 4_000_000
LEVELS, WINDOW = 24, 512


def planes(picture: NDArray[Any], levels: int) -> list[Floats]:
    """A picture at full size, half of it and so on, its brightness taken off.

    Args:
        picture: grey, shape (height, width), or RGB, shape (height, width, 3).
        levels: how many.

    Raises:
        ValueError: the picture is too small to be halved so often.
    """
    grey = np.asarray(picture, np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    found = [grey - np.float32(np.median(grey))]
    for _ in range(levels - 1):
        height, width = (n // 2 for n in found[-1].shape)
        if not height or not width:
            raise ValueError(f"A picture of {grey.shape[1]} x {grey.shape[0]} px has no {levels} levels.")
        blocks = found[-1][: height * 2, : width * 2].reshape(height, 2, width, 2)
        found.append(blocks.mean(axis=(1, 3)))
    return found


def describe(levels: Sequence[Floats], places: Places, window: int) -> Floats:
    """The grey values around places, at all levels; beyond the border its last pixel is repeated.

    Args:
        levels: from `planes`.
        places: shape (n, 2).
        window: side of the square around a place, in px of each level.

    Returns:
        float32, shape (n, levels · window²).
    """
    reach = np.arange(window) - window // 2
    parts = []
    for number, plane in enumerate(levels):
        at = np.floor(places / 2**number).astype(int)
        columns = np.clip(at[:, :1] + reach, 0, plane.shape[1] - 1)
        rows = np.clip(at[:, 1:] + reach, 0, plane.shape[0] - 1)
        parts.append(plane[rows[:, :, None], columns[:, None, :]].reshape(len(places), -1))
    return np.concatenate(parts, axis=1)


def grid(place: Places, reach: Places | float, step: int = 1) -> Places:
    """The centres of pixels around a place, every ``step``-th.

    Args:
        place: (x, y).
        reach: how far to go, px; one number, or one for x and one for y.
        step: px from one to the next.

    Returns:
        Shape (rows, columns, 2).
    """
    first, end = np.floor(place - np.asarray(reach, float)), place + np.asarray(reach, float)
    columns, rows = (np.arange(a, b, step) + 0.5 for a, b in zip(first, end, strict=True))
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def fit(
    pictures: Sequence[NDArray[Any]],
    places: Places,
    names: Sequence[str],
    *,
    levels: int = 4,
    window: int = 16,
    near: float = 2.0,
    trees: int = 60,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Learn landmarks from pictures in which they are known.

    Args:
        pictures: grey or RGB, of one magnification.
        places: shape (pictures, landmarks, 2).
        names: of the landmarks.
        levels: resolutions, each half of the one before.
        window: side of the square that is looked at, in px of each level.
        near: places not farther from a landmark than this are it, px.
        trees: per landmark.
        seed: of the chance.
        progress: show a progress bar (landmarks).

    Returns:
        The model, for `predict` and `models.pack`: a dictionary of the settings, the names, each landmark's mean place
        and how far around it was found (px, shape (landmarks, 2)), and its trees.

    Raises:
        ValueError: shapes do not fit, or there are less than two pictures.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    places = np.asarray(places, float)
    if places.shape != (len(pictures), len(names), 2) or len(pictures) < 2:
        raise ValueError(
            f"places must have the shape ({len(pictures)}, {len(names)}, 2) of at least two pictures, not {places.shape}."
        )
    random = np.random.default_rng(seed)
    seen = [planes(p, levels) for p in pictures]
    mean = places.mean(axis=0)
    # Three standard deviations, and some px for a picture that goes beyond all that were seen.
    reach = 3 * places.std(axis=0, ddof=1) + 10
    forests = []
    for number in tqdm(range(len(names)), unit="landmark", desc="training", disable=not progress):
        rows, told = [], []
        for picture, place in zip(seen, places[:, number], strict=True):
            here = grid(place, near + 1).reshape(-1, 2)
            around = mean[number] + random.uniform(-1, 1, (FAR, 2)) * reach[number]
            around = np.concatenate([around, place + random.normal(0, 3 * near, (NEAR, 2))])
            tried = np.concatenate([here, around])
            rows.append(describe(picture, tried, window))
            told.append(np.hypot(*(tried - place).T) <= near)
        trained = ExtraTreesClassifier(
            trees, min_samples_leaf=2, class_weight="balanced", n_jobs=-1, random_state=seed
        )
        forests.append(trained.fit(np.concatenate(rows), np.concatenate(told)))
    settings = {"levels": levels, "window": window, "near": near}
    return {**settings, "names": list(names), "mean": mean, "reach": reach, "forests": forests}


def probability(model: dict[str, Any], levels: Sequence[Floats], number: int, places: Places) -> Places:
    """How probable it is that a place is a landmark.

    Args:
        model: from `fit`.
        levels: of the picture, from `planes` with ``model["levels"]``.
        number: which landmark, in the order of ``model["names"]``.
        places: shape (…, 2), for instance from `grid`.

    Returns:
        0 to 1, shape (…).

    Raises:
        UnsafeModel: it is no such model.
    """
    check(model)
    flat = places.reshape(-1, 2)
    forest, column = model["forests"][number], list(model["forests"][number].classes_).index(True)
    parts = [flat[start : start + BATCH] for start in range(0, max(1, len(flat)), BATCH)]
    found = [forest.predict_proba(describe(levels, part, model["window"]))[:, column] for part in parts]
    return np.concatenate(found).reshape(places.shape[:-1])


def check(model: Any) -> None:
    """Whether a model from a file is one for `predict`, and its numbers fit each other.

    Raises:
        UnsafeModel: saying what does not.
    """
    from .models import UnsafeModel

    def need(good: Any, what: str) -> None:
        if not good:
            raise UnsafeModel(f"This is no model of landmarks: {what}. Ask who stored it, or train anew.")

    keys = ("levels", "window", "near", "names", "mean", "reach", "forests")
    need(isinstance(model, dict) and all(key in model for key in keys), f"it needs {', '.join(keys)}")
    for key, most in (("levels", LEVELS), ("window", WINDOW)):
        value = model[key]
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        need(whole and 1 <= value <= most, f"{key} must be a whole number of 1 to {most}")
    names, forests = model["names"], model["forests"]
    listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
    need(listed and isinstance(forests, list) and len(forests) == len(names), "each name needs its trees")
    for key in ("mean", "reach"):
        value = model[key]
        good = isinstance(value, np.ndarray) and value.shape == (len(names), 2) and value.dtype.kind == "f"
        need(good and np.isfinite(value).all(), f"{key} must be two numbers for each name")
    tried = (np.ceil(2 * model["reach"] / COARSE) + 1).prod(axis=1)
    need((model["reach"] >= 1).all() and (tried <= PLACES).all(), f"reach must give 1 to {PLACES:,} places")
    features = model["levels"] * model["window"] ** 2
    for forest in forests:
        fits = hasattr(forest, "predict_proba") and getattr(forest, "n_features_in_", None) == features
        need(fits and getattr(forest, "n_outputs_", 1) == 1, f"its trees must look at {features} values")
        need(True in list(forest.classes_), "its trees must tell True from False")


def predict(model: dict[str, Any], picture: NDArray[Any]) -> Places:
    """Where the landmarks are in a picture.

    Args:
        model: from `fit`.
        picture: grey or RGB, of the magnification of the training pictures.

    Returns:
        Shape (landmarks, 2), in the order of ``model["names"]``; inside the picture.

    Raises:
        UnsafeModel: it is no such model.
        ValueError: the picture is too small for the model's levels.
    """
    check(model)
    levels = planes(picture, model["levels"])
    height, width = levels[0].shape
    found = []
    for number in range(len(model["names"])):
        tried = grid(model["mean"][number], model["reach"][number], COARSE).reshape(-1, 2)
        best = tried[probability(model, levels, number, tried).argmax()]
        tried = grid(best, FINE).reshape(-1, 2)
        told = probability(model, levels, number, tried)
        weight = np.where(told >= GOOD * told.max(), told, 0)
        # Where nothing at all looks like it, there is no better guess than the best of the coarse ones.
        found.append((tried * weight[:, None]).sum(axis=0) / weight.sum() if weight.sum() else best)
    inside: Places = np.clip(np.array(found), 0, (width, height))
    return inside
