"""A slide in the notebook, to move and zoom, with annotations on it.

The browser cannot sign requests to Cytomine, and has no keys. So the pixels of what is in view come through the
kernel: the map tells where it looks, the kernel reads that part of the fitting level and puts it onto the map as one
picture (a data URL). While the kernel is busy with a cell, the map shows the last picture, enlarged, until the
cell is done.
"""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import geopandas
import ipyleaflet
import ipywidgets
import shapely
from PIL import Image as Pillow
from shapely.affinity import affine_transform

from .annotations import PALETTE
from .errors import CytomineError
from .figures import NO_TERM, first_term, term_colours
from .images import AnyImage, Pixels, micron, preview
from .origins import Origin, origin_of, to_image
from .regions import WORKERS, Level, reader_of
from .values import marks, names

# Pause after a movement before the kernel reads; a movement in it starts it anew.
REST = 0.15
# The longer side of a picture for the map, in px; a screen's worth with a margin.
SIDE = 3000
SHOWN = 2000


def data_url(pixels: Pixels) -> str:
    """Pixels, uint8 of shape (height, width, 3), as the address of a JPEG that holds them."""
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


class Viewer(ipywidgets.VBox):  # type: ignore[misc]
    """A slide to move and zoom, with annotations in layers by term.

    Move with the mouse or the arrow keys, zoom with the wheel or ``+`` and ``-``. A click on an annotation shows its
    terms, user and area below the map and sets ``selected``.

    Args:
        image: the image or its id; a slide of `open_slide`, its path or its URL.
        annotations: as from `annotations.read_annotations`; others' images are left out, unless the slide is a file.
        colours: colours by term name; Cytomine's if not given.
        height: of the map, as CSS.
        origin: where the annotations' coordinates have their origin; if not given, what the frame says.

    Attributes:
        map: the ipyleaflet map; its coordinates are Cytomine's, divided by ``unit``.
        selected: the id of the annotation that was clicked last, or None.
    """

    def __init__(
        self,
        image: AnyImage,
        annotations: geopandas.GeoDataFrame | None = None,
        *,
        colours: Mapping[str, str] | None = None,
        height: str = "480px",
        origin: Origin | None = None,
    ) -> None:
        self.reader = reader_of(image, format="jpg")
        self.image = self.reader.image
        self.top = len(self.reader.levels) - 1
        self.unit = float(2**self.top)
        self.selected: int | None = None
        self._pool = ThreadPoolExecutor(WORKERS)
        self._colours = colours
        self._task: asyncio.Task[None] | None = None
        self._view = (0.0, 0.0, float(self.image.width), float(self.image.height))
        self._shown: tuple[int, tuple[int, int, int, int]] | None = None
        self._layers: list[Any] = []
        self._data: geopandas.GeoDataFrame | None = None
        overview = ipyleaflet.ImageOverlay(
            url=data_url(preview(self.image, 1024)), bounds=self._bounds(*self._view), name="overview"
        )
        # Empty until the first look; Leaflet wants an address all the same.
        self._detail = ipyleaflet.ImageOverlay(url=overview.url, bounds=overview.bounds, name="detail")
        self.map = ipyleaflet.Map(
            crs=ipyleaflet.projections.Simple,
            layers=[overview, self._detail],  # no basemap: nothing is asked from the outside
            center=[self.image.height / self.unit / 2, self.image.width / self.unit / 2],
            zoom=1,
            min_zoom=0,
            max_zoom=self.top + 2,
            attribution_control=False,
            scroll_wheel_zoom=True,
            layout=ipywidgets.Layout(height=height),
        )
        self.status = ipywidgets.HTML(self._about())
        super().__init__([self.map, self.status])
        if annotations is not None:
            self.show_annotations(annotations, origin)
        self.map.observe(self._moved, names=["bounds", "zoom"])

    def _about(self) -> str:
        size = micron(self.image)
        name = getattr(self.image, "instanceFilename", "") or f"image {self.image.id}"
        scale = f", {size:g} µm per px" if size else ""
        return html.escape(f"{name}: {self.image.width} x {self.image.height} px{scale}")

    def _bounds(self, x: float, y: float, w: float, h: float) -> Any:
        """Leaflet's corners, (south, west) and (north, east), of a rectangle in px with its origin top left."""
        south, north = self.image.height - y - h, self.image.height - y
        return ((south / self.unit, x / self.unit), (north / self.unit, (x + w) / self.unit))

    def _moved(self, _: Any) -> None:
        if not self.map.bounds:
            return
        (south, west), (north, east) = self.map.bounds
        self._view = (
            west * self.unit,
            self.image.height - north * self.unit,
            (east - west) * self.unit,
            (north - south) * self.unit,
        )
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.refresh()
            return
        if self._task is not None:
            self._task.cancel()
        self._task = loop.create_task(self._later())

    async def _later(self) -> None:
        await asyncio.sleep(REST)
        wanted = self._wanted()
        if wanted is not None and wanted != self._shown:
            try:
                pixels = await asyncio.to_thread(self._read, *wanted)
            except (CytomineError, ValueError, OSError) as error:
                self.status.value = html.escape(str(error))
                return
            self._put(wanted, pixels)
        self._draw()

    def look_at(self, x: float, y: float, zoom: float | None = None) -> None:
        """Move to a place.

        Args:
            x: px of the full-size image, origin top left.
            y: px.
            zoom: 0 for the whole slide in one tile; one more doubles the size.
        """
        if zoom is not None:
            self.map.zoom = zoom
        self.map.center = [(self.image.height - y) / self.unit, x / self.unit]

    def refresh(self) -> None:
        """Read what is in view, if the map does not show it already."""
        wanted = self._wanted()
        if wanted is not None and wanted != self._shown:
            self._put(wanted, self._read(*wanted))
        self._draw()

    def _level(self) -> Level:
        levels = self.reader.levels
        # One level finer than the screen shows, for screens with small pixels.
        wanted = math.floor(self.top - float(self.map.zoom or 0))
        return levels[min(max(wanted, 0), self.top)]

    def _wanted(self) -> tuple[int, tuple[int, int, int, int]] | None:
        """The level and the rectangle at it that the view needs; None where the slide is out of view."""
        x, y, w, h = self._view
        margin = 0.25
        left, top = max(0.0, x - margin * w), max(0.0, y - margin * h)
        right = min(float(self.image.width), x + (1 + margin) * w)
        bottom = min(float(self.image.height), y + (1 + margin) * h)
        if left >= right or top >= bottom:
            return None
        level = self._level()
        while max(right - left, bottom - top) / level.scale > SIDE and level.level < self.top:
            level = self.reader.levels[level.level + 1]
        s = level.scale
        x0, y0 = int(left // s), int(top // s)
        x1, y1 = min(level.width, math.ceil(right / s)), min(level.height, math.ceil(bottom / s))
        return level.level, (x0, y0, x1 - x0, y1 - y0)

    def _read(self, level: int, place: tuple[int, int, int, int]) -> Pixels:
        return self.reader.region(*place, level, self._pool)

    def _put(self, wanted: tuple[int, tuple[int, int, int, int]], pixels: Pixels) -> None:
        level, (x, y, w, h) = wanted
        s = self.reader.levels[level].scale
        new = ipyleaflet.ImageOverlay(
            url=data_url(pixels), bounds=self._bounds(x * s, y * s, w * s, h * s), name="detail"
        )
        # A layer's place cannot be changed once it is on the map.
        self.map.substitute(self._detail, new)
        self._detail, self._shown = new, wanted

    def show_annotations(self, annotations: geopandas.GeoDataFrame, origin: Origin | None = None) -> None:
        """Put annotations onto the map, in the place of those before.

        Args:
            annotations: as from `annotations.read_annotations`; others' images are left out.
            origin: where their coordinates have their origin; if not given, what the frame says.

        Raises:
            ValueError: nobody says where they have it.
        """
        data = annotations
        if "image" in data and self.image.id is not None:
            data = data[data["image"] == self.image.id]
        data = data[data.geometry.notna()]
        if origin_of(annotations, origin) == "bottom-left":
            data = data.set_geometry([to_image(g, float(self.image.height)) for g in data.geometry])
        self._data = data.reset_index(drop=True)
        self._draw()

    def _draw(self) -> None:
        if self._data is None:
            return
        x, y, w, h = self._view
        inside = self._data.iloc[
            sorted(self._data.sindex.query(shapely.box(x, y, x + w, y + h), predicate="intersects"))
        ]
        shown = inside.iloc[:SHOWN]
        if self._colours is None:
            # A file is in no project, so nobody has chosen colours for it.
            self._colours = term_colours(int(self.image.project)) if self.image.project else {}
        groups: dict[str, list[dict[str, Any]]] = {}
        for _, row in shown.iterrows():
            groups.setdefault(first_term(row.get("term_name")), []).append(self._feature(row))
        new = [self._layer(name, groups[name], n) for n, name in enumerate(sorted(groups))]
        base = [layer for layer in self.map.layers if layer not in self._layers]
        self.map.layers = (*base, *new)
        self._layers = new
        more = f"; {len(shown)} of {len(inside)} annotations in view are shown, zoom in for all"
        self.status.value = self._about() + (more if len(inside) > len(shown) else "")

    def _feature(self, row: Any) -> dict[str, Any]:
        flipped = [1 / self.unit, 0, 0, -1 / self.unit, 0, self.image.height / self.unit]
        size = micron(self.image)
        area = row.geometry.area * (size * size if size else 1)
        told = {
            "id": _id(row.get("id")),
            "terms": ", ".join(names(row.get("term_name"))),
            "user": row.get("user_name", ""),
            "area": f"{area:.0f} {'µm²' if size else 'px²'}" if area else "",
        }
        shape = json.loads(shapely.to_geojson(affine_transform(row.geometry, flipped)))
        return {"type": "Feature", "geometry": shape, "properties": told}

    def _layer(self, name: str, features: list[dict[str, Any]], number: int) -> Any:
        colour = (self._colours or {}).get(name) or (
            "#000000" if name == NO_TERM else PALETTE[number % len(PALETTE)]
        )
        layer = ipyleaflet.GeoJSON(
            data={"type": "FeatureCollection", "features": features},
            style={"color": colour, "weight": 2, "fillOpacity": 0.15},
            hover_style={"weight": 4, "fillOpacity": 0.3},
            point_style={"radius": 5, "color": colour, "fillOpacity": 0.8, "weight": 1},
            # Leaflet's list of layers takes names as HTML, and anybody in the project can name a term.
            name=html.escape(f"{name} ({len(features)})"),
        )
        layer.on_click(self._clicked)
        return layer

    def _clicked(self, feature: Any = None, **_: Any) -> None:
        told = (feature or {}).get("properties") or {}
        self.selected = told.get("id")
        parts = [f"annotation {told['id']}"] if told.get("id") else []
        parts += [str(told[k]) for k in ("terms", "user", "area") if told.get(k)]
        self.status.value = html.escape(" · ".join(parts))


def _id(value: Any) -> int | None:
    """The id of an annotation in Cytomine; None of what has none there, whatever it is called elsewhere."""
    try:
        return next((mark for mark in marks(value) if isinstance(mark, int)), None)
    except ValueError:
        return None


def view(image: AnyImage, annotations: geopandas.GeoDataFrame | None = None, **options: Any) -> Viewer:
    """Show a slide in the notebook; see `Viewer`."""
    return Viewer(image, annotations, **options)
