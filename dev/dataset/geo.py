"""Mock dataset: GeoJSON as QuPath and the Bigpicture archive write it, in pixels from the top left, y downwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon, box
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry
from skimage import measure

# The ontology: what an annotation may be, and its colour.
COLOURS = {
    "Tissue": "#1f77b4",
    "Region of interest": "#7f7f7f",
    "Nucleus": "#2ca02c",
    "Epidermis": "#9467bd",
    "Dermis": "#e377c2",
    "Keratin": "#8c564b",
    "Background": "#bcbd22",
    "Cell nucleus": "#17becf",
    "Cyst tip": "#d62728",
    "Follicle centre": "#ff7f0e",
    "Cyst corner": "#1f77b4",
    "Flap tip": "#2ca02c",
    "Strand root": "#9467bd",
    "Rete peg tip": "#8c564b",
    "Left rete tip": "#17becf",
}


def feature(geometry: BaseGeometry, name: str, **properties: Any) -> dict[str, Any]:
    """An annotation of one class; coordinates are rounded to a hundredth of a pixel."""
    colour = [int(COLOURS[name][n : n + 2], 16) for n in (1, 3, 5)]
    shape = json.loads(json.dumps(mapping(geometry)), parse_float=lambda text: round(float(text), 2))
    return {
        "type": "Feature",
        "geometry": shape,
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": colour},
            **properties,
        },
    }


def write(path: Path, features: list[dict[str, Any]], how: str) -> None:
    """Write a collection; ``how`` says in one sentence how the truth was found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"type": "FeatureCollection", "description": how, "features": features}
    path.write_text(json.dumps(data, separators=(",", ":")) + "\n")


def rectangle(x: float, y: float, right: float, bottom: float) -> Polygon:
    """A rectangle from its top left to its bottom right corner."""
    return box(x, y, right, bottom)


def outline(mask: NDArray[np.bool_], scale: float, tolerance: float, least: float) -> list[Polygon]:
    """The outlines of a mask with their holes, as valid polygons.

    Args:
        mask: rows by columns.
        scale: pixels of the slide per pixel of the mask.
        tolerance: how far a simplified outline may be off, in pixels of the slide.
        least: parts and holes smaller than this area are left out, in square pixels of the slide.
    """
    padded = np.pad(mask.astype(float), 1)
    rings = [
        # find_contours counts from pixel centres, and a row was put before the first.
        Polygon([((x - 0.5) * scale, (y - 0.5) * scale) for y, x in contour])
        for contour in measure.find_contours(padded, 0.5)
        if len(contour) > 3
    ]
    # Rings of parts and of holes alternate with the depth: what lies in an odd number of them is tissue.
    shape: BaseGeometry = Polygon()
    for ring in sorted(rings, key=lambda r: -r.area):
        if ring.area >= least:
            shape = shape.symmetric_difference(ring.buffer(0))
    shape = shape.simplify(tolerance).buffer(0)
    parts = list(shape.geoms) if isinstance(shape, MultiPolygon) else [shape]
    return [p for p in parts if isinstance(p, Polygon) and p.area >= least]
