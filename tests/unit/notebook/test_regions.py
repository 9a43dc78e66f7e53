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


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int32, np.float64, float])
def test_a_place_may_be_of_numpys_numbers(image: Any, slide: Any, truth: np.ndarray, kind: type) -> None:
    x, y, w, h = (kind(n) for n in (1000, 500, 300, 120))
    assert np.array_equal(regions.region(image, x, y, w, h), truth[500:620, 1000:1300])
    # Small ones would overflow: 200 + 100 is 44 in eight bits.
    small = [np.uint8(n) for n in (200, 200, 100, 100)]
    assert np.array_equal(regions.region(image, *small), truth[200:300, 200:300])
    level = regions.region(slide, *(kind(n) for n in (10, 20, 30, 40)), level=kind(1))
    assert np.array_equal(level, regions.region(slide, 10, 20, 30, 40, level=1))


def test_a_place_within_a_pixel_is_refused_with_the_cure(image: Any) -> None:
    for place in ((10.5, 0, 10, 10), (0, 0, 10, float("nan")), (0, "0", 10, 10)):
        with pytest.raises(ValueError, match=r"must be a whole number, not .* round left and top down"):
            regions.region(image, *place)  # type: ignore[arg-type]


def test_a_region_larger_than_one_request_is_put_together(
    image: Any, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "PIECE", 200)
    got = regions.region(image, 13, 17, 901, 603, progress=True)
    assert np.array_equal(got, truth[17:620, 13:914])


def test_a_bar_counts_a_single_request_too(image: Any, capsys: pytest.CaptureFixture[str]) -> None:
    regions.region(image, 0, 0, 10, 10, progress=True)
    assert "1/1" in capsys.readouterr().err


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


def wide_and_tall(reader: regions.Reader, w: int, h: int) -> list[tuple[int, int]]:
    return [(pw, ph) for _, _, pw, ph in reader.requests(0, 0, w, h, 0)]


def test_a_region_takes_few_requests_whatever_its_shape(image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "PIECE", 200)
    monkeypatch.setattr(regions, "SIDE_LIMIT", 600)
    reader = regions.Reader(image)
    assert wide_and_tall(reader, 400, 100) == [(400, 100)]
    assert wide_and_tall(reader, 100, 400) == [(100, 400)]
    assert wide_and_tall(reader, 400, 400) == [(200, 200)] * 4
    assert wide_and_tall(reader, 1300, 10) == [(600, 10), (600, 10), (100, 10)]


def test_an_image_that_is_kept_exactly_comes_exactly_and_a_scanners_jpeg_as_jpeg(
    stack: Stack, image: Any, slide: Any
) -> None:
    asked: list[str] = []
    stack.way.lose = lambda method, path: asked.append(path) or ""  # type: ignore[func-returns-value]

    def kinds(one: Any, **how: Any) -> set[str]:
        asked.clear()
        regions.region(one, 0, 0, 300, 30, **how)
        return {p.rpartition(".")[2] for p in asked if "/window-" in p or "/normalized-tile/" in p}

    assert kinds(image) == {"png"}
    assert kinds(image, format="jpg") == {"jpg"}
    assert kinds(slide) == kinds(slide, level=1) == {"jpg"}
    # How the file is compressed is asked once.
    assert not [p for p in asked if "metadata" in p]
    assert kinds(slide, format="png") == {"png"}
    with pytest.raises(ValueError, match="format must be png or jpg"):
        regions.region(image, 0, 0, 9, 9, format="webp")


@pytest.mark.parametrize(
    ("said", "lossy"),
    [
        ({"contentType": "WSIDICOM"}, True),
        ({"contentType": "JPEG"}, True),
        ({"contentType": "PNG"}, False),
        # Grey values, and channels that were measured, are kept.
        ({"contentType": "WSIDICOM", "samplePerPixel": 1}, False),
        ({"contentType": "WSIDICOM", "bitPerSample": 16}, False),
        ({"contentType": "OMETIFF", "channels": 4}, False),
        ({"contentType": None}, False),
    ],
)
def test_only_colours_that_have_suffered_already_are_taken_for_lossy(
    image: Any, said: dict[str, Any], lossy: bool
) -> None:
    one = cytomine.models.ImageInstance().populate({**vars(image), **said})
    assert images.lossy(one) is lossy


def test_a_slide_whose_compression_is_not_told_comes_exactly(stack: Stack, slide: Any) -> None:
    stack.way.lose = lambda method, path: "request" if "metadata" in path else ""
    guard(cytomine.Cytomine.get_instance(), retries=0)
    assert not images.lossy(slide)
    assert regions.Reader(slide).format == "png"


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
