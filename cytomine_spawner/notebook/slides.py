"""Slides that are files, without Cytomine: on a disk, in the archive (``sda://``), in object storage or at a web address.

`open_slide` gives an object that `region`, `tiles`, `lazy`, `levels`, `thumb` and `view` take in the place of an image of
Cytomine's. DICOM is read by wsidicom, everything else by tiffslide, which is tifffile and zarr.

A file has the levels that its scanner made, often each a quarter of the one before. Those of this package are halves, as
Cytomine's: where the file has one its pixels come as they are, and the others are means of the next finer one's.
"""

from __future__ import annotations

import functools
import math
import os
import weakref
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from ..common.objectstore import RangeFile, filesystem
from ..common.storageurls import without_secrets

Pixels: TypeAlias = NDArray[np.uint8]
Box: TypeAlias = tuple[int, int, int, int]

SMALLEST = 256
# Pixels of the file that are read at a time, a square's side.
PIECE = 2048


class NotASlide(ValueError):
    """What was opened cannot be read as a slide of eight bits in three colours."""


class Slide:
    """A slide that is a file; `open_slide` makes it.

    Attributes:
        url: where it is, without credentials.
        name: the file's name.
        width: px of the full size.
        height: px of the full size.
        micron: microns per px of the full size; None where the scanner did not say.
        stored: width and height of the levels that the file has, the full size first.
        opened: what `open_slide` was told.
    """

    # What an image of Cytomine's has, so that functions need not ask which of the two they got.
    id = None
    project = None

    def __init__(self, url: str, file: Any, stored: list[tuple[int, int]], micron: float | None) -> None:
        # Who gives a path in the place of a slide never has one to close.
        self._file, self._closing = file, weakref.finalize(self, file.close)
        self.url = without_secrets(url)
        self.name = self.url.rstrip("/").rpartition("/")[2]
        self.stored, self.micron = stored, micron
        self.width, self.height = stored[0]
        self.opened: tuple[str, dict[str, Any]] | None = None

    @property
    def physicalSizeX(self) -> float | None:  # noqa: N802 - Cytomine's name
        """Microns per px."""
        return self.micron

    @property
    def instanceFilename(self) -> str:  # noqa: N802 - Cytomine's name
        """The file's name."""
        return self.name

    def __repr__(self) -> str:
        return f"Slide({self.url!r}, {self.width} x {self.height} px)"

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        # Another process opens it anew: workers of dask.
        if self.opened is None:
            raise TypeError("Only a slide of open_slide() can be sent to another process.")
        return reopen, self.opened

    def close(self) -> None:
        """Close the file."""
        self._closing()

    def read(self, number: int, place: Box) -> Pixels:
        """Pixels of one of the levels that the file has.

        Args:
            number: of the level in ``stored``.
            place: x, y, width and height, px of that level, within it.
        """
        raise NotImplementedError

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the levels that are halves of each other; the last fits into 256 px."""
        found = [(self.width, self.height)]
        while max(found[-1]) > SMALLEST:
            found.append((math.ceil(found[-1][0] / 2), math.ceil(found[-1][1] / 2)))
        return found

    def source(self, level: int) -> tuple[int, float, float]:
        """Which of the file's levels a level is made from, and how many of its px are one px, across and down."""
        best, x, y = 0, float(2**level), float(2**level)
        for number, (w, h) in enumerate(self.stored):
            across, down = self.width / w, self.height / h
            n = max(0, round(math.log2(across)))
            # Halves of halves are rounded up or down, as the scanner likes.
            if abs(w - self.width / 2**n) <= 1 and abs(h - self.height / 2**n) <= 1:
                across = down = float(2**n)
            if max(across, down) <= 2**level and 2**level / across <= x:
                best, x, y = number, 2**level / across, 2**level / down
        return best, x, y

    def pieces(self, x: int, y: int, w: int, h: int, level: int) -> list[Box]:
        """The pieces that a rectangle of a level is read by, each with as much of the file as memory likes."""
        _, across, down = self.source(level)
        side = max(1, int(PIECE / max(across, down)))
        return [
            (px, py, min(side, x + w - px), min(side, y + h - py))
            for py in range(y, y + h, side)
            for px in range(x, x + w, side)
        ]

    def piece(self, place: Box, level: int) -> Pixels:
        """A rectangle of a level, read in one."""
        number, across, down = self.source(level)
        (x, y, w, h), (wide, high) = place, self.stored[number]
        left, top = x * across, y * down
        right, bottom = min(float(wide), (x + w) * across), min(float(high), (y + h) * down)
        # Where the scanner rounded down, the last row of ours has no pixel of its own.
        x0, y0 = min(math.floor(left), wide - 1), min(math.floor(top), high - 1)
        x1, y1 = max(math.ceil(right), x0 + 1), max(math.ceil(bottom), y0 + 1)
        found = self.read(number, (x0, y0, x1 - x0, y1 - y0))
        if across > 1 or down > 1:
            picture = Pillow.fromarray(found)
            if across.is_integer() and down.is_integer():
                picture = picture.reduce((int(across), int(down)))
            else:
                box = (left - x0, top - y0, right - x0, bottom - y0)
                picture = picture.resize((w, h), Pillow.Resampling.BOX, box)
            found = np.asarray(picture)
        found = found[:h, :w]
        if found.shape[:2] != (h, w):
            found = np.pad(found, ((0, h - found.shape[0]), (0, w - found.shape[1]), (0, 0)), mode="edge")
        return found

    def thumb(self, max_size: int) -> Pixels:
        """The whole slide, its longer side as long, or as long as the full size if that is shorter."""
        level = max((n for n, size in enumerate(self.sizes) if max(size) >= max_size), default=0)
        w, h = self.sizes[level]
        whole = np.empty((h, w, 3), np.uint8)
        for place in self.pieces(0, 0, w, h, level):
            x, y, pw, ph = place
            whole[y : y + ph, x : x + pw] = self.piece(place, level)
        picture = Pillow.fromarray(whole)
        picture.thumbnail((max_size, max_size), Pillow.Resampling.BOX)
        return np.asarray(picture)


