"""Datasets on disk: the layout of the Bigpicture archive, and its annotations in Cytomine's coordinates.

A root folder holds a folder for each dataset (its UUID), in which lies ``DATASET_<name>/`` with ``METADATA/*.xml``,
``IMAGES/<alias>/*`` and ``ANNOTATIONS/*.geojson``. METADATA and ANNOTATIONS may be missing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from . import match, slides
from .errors import DatasetError, Interrupted, unreadable
from .slides import ImageFiles

__all__ = ["Dataset", "DatasetError", "ImageFiles", "Interrupted", "find", "folders", "read"]

# So many names are said where another was looked for.
_SHOWN = 5


@dataclass(frozen=True)
class Dataset:
    """A dataset.

    Attributes:
        name: which its project gets.
        description: what it says of itself.
        folder: where it is.
        images: its slides.
        faults: sentences on parts that are to be mended, and without which the rest is imported.
        notes: phrases on files that are left out, as they are of a kind that is not read.
    """

    name: str
    description: str
    folder: Path
    images: list[ImageFiles]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def folders(root: Path, names: Collection[str] = ()) -> list[Path]:
    """The folders ``DATASET_<name>`` of datasets, by the datasets' names; what is in them is not looked at.

    Args:
        root: the folder with the datasets.
        names: the datasets that are wanted; none means all.

    Raises:
        DatasetError: the root folder is missing or holds none, or not all that are wanted.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder. Mount the datasets there and try again.")
    found = [folder for folder in sorted(root.glob("*/DATASET_*")) if folder.is_dir()]
    if not found:
        raise DatasetError(
            f"{root} holds no dataset. Lay them out as {root}/<UUID>/DATASET_<name>/IMAGES and try again."
        )
    called = sorted((*_called(folder), folder) for folder in found)
    if unknown := sorted(set(names) - {name for name, _, _ in called}):
        text = f"There is no dataset {', '.join(unknown)} in {root}"
        if fault := next((fault for _, fault, _ in called if fault), ""):
            raise DatasetError(f"{text}, unless it is this one: {fault}")
        have = ", ".join(dict.fromkeys(name for name, _, _ in called[:_SHOWN]))
        raise DatasetError(f"{text}, which holds {have}. Put it there, or mend its name, and try again.")
    return [folder for name, _, folder in called if not names or name in names]


def find(root: Path) -> list[Dataset]:
    """The datasets below a root folder, by name.

    Raises:
        DatasetError: the folder is missing, holds none, or one is not as it should be.
    """
    return [read(folder) for folder in folders(root)]


def read(folder: Path) -> Dataset:
    """One dataset, from its folder ``DATASET_<name>``.

    Raises:
        DatasetError: a part of it is missing or cannot be read, or it has no images.
    """
    try:
        return _read(folder)
    except OSError as error:
        raise unreadable(error, folder) from None


def _called(folder: Path) -> tuple[str, str]:
    """A dataset's name as far as it can be known, and what is wrong with its description."""
    try:
        return _described(folder)[0], ""
    except DatasetError as error:
        return folder.name.removeprefix("DATASET_"), str(error)
    except OSError as error:
        return folder.name.removeprefix("DATASET_"), str(unreadable(error, folder))


def _described(folder: Path) -> tuple[str, str]:
    """A dataset's name and what it says of itself."""
    described = match.parse(folder / "METADATA" / "dataset.xml")
    name, about = folder.name.removeprefix("DATASET_"), ""
    for element in match.elements(described, "DATASET")[:1] if described is not None else []:
        name = element.get("alias") or name
        texts = {
            tag: part.text or "" for tag in ("TITLE", "DESCRIPTION") for part in match.elements(element, tag)
        }
        about = texts.get("DESCRIPTION") or texts.get("TITLE") or ""
    return name, about


def _read(folder: Path) -> Dataset:
    name, about = _described(folder)
    images = sorted(slides.find_all(folder / "IMAGES"), key=lambda image: _natural(image.alias))
    if not images:
        raise DatasetError(
            f"{folder} has no images. Put each into a folder of its own in {folder / 'IMAGES'} and try again."
        )
    faults, notes = match.add(folder, images)
    return Dataset(name, about, folder, images, faults, notes)


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)
