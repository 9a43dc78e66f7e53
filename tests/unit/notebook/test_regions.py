"""Pixels of a slide arrive where they belong, whatever the size, and also over a bad connection."""

from __future__ import annotations

from typing import Any

import cytomine
import numpy as np
import pytest

from cytomine_spawner.notebook import images, regions
from cytomine_spawner.notebook.errors import CytomineUnreachable
from cytomine_spawner.notebook.transport import RequestFailed, guard

from .conftest import HEIGHT, WIDTH, Stack, picture


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return picture()


@pytest.mark.parametrize(
    "place",
    [
        (0, 0, 60, 40),
        (WIDTH - 60, 0, 60, 40),
        (0, HEIGHT - 40, 60, 40),
        (WIDTH - 60, HEIGHT - 40, 60, 40),
        (250, 200, 300, 120),
    ],
    ids=["top left", "top right", "bottom left", "bottom right", "over tile borders"],
)
def test_a_region_has_exactly_the_pixels_of_its_place(image: Any, truth: np.ndarray, place: Any) -> None:
    x, y, w, h = place
    got = regions.region(image, *place)
    assert (got.shape, got.dtype) == ((h, w, 3), np.uint8)
    assert np.array_equal(got, truth[y : y + h, x : x + w])


def test_a_region_larger_than_one_request_is_put_together(
    image: Any, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "PIECE", 200)
    got = regions.region(image, 13, 17, 901, 603, progress=True)
    assert np.array_equal(got, truth[17:620, 13:914])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_smaller_level_shows_the_same_place(slide: Any, level: int) -> None:
    at = regions.levels(slide)[level]
    whole = regions.region(slide, 0, 0, slide.width, slide.height)
    got = regions.region(slide, 0, 0, at.width, at.height, level=level)
    small = whole.reshape(at.height, at.scale, at.width, at.scale, 3).mean(axis=(1, 3))
    # The corners, where a shift by a pixel would show.
    assert np.abs(got.astype(float) - small).mean() < 3
    part = regions.region(slide, 30, 20, 90, 70, level=level)
    assert np.array_equal(part, got[20:90, 30:120])


def test_levels_are_halved_and_rounded_up_as_the_server_counts_them(image: Any, slide: Any) -> None:
    assert [(v.width, v.height, v.scale, v.zoom) for v in regions.levels(image)] == [
        (1333, 777, 1, 3),
        (667, 389, 2, 2),
        (334, 195, 4, 1),
        (167, 98, 8, 0),
    ]
    assert regions.levels(slide)[0].zoom == slide.zoom
    last = regions.levels(image)[-1]
    assert regions.region(image, 0, 0, last.width, last.height, level=3).shape == (98, 167, 3)
    assert regions.level_for(slide, 1.0).level == 2
    with pytest.raises(ValueError, match="pixel size is not known"):
        regions.level_for(image, 1.0)


@pytest.mark.parametrize("place", [(-1, 0, 5, 5), (0, 0, WIDTH + 1, 5), (0, HEIGHT, 5, 1), (0, 0, 0, 5)])
def test_a_region_outside_the_image_is_refused_before_it_is_asked_for(
    stack: Stack, image: Any, place: Any
) -> None:
    before = stack.way.count["GET"]
    with pytest.raises(ValueError, match="is not inside the image, which has 1333 x 777 px"):
        regions.region(image, *place)
    assert stack.way.count["GET"] == before


def test_tiles_cover_every_pixel_once_and_reach_into_their_neighbours(image: Any, truth: np.ndarray) -> None:
    seen = np.zeros((HEIGHT, WIDTH), int)
    for tile in regions.tiles(image, 400, overlap=30, progress=False):
        h, w = tile.pixels.shape[:2]
        assert np.array_equal(tile.pixels, truth[tile.y : tile.y + h, tile.x : tile.x + w])
        x, y, cw, ch = tile.core
        seen[y : y + ch, x : x + cw] += 1
        assert tile.x == max(0, x - 30)
        assert tile.x + w == min(WIDTH, x + cw + 30)
    assert (seen == 1).all()


def test_tiles_read_ahead_no_more_than_they_may(image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    whole = regions.Reader.region
    monkeypatch.setattr(
        regions.Reader, "region", lambda self, *a, **k: started.append(a) or whole(self, *a, **k)
    )
    walk = regions.tiles(image, 100, workers=3, progress=False)
    for done in range(5):
        next(walk)
        assert len(started) <= done + 1 + 3
    walk.close()
    assert len(started) < 20


def test_a_lazy_slide_reads_only_what_is_computed(stack: Stack, image: Any, truth: np.ndarray) -> None:
    array = regions.lazy(image, chunk=256)
    assert array.shape == (HEIGHT, WIDTH, 3)
    stack.way.count.clear()
    assert np.array_equal(array[500:, 1000:1100].compute(), truth[500:, 1000:1100])
    assert stack.way.count["GET"] <= 6
    assert np.array_equal(array.mean(axis=2).max().compute(), truth.mean(axis=2).max())
    small = regions.lazy(image, level=1).compute()
    assert small.shape == (389, 667, 3)


def test_a_lazy_slide_stays_with_the_stack_that_it_came_from(stack: Stack, image: Any) -> None:
    array = regions.lazy(image)
    guard(cytomine.Cytomine.connect(stack.way.url, "no", "keys"))
    assert array[:9, :9].compute().shape == (9, 9, 3)


@pytest.mark.parametrize("how", ["request", "answer", "half"])
def test_a_cut_connection_is_made_good(stack: Stack, image: Any, truth: np.ndarray, how: str) -> None:
    stack.way.lose_first(2, "GET", "/window-", how)
    got = regions.region(image, 0, 0, WIDTH, HEIGHT)
    assert stack.way.lost == 2
    assert np.array_equal(got, truth)


def test_a_connection_that_stays_away_is_one_sentence(stack: Stack, image: Any) -> None:
    stack.way.lose = lambda method, path: "half"
    with pytest.raises(RequestFailed, match="was cut off: see whether the stack is running"):
        regions.region(image, 0, 0, 10, 10)
    stack.way.lose = lambda method, path: ""
    stack.connect()._host = "127.0.0.1:9"
    with pytest.raises(CytomineUnreachable, match="cannot be reached"):
        regions.region(image, 0, 0, 10, 10)


def test_thumbs_and_previews_are_small(image: Any) -> None:
    for read in (images.thumb, images.preview):
        small = read(image, 128)
        assert small.shape == (75, 128, 3)
        assert small[:, 60].std() > 10


def test_a_plane_of_an_image_is_read_by_its_id(image: Any, truth: np.ndarray) -> None:
    (plane,) = images.slices(image)
    assert plane["id"] == images.reference(image)
    assert np.array_equal(regions.region(image, 0, 0, 50, 20, plane=plane["id"]), truth[:20, :50])
    stack, names = regions.channels(image, 3, 4, 20, 10)
    assert (stack.shape, len(names)) == ((1, 10, 20), 1)
    assert np.array_equal(stack[0], truth[4:14, 3:23].max(axis=2))
