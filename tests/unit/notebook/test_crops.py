"""What is cut out below an annotation is what `region` reads at that place, to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from cytomine import models
from PIL import Image

from cytomine_spawner.notebook import crop, masks, regions
from cytomine_spawner.notebook.annotations import frame, to_cytomine
from cytomine_spawner.notebook.transport import RequestFailed
from cytomine_spawner.notebook.uploads import upload

from .conftest import HEIGHT, WIDTH, Stack, picture


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return picture()


def drawn(image: Any, shape: Any) -> int:
    (number,) = upload(frame([{"geometry": shape}]), image, existing="add", progress=False)
    return number


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 60, 40),
        (WIDTH - 60, 0, WIDTH, 40),
        (0, HEIGHT - 40, 60, HEIGHT),
        (WIDTH - 60, HEIGHT - 40, WIDTH, HEIGHT),
        (201, 303, 333, 444),
        (500, 100, 501, 101),
    ],
)
def test_a_crop_is_exactly_the_region_below_it(
    stack: Stack, image: Any, truth: np.ndarray, box: tuple[int, ...]
) -> None:
    number = drawn(image, shapely.box(*box))
    x, y, right, bottom = box
    stack.way.count.clear()
    got = crop(number)
    # By the client's own way: the address that Cytomine gives may not be reachable from the notebook.
    assert stack.way.count["GET"] == 3
    assert np.array_equal(got, truth[y:bottom, x:right])
    assert np.array_equal(got, regions.region(image, x, y, right - x, bottom - y))


def test_a_crop_has_the_whole_pixels_that_an_outline_touches(image: Any, truth: np.ndarray) -> None:
    number = drawn(image, shapely.Polygon([(20.4, 30.2), (80.01, 50), (40, 99.99)]))
    assert np.array_equal(crop(models.Annotation(id=number)), truth[30:100, 20:81])


def test_a_crop_of_a_scanners_jpeg_is_as_exact(slide: Any) -> None:
    number = drawn(slide, shapely.box(301, 207, 460, 300))
    assert np.array_equal(crop(number), regions.region(slide, 301, 207, 159, 93, format="png"))


@pytest.mark.parametrize("most", [640, 300, 299, 128, 100, 37, 3])
def test_a_small_crop_shows_the_same_place_in_the_size_that_cytomine_gives(
    slide: Any, tmp_path: Path, most: int
) -> None:
    number = drawn(slide, shapely.box(333, 205, 333 + 641, 205 + 257))
    one = models.Annotation().fetch(number)
    assert one.dump(str(tmp_path / "crop.png"), max_size=most, override=True) is True
    with Image.open(tmp_path / "crop.png") as theirs:
        size = theirs.size
    got = crop(number, most)
    assert got.shape == (size[1], size[0], 3)
    assert max(size) == most
    whole = Image.fromarray(crop(number))
    small = np.asarray(whole.resize(size, Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(got - small).mean() < 2


def test_a_small_crop_reads_no_more_than_it_needs(stack: Stack, slide: Any) -> None:
    number = drawn(slide, shapely.box(256, 256, 256 + 512, 256 + 512))
    asked: list[str] = []
    stack.way.lose = lambda method, path: asked.append(path) or ""  # type: ignore[func-returns-value]
    crop(number, 128)
    (tile,) = [p for p in asked if "/normalized-tile/" in p]
    assert "/zoom/1/tx/0/ty/0." in tile
    assert not [p for p in asked if "/window-" in p]


def test_a_crop_is_never_enlarged(image: Any) -> None:
    number = drawn(image, shapely.box(10, 10, 40, 30))
    assert np.array_equal(crop(number, 5000), crop(number))
    assert crop(number, 5000, mask=True).shape == (20, 30)


def test_a_mask_is_white_inside_and_black_in_holes(stack: Stack, image: Any) -> None:
    shape = shapely.Point(300, 200).buffer(60).difference(shapely.box(280, 190, 300, 210))
    number = drawn(image, shape)
    (left, top, right, bottom) = (int(v) for v in shape.bounds)
    stack.way.count.clear()
    mask = crop(number, mask=True)
    assert stack.way.count["GET"] == 2
    assert (mask.dtype, set(np.unique(mask))) == (np.dtype(np.uint8), {0, 255})
    wanted = masks.rasterize(shape, right - left, bottom - top, x=left, y=top)
    # Outlines are stored with three digits.
    assert (mask.astype(bool) != wanted).sum() < 5
    assert set(mask[190 - top : 210 - top, 280 - left : 300 - left].ravel()) == {0}
    small = crop(number, 40, mask=True)
    assert small.shape == crop(number, 40).shape[:2]
    assert small.mean() == pytest.approx(mask.mean(), abs=4)


def test_a_reach_over_the_border_is_cut_there(
    stack: Stack, image: Any, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = regions.get_json

    def given(shape: Any) -> Any:
        location = to_cytomine(shape, HEIGHT).wkt
        (plane,) = regions.slices(image)
        entry = {"image": image.id, "slice": plane["id"], "location": location}
        monkeypatch.setattr(
            regions, "get_json", lambda uri, *a, **k: entry if "annotation" in uri else ask(uri)
        )
        return crop(7)

    assert np.array_equal(given(shapely.box(-20, -20.5, 30, 10)), truth[:10, :30])
    assert np.array_equal(given(shapely.box(1320, 770, 1400, 790)), truth[770:, 1320:])
    # What was computed to be at an edge may be off by a hair.
    assert given(shapely.box(5, 5.0000000001, 9.0000000001, 9)).shape == (4, 4, 3)
    with pytest.raises(
        ValueError, match="Annotation 7 is outside its image, which has 1333 x 777 px: move it"
    ):
        given(shapely.box(10, 777, 20, 790))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(shapely.Point(9, 9), "point"), (shapely.LineString([(9, 9), (50, 60)]), "line")],
)
def test_what_has_no_area_is_named(image: Any, shape: Any, kind: str) -> None:
    number = drawn(image, shape)
    for mask in (False, True):
        with pytest.raises(ValueError, match=f"Annotation {number} is a {kind}, which has no area"):
            crop(number, mask=mask)


def test_an_annotation_that_is_not_there_says_so(stack: Stack) -> None:
    with pytest.raises(RequestFailed, match="404"):
        crop(99999999)