class TiffSlide(Slide):
    """A slide that tiffslide reads: Aperio SVS, Leica SCN, Hamamatsu NDPI, Philips and generic TIFF, OME-TIFF."""

    def __init__(self, url: str, file: Any) -> None:
        import tifffile

        found = None
        try:
            found = _by_level()(file)
            told = found.properties
            series = found.ts_tifffile.series[int(told.get("tiffslide.series-index") or 0)]
            axes = str(told["tiffslide.series-axes"])
            stored = [(int(w), int(h)) for w, h in found.level_dimensions]
            channels = series.shape[0] if axes == "CYX" else series.keyframe.samplesperpixel
            if series.dtype != np.uint8 or channels not in (1, 3, 4) or axes not in ("YXS", "YX", "CYX"):
                raise NotASlide(
                    f"{without_secrets(url)} has {channels} channels of {series.dtype} (axes {series.axes}), and a slide has "
                    "three colours of eight bits: read it by tifffile and zarr."
                )
        except (tifffile.TiffFileError, KeyError, IndexError, NotImplementedError, NotASlide) as error:
            if found is not None:
                found.close()
            if isinstance(error, NotASlide):
                raise
            raise NotASlide(f"{without_secrets(url)} cannot be read as a slide ({error}).") from error
        super().__init__(url, found, stored, _positive(told.get("tiffslide.mpp-x")))

    def read(self, number: int, place: Box) -> Pixels:
        """Pixels of one of the levels that the file has; see `Slide.read`."""
        x, y, w, h = place
        return _coloured(self._file.read_region((x, y), number, (w, h), as_array=True))


