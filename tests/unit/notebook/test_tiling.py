"""A whole slide comes by tiles or lazily: every pixel once, in few requests, and never much of it at a time."""

from __future__ import annotations

import time
from typing import Any

import cytomine
import numpy as np
import pytest

from cytomine_spawner.notebook import regions, tiling
from cytomine_spawner.notebook.transport import guard

from .conftest import HEIGHT, WIDTH, Stack, picture


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return picture()


@pytest.mark.parametrize("size", [77, 400, 2000])
def test_tiles_cover_every_pixel_once_and_reach_into_their_neighbours(
    image: Any, truth: np.ndarray, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "PIECE", 500)
    monkeypatch.setattr(regions, "PIECE", 500)
    seen, places = np.zeros((HEIGHT, WIDTH), int), []
    for tile in tiling.tiles(image, size, overlap=30, progress=False):
        h, w = tile.pixels.shape[:2]
        assert np.array_equal(tile.pixels, truth[tile.y : tile.y + h, tile.x : tile.x + w])
        x, y, cw, ch = tile.core
        places.append((y, x))
        seen[y : y + ch, x : x + cw] += 1
        assert (tile.x, tile.y) == (max(0, x - 30), max(0, y - 30))
        assert (tile.x + w, tile.y + h) == (min(WIDTH, x + cw + 30), min(HEIGHT, y + ch + 30))
    assert (seen == 1).all()
    assert places == sorted(places)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.float64])
def test_a_part_may_be_of_numpys_numbers(image: Any, truth: np.ndarray, kind: type) -> None:
    area = np.array([1000, 500, 300, 120], kind)
    found = list(tiling.tiles(image, kind(200), overlap=kind(8), level=kind(0), area=area, progress=False))
    assert [t.core for t in found] == [(1000, 500, 200, 120), (1200, 500, 100, 120)]
    for tile in found:
        h, w = tile.pixels.shape[:2]
        assert np.array_equal(tile.pixels, truth[tile.y : tile.y + h, tile.x : tile.x + w])
    part = tiling.lazy(image, level=kind(0), chunk=kind(256))[500:620, 1000:1300].compute()
    assert np.array_equal(part, truth[500:620, 1000:1300])
    with pytest.raises(ValueError, match=r"x must be a whole number, not 0\.5"):
        tiling.tiles(image, area=(0.5, 0, 10, 10))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk must be at least 1 px, not 0"):
        tiling.lazy(image, chunk=0)


def test_tiles_of_a_part_and_of_a_smaller_level_are_those_of_the_region(slide: Any) -> None:
    at = regions.levels(slide)[1]
    whole = regions.region(slide, 0, 0, at.width, at.height, level=1)
    area = (40, 30, 500, 300)
    seen = np.zeros_like(whole)
    for tile in tiling.tiles(slide, 64, overlap=9, level=1, area=area, progress=False):
        x, y, w, h = tile.core
        assert np.array_equal(
            tile.pixels, whole[tile.y :, tile.x :][: tile.pixels.shape[0], : tile.pixels.shape[1]]
        )
        seen[y : y + h, x : x + w] = tile.pixels[y - tile.y :, x - tile.x :][:h, :w]
    assert np.array_equal(seen[30:330, 40:540], whole[30:330, 40:540])
    assert not seen[:30].any()
    assert not seen[330:].any()


def test_small_tiles_of_a_row_come_by_one_request(stack: Stack, image: Any) -> None:
    stack.way.count.clear()
    found = list(tiling.tiles(image, 100, overlap=10, progress=False))
    assert len(found) == 14 * 8
    assert stack.way.count["GET"] == 8


def test_who_keeps_a_tile_keeps_nothing_else_and_may_write_into_it(image: Any) -> None:
    for tile in tiling.tiles(image, 500, area=(0, 0, 1200, 300), progress=False):
        assert tile.pixels.base is None
        assert tile.pixels.flags.c_contiguous
        tile.pixels[:] = 0


@pytest.mark.parametrize("size", [100, 300, 700])
def test_tiles_read_ahead_no_more_bytes_than_they_may(
    image: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(tiling, "PIECE", 200)
    most = 300_000
    monkeypatch.setattr(tiling, "AHEAD", most)
    started = []
    whole = regions.Reader.region

    def counted(reader: Any, x: int, y: int, w: int, h: int, *rest: Any) -> Any:
        started.append(3 * w * h)
        return whole(reader, x, y, w, h, *rest)

    monkeypatch.setattr(regions.Reader, "region", counted)
    given = 0
    for tile in tiling.tiles(image, size, workers=8, progress=False):
        # What the caller has got, and of a strip the tiles before, is not held any more.
        assert sum(started) - given <= max(most, 3 * size * size)
        given += tile.pixels.nbytes
    assert sum(started) == given == 3 * WIDTH * HEIGHT


def test_the_next_tiles_come_while_the_caller_works_on_one(stack: Stack, image: Any) -> None:
    stack.way.count.clear()
    walk = tiling.tiles(image, 100, progress=False)
    next(walk)
    end = time.monotonic() + 30
    while stack.way.count["GET"] < 4:
        assert time.monotonic() < end
        time.sleep(0.01)
    walk.close()


def test_a_walk_that_is_left_reads_no_further(stack: Stack, image: Any) -> None:
    stack.way.count.clear()
    walk = tiling.tiles(image, 20, workers=3, progress=False)
    next(walk)
    walk.close()
    assert stack.way.count["GET"] <= 5


def test_a_lazy_slide_reads_only_what_is_computed(stack: Stack, image: Any, truth: np.ndarray) -> None:
    array = tiling.lazy(image, chunk=256)
    assert array.shape == (HEIGHT, WIDTH, 3)
    stack.way.count.clear()
    assert np.array_equal(array[500:, 1000:1100].compute(), truth[500:, 1000:1100])
    assert stack.way.count["GET"] <= 6
    assert np.array_equal(array.mean(axis=2).max().compute(), truth.mean(axis=2).max())
    small = tiling.lazy(image, level=1).compute()
    assert small.shape == (389, 667, 3)


def test_a_lazy_slide_stays_with_the_stack_that_it_came_from(stack: Stack, image: Any) -> None:
    array = tiling.lazy(image)
    guard(cytomine.Cytomine.connect(stack.way.url, "no", "keys"))
    assert array[:9, :9].compute().shape == (9, 9, 3)
