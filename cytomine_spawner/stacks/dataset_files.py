"""Datasets on disk: the layout of the Bigpicture archive, and its annotations in Cytomine's coordinates.

A root folder holds a folder for each dataset (its UUID), in which lies ``DATASET_<name>/`` with ``METADATA/*.xml``,
``IMAGES/<alias>/*`` and ``ANNOTATIONS/*.geojson``. METADATA and ANNOTATIONS may be missing.
"""

from __future__ import annotations

import itertools
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# So many names are said where another was looked for.
_SHOWN = 5
# Terms without a colour get these, in turn.
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")


class DatasetError(Exception):
    """A dataset that cannot be read, or that Cytomine did not take; the message names the cause and the cure."""


class Interrupted(DatasetError):
    """No fault of a dataset: the stack does not answer, or lets nobody in. A later try may find it well."""


@dataclass(frozen=True)
class Shape:
    """One annotation.

    Attributes:
        geometry: a GeoJSON geometry, in pixels from the top left, y downwards.
        term: the name of its class, or "".
        colour: the class's colour, ``#rrggbb``.
    """

    geometry: dict[str, Any]
    term: str
    colour: str

    @property
    def centroid(self) -> tuple[float, float]:
        """The centre of gravity, in pixels from the top left."""
        return _centroid(self.geometry)

    @property
    def extent(self) -> float:
        """The longer side of the bounding box, in pixels."""
        points = list(_points(self.geometry.get("coordinates", [])))
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        return max(max(xs) - min(xs), max(ys) - min(ys))

    def wkt(self, height: int) -> str:
        """The geometry as Cytomine counts: from the bottom left, for an image of this height in pixels."""
        return to_wkt(self.geometry, height)