@functools.cache
def _by_level() -> Any:
    """A class of tiffslide's whose regions begin at a place of their level, not of the full size."""
    import tiffslide

    class ByLevel(tiffslide.TiffSlide):
        _shared: Any = None

        def _read_region_loc_transform(self, location: Any, level: int) -> Any:  # noqa: ARG002
            # Through the full size and back, a rounded factor would miss a pixel.
            return location

        @property
        def zarr_group(self) -> Any:
            # One for all threads, as tifffile locks the file: those of a pool that ended would leave theirs.
            if self._shared is None:
                self._shared = super().zarr_group
            return self._shared

    return ByLevel


class DicomSlide(Slide):
    """A DICOM slide, which wsidicom reads."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        import wsidicom
        from wsidicom import errors

        kinds = tuple(k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception))
        try:
            found = wsidicom.WsiDicom.open(url, file_options=options)
        except kinds as error:
            raise NotASlide(
                f"{without_secrets(url)} is no DICOM slide ({error}). Name the folder that holds its files, or one of them."
            ) from error
        pyramid = found.pyramids.get(0)
        self._levels = [level.level for level in pyramid.levels]
        stored = [(level.size.width, level.size.height) for level in pyramid.levels]
        super().__init__(url, found, stored, _positive(pyramid.mpp.width))

    def read(self, number: int, place: Box) -> Pixels:
        """Pixels of one of the levels that the file has; see `Slide.read`."""
        x, y, w, h = place
        return _coloured(self._file.read_region((x, y), self._levels[number], (w, h), as_array=True))


def _positive(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def _coloured(pixels: Any) -> Pixels:
    """Three colours, of one or of four."""
    found = np.asarray(pixels)
    if found.dtype != np.uint8:
        raise NotASlide(
            f"The slide has pixels of {found.dtype}, not of eight bits: read it by tifffile and zarr."
        )
    if found.ndim == 2 or found.shape[2] == 1:
        return np.repeat(found.reshape(*found.shape[:2], 1), 3, axis=2)
    return found[:, :, :3]


def open_slide(source: str | os.PathLike[str], **options: Any) -> Slide:
    """Open a slide that is a file.

    Args:
        source: a path, or a URL of any kind that fsspec knows: ``sda://…``, ``s3://…``, ``https://…``. A folder is a DICOM
            slide, or holds one file.
        options: of the filesystem: ``token_file=``, ``endpoint=``, credentials.

    Returns:
        A slide that `region`, `tiles`, `lazy`, `view` and their like take for an image.

    Raises:
        NotASlide: it cannot be read as one.
        FileNotFoundError: it is not there.
        ValueError: the URL is none, or nothing here speaks its protocol.
        OSError: it cannot be read.
    """
    url = os.fspath(source)
    fs, path = filesystem(url, options)
    kinds = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    # To ask whether an address of the web is a folder would fetch what is there.
    folder = path.endswith("/") if "https" in kinds else fs.info(path)["type"] == "directory"
    if folder:
        files = [str(one["name"]) for one in fs.ls(path, detail=True) if one["type"] == "file"]
        if not any(name.lower().endswith(".dcm") for name in files):
            if len(files) != 1:
                raise NotASlide(
                    f"{without_secrets(url)} is a folder of {len(files)} files and no DICOM slide: name one of them."
                )
            path, folder = files[0], False
    made: Slide
    if folder or path.lower().endswith(".dcm"):
        made = DicomSlide(url, options)
    else:
        # The archive's files have a cache of their own, which measures what is worth fetching.
        file = path if "file" in kinds else fs.open(path, "rb") if "sda" in kinds else RangeFile(fs, path)
        made = TiffSlide(url if path in url else f"{url.rstrip('/')}/{path.rpartition('/')[2]}", file)
    made.opened = (url, options)
    return made


def reopen(source: str, options: dict[str, Any]) -> Slide:
    """A slide that came from another process, opened anew."""
    return open_slide(source, **options)
