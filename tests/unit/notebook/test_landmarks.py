"""Landmarks: found within a pixel where they were not trained, and never outside of the picture."""

from __future__ import annotations

import numpy as np
import pytest

from cytomine_spawner.notebook.landmarks import describe, fit, grid, planes, predict, probability
from cytomine_spawner.notebook.models import pack, unpack


def drawn(place: tuple[float, float], other: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """A disc and a ring, which differ by what is around their middles, in noise; RGB."""
    rows, columns = np.mgrid[0:90, 0:120] + 0.5
    disc = np.hypot(columns - place[0], rows - place[1]) < 6
    ring = np.abs(np.hypot(columns - other[0], rows - other[1]) - 6) < 2
    grey = 200 - 120 * disc - 120 * ring + random.normal(0, 4, disc.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def series() -> tuple[list[np.ndarray], np.ndarray]:
    random = np.random.default_rng(3)
    places = np.stack([random.normal((35, 45), 6, (11, 2)), random.normal((85, 40), 6, (11, 2))], axis=1)
    return [drawn(tuple(a), tuple(b), random) for a, b in places], places


def test_landmarks_of_unseen_pictures_are_found_also_by_a_stored_model(
    series: tuple[list[np.ndarray], np.ndarray],
) -> None:
    pictures, places = series
    model = fit(pictures[:8], places[:8], ["disc", "ring"], levels=3, window=10, trees=25, progress=False)
    again = unpack(pack(model))
    found = np.array([predict(again, p) for p in pictures[8:]])
    error = np.linalg.norm(found - places[8:], axis=2)
    guess = np.linalg.norm(places[:8].mean(axis=0) - places[8:], axis=2)
    assert error.max() < 1
    assert guess.mean() > 4
    assert (found[0] == predict(model, pictures[8])).all()


def test_the_answer_stays_inside_a_picture_that_shows_nothing(
    series: tuple[list[np.ndarray], np.ndarray],
) -> None:
    pictures, places = series
    model = fit(pictures[:4], places[:4], ["disc", "ring"], levels=2, window=6, trees=5, progress=False)
    found = predict(model, np.full((50, 40, 3), 200, np.uint8))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= (40, 50)).all()


def test_the_probability_is_highest_at_the_landmark(series: tuple[list[np.ndarray], np.ndarray]) -> None:
    pictures, places = series
    model = fit(pictures[:8], places[:8], ["disc", "ring"], levels=3, window=10, trees=25, progress=False)
    around = grid(places[9, 1], 15)
    told = probability(model, planes(pictures[9], 3), 1, around)
    assert told.shape == around.shape[:2]
    best = around.reshape(-1, 2)[told.argmax()]
    assert np.hypot(*(best - places[9, 1])) < 3


def test_a_place_is_described_by_its_own_pixels_at_each_level() -> None:
    grey = np.arange(48.0 * 64).reshape(48, 64)
    full, half = planes(grey, 2)
    assert half.shape == (24, 32)
    assert half[3, 5] == pytest.approx(full[6:8, 10:12].mean())
    told = describe([full, half], np.array([[10.5, 6.5]]), 3)[0]
    assert (told[:9] == full[5:8, 9:12].ravel()).all()
    assert (told[9:] == half[2:5, 4:7].ravel()).all()
    # Beyond the border its last pixel is repeated.
    assert (describe([full], np.array([[0.5, 0.5]]), 3)[0] == full[[0, 0, 1]][:, [0, 0, 1]].ravel()).all()


def test_brighter_pictures_look_the_same() -> None:
    grey = np.random.default_rng(0).random((32, 32)) * 100
    assert np.allclose(planes(grey, 2)[1], planes(grey + 40, 2)[1], atol=1e-4)


def test_places_of_another_shape_and_a_picture_without_so_many_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 1, 2\) of at least two pictures"):
        fit([np.zeros((9, 9))], np.zeros((1, 1, 2)), ["a"], progress=False)
    with pytest.raises(ValueError, match="has no 5 levels"):
        planes(np.zeros((8, 9)), 5)
