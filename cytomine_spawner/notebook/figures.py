"""Figures of an image with its annotations, by term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import geopandas
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .annotations import PALETTE
from .images import AnyImage, image_of, micron
from .origins import Origin, origin_of, to_image
from .regions import levels, reader_of
from .safe import terms
from .values import names, whole

NO_TERM = "no term"


def term_colours(project: int) -> dict[str, str]:
    """The colours of a project's terms by name, as in Cytomine."""
    return {t.name: t.color or PALETTE[n % len(PALETTE)] for n, t in enumerate(terms(project))}


def outlines(shape: BaseGeometry) -> list[np.ndarray]:
    """The lines of a geometry, each as (n, 2) coordinates; a point is one coordinate."""
    parts = []
    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon":
            parts += [np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)]
        else:
            parts.append(np.asarray(part.coords))
    return parts


def figure(
    image: AnyImage,
    annotations: geopandas.GeoDataFrame | None = None,
    *,
    area: tuple[int, int, int, int] | None = None,
    ax: Any = None,
    max_size: int = 1200,
    fill: float = 0.2,
    colours: Mapping[str, str] | None = None,
    legend: bool = True,
    scale_bar: bool = True,
    title: str | None = None,
    origin: Origin | None = None,
) -> Any:
    """Draw an image, or a part of it, with annotations coloured by their first term.

    Args:
        image: the image or its id; a slide of `open_slide`, its path or its URL.
        annotations: as from `read_annotations`; those of other images are left out, unless the slide is a file.
        area: x, y, width, height in full-size px, origin top left; the whole image if not given.
        ax: matplotlib axes to draw on; new ones if not given.
        max_size: the picture's longer side in px at most.
        fill: opacity of the inside of polygons, 0 to 1.
        colours: colours by term name; Cytomine's if not given.
        legend: list the terms with their counts.
        scale_bar: a bar in µm, or in px where the pixel size is not known.
        title: the title; the image's name if not given, none for "".
        origin: where the annotations' coordinates have their origin; if not given, what the frame says.

    Returns:
        The axes. Their coordinates are full-size px, origin top left.

    Raises:
        ValueError: it is not known where the annotations have their origin, or area is not of whole numbers.
    """
    import matplotlib.pyplot as plt

    one = image_of(image)
    x, y, w, h = (whole(n, "area") for n in (area if area is not None else (0, 0, one.width, one.height)))
    shown_at = origin_of(annotations, origin) if annotations is not None else "top-left"
    pixels, extent = _picture(one, x, y, w, h, max_size)
    if ax is None:
        wide = 8.0 if w >= h else max(3.0, 8.0 * w / h)
        _, ax = plt.subplots(figsize=(wide, max(2.0, wide * h / w)), layout="constrained")
    ax.imshow(pixels, extent=extent, interpolation="nearest" if max(w, h) < 256 else "auto")
    if annotations is not None and len(annotations):
        _draw(ax, one, annotations, (x, y, w, h), fill, colours, legend, shown_at)
    ax.set_xlim(x, x + w)
    ax.set_ylim(y + h, y)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    if scale_bar:
        _bar(ax, micron(one), x, y, w, h)
    name = getattr(one, "instanceFilename", None) or f"image {one.id}"
    # A name is no formula, whatever is in it.
    ax.set_title(name if title is None else title, parse_math=False)
    return ax


def _picture(one: Any, x: int, y: int, w: int, h: int, max_size: int) -> tuple[Any, list[float]]:
    """The pixels of the coarsest level that is fine enough, and where they are in full-size px."""
    known = levels(one)
    fine = [v for v in known if max(w, h) / v.scale >= max_size]
    level = fine[-1] if fine else known[0]
    s = level.scale
    left, top = x // s, y // s
    right, bottom = min(level.width, -(-(x + w) // s)), min(level.height, -(-(y + h) // s))
    pixels = reader_of(one, format="jpg").region(left, top, right - left, bottom - top, level.level)
    return pixels, [left * s, right * s, bottom * s, top * s]


def _draw(
    ax: Any,
    one: Any,
    data: geopandas.GeoDataFrame,
    area: tuple[int, int, int, int],
    fill: float,
    colours: Mapping[str, str] | None,
    legend: bool,
    origin: Origin,
) -> None:
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.lines import Line2D
    from matplotlib.path import Path
    from matplotlib.patheffects import withStroke

    if "image" in data and one.id is not None:
        data = data[data["image"] == one.id]
    # A row without a shape has nothing to draw.
    data = data[data.geometry.notna()]
    shapes = list(data.geometry)
    if origin == "bottom-left":
        shapes = [to_image(g, float(one.height)) for g in shapes]
    frame = shapely.box(area[0], area[1], area[0] + area[2], area[1] + area[3])
    called = [first_term(v) for v in data["term_name"]] if "term_name" in data else [NO_TERM] * len(data)
    shown = [(g, n) for g, n in zip(shapes, called, strict=True) if g.intersects(frame)]
    have = colours if colours is not None else term_colours(int(one.project)) if one.project else {}
    handles, labels = [], []
    for number, name in enumerate(sorted({n for _, n in shown})):
        colour = have.get(name) or ("#000000" if name == NO_TERM else PALETTE[number % len(PALETTE)])
        mine = [g for g, n in shown if n == name]
        solid = [p for g in mine for p in shapely.get_parts(g) if p.geom_type == "Polygon"]
        paths = [Path.make_compound_path(*[Path(r, closed=True) for r in outlines(p)]) for p in solid]
        ax.add_collection(PathCollection(paths, facecolor=colour, edgecolor="none", alpha=fill))
        lines = [o for g in mine for o in outlines(g)]
        # A light border: the colours of terms and those of stains are much alike.
        border = [withStroke(linewidth=2.8, foreground="white", alpha=0.7)]
        ax.add_collection(
            LineCollection(
                [o for o in lines if len(o) > 1], colors=colour, linewidths=1.4, path_effects=border
            )
        )
        points = np.array([o[0] for o in lines if len(o) == 1]).reshape(-1, 2)
        ax.scatter(points[:, 0], points[:, 1], s=18, c=colour, edgecolors="white", linewidths=0.6, zorder=3)
        handles.append(Line2D([], [], color=colour, linewidth=3))
        labels.append(f"{name} ({len(mine)})")
    if legend and handles:
        # Beside the picture: on it, it would hide tissue. The names come last: matplotlib would leave out those that begin
        # with _ and read formulas in those with $.
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0, "frameon": False}
        made = ax.legend(handles, ["?"] * len(handles), **place)
        for text, label in zip(made.get_texts(), labels, strict=True):
            text.set_parse_math(False)
            text.set_text(label)


def first_term(value: Any) -> str:
    """The name that an annotation is drawn under: its first term's, or `NO_TERM`."""
    return next(iter(names(value)), NO_TERM)


def bar_length(width: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of about a fifth of a width."""
    power = 10.0 ** np.floor(np.log10(width / 5))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width / 5))


def _bar(ax: Any, size: float | None, x: int, y: int, w: int, h: int) -> None:
    length = bar_length(w * (size or 1))
    px = length / (size or 1)
    text = f"{length / 1000:g} mm" if size and length >= 1000 else f"{length:g} {'µm' if size else 'px'}"
    left, level = x + 0.04 * w, y + 0.95 * h
    ax.plot([left, left + px], [level, level], color="white", linewidth=6, solid_capstyle="butt")
    ax.plot([left, left + px], [level, level], color="black", linewidth=3, solid_capstyle="butt")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    ax.text(left + px / 2, level - 0.015 * h, text, ha="center", va="bottom", color="black", bbox=box)