@dataclass(frozen=True)
class ImageFiles:
    """An image of a dataset: the files of one slide, and its annotation files.

    Attributes:
        alias: its name in the dataset.
        files: one file, or the DICOM files of a slide.
        annotations: GeoJSON files.
    """

    alias: str
    files: list[Path]
    annotations: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the upload: DICOM files go up as zip of one folder."""
        return f"{self.alias}.zip" if self.is_packed else self.files[0].name

    @property
    def is_packed(self) -> bool:
        """Whether it goes up as zip: Cytomine takes a lone DICOM file for one that is no slide."""
        return len(self.files) > 1 or self.files[0].suffix.lower() == ".dcm"


@dataclass(frozen=True)
class Dataset:
    """A dataset: its name, which its project gets, what it says of itself, and its images."""

    name: str
    description: str
    folder: Path
    images: list[ImageFiles]


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


def unreadable(error: OSError, path: Path) -> DatasetError:
    """What is said of a file or folder that the system does not let us read."""
    return DatasetError(
        f"{error.filename or path} cannot be read ({error.strerror}). Let everybody read it and try again."
    )


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
    described = _xml(folder / "METADATA" / "dataset.xml")
    name, about = folder.name.removeprefix("DATASET_"), ""
    if described is not None and (element := described.find(".//DATASET")) is not None:
        name = element.get("alias") or name
        about = element.findtext("DESCRIPTION") or element.findtext("TITLE") or ""
    return name, about


def _read(folder: Path) -> Dataset:
    name, about = _described(folder)
    places = {p.name: p for p in sorted((folder / "IMAGES").glob("*"))}
    if not places:
        raise DatasetError(
            f"{folder} has no images. Put each into a folder of its own in {folder / 'IMAGES'} and try again."
        )
    images = []
    for alias, place in sorted(places.items(), key=lambda item: _natural(item[0])):
        files = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
        if not files:
            raise DatasetError(
                f"{place} is empty. Complete the dataset, or remove the folder, and try again."
            )
        if len(files) > 1 and any(p.suffix.lower() != ".dcm" for p in files):
            raise DatasetError(
                f"{place} holds several files that are not DICOM. Give each image its own folder and try again."
            )
        images.append(ImageFiles(alias, files))
    _add_annotations(folder, images)
    return Dataset(name, about, folder, images)


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


def _xml(path: Path) -> ET.Element | None:
    if not path.is_file():
        return None
    try:
        return ET.parse(path).getroot()  # noqa: S314 - expat expands no external entities
    except ET.ParseError as error:
        raise DatasetError(f"{path} is not valid XML ({error}). Mend the dataset and try again.") from None


def _add_annotations(folder: Path, images: list[ImageFiles]) -> None:
    by_alias = {image.alias: image for image in images}
    described = _xml(folder / "METADATA" / "annotation.xml")
    if described is not None:
        for element in described.iter("ANNOTATION"):
            reference, file = element.find("IMAGE_REF"), element.find(".//FILE")
            image = by_alias.get(reference.get("alias", "")) if reference is not None else None
            if image is None or file is None:
                raise DatasetError(
                    f"{folder}: an annotation names no image of the dataset. Mend annotation.xml and try again."
                )
            path = (folder / file.get("filename", "")).resolve()
            if not path.is_relative_to(folder.resolve()) or not path.is_file():
                raise DatasetError(
                    f"{folder}: {file.get('filename')} is missing. Complete the dataset and try again."
                )
            image.annotations.append(path)
        return
    for path in sorted((folder / "ANNOTATIONS").glob("*.geojson")):
        # Without a description the names decide: slide-tissue.geojson belongs to slide.svs, the longest name wins.
        fitting = [i for i in images if path.name.startswith(i.files[0].name.partition(".")[0])]
        if fitting:
            max(fitting, key=lambda i: len(i.files[0].name.partition(".")[0])).annotations.append(path)


def shapes(path: Path) -> list[Shape]:
    """The annotations of a GeoJSON file, as QuPath and the archive write it.

    Raises:
        DatasetError: the file is no GeoJSON, or a geometry is none that Cytomine could store.
    """
    try:
        data = json.loads(path.read_text())
        features = data.get("features", [data]) if isinstance(data, dict) else data
        return [_shape(feature, f"{path}: feature {number}") for number, feature in enumerate(features)]
    except OSError as error:
        raise unreadable(error, path) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise DatasetError(f"{path} is no GeoJSON ({error}). Mend the dataset and try again.") from None


def _shape(feature: Any, place: str) -> Shape:
    try:
        geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
        if not isinstance(geometry, dict) or not any(_points(geometry.get("coordinates", []))):
            raise DatasetError("it has no geometry. Mend the dataset and try again.")
        properties = feature.get("properties") or {}
        kind = properties.get("classification") or {}
        name = str(kind.get("name", "") if isinstance(kind, dict) else kind)
        colour = kind.get("color") if isinstance(kind, dict) else None
        if isinstance(colour, list) and len(colour) == 3:
            text = "#{:02x}{:02x}{:02x}".format(*(int(v) % 256 for v in colour))
        else:
            text = COLOURS[sum(name.encode()) % len(COLOURS)]
        shape = Shape(geometry, name, text)
        # Computed here, where the file is known that has the fault.
        _ = shape.wkt(0), shape.centroid, shape.extent
        return shape
    except DatasetError as error:
        raise DatasetError(f"{place}: {error}") from None
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DatasetError(
            f"{place} is not as GeoJSON has it ({error}). Mend the dataset and try again."
        ) from None


def _points(coordinates: Any) -> Iterator[tuple[float, float]]:
    if isinstance(coordinates, list) and coordinates and isinstance(coordinates[0], (int, float)):
        yield float(coordinates[0]), float(coordinates[1])
    elif isinstance(coordinates, list):
        for part in coordinates:
            yield from _points(part)


def _text(points: Any, height: int) -> str:
    return "(" + ", ".join(f"{x:.12g} {height - y:.12g}" for x, y in (p[:2] for p in points)) + ")"


def to_wkt(geometry: dict[str, Any], height: int) -> str:
    """A GeoJSON geometry with its origin at the top left as WKT with its origin at the bottom left.

    Args:
        geometry: Point, LineString, Polygon or one of their Multi forms.
        height: of the image, in pixels.

    Raises:
        DatasetError: another kind of geometry.
    """
    kind, coordinates = geometry.get("type"), geometry.get("coordinates", [])
    if kind == "Point":
        return "POINT " + _text([coordinates], height)
    if kind in ("LineString", "MultiPoint"):
        return f"{kind.upper()} " + _text(coordinates, height)
    if kind in ("Polygon", "MultiLineString"):
        return f"{kind.upper()} (" + ", ".join(_text(ring, height) for ring in coordinates) + ")"
    if kind == "MultiPolygon":
        parts = ("(" + ", ".join(_text(ring, height) for ring in part) + ")" for part in coordinates)
        return "MULTIPOLYGON (" + ", ".join(parts) + ")"
    raise DatasetError(
        f"a geometry of the kind {kind} cannot be stored in Cytomine. Write it as polygons and try again."
    )


def _centroid(geometry: dict[str, Any]) -> tuple[float, float]:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates", [])
    if kind in ("Polygon", "MultiPolygon"):
        rings = [
            ring for part in ([coordinates] if kind == "Polygon" else coordinates) for ring in _signed(part)
        ]
        parts = [_ring(ring, sign) for ring, sign in rings]
        if total := sum(area for area, _, _ in parts):
            return sum(x for _, x, _ in parts) / total, sum(y for _, _, y in parts) / total
    if kind in ("LineString", "MultiLineString"):
        lines = [coordinates] if kind == "LineString" else coordinates
        pieces = [
            (math.dist(a, b), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
            for line in lines
            for a, b in itertools.pairwise(line)
        ]
        if total := sum(length for length, _, _ in pieces):
            return sum(n * x for n, x, _ in pieces) / total, sum(n * y for n, _, y in pieces) / total
    points = list(_points(coordinates))
    return sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)


def _signed(rings: Any) -> list[tuple[Any, int]]:
    return [(ring, -1 if number else 1) for number, ring in enumerate(rings)]


def _ring(ring: Any, sign: int) -> tuple[float, float, float]:
    """Area, and area times centroid, positive for outlines and negative for holes."""
    # From the first point, so that large coordinates cost no precision.
    ox, oy = ring[0][:2]
    area = cx = cy = 0.0
    for (ax, ay), (bx, by) in zip((p[:2] for p in ring), (p[:2] for p in ring[1:]), strict=False):
        ax, ay, bx, by = ax - ox, ay - oy, bx - ox, by - oy
        cross = ax * by - bx * ay
        area, cx, cy = area + cross / 2, cx + (ax + bx) * cross / 6, cy + (ay + by) * cross / 6
    if area < 0:
        area, cx, cy = -area, -cx, -cy
    return sign * area, sign * (cx + ox * area), sign * (cy + oy * area)
