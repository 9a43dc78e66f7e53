"""The viewer and the figures show the right place, the right annotations and the right scale."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import shapely
from PIL import Image

from cytomine_spawner.notebook import figures, viewer
from cytomine_spawner.notebook.annotations import frame
from cytomine_spawner.notebook.figures import bar_length, figure
from cytomine_spawner.notebook.viewer import Viewer

from .conftest import HEIGHT, WIDTH, Stack, picture

mpl.use("agg")

SHAPES = [
    {"id": 1, "term_name": ["tumour"], "user_name": "alice", "geometry": shapely.box(100, 50, 300, 150)},
    {"id": 2, "term_name": ["stroma"], "user_name": "bob", "geometry": shapely.Point(1200, 700)},
    {"id": 3, "term_name": [], "user_name": "bob", "geometry": shapely.LineString([(10, 10), (90, 40)])},
    {
        "id": 4,
        "term_name": ["tumour"],
        "user_name": "bob",
        "geometry": shapely.box(600, 300, 800, 500).difference(shapely.box(650, 350, 700, 400)),
    },
]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def decoded(url: str) -> np.ndarray:
    head, _, body = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).astype(int)


def move(shown: Viewer, x: float, y: float, w: float, h: float, zoom: float) -> None:
    """What the browser does after a movement: a rectangle in px, origin top left."""
    shown.map.zoom = zoom
    shown.map.set_trait("bounds", shown._bounds(x, y, w, h))


def test_the_viewer_asks_nothing_from_outside(image: Any) -> None:
    shown = Viewer(image)
    assert [type(v).__name__ for v in shown.map.layers] == ["ImageOverlay", "ImageOverlay"]
    assert all(v.url.startswith("data:image/jpeg") for v in shown.map.layers)
    assert "corners.png: 1333 x 777 px" in shown.status.value


@pytest.mark.parametrize(("x", "y"), [(0, 0), (WIDTH - 120, 0), (0, HEIGHT - 80), (WIDTH - 120, HEIGHT - 80)])
def test_the_viewer_shows_the_place_that_is_looked_at(image: Any, x: int, y: int) -> None:
    shown = Viewer(image)
    move(shown, x, y, 120, 80, zoom=3)
    level, (px, py, w, h) = shown._shown or (None, (0, 0, 0, 0))
    assert level == 0
    assert (px, py) == (max(0, x - 30), max(0, y - 20))
    pixels = decoded(shown._detail.url)
    truth = picture()[py : py + h, px : px + w].astype(int)
    # JPEG blurs where the colours start again from zero.
    assert np.abs(pixels - truth).mean() < 6
    (south, west), (north, east) = shown._detail.bounds
    assert (west * shown.unit, (HEIGHT - north * shown.unit)) == pytest.approx((px, py))
    assert ((east - west) * shown.unit, (north - south) * shown.unit) == pytest.approx((w, h))


def test_the_viewer_takes_the_level_that_the_zoom_needs_and_reads_it_once(stack: Stack, image: Any) -> None:
    shown = Viewer(image)
    for zoom, level in ((0, 3), (1, 2), (2, 1), (3, 0), (5, 0)):
        move(shown, 200, 200, 900 / 2**zoom, 500 / 2**zoom, zoom)
        assert shown._shown is not None
        assert shown._shown[0] == level
    stack.way.count.clear()
    shown.refresh()
    assert stack.way.count["GET"] == 0
    move(shown, 5000, 5000, 10, 10, 3)
    assert stack.way.count["GET"] == 0


async def test_many_movements_in_a_row_are_read_once(
    stack: Stack, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Viewer(image)
    reads = []
    whole = shown._read
    monkeypatch.setattr(shown, "_read", lambda *a: reads.append(a) or whole(*a))
    for x in range(0, 500, 50):
        move(shown, x, 100, 200, 100, 3)
        await asyncio.sleep(0)
    assert shown._task is not None
    await shown._task
    assert len(reads) == 1
    assert shown._shown == reads[0]


def test_the_viewer_says_what_failed_and_goes_on(stack: Stack, image: Any) -> None:
    shown = Viewer(image)

    async def look() -> None:
        move(shown, 0, 0, 200, 100, 3)
        await shown._task  # type: ignore[misc]

    stack.way.lose = lambda method, path: "request"
    asyncio.run(look())
    assert "see whether the stack is running" in shown.status.value
    stack.way.lose = lambda method, path: ""
    shown.refresh()
    assert shown._shown is not None


def test_annotations_lie_where_cytomine_has_them_in_layers_by_term(image: Any) -> None:
    shown = Viewer(image, frame(SHAPES))
    named = {v.name: v for v in shown.map.layers if "(" in v.name}
    assert set(named) == {"tumour (2)", "stroma (1)", "no term (1)"}
    (point,) = named["stroma (1)"].data["features"]
    assert np.array(point["geometry"]["coordinates"]) * shown.unit == pytest.approx((1200, HEIGHT - 700))
    assert named["tumour (2)"].style["color"] == "#ff0000"
    shown._clicked(feature=named["tumour (2)"].data["features"][0])
    assert shown.selected == 1
    assert shown.status.value == "annotation 1 · tumour · alice · 20000 px²"
    # Out of view, out of the page.
    move(shown, 1100, 650, 200, 100, 3)
    assert {v.name for v in shown.map.layers if "(" in v.name} == {"stroma (1)"}


def test_what_others_named_is_no_html_in_the_page(image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "<img src=x onerror=alert(1)>"
    data = frame(SHAPES)
    data["term_name"], data["user_name"] = [[evil]] * len(data), evil
    shown = Viewer(image, data)
    # Leaflet puts the layers' names into its list of them as HTML.
    assert not [v.name for v in shown.map.layers if "<" in v.name]
    (layer,) = (v for v in shown.map.layers if "(" in v.name)
    shown._clicked(feature=layer.data["features"][0])
    assert "<" not in shown.status.value
    assert "&lt;img" in shown.status.value
    # The other tests of this file have the same image.
    monkeypatch.setattr(image, "instanceFilename", evil)
    assert "<" not in Viewer(image).status.value


def test_too_many_annotations_are_told(image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "SHOWN", 3)
    shown = Viewer(image, frame(SHAPES))
    assert "3 of 4 annotations in view are shown, zoom in for all" in shown.status.value


def test_a_figure_has_the_image_the_annotations_and_their_counts(image: Any) -> None:
    ax = figure(image, frame(SHAPES))
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, WIDTH), (HEIGHT, 0))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["no term (1)", "stroma (1)", "tumour (2)"]
    (shown,) = ax.get_images()
    assert shown.get_extent() == [0, WIDTH, HEIGHT, 0]
    assert ax.get_title() == "corners.png"


def test_a_figure_of_a_part_shows_that_part_in_full_size(image: Any) -> None:
    ax = figure(image, frame(SHAPES), area=(560, 260, 300, 300))
    (shown,) = ax.get_images()
    assert shown.get_extent() == [560, 860, 560, 260]
    assert np.abs(shown.get_array().astype(int) - picture()[260:560, 560:860]).mean() < 6
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["tumour (1)"]


def test_a_figure_takes_no_more_pixels_than_it_shows(stack: Stack, slide: Any) -> None:
    ax = figure(slide, max_size=300)
    (shown,) = ax.get_images()
    assert shown.get_array().shape == (256, 384, 3)
    assert shown.get_extent() == [0, 1536, 1024, 0]


def test_a_name_is_no_formula_and_none_is_left_out(image: Any) -> None:
    rows = [
        {"term_name": [n], "geometry": shapely.box(10, 10, 50, 50)}
        for n in ("_a", "$b", r"5$ \frac$ c", "^{")
    ]
    ax = figure(image, frame(rows), title=r"price $5 and $\nonsense$")
    ax.figure.canvas.draw()
    assert ax.get_title() == r"price $5 and $\nonsense$"
    told = [t.get_text() for t in ax.get_legend().get_texts()]
    assert sorted(told) == sorted(["_a (1)", "$b (1)", r"5$ \frac$ c (1)", "^{ (1)"])


def test_terms_are_names_and_never_letters_where_they_are_drawn(image: Any) -> None:
    cells = ["tumour", np.array(["tumour", "stroma"]), pandas.NA, ()]
    data = frame([{"geometry": shapely.box(10, 10, 50, 50)} for _ in cells]).assign(term_name=cells)
    ax = figure(image, data)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["no term (2)", "tumour (2)"]
    shown = Viewer(image, data.assign(id=["7f", "x", None, "z"]))
    named = {v.name: v for v in shown.map.layers if "(" in v.name}
    assert set(named) == {"tumour (2)", "no term (2)"}
    told = [f["properties"] for f in named["tumour (2)"].data["features"]]
    assert sorted(t["terms"] for t in told) == ["tumour", "tumour, stroma"]
    assert [t["id"] for t in told] == [None, None]


def test_a_figure_takes_a_part_from_an_array(image: Any) -> None:
    (shown,) = figure(image, area=np.array([560.0, 260.0, 300.0, 300.0])).get_images()
    assert shown.get_extent() == [560, 860, 560, 260]
    with pytest.raises(ValueError, match=r"area must be a whole number, not 0\.5"):
        figure(image, area=(0.5, 0, 10, 10))  # type: ignore[arg-type]


def test_the_scale_bar_is_as_long_as_it_says(image: Any, slide: Any) -> None:
    for one, expected, px in ((slide, "50 µm", 200), (image, "200 px", 200)):
        ax = figure(one)
        assert [t.get_text() for t in ax.texts] == [expected]
        line = ax.lines[-1].get_xdata()
        assert line[1] - line[0] == pytest.approx(px)


@pytest.mark.parametrize(("width", "length"), [(1000, 200), (999, 100), (30, 5), (7, 1), (0.4, 0.05)])
def test_the_scale_bar_has_a_round_length(width: float, length: float) -> None:
    assert bar_length(width) == pytest.approx(length)


def test_terms_have_cytomines_colours(project: Any) -> None:
    assert figures.term_colours(project.id) == {"tumour": "#ff0000", "stroma": "#00aa00"}
