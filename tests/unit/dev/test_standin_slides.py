"""The stand-in's image server shows the right pixels of slides of every kind, and takes no more memory than it needs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from dev import dataset
from dev.cache import ROOT
from dev.console import Console
from dev.standin import archive, slide
from dev.standin.pyramid import levels
from dev.standin.readers import Unreadable

# Not square, so that a swap of axes shows; colours of the corners, clockwise from the top left.
WIDTH, HEIGHT = 700, 400
CORNERS = {(0, 0): (255, 0, 0), (690, 0): (0, 255, 0), (690, 390): (0, 0, 255), (0, 390): (255, 255, 0)}


@pytest.fixture(scope="module")
def mock() -> Path:
    """The images of the mock dataset."""
    return dataset.build(Console()) / dataset.SKIN / "DATASET_mock-skin" / "IMAGES"


@pytest.fixture(scope="module")
def corners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = Image.new("RGB", (WIDTH, HEIGHT), (128, 128, 128))
    for place, colour in CORNERS.items():
        image.paste(colour, (*place, place[0] + 10, place[1] + 10))
    path = tmp_path_factory.mktemp("corners") / "corners.png"
    image.save(path)
    return path


def _near(pixel: object, colour: tuple[int, ...], most: int = 40) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= most for a, b in zip(pixel, colour, strict=False))


def test_windows_count_from_the_top_left_at_all_four_corners(corners: Path) -> None:
    for (x, y), colour in CORNERS.items():
        part = slide.window(corners, [x, y, 10, 10])
        assert part.getextrema() == tuple((c, c) for c in colour)


@pytest.mark.parametrize(
    "box", [[-1, 0, 5, 5], [0, 0, 0, 5], [690, 0, 11, 5], [0, 395, 5, 6], [5000, 5000, 1, 1]]
)
def test_a_window_that_is_not_inside_is_refused(corners: Path, box: list[int]) -> None:
    with pytest.raises(Unreadable):
        slide.window(corners, box)


def test_tiles_of_the_highest_zoom_put_side_by_side_are_the_slide(corners: Path) -> None:
    # 700 x 400 fits one tile of 256 at a quarter of the size: zoom 2 is full size.
    whole = Image.new("RGB", (WIDTH, HEIGHT))
    for ty in range(2):
        for tx in range(3):
            part = slide.tile(corners, 2, tx, ty)
            assert part.size == (min(256, WIDTH - 256 * tx), min(256, HEIGHT - 256 * ty))
            whole.paste(part, (256 * tx, 256 * ty))
    assert whole.tobytes() == Image.open(corners).tobytes()
    assert slide.tile(corners, 0, 0, 0).size == (175, 100)
    for zoom, tx, ty in ((3, 0, 0), (2, 3, 0), (2, 0, 2)):
        with pytest.raises(Unreadable):
            slide.tile(corners, zoom, tx, ty)


def test_a_crop_of_an_annotation_has_the_pixels_one_row_above_it_or_those_at_the_top(corners: Path) -> None:
    for (x, y), colour in CORNERS.items():
        ring = [[x, y], [x + 10, y], [x + 10, y + 10], [x, y + 10], [x, y]]
        options = {"shape": {"type": "Polygon", "coordinates": [ring]}, "mode": "crop"}
        part = slide.annotation(corners, options)
        assert part.mode == "RGBA"
        assert part.size == (10, 10)
        above, rest = part.convert("RGB").crop((0, 0, 10, 1)), part.convert("RGB").crop((0, 1, 10, 10))
        assert above.getextrema() == tuple((c, c) for c in ((128, 128, 128) if y else colour))
        assert rest.getextrema() == tuple((c, c) for c in colour)


def test_a_mask_is_white_inside_and_black_in_holes_and_outside(corners: Path) -> None:
    outer = [[100, 100], [200, 100], [200, 200], [100, 100]]
    hole = [[160, 110], [190, 110], [190, 140], [160, 110]]
    shape = {"type": "Polygon", "coordinates": [outer, hole]}
    mask = slide.annotation(corners, {"shape": shape, "mode": "mask"})
    assert mask.mode == "L"
    assert mask.size == (100, 100)
    # From the top left: inside the triangle, in its hole, outside.
    assert [mask.getpixel(p) for p in ((90, 60), (80, 15), (10, 60))] == [255, 0, 0]
    alpha = slide.annotation(corners, {"shape": shape, "mode": "alphamask"})
    assert alpha.mode == "RGBA"
    assert alpha.getchannel("A").tobytes() == mask.tobytes()


def test_a_thumb_keeps_the_slide_s_shape(corners: Path) -> None:
    assert slide.thumb(corners, 70).size == (70, 40)
    assert slide.thumb(corners, 5000).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("name", "kind", "size", "microns", "power"),
    [
        ("IMAGE_2/skin.svs", "SVS", (2220, 2967), 0.499, 20),
        ("IMAGE_1/skin-0.dcm", "WSIDICOM", (2220, 2967), 0.499, None),
        ("IMAGE_3/skin-large.tif", "PYRTIFF", (17760, 17802), 0.499, None),
        ("IMAGE_4/cells.ome.tif", "OMETIFF", (2048, 1536), 0.325, None),
    ],
)
def test_a_slide_s_header_says_what_it_is(
    mock: Path, name: str, kind: str, size: tuple[int, int], microns: float, power: int | None
) -> None:
    found = slide.info(mock / name)
    assert (found.format, (found.width, found.height), found.magnification) == (kind, size, power)
    assert found.physical_x == pytest.approx(microns)
    assert found.physical_y == pytest.approx(microns)


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("IMAGE_2/skin.svs", "JPEG"),
        ("IMAGE_3/skin-large.tif", "JPEG"),
        ("IMAGE_4/cells.ome.tif", "ADOBE_DEFLATE"),
    ],
)
def test_a_tiff_s_compression_is_named_as_upstream_names_it(mock: Path, name: str, compression: str) -> None:
    found = {tag["key"]: (tag["type"], tag["value"]) for tag in slide.metadata(mock / name)}
    assert found["Compression"] == ("STRING", compression)


def test_aperio_and_dicom_show_the_same_pixels(mock: Path) -> None:
    for box in ([0, 0, 300, 200], [2020, 2867, 200, 100], [1200, 900, 512, 512]):
        parts = [slide.window(mock / name, box) for name in ("IMAGE_2/skin.svs", "IMAGE_1/skin-0.dcm")]
        assert ImageChops.difference(*parts).getbbox() is None


def test_the_large_slide_is_the_small_one_mirrored(mock: Path) -> None:
    small, large = mock / "IMAGE_2/skin.svs", mock / "IMAGE_3/skin-large.tif"
    own = slide.window(small, [1000, 900, 200, 100])
    right = slide.window(large, [2 * 2220 - 1200, 900, 200, 100]).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    below = slide.window(large, [1000, 2 * 2967 - 1000, 200, 100]).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    for part in (right, below):
        # JPEG blurs colours; the mean difference of other tissue is over 30.
        grey = ImageChops.difference(own, part).convert("L")
        assert sum(n * v for v, n in enumerate(grey.histogram())) / (200 * 100) < 8


def test_tiles_of_every_zoom_show_the_same_place(mock: Path) -> None:
    large = mock / "IMAGE_3/skin-large.tif"
    overview = slide.thumb(large, 1113)
    scale = 17802 / 1113
    for zoom in range(4, 8):
        side = 256 * 2 ** (7 - zoom)
        # The tile over the middle of the first copy's tissue.
        tx, ty = 1200 // side, 1800 // side
        part = slide.tile(large, zoom, tx, ty).resize((16, 16), Image.Resampling.BOX)
        x, y = tx * side / scale, ty * side / scale
        area = (round(x), round(y), round(x + side / scale), round(y + side / scale))
        same = overview.crop(area).resize((16, 16), Image.Resampling.BOX)
        grey = ImageChops.difference(part, same).convert("L")
        assert sum(n * v for v, n in enumerate(grey.histogram())) / 256 < 12, zoom


@pytest.mark.parametrize(
    "name", ["IMAGE_1/skin-0.dcm", "IMAGE_2/skin.svs", "IMAGE_3/skin-large.tif", "IMAGE_4/cells.ome.tif"]
)
def test_every_tile_of_every_zoom_can_be_read(mock: Path, name: str) -> None:
    path = mock / name
    found = slide.info(path)
    # Of the large slide the lower zooms, which are made of all its levels but the two largest.
    for zoom in range(min(5, levels(found.width, found.height)) + 1):
        factor = 2 ** (levels(found.width, found.height) - zoom)
        across, down = -(-found.width // factor), -(-found.height // factor)
        for tx in range(-(-across // 256)):
            for ty in range(-(-down // 256)):
                size = (min(256, across - 256 * tx), min(256, down - 256 * ty))
                assert slide.tile(path, zoom, tx, ty, 0).size == size


def test_a_broken_slide_does_not_stay_broken(mock: Path, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    whole = (mock / "IMAGE_2/skin.svs").read_bytes()
    path.write_bytes(whole)
    stamp = path.stat()
    with path.open("r+b") as out:
        # Tiles of the middle are gone.
        out.seek(600_000)
        out.write(bytes(400_000))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(Unreadable):
        slide.window(path, [0, 0, 2220, 2967])
    path.write_bytes(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert slide.window(path, [0, 0, 2220, 2967]).size == (2220, 2967)


def test_each_channel_is_a_slice_and_all_together_are_a_colour_picture(mock: Path) -> None:
    path = mock / "IMAGE_4/cells.ome.tif"
    assert slide.info(path).planes == ("DAPI", "Cytoplasm", "Marker")
    truth = json.loads((mock.parent / "ANNOTATIONS" / "cells-nuclei.geojson").read_text())["features"]
    ring = next(f for f in truth if not f["properties"]["marker"])["geometry"]["coordinates"][0]
    x, y = (round(sum(p[n] for p in ring) / len(ring)) for n in (0, 1))
    values = [slide.window(path, [x, y, 1, 1], channel).getpixel((0, 0)) for channel in range(3)]
    # A cell without the marker: bright nucleus, some cytoplasm, nothing else.
    assert values[0][0] > 80 > values[2][0]
    assert values[0][0] > values[1][0] > values[2][0]
    assert slide.window(path, [x, y, 1, 1]).getpixel((0, 0)) == tuple(v[0] for v in values)
    with pytest.raises(Unreadable):
        slide.tile(path, 0, 0, 0, 3)


def test_a_zipped_folder_of_dicom_files_opens_and_strange_names_stay_inside(
    mock: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "upload" / "skin.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as content:
        for path in sorted((mock / "IMAGE_1").iterdir()):
            content.write(path, f"../../skin/{path.name}")
    with packed.open("ab") as out:
        out.write(b"\r\n--boundary--\r\n")
    inside = archive.unpack(packed)
    assert inside.is_relative_to(packed.parent)
    assert slide.info(inside).format == "WSIDICOM"
    assert [p.name for p in tmp_path.iterdir()] == ["upload"]
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK no")
    with pytest.raises(Unreadable):
        archive.unpack(broken)


def test_the_answer_s_format_is_the_one_asked_for(corners: Path) -> None:
    image = slide.thumb(corners, 64)
    for accept, kind in {
        "image/png": "PNG",
        "image/webp": "WEBP",
        "image/jpeg": "JPEG",
        "image/tiff": "JPEG",
    }.items():
        content, _ = slide.encode(image, accept)
        assert Image.open(io.BytesIO(content)).format == kind


def test_reading_a_large_slide_takes_bounded_memory(mock: Path) -> None:
    program = """
import random, resource, sys
from pathlib import Path
from dev.standin import slide
path, random = Path(sys.argv[1]), random.Random(1)
slide.thumb(path, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slide.thumb(path, 1024)
for _ in range(300):
    slide.tile(path, 7, random.randrange(69), random.randrange(69))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", program, str(mock / "IMAGE_3/skin-large.tif")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    # The whole slide would be 950 MB.
    assert int(done.stdout) < 200_000
