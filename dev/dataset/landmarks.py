"""Mock dataset: a series of small images, the real slide moved in known ways, so that its landmarks are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi
from shapely import Point

from . import geo

COUNT, TESTS, SHRINK, SEED = 16, 4, 5, 20260825
WIDTH, HEIGHT = 520, 660
# Places of the slide that the eye finds again, in its pixels from the top left.
PLACES = {
    "Cyst tip": (1334, 1830),
    "Follicle centre": (1271, 2071),
    "Cyst corner": (1609, 921),
    "Flap tip": (1777, 1329),
    "Strand root": (898, 1073),
    "Rete peg tip": (1159, 2518),
    "Left rete tip": (821, 2717),
}


def series(image: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], dict[str, tuple[float, float]], str]]:
    """Images, their landmarks (x, y in pixels from the top left) and whether each is for training or testing.

    Each is turned by up to 8°, scaled by up to 6 %, sheared a little, moved, and its light and noise changed.
    """
    height, width = image.shape[0] // SHRINK, image.shape[1] // SHRINK
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX)).astype(float)
    random = np.random.Generator(np.random.PCG64(SEED))
    made = []
    for number in range(COUNT):
        turn = np.deg2rad(random.uniform(-8, 8))
        scale, shear = random.uniform(0.94, 1.06, 2), random.uniform(-0.03, 0.03)
        c, s = np.cos(turn), np.sin(turn)
        # Maps (x, y) of the small slide, from its centre, to the new image, from its centre.
        matrix = np.array([[c, -s], [s, c]]) @ np.array([[scale[0], shear], [0, scale[1]]])
        centre = np.array([width, height]) / 2
        target = np.array([WIDTH, HEIGHT]) / 2 + random.uniform(-14, 14, 2)
        points = {
            name: tuple(target + matrix @ (np.array(place) / SHRINK - centre))
            for name, place in PLACES.items()
        }
        pixels = _moved(small, matrix, centre, target)
        light, noise = random.uniform(0.92, 1.04), random.normal(0, 2, pixels.shape)
        whole = np.clip(np.rint(pixels * light + noise), 0, 255).astype(np.uint8)
        made.append((whole, points, "train" if number < COUNT - TESTS else "test"))
    return made  # type: ignore[return-value]


def _moved(small: Any, matrix: Any, centre: Any, target: Any) -> NDArray[np.float64]:
    back = np.linalg.inv(matrix)
    # affine_transform works in (row, column) and from pixel centres, which are at a half.
    flip = back[::-1, ::-1]
    offset = (centre - 0.5 - back @ (target - 0.5))[::-1]
    planes = [
        ndi.affine_transform(small[..., n], flip, offset, (HEIGHT, WIDTH), order=1, mode="constant", cval=243)
        for n in range(3)
    ]
    return np.stack(planes, axis=-1)


def write(image: NDArray[np.uint8], images: Path, annotations: Path) -> list[tuple[str, Path, Path]]:
    """Write the series; for each its alias, its image and its annotations."""
    files = []
    for number, (pixels, points, use) in enumerate(series(image), 1):
        alias = f"IMAGE_{number}"
        path = images / alias / f"landmarks-{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        truth = annotations / f"{path.stem}.geojson"
        features = [geo.feature(Point(place), name, use=use) for name, place in points.items()]
        geo.write(truth, features, "Chosen by eye once, then moved exactly as the image was.")
        files.append((alias, path, truth))
    return files
