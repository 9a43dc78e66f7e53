"""Slides that are files are read by the functions that read Cytomine's: every pixel is the file's."""

from __future__ import annotations

import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dask
import geopandas
import numpy as np
import pytest
import shapely
import tifffile

from cytomine_spawner.notebook import images, regions, slides, tiling, viewer
from cytomine_spawner.notebook.figures import figure
from tests.support import dicomslide

from .conftest import SLIDES

# Neither side is a multiple of a tile, nor of a power of two.
WIDTH, HEIGHT = 1333, 777


def picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Every pixel says where it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns % 256, rows % 256, (columns // 256) * 16 + rows // 256], axis=2).astype(np.uint8)


def write(path: Path, steps: tuple[int, ...] = (1, 4), **options: object) -> list[np.ndarray]:
    """A pyramid whose levels are no means of each other: who makes one up from another is found out."""
    whole = picture()
    levels = [whole if n == 1 else (whole[::n, ::n] ^ 0x55)[: HEIGHT // n, : WIDTH // n] for n in steps]
    settings = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate", **options}
    with tifffile.TiffWriter(path, bigtiff=True) as out:
        out.write(
            levels[0],
            subifds=len(levels) - 1,
            resolution=(40000, 40000),
            resolutionunit="CENTIMETER",
            **settings,
        )
        for level in levels[1:]:
            out.write(level, subfiletype=1, **settings)
    return levels


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A slide on the disk, and its levels."""
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    return path, write(path)


@pytest.fixture
def slide(known):
    with slides.open_slide(known[0]) as found:
        yield found


@pytest.fixture(scope="module")
def stored(local, known):
    """The slide in the archive."""
    local.put(SLIDES, "IMAGES/IMAGE_9/pyramid.tif", known[0].read_bytes())


@pytest.fixture
def remote(server, stored, tmp_path, token_file):
    options = {"endpoint": server.url, "token_file": token_file, "cache_folder": str(tmp_path / "cache")}
    with slides.open_slide(f"sda://{SLIDES}/IMAGES/IMAGE_9/pyramid.tif", **options) as found:
        yield found


def test_each_pixel_of_a_region_is_the_files(slide, known):
    _, (full, quarter) = known
    assert (slide.width, slide.height) == (WIDTH, HEIGHT)
    assert [(v.width, v.height) for v in regions.levels(slide)] == [
        (1333, 777),
        (667, 389),
        (334, 195),
        (167, 98),
    ]
    for place in ((0, 0, WIDTH, HEIGHT), (1273, 737, 60, 40), (250, 200, 300, 120), (0, 776, 1333, 1)):
        x, y, w, h = place
        assert np.array_equal(regions.region(slide, *place), full[y : y + h, x : x + w])
    got = regions.region(slide, 0, 0, 334, 195, level=2)
    # The scanner's level is rounded down: its last pixels come again.
    assert np.array_equal(got[:194, :333], quarter)
    assert np.array_equal(got[194, :333], quarter[-1])
    assert np.array_equal(regions.region(slide, 101, 55, 70, 90, level=2), got[55:145, 101:171])


def test_a_level_that_the_file_lacks_is_the_mean_of_the_next_finer(slide, known):
    full, quarter = (level.astype(float) for level in known[1])
    half = regions.region(slide, 0, 0, 666, 388, level=1)
    assert np.abs(half - full[:776, :1332].reshape(388, 2, 666, 2, 3).mean((1, 3))).max() <= 0.5
    # Where the pieces begin makes no difference.
    assert np.array_equal(regions.region(slide, 333, 111, 200, 99, level=1), half[111:210, 333:533])
    eighth = regions.region(slide, 0, 0, 166, 97, level=3)
    assert np.abs(eighth - quarter[:194, :332].reshape(97, 2, 166, 2, 3).mean((1, 3))).max() <= 0.5


def test_levels_of_odd_factors_are_put_where_they_belong(tmp_path):
    rows, columns = np.mgrid[0:900, 0:1200]
    whole = np.stack([columns / 1200 * 255, rows / 900 * 255, columns * 0], axis=2)
    third = whole.reshape(300, 3, 400, 3, 3).mean((1, 3))
    with tifffile.TiffWriter(tmp_path / "thirds.tif") as out:
        out.write(whole.astype(np.uint8), subifds=1, tile=(128, 128), photometric="rgb")
        out.write(third.astype(np.uint8), subfiletype=1, tile=(128, 128), photometric="rgb")
    with slides.open_slide(tmp_path / "thirds.tif") as found:
        assert found.source(1) == (0, 2.0, 2.0)
        assert found.source(2) == (1, 4 / 3, 4 / 3)
        got = regions.region(found, 0, 0, 300, 225, level=2)
    wanted = whole.reshape(225, 4, 300, 4, 3).mean((1, 3))
    assert np.abs(got - wanted).max() < 2


@pytest.mark.parametrize("size", [100, 300])
def test_tiles_and_lazy_arrays_are_the_files(slide, known, size):
    full = known[1][0]
    seen = np.zeros_like(full)
    for tile in tiling.tiles(slide, size, overlap=7, progress=False):
        h, w = tile.pixels.shape[:2]
        assert np.array_equal(tile.pixels, full[tile.y : tile.y + h, tile.x : tile.x + w])
        x, y, w, h = tile.core
        seen[y : y + h, x : x + w] += 1
    assert (seen == 1).all()
    array = tiling.lazy(slide, chunk=size)
    assert array.shape == full.shape
    assert np.array_equal(array[40:700, 1000:1333].compute(), full[40:700, 1000:])
    assert tiling.lazy(slide, level=2).shape == (195, 334, 3)


def test_many_threads_get_their_own_pixels(slide, known):
    full = known[1][0]
    array = tiling.lazy(slide, chunk=64)
    with dask.config.set(scheduler="threads", num_workers=8):
        assert np.array_equal(array.compute(), full)


def test_a_path_and_a_url_do_in_the_place_of_a_slide(known):
    path, (full, _) = known
    assert np.array_equal(regions.region(str(path), 5, 6, 7, 8), full[6:14, 5:12])
    assert np.array_equal(regions.region(f"file://{path}", 5, 6, 7, 8), full[6:14, 5:12])
    assert regions.level_for(path, 1.0).scale == 4


def test_thumbs_are_the_whole_slide(slide, known):
    assert images.thumb(slide, 300).shape == (175, 300, 3)
    assert images.preview(slide, 5000).shape == known[1][0].shape
    assert images.micron(slide) == 0.25


def test_the_viewer_shows_a_file_with_annotations(slide, known):
    data = geopandas.GeoDataFrame(
        {"image": [1], "term_name": [["tumour"]]}, geometry=[shapely.box(10, 10, 100, 80)]
    )
    shown = viewer.view(slide, data, origin="top-left")
    assert "slide.tif: 1333 x 777 px, 0.25" in shown.status.value
    assert len(shown.map.layers) == 3
    shown.map.zoom = shown.top
    shown._view = (100.0, 50.0, 200.0, 100.0)
    shown.refresh()
    level, place = shown._shown
    assert (level, place) == (0, (50, 25, 300, 150))
    assert np.array_equal(shown._read(level, place), known[1][0][25:175, 50:350])
    assert figure(slide, data, origin="top-left").get_title() == "slide.tif"


def test_out_of_the_archive_come_the_same_pixels(remote, known):
    full, quarter = known[1]
    assert np.array_equal(regions.region(remote, 640, 400, 300, 200), full[400:600, 640:940])
    assert np.array_equal(regions.region(remote, 0, 0, 333, 194, level=2), quarter)
    array = tiling.lazy(remote, chunk=256)
    assert np.array_equal(array.compute(num_workers=4), full)
    again = pickle.loads(pickle.dumps(remote))
    assert np.array_equal(regions.region(again, 0, 0, 9, 9), full[:9, :9])


def test_a_folder_with_one_file_is_that_file(v2, stored, token_file, known):
    options = {"endpoint": v2.url, "token_file": token_file, "cache_size": 0}
    with slides.open_slide(f"sda://{SLIDES}/IMAGES/IMAGE_9", **options) as found:
        assert found.name == "pyramid.tif"
        assert np.array_equal(regions.region(found, 3, 3, 9, 9), known[1][0][3:12, 3:12])


def test_grey_is_three_colours_and_a_fourth_is_left_out(tmp_path):
    grey = picture(300, 200)[:, :, 0]
    tifffile.imwrite(tmp_path / "grey.tif", grey, tile=(64, 64))
    assert np.array_equal(regions.region(tmp_path / "grey.tif", 0, 0, 300, 200), np.stack([grey] * 3, axis=2))


def test_what_is_no_slide_of_eight_bits_is_said_with_the_cure(tmp_path):
    deep = tmp_path / "deep.ome.tif"
    tifffile.imwrite(
        deep, np.zeros((5, 64, 64), np.uint16), tile=(32, 32), metadata={"axes": "CYX"}, ome=True
    )
    with pytest.raises(slides.NotASlide, match="read it by tifffile and zarr"):
        slides.open_slide(deep)
    text = tmp_path / "slide.svs"
    text.write_text("no slide")
    with pytest.raises(slides.NotASlide, match=r"slide\.svs cannot be read as a slide"):
        slides.open_slide(text)
    with pytest.raises(FileNotFoundError):
        slides.open_slide(tmp_path / "missing.tif")
    with pytest.raises(slides.NotASlide, match="folder of 2 files and no DICOM"):
        slides.open_slide(tmp_path)
    with pytest.raises(ValueError, match="Nothing here reads gopher://"):
        slides.open_slide("gopher://host/slide.tif")
    with pytest.raises(ValueError, match="names no place"):
        slides.open_slide("s3://")


def test_a_slide_of_dicom_is_read_as_it_is(local, v2, tmp_path, token_file):
    full = picture(1100, 700)
    quarter = full[::4, ::4] ^ 0x55
    dicomslide.write_pyramid(tmp_path / "IMAGE_8", {1: full, 4: quarter})
    for path in (tmp_path / "IMAGE_8").iterdir():
        local.put(SLIDES, f"IMAGES/IMAGE_8/{path.name}", path.read_bytes())
    options = {"endpoint": v2.url, "token_file": token_file, "cache_size": 0}
    for found in (
        slides.open_slide(tmp_path / "IMAGE_8"),
        slides.open_slide(f"sda://{SLIDES}/IMAGES/IMAGE_8", **options),
    ):
        with found:
            assert (found.name, found.micron, found.stored) == ("IMAGE_8", 0.25, [(1100, 700), (275, 175)])
            assert np.array_equal(regions.region(found, 0, 0, 1100, 700), full)
            assert np.array_equal(regions.region(found, 11, 7, 100, 60, level=2), quarter[7:67, 11:111])
            assert np.array_equal(tiling.lazy(found, chunk=77).compute(num_workers=8), full)
    (tmp_path / "IMAGE_8" / "level-1.dcm").write_bytes(b"nothing")
    with pytest.raises(slides.NotASlide, match="is no DICOM slide"):
        slides.open_slide(tmp_path / "IMAGE_8" / "level-1.dcm")


class _Ranges(SimpleHTTPRequestHandler):
    """A server of files that knows ranges, and notes what it sent."""

    sent = 0
    knows = True

    def do_GET(self):
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range") if self.knows else None
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        if self.knows:
            self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        type(self).sent += len(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A folder at a web address."""
    handler = type("Handler", (_Ranges,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}", handler
        finally:
            made.shutdown()
            thread.join()


def test_at_a_web_address_only_what_is_looked_at_is_fetched(web, tmp_path):
    address, handler = web
    whole = np.random.default_rng(3).integers(0, 256, (4096, 4096, 3), np.uint8)
    tifffile.imwrite(tmp_path / "noise.tif", whole, tile=(256, 256), photometric="rgb")
    with slides.open_slide(f"{address}/noise.tif") as found:
        assert np.array_equal(regions.region(found, 1000, 2000, 300, 200), whole[2000:2200, 1000:1300])
    assert handler.sent < 3_000_000 < whole.nbytes / 10
    handler.knows = False
    with pytest.raises(OSError, match=r"cannot be read by ranges: .* Copy it"):
        slides.open_slide(f"{address}/noise.tif")


def test_a_plane_of_a_file_is_refused(slide):
    with pytest.raises(ValueError, match="plane must be left out"):
        regions.region(slide, 0, 0, 1, 1, plane=3)
