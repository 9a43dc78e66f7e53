"""Nothing is ever mirrored: the origin travels in the geometries, and what does not say it is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pandas
import pytest
import shapely

from cytomine_spawner.notebook.annotations import frame, from_geojson, read_annotations, to_geojson, to_image
from cytomine_spawner.notebook.figures import figure
from cytomine_spawner.notebook.origins import Origin, origin_of, said
from cytomine_spawner.notebook.uploads import upload
from cytomine_spawner.notebook.viewer import Viewer

from .conftest import HEIGHT, Stack

OTHER = pandas.DataFrame({"id": [1, 2], "score": [0.5, 0.7]})
UNKNOWN = "does not say where its coordinates have their origin"


def low() -> geopandas.GeoDataFrame:
    """Two shapes near the lower border, counted from there."""
    rows = [
        {"id": n, "kind": "a", "term_name": ["tumour"], "geometry": shapely.box(10 * n, 5, 10 * n + 8, 15)}
        for n in (1, 2)
    ]
    return frame(rows, "bottom-left")


WAYS: dict[str, Callable[[geopandas.GeoDataFrame], Any]] = {
    "as it is": lambda d: d,
    "copy": lambda d: d.copy(),
    "chosen rows and columns": lambda d: d[d.kind == "a"][["geometry"]],
    "merge": lambda d: d.merge(OTHER, on="id"),
    "merge from the other side": lambda d: OTHER.merge(d, on="id"),
    "dissolve": lambda d: d.dissolve("kind"),
    "overlay": lambda d: geopandas.overlay(
        d[["kind", "geometry"]], d[["id", "geometry"]], how="intersection"
    ),
    "sjoin": lambda d: d.sjoin(d[["geometry"]]),
    "clip": lambda d: d.clip(shapely.box(0, 0, 25, 25)),
    "explode": lambda d: d.explode(),
    "concat": lambda d: pandas.concat([d, d]),
    "buffer": lambda d: d.assign(geometry=d.buffer(2)),
    "a list of shapes": lambda d: d.assign(geometry=[g.buffer(2) for g in d.geometry]),
    "map": lambda d: d.assign(geometry=d.geometry.map(lambda g: g.buffer(2))),
    "another name": lambda d: d.rename_geometry("outline"),
    "a new table": lambda d: geopandas.GeoDataFrame({"kind": d.kind, "geometry": d.geometry}),
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
}


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("origin", ["top-left", "bottom-left"])
def test_the_origin_goes_with_the_shapes(way: str, origin: Origin) -> None:
    rows = low().drop(columns="geometry").assign(geometry=list(low().geometry)).to_dict("records")
    made = WAYS[way](frame(rows, origin))
    made.attrs.clear()
    assert said(made) == origin_of(made) == origin


def test_it_goes_through_a_file(tmp_path: Path) -> None:
    low().drop(columns="term_name").to_file(tmp_path / "a.gpkg")
    assert origin_of(geopandas.read_file(tmp_path / "a.gpkg")) == "bottom-left"


def test_two_origins_do_not_come_into_one_table() -> None:
    with pytest.raises(ValueError, match="Cannot determine common CRS"):
        pandas.concat([low(), frame([{"geometry": shapely.Point(1, 2)}])])


def test_an_origin_that_nobody_says_is_never_guessed() -> None:
    lost = geopandas.GeoDataFrame(geometry=list(low().geometry))
    for unknown in (lost, lost.set_crs(4326)):
        with pytest.raises(ValueError, match=f'{UNKNOWN}.*Pass origin="top-left"'):
            origin_of(unknown)
        assert origin_of(unknown, "bottom-left") == "bottom-left"
    with pytest.raises(ValueError, match="origin must be top-left or bottom-left, not 'left'"):
        origin_of(lost, "left")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="This table has no geometries"):
        origin_of(OTHER)
    # Where there is nothing, nothing can be mirrored.
    assert origin_of(lost[:0]) == "top-left"


def test_what_this_package_makes_says_its_origin() -> None:
    point = {"type": "Point", "coordinates": [1, 2]}
    assert said(from_geojson(point)) == "top-left"
    assert said(frame([])) == "top-left"
    with pytest.raises(ValueError, match="origin must be"):
        frame([], "top left")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize(
    "way", ["as it is", "merge", "merge from the other side", "dissolve", "overlay", "another name"]
)
def test_a_frame_from_the_bottom_left_is_stored_where_it_was(empty: Any, way: str) -> None:
    made = WAYS[way](low())
    made.attrs.clear()
    ids = upload(made, empty, terms=[], progress=False)
    there = read_annotations(empty, origin="bottom-left").set_index("id").loc[ids]
    for shape, found in zip(
        made[made.geometry.name] if way == "another name" else made.geometry, there.geometry, strict=True
    ):
        assert found.equals(shape)


def test_nothing_is_sent_or_drawn_of_a_frame_that_lost_its_origin(stack: Stack, empty: Any) -> None:
    lost = geopandas.GeoDataFrame({"term_name": [["tumour"]] * 2, "geometry": list(low().geometry)})
    stack.way.count.clear()
    for use in (
        lambda: upload(lost, empty, progress=False),
        lambda: figure(empty, lost),
        lambda: Viewer(empty, lost),
        lambda: to_geojson(lost),
    ):
        with pytest.raises(ValueError, match=UNKNOWN):
            use()
    assert stack.way.count["POST"] == 0
    ids = upload(lost, empty, origin="bottom-left", progress=False)
    there = read_annotations(empty).set_index("id").loc[ids]
    assert there.geometry.iloc[0].bounds == (10, HEIGHT - 15, 18, HEIGHT - 5)
    drawn = figure(empty, lost, origin="bottom-left")
    (paths,) = [c for c in drawn.collections if len(c.get_paths()) and c.get_alpha() == 0.2]
    assert paths.get_paths()[0].vertices[:, 1].min() == HEIGHT - 15
    shown = Viewer(empty, lost, origin="bottom-left")
    (layer,) = [v for v in shown.map.layers if "(" in v.name]
    ys = {y * shown.unit for _, y in layer.data["features"][0]["geometry"]["coordinates"][0]}
    assert ys == {5, 15}
    (first, _) = to_geojson(lost, image=empty, origin="bottom-left")["features"]
    assert shapely.from_geojson(str(first["geometry"]).replace("'", '"')).equals(
        to_image(low().geometry[0], HEIGHT)
    )


def test_each_row_is_turned_over_by_its_own_image(stack: Stack, empty: Any, slide: Any) -> None:
    rows = [{"image": i.id, "geometry": shapely.Point(5, 7)} for i in (empty, slide)]
    told = to_geojson(frame(rows, "bottom-left"))["features"]
    assert [f["geometry"]["coordinates"][1] for f in told] == [HEIGHT - 7, slide.height - 7]
    with pytest.raises(ValueError, match="annotations of other images"):
        to_geojson(frame(rows, "bottom-left"), image=empty)
    with pytest.raises(ValueError, match="need the image for its height"):
        to_geojson(low())


def test_a_row_without_a_shape_holds_up_no_picture(empty: Any) -> None:
    for origin in ("top-left", "bottom-left"):
        rows = [{"term_name": ["tumour"], "geometry": g} for g in (None, shapely.box(10, 10, 50, 50))]
        told = figure(empty, frame(rows, origin)).get_legend().get_texts()  # type: ignore[arg-type]
        assert [t.get_text() for t in told] == ["tumour (1)"]
        shown = Viewer(empty, frame(rows, origin))  # type: ignore[arg-type]
        assert [v.name for v in shown.map.layers if "(" in v.name] == ["tumour (1)"]
