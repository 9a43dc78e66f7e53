"""Mock dataset: the making, run in the environment of requirements.txt: ``python -m dev.dataset.make SLIDE FOLDER``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from dev import dataset

from . import cells, dicom, geo, landmarks, large, metaflex, tissue
from .metaflex import Picture


def skin(slide: Path, root: Path) -> None:
    """The dataset with the real slide in three forms and the synthetic one."""
    images, truths = root / "IMAGES", root / "ANNOTATIONS"
    image = tissue.read(slide)
    print("Aperio slide", flush=True)
    svs = images / "IMAGE_2" / "skin.svs"
    svs.parent.mkdir(parents=True)
    shutil.copyfile(slide, svs)
    print("DICOM slide", flush=True)
    pictures = [
        Picture("IMAGE_1", "slide-he", dicom.write(slide, images / "IMAGE_1"), []),
        Picture("IMAGE_2", "slide-he", [svs], tissue.write(image, truths, "skin")),
    ]
    print("large pyramid", flush=True)
    pyramid = images / "IMAGE_3" / "skin-large.tif"
    pyramid.parent.mkdir()
    large.write(image, pyramid)
    outlines = large.truth(tissue.outlines(image), image.shape[1], image.shape[0])
    truth = truths / "skin-large-tissue.geojson"
    geo.write(truth, outlines, "The small slide's outlines, mirrored as its pixels are; no pathologist's.")
    pictures.append(Picture("IMAGE_3", "slide-he-mirrored", [pyramid], [truth]))
    print("synthetic fluorescence", flush=True)
    synthetic = images / "IMAGE_4" / "cells.ome.tif"
    synthetic.parent.mkdir()
    truth = truths / "cells-nuclei.geojson"
    geo.write(truth, cells.write(synthetic), "Exact: the ellipses that were drawn, before blur and noise.")
    pictures.append(Picture("IMAGE_4", "slide-synthetic", [synthetic], [truth]))
    metaflex.write(
        root,
        "mock-skin",
        "Mock skin",
        "OpenSlide's CMU-1-Small-Region as DICOM and as Aperio SVS, a large pyramid made from it, and a synthetic "
        "fluorescence image.",
        pictures,
    )


def marks(slide: Path, root: Path) -> None:
    """The dataset with the series for landmarks."""
    print("landmark series", flush=True)
    files = landmarks.write(tissue.read(slide), root / "IMAGES", root / "ANNOTATIONS")
    pictures = [Picture(alias, f"slide-{alias.lower()}", [path], [truth]) for alias, path, truth in files]
    metaflex.write(
        root,
        "mock-landmarks",
        "Mock landmarks",
        "Sixteen small images, one real slide moved in known ways, with seven landmarks each.",
        pictures,
    )


def main(slide: Path, folder: Path) -> None:
    """Make both datasets below a folder."""
    skin(slide, folder / dataset.SKIN / "DATASET_mock-skin")
    marks(slide, folder / dataset.LANDMARKS / "DATASET_mock-landmarks")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
