"""Mock dataset: a synthetic fluorescence image with three channels, whose objects are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage as ndi
from shapely import Polygon

from . import geo

WIDTH, HEIGHT, TILE, MICRONS = 2048, 1536, 256, 0.325
CHANNELS = ("DAPI", "Cytoplasm", "Marker")
SEED, MOST = 20260824, 240


def _ellipse(x: float, y: float, a: float, b: float, turn: float, points: int = 48) -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    c, s = np.cos(turn), np.sin(turn)
    return np.stack([x + a * np.cos(t) * c - b * np.sin(t) * s, y + a * np.cos(t) * s + b * np.sin(t) * c], 1)


def _inside(shape: tuple[int, int], x: float, y: float, a: float, b: float, turn: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    c, s = np.cos(turn), np.sin(turn)
    # Pixel centres are at a half.
    dx, dy = columns + 0.5 - x, rows + 0.5 - y
    return ((dx * c + dy * s) / a) ** 2 + ((dy * c - dx * s) / b) ** 2 <= 1


def make() -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """The channels (channel, row, column) and the nuclei as annotations; a third of the cells carry the marker."""
    random = np.random.Generator(np.random.PCG64(SEED))
    planes = np.zeros((3, HEIGHT, WIDTH), np.float64)
    placed: list[tuple[float, float, float]] = []
    features = []
    for _ in range(MOST * 20):
        if len(placed) == MOST:
            break
        a = random.uniform(11, 19)
        b, turn = a * random.uniform(0.65, 1.0), random.uniform(0, np.pi)
        x, y = random.uniform(24, WIDTH - 24), random.uniform(24, HEIGHT - 24)
        bright, positive = random.uniform(0.7, 1.0), random.uniform() < 1 / 3
        # Nuclei may come close, but never touch.
        if any((x - px) ** 2 + (y - py) ** 2 < (a + other + 3) ** 2 for px, py, other in placed):
            continue
        placed.append((x, y, a))
        reach = int(2 * a) + 4
        left, top = max(0, int(x) - reach), max(0, int(y) - reach)
        part = planes[:, top : int(y) + reach, left : int(x) + reach]
        own = (x - left, y - top)
        cell = _inside(part.shape[1:], *own, a * 1.6, b * 1.6, turn)
        nucleus = _inside(part.shape[1:], *own, a, b, turn)
        part[0][nucleus] = np.maximum(part[0][nucleus], 150 * bright)
        part[1][cell] = np.maximum(part[1][cell], 90 * bright)
        if positive:
            part[2][cell] = np.maximum(part[2][cell], 130 * bright)
        shape = Polygon(_ellipse(x, y, a, b, turn))
        features.append(geo.feature(shape, "Cell nucleus", marker=bool(positive), cell=len(placed)))
    haze = 12 + 10 * np.sin(np.linspace(0, 3, WIDTH))[None, :] * np.cos(np.linspace(0, 2, HEIGHT))[:, None]
    for n in range(3):
        # Light spreads, the sensor counts photons.
        light = ndi.gaussian_filter(planes[n], 1.2) + haze
        planes[n] = random.poisson(np.maximum(light, 0) * 4) / 4 + random.normal(0, 2, light.shape)
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8), features


def write(path: Path) -> list[dict[str, Any]]:
    """Write the image as OME-TIFF, a plane for each channel; the annotations."""
    planes, features = make()
    metadata = {
        "axes": "CYX",
        "Name": "Mock fluorescence",
        # Else each run would write another one.
        "UUID": "urn:uuid:6b0f3a52-6a3f-5e6c-9c58-4a2d6d6f636b",
        "Channel": {"Name": list(CHANNELS)},
        "PhysicalSizeX": MICRONS,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": MICRONS,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, ome=True) as out:
        out.write(
            planes,
            photometric="minisblack",
            tile=(TILE, TILE),
            compression="zlib",
            resolution=(10000 / MICRONS, 10000 / MICRONS),
            resolutionunit="CENTIMETER",
            metadata=metadata,
            software=False,
            maxworkers=1,
        )
    return features
