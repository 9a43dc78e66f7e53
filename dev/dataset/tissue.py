"""Mock dataset: reference annotations of the real slide, by algorithms and by eye. None is a pathologist's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from scipy import ndimage as ndi
from shapely.affinity import translate
from skimage import color, feature, filters, measure, morphology, segmentation

from . import geo

# Rectangles (left, top, right, bottom) within which every nucleus that the algorithm finds is kept: places without
# keratin and without the green ink, where the outlines were looked at.
REGIONS = {"a": (560, 2500, 960, 2900), "b": (880, 1900, 1120, 2300), "c": (1060, 800, 1360, 1100)}
# Areas of one kind of tissue, chosen by eye: the class, and rectangles for training and for testing.
AREAS = {
    "Epidermis": {
        "train": [(1090, 1560, 1150, 1760), (600, 2700, 700, 2860)],
        "test": [(1110, 2120, 1190, 2260)],
    },
    "Dermis": {
        "train": [(940, 1980, 1050, 2180), (1480, 2000, 1640, 2180)],
        "test": [(920, 2500, 1100, 2680)],
    },
    "Keratin": {"train": [(1480, 960, 1590, 1040)], "test": [(1400, 1030, 1470, 1110)]},
    "Background": {
        "train": [(200, 200, 500, 600), (1900, 900, 2150, 1200)],
        "test": [(150, 1400, 500, 1900)],
    },
}


def read(path: Path) -> NDArray[np.uint8]:
    """The whole slide at full size: rows, columns, RGB."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def tissue(image: NDArray[np.uint8], step: int = 4) -> NDArray[np.bool_]:
    """Where tissue is, at a ``step``-th of the size: Otsu's threshold on the smoothed saturation, small parts and holes out."""
    saturation = color.rgb2hsv(image[::step, ::step])[..., 1]
    smooth = filters.gaussian(saturation, 4)
    mask = smooth > filters.threshold_otsu(smooth)
    return morphology.remove_small_holes(morphology.remove_small_objects(mask, max_size=400), max_size=400)


def nuclei(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """A label per nucleus, rows by columns: dark spots of the red light's absorbance, parted at its blobs.

    This is not colour deconvolution with a watershed of distances, so that a workflow which does that is not measured
    against itself.
    """
    absorbance = ndi.gaussian_filter(-np.log10(np.maximum(image[..., 0], 1) / 255.0), 1.0)
    mask = (absorbance > ndi.uniform_filter(absorbance, 61) + 0.08) & (absorbance > 0.28)
    mask = ndi.binary_fill_holes(ndi.binary_opening(mask))
    blobs = -ndi.gaussian_laplace(absorbance, 4.0)
    blobs[~mask] = 0
    peaks = feature.peak_local_max(blobs, min_distance=5, threshold_abs=0.002)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = segmentation.watershed(-blobs, seeds, mask=mask)
    keep = np.zeros(labels.max() + 1, bool)
    for part in measure.regionprops(labels):
        keep[part.label] = 35 <= part.area <= 500 and part.solidity >= 0.8
    return np.where(keep[labels], labels, 0).astype(np.int32)


def outlines(image: NDArray[np.uint8]) -> list[Any]:
    """The tissue's polygons, in pixels of the slide."""
    # A quarter of the size is rounded up.
    whole = geo.rectangle(0, 0, image.shape[1], image.shape[0])
    return [p.intersection(whole) for p in geo.outline(tissue(image), 4, 2, 6400)]


def write(image: NDArray[np.uint8], folder: Path, name: str) -> list[Path]:
    """Write the annotation files of the real slide; their paths."""
    found = [
        (
            f"{name}-tissue",
            [geo.feature(p, "Tissue") for p in outlines(image)],
            "Otsu's threshold on the smoothed saturation; no pathologist's.",
        ),
        (
            f"{name}-nuclei",
            _in_regions(image),
            "Within the regions of interest: local threshold of the red absorbance, parted at its blobs; looked at, not "
            "corrected, no pathologist's.",
        ),
        (
            f"{name}-areas",
            [
                geo.feature(geo.rectangle(*area), kind, use=use)
                for kind, uses in AREAS.items()
                for use, areas in uses.items()
                for area in areas
            ],
            "Rectangles of one kind of tissue, chosen by eye; no pathologist's.",
        ),
    ]
    paths = []
    for stem, features, how in found:
        paths.append(folder / f"{stem}.geojson")
        geo.write(paths[-1], features, how)
    return paths


def _in_regions(image: NDArray[np.uint8]) -> list[dict[str, Any]]:
    labels = nuclei(image)
    features = []
    for name, (x, y, right, bottom) in REGIONS.items():
        features.append(geo.feature(geo.rectangle(x, y, right, bottom), "Region of interest", region=name))
        for part in measure.regionprops(labels[y:bottom, x:right]):
            top, left, low, far = part.bbox
            # A nucleus that the region cuts is in neither.
            if top == 0 or left == 0 or low == bottom - y or far == right - x:
                continue
            polygon = max(geo.outline(part.image, 1, 0.3, 20), key=lambda p: p.area, default=None)
            if polygon is not None:
                moved = translate(polygon, x + left, y + top)
                features.append(geo.feature(moved, "Nucleus", region=name))
    return features
