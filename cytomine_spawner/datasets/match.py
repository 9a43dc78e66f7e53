"""Which file of annotations belongs to which slide of a dataset."""

from __future__ import annotations

import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import DatasetError
from .slides import ImageFiles, is_left_behind

# What may stand between a slide's name and the rest of its annotation file's.
DELIMITERS = "-_. ("
READ = (".geojson", ".json")
# So many names are said where there are more.
_SHOWN = 5
# What stands before a suffix and is part of it.
_COMPOUND = (".ome",)


def add(folder: Path, images: Sequence[ImageFiles]) -> tuple[list[str], list[str]]:
    """Give each image its files of annotations: as the metadata says, or else by the files' names.

    Args:
        folder: the dataset's, ``DATASET_<name>``.
        images: its images.

    Returns:
        Sentences on files that are to be mended, and phrases on those that are not read and need no mending.

    Raises:
        DatasetError: the metadata cannot be read, or names what is not there.
    """
    place = folder / "ANNOTATIONS"
    there = [p for p in sorted(place.rglob("*")) if p.is_file() and not is_left_behind(p.relative_to(place))]
    strange = [p for p in there if p.suffix.lower() not in READ]
    there = [p for p in there if p.suffix.lower() in READ]
    described = parse(folder / "METADATA" / "annotation.xml")
    if described is not None:
        named, faults = _by_metadata(folder, described, images)
        known = {p.resolve() for p in strange}
        strange += [p for p in named if p.suffix.lower() not in READ and p not in known]
        if left := [p for p in there if p.resolve() not in named]:
            faults.append(
                f"annotation.xml of {folder} names no image for {_names(left, folder)}. Name it there, or remove it, and "
                "try again."
            )
    else:
        faults = _by_name(folder, there, images)
    notes = [f"{_names(strange, folder)}, for only GeoJSON is read"] if strange else []
    return faults, notes


def _by_metadata(
    folder: Path, described: ET.Element, images: Sequence[ImageFiles]
) -> tuple[list[Path], list[str]]:
    """Give the images what annotation.xml says; all files that it names, and sentences on those that are unclear."""
    named: list[Path] = []
    unclear: list[Path] = []
    for element in elements(described, "ANNOTATION"):
        references = dict.fromkeys(r.get("alias", "") for r in elements(element, "IMAGE_REF"))
        wanted = [image for image in images if {image.alias, image.folder} & references.keys()]
        files = [f.get("filename", "") for f in elements(element, "FILE")]
        if not wanted or not files:
            raise DatasetError(
                f"{folder}: an annotation names no image of the dataset. Mend annotation.xml and try again."
            )
        for file in files:
            path = (folder / file).resolve()
            if not path.is_relative_to(folder.resolve()) or not path.is_file():
                raise DatasetError(f"{folder}: {file} is missing. Complete the dataset and try again.")
            named.append(path)
            if path.suffix.lower() not in READ:
                continue
            fitting = wanted if len(wanted) == 1 else _fitting(path, folder.resolve(), wanted)
            if len(fitting) != 1:
                unclear.append(path)
            elif path not in fitting[0].annotations:
                fitting[0].annotations.append(path)
    return named, _unclear(unclear, folder)


def _by_name(folder: Path, paths: Sequence[Path], images: Sequence[ImageFiles]) -> list[str]:
    """Give the images what is named after them: slide-tissue.geojson belongs to slide.svs."""
    lost: list[Path] = []
    unclear: list[Path] = []
    for path in paths:
        fitting = _fitting(path, folder / "ANNOTATIONS", images)
        if len(fitting) == 1:
            fitting[0].annotations.append(path)
        else:
            (unclear if fitting else lost).append(path)
    faults = []
    if lost:
        faults.append(
            f"{_names(lost, folder)} of {folder} is named after no image. Begin its name with an image's alias or file "
            "name and try again."
        )
    return faults + _unclear(unclear, folder)


def _unclear(paths: list[Path], folder: Path) -> list[str]:
    if not paths:
        return []
    return [
        f"{_names(paths, folder)} of {folder} may belong to several images. Begin its name with the alias of one, or put "
        "it into a folder of that name, and try again."
    ]


def _fitting(path: Path, root: Path, images: Sequence[ImageFiles]) -> list[ImageFiles]:
    """The images that a file is named after, by the longest name that fits; a folder may say it, too."""
    # A folder of the alias's name says it for all that is in it.
    folders = {_plain(part) for part in path.relative_to(root).parts[:-1]}
    inside = [image for image in images if _plain(image.folder) in folders]
    if len(inside) == 1:
        return inside
    name = _plain(path.name.removesuffix(path.suffix))
    fits = [(_score(name, image), image) for image in inside or images]
    best = max((score for score, _ in fits), default=(0, False))
    return [image for score, image in fits if score == best] if best[0] else []


def _score(name: str, image: ImageFiles) -> tuple[int, bool]:
    """How much of a file's name is an image's, and whether that is its alias, which no two have."""
    alias = _plain(image.alias)
    return max(((len(key), key == alias) for key in _keys(image) if _begins(name, key)), default=(0, False))


def _keys(image: ImageFiles) -> set[str]:
    """The names by which an image may be meant: its alias, and its main file's with and without the suffix."""
    file, stem = image.main.name, image.main.stem
    keys = {image.alias, file, stem}
    keys |= {stem[: -len(end)] for end in _COMPOUND if stem.lower().endswith(end)}
    return {_plain(key) for key in keys if key}


def _begins(name: str, key: str) -> bool:
    return name.startswith(key) and (len(name) == len(key) or name[len(key)] in DELIMITERS)


def _plain(text: str) -> str:
    # One system writes ö as one character, another as two.
    return unicodedata.normalize("NFC", text)


def _names(paths: Iterable[Path], folder: Path) -> str:
    inside = folder.resolve()
    names = [
        str(p.relative_to(base)) for p in paths for base in (folder if p.is_relative_to(folder) else inside,)
    ]
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def parse(path: Path) -> ET.Element | None:
    """An XML file, or None where it is not.

    Raises:
        DatasetError: it is no XML.
    """
    if not path.is_file():
        return None
    try:
        return ET.parse(path).getroot()  # noqa: S314 - expat expands no external entities
    except (ET.ParseError, LookupError, ValueError) as error:
        raise DatasetError(f"{path} is not valid XML ({error}). Mend the dataset and try again.") from None


def elements(parent: ET.Element, name: str) -> list[ET.Element]:
    """All elements of this name in one, whatever their namespace."""
    return [e for e in parent.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name]
