"""Random subwindows: labels where annotations are, nothing seen of what is held out, answers in their places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from sklearn.ensemble import ExtraTreesClassifier

from cytomine_spawner.notebook.subwindows import label_map, predict, sample


def picture(width: int = 60, height: int = 44) -> np.ndarray:
    """Every pixel tells its place: red the column, green the row."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8)


def test_labels_are_where_the_annotations_are_at_the_levels_scale() -> None:
    one, two = shapely.box(100, 200, 140, 240), shapely.box(120, 200, 160, 220)
    labels = label_map([one, two], 20, 15, x=96, y=196, scale=4)
    assert (labels[1:11, 1:6] == 0).all()
    assert (labels[1:6, 6:16] == 1).all()
    assert (labels == 0).sum() == 10 * 10 - 5 * 5
    assert (labels == 1).sum() == 10 * 5


@pytest.mark.parametrize(("size", "answer"), [(9, 3), (8, 4), (7, 1), (6, 6)])
def test_a_subwindow_and_its_classes_are_of_one_place(size: int, answer: int) -> None:
    labels = np.full((44, 60), -1, np.int8)
    labels[5:40, 5:30], labels[5:40, 30:55] = 0, 1
    seen, told = sample(picture(), labels, 200, size=size, answer=answer, random=np.random.default_rng(0))
    assert seen.shape == (200, size * size * 3)
    assert told.shape == (200, answer * answer)
    before = (size - answer) // 2
    for window, classes in zip(
        seen.reshape(-1, size, size, 3), told.reshape(-1, answer, answer), strict=True
    ):
        middle = window[before : before + answer, before : before + answer]
        assert (classes == labels[middle[..., 1], middle[..., 0]]).all()
    # As many of each class, and subwindows with both where they touch.
    assert (told[:100] == 0).mean() > 0.8
    assert (told[100:] == 1).mean() > 0.8


def test_nothing_is_seen_of_what_is_held_out() -> None:
    labels = np.zeros((44, 60), np.int8)
    avoid = np.zeros((44, 60), bool)
    avoid[10:30, 25:35] = True
    random = np.random.default_rng(0)
    seen, _ = sample(picture(), labels, 3000, size=9, answer=3, random=random, avoid=avoid)
    pixels = seen.reshape(-1, 3)
    assert not avoid[pixels[:, 1], pixels[:, 0]].any()
    # It would be seen otherwise.
    seen, _ = sample(picture(), labels, 3000, size=9, answer=3, random=random)
    pixels = seen.reshape(-1, 3)
    assert avoid[pixels[:, 1], pixels[:, 0]].any()


def test_annotations_without_room_for_a_subwindow_are_left_out_and_refused_if_there_are_no_others() -> None:
    labels = np.full((44, 60), -1, np.int8)
    labels[:30], labels[40:42, :3] = 0, 1
    random = np.random.default_rng(0)
    _, told = sample(picture(), labels, 10, size=9, answer=3, random=random)
    assert told.shape == (10, 9)
    assert not told.any()
    with pytest.raises(ValueError, match="smaller than 3 px"):
        sample(picture(), np.where(labels == 1, labels, np.int8(-1)), 10, size=9, answer=3, random=random)
    with pytest.raises(ValueError, match="answer must be 9"):
        sample(picture(), labels, 10, size=9, answer=4, random=random)


class Reads:
    """Stands for a trained model: an answer's pixel is of class 1 where its red value is at least 30, else of class 2."""

    def __init__(self, size: int, answer: int) -> None:
        self.size, self.answer = size, answer
        self.classes_: Any = [np.array([1, 2])] * (answer * answer) if answer > 1 else np.array([1, 2])

    def predict_proba(self, seen: np.ndarray) -> Any:
        before = (self.size - self.answer) // 2
        window = seen.reshape(-1, self.size, self.size, 3)
        red = window[:, before : before + self.answer, before : before + self.answer, 0].reshape(
            len(seen), -1
        )
        told = [np.stack([r >= 30, r < 30], axis=1).astype(float) for r in red.T]
        return told if self.answer > 1 else told[0]


@pytest.mark.parametrize(("size", "answer", "step"), [(8, 4, 3), (9, 3, 1), (7, 1, 1), (9, 5, 5)])
def test_every_pixel_gets_the_answer_for_its_own_place(size: int, answer: int, step: int) -> None:
    pixels = picture(53, 37)
    told = predict(Reads(size, answer), pixels, size=size, answer=answer, step=step, classes=3, batch=100)
    assert told.shape == (37, 53, 3)
    assert (told[:, 30:, 1] == 1).all()
    assert (told[:, :30, 2] == 1).all()
    assert not told[..., 0].any()


def test_a_step_that_leaves_gaps_and_a_picture_that_is_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="step must be 1 to 4"):
        predict(Reads(8, 4), picture(), size=8, answer=4, step=5, classes=3)
    with pytest.raises(ValueError, match="at least 8 px"):
        predict(Reads(8, 4), picture(6, 20), size=8, answer=4, step=4, classes=3)


def test_trees_learn_a_texture_and_find_its_border_where_they_were_not_trained() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(90, 110, (120, 160, 3)).astype(np.uint8)
    # The same mean on both sides: only the pattern differs.
    pixels[:, 80:] = np.where(np.indices((120, 80)).sum(0)[..., None] % 2, 60, 140)
    labels = label_map([shapely.box(0, 0, 80, 120), shapely.box(80, 0, 160, 120)], 160, 120)
    train = labels.copy()
    train[60:] = -1
    held_out = np.zeros(labels.shape, bool)
    held_out[60:] = True
    seen, told = sample(pixels, train, 800, size=8, answer=4, random=random, avoid=held_out)
    model = ExtraTreesClassifier(20, random_state=0).fit(seen, told)
    found = predict(model, pixels, size=8, answer=4, step=2, classes=2).argmax(axis=2)
    assert (found == labels)[60:].mean() > 0.97
