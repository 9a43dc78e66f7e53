"""The files of one slide, and how they are sent: by which name, and in which form.

Cytomine's image server takes one file at a time. A slide of several files goes up as a zip with one folder in it, which the
server takes for one image and names after the folder: the files of a DICOM slide, an MRXS with its folder, a VMS with the
files that it names.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from .errors import DatasetError, unreadable

Staging: TypeAlias = "Callable[[ImageFiles, Callable[[str, float], None]], AbstractAsyncContextManager[None]]"

# What systems and their tools leave in folders.
_LEFT_BEHIND = re.compile(
    r"\.|__MACOSX$|Thumbs\.db$|ehthumbs(_vista)?\.db$|desktop\.ini$|\$RECYCLE\.BIN$|System Volume Information$"
    r"|lost\+found$|@eaDir$|#recycle$",
    re.IGNORECASE,
)
# Names that no server on the way changes, and that end in what they are.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
_PLAIN_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 120
# Slides of several files, by the one that is opened.
_SEVERAL = (".mrxs", ".vms")
# Kinds of which each file is an image.
_SINGLE = frozenset(
    (
        ".bif",
        ".bmp",
        ".czi",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".ndpi",
        ".png",
        ".scn",
        ".svs",
        ".tif",
        ".tiff",
        ".webp",
    )
)
# What a VMS names, each of its files in a key of this kind.
_VMS_FILES = re.compile(r"(imagefile(\(.*\))?|mapfile|macroimage|optimi[sz]ationfile)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFiles:
    """An image of a dataset: the files of one slide, and its annotation files.

    Attributes:
        alias: its name in the dataset: its folder's, and the file's too where a folder holds several images.
        files: the file that is opened, and those that belong to it.
        annotations: GeoJSON files.
        upload: the name that its upload gets, and of which its image is known again; no other image of its dataset has it.
        shown: the name that people see.
        staging: has the files there while its context lasts, where they are not there all the time; takes the image and what
            hears how far it is.
    """

    alias: str
    files: list[Path]
    annotations: list[Path] = field(default_factory=list)
    upload: str = ""
    shown: str = ""
    staging: Staging | None = field(default=None, repr=False, compare=False)

    def staged(self, say: Callable[[str, float], None]) -> AbstractAsyncContextManager[None]:
        """A context while which the files are there."""
        return self.staging(self, say) if self.staging else nullcontext()

    @property
    def main(self) -> Path:
        """The file that is opened."""
        return self.files[0]

    @property
    def folder(self) -> str:
        """The name of the folder that it is in, which is the alias of the images in it."""
        return self.alias.partition("/")[0]

    @property
    def name(self) -> str:
        """The name that people see."""
        if self.shown:
            return self.shown
        # A name on a disk may hold bytes that are no text.
        name = self.alias if self.main.suffix.lower() == ".dcm" else self.main.name
        return name.encode(errors="surrogateescape").decode(errors="replace")

    @property
    def is_packed(self) -> bool:
        """Whether it goes up as zip: Cytomine takes a lone DICOM file for one that is no slide."""
        return len(self.files) > 1 or self.main.suffix.lower() in (".dcm", *_SEVERAL)

    @property
    def sent(self) -> str:
        """The name of the file that is sent."""
        name = self.upload or self.name
        return f"{name}.zip" if self.is_packed else name


def is_left_behind(path: Path) -> bool:
    """Whether a path, from within the dataset, is nothing of the dataset but of a system."""
    return any(_LEFT_BEHIND.match(part) for part in path.parts)


def find(place: Path) -> list[ImageFiles]:
    """The slide in a folder, or the images in it, or the file that is one.

    Raises:
        DatasetError: there is none, what is there cannot be told apart, or a part of it is missing.
    """
    if not place.is_dir():
        return [ImageFiles(place.name, _belonging(place, place.parent))]
    inside = [p for p in sorted(place.iterdir()) if not is_left_behind(Path(p.name))]
    files = [p for p in inside if p.is_file()]
    if not inside:
        raise DatasetError(f"{place} is empty. Complete the dataset, or remove the folder, and try again.")
    if not files:
        raise DatasetError(
            f"{place} holds folders and no slide. Put each slide into a folder of its own directly in {place.parent} and try "
            "again."
        )
    if all(p.suffix.lower() == ".dcm" for p in files):
        return [ImageFiles(place.name, files)]
    mains = [p for p in files if p.suffix.lower() in _SEVERAL]
    if len(mains) == 1:
        whole = _belonging(mains[0], place)
        if not set(files) - set(whole):
            return [ImageFiles(place.name, whole)]
    if len(files) == 1:
        return [ImageFiles(place.name, files)]
    if all(p.suffix.lower() in _SINGLE and p.stat().st_size for p in files):
        return [ImageFiles(f"{place.name}/{p.name}", [p]) for p in files]
    raise DatasetError(
        f"{place} holds several files that are not DICOM, and not each is an image. Give each image its own folder and try "
        "again."
    )


def find_all(place: Path) -> list[ImageFiles]:
    """The slides in a folder IMAGES: each in a folder of its own, or there itself with what belongs to it.

    Raises:
        DatasetError: one is missing, or a part of one.
    """
    there = [p for p in sorted(place.glob("*")) if not is_left_behind(Path(p.name))]
    mains = [p for p in there if p.is_file() and p.suffix.lower() in _SEVERAL]
    several = {p: _belonging(p, place) for p in mains}
    # The folder or the files of a slide are no slides.
    parts = {
        place / p.relative_to(place).parts[0] for main, files in several.items() for p in files if p != main
    }
    return named([image for p in there if p not in parts for image in find(p)])


def _belonging(main: Path, place: Path) -> list[Path]:
    """A file with those that belong to it."""
    if main.suffix.lower() == ".mrxs":
        folder = main.with_suffix("")
        if not (folder / "Slidedat.ini").is_file():
            missing = folder / "Slidedat.ini" if folder.is_dir() else folder
            raise DatasetError(
                f"{main} is a slide with a folder of its own, and {missing} is missing. Complete the dataset and try again."
            )
        inside = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        return [main, *(p for p in inside if not is_left_behind(p.relative_to(folder)))]
    if main.suffix.lower() == ".vms":
        return [main, *_named_by_vms(main, place)]
    return [main]


def _named_by_vms(main: Path, place: Path) -> list[Path]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(main.read_text("utf-8-sig", errors="replace"))
    except OSError as error:
        raise unreadable(error, main) from None
    except configparser.Error:
        raise DatasetError(f"{main} is no VMS slide. Mend the dataset and try again.") from None
    texts = [
        v for s in parser.sections() for k, v in parser.items(s) if _VMS_FILES.fullmatch(k) and v.strip()
    ]
    if not texts:
        raise DatasetError(f"{main} is no VMS slide: it names no files. Mend the dataset and try again.")
    files = []
    for text in dict.fromkeys(texts):
        path = place / text.strip()
        if not path.resolve().is_relative_to(place.resolve()) or not path.is_file():
            raise DatasetError(
                f"{main} is a slide of several files, and {text.strip()} is missing. Complete the dataset and try again."
            )
        files.append(path)
    return files


def named(images: Sequence[ImageFiles]) -> list[ImageFiles]:
    """The images of a dataset with their names: plain ones stay as they are, others are sent by a name of ours.

    Servers on an upload's way read names in their own ways: a blank arrives as ``%20``, a quotation mark ends the name, what is
    not English is lost. What is sent under such a name would not be found again. The image is renamed once it is there.
    """
    shown = Counter(_composed(image.name) for image in images)
    taken = set(shown)
    sent: set[str] = set()
    made = []
    for image in images:
        text = image.name
        plain = _PLAIN_FOLDER if image.is_packed else _PLAIN
        several = shown[_composed(text)] > 1
        is_plain = not several and len(text) <= _LONGEST_NAME and plain.fullmatch(text)
        place = _composed(f"{image.alias}/{image.main.name}")
        upload = text if is_plain else _ours(image, place)
        while upload in sent:
            # Two files of one folder that differ in nothing but how an accent is written.
            place += "\0"
            upload = _ours(image, place)
        sent.add(upload)
        if several:
            text = _distinct(f"{image.folder}-{text}", taken)
            taken.add(_composed(text))
        made.append(replace(image, upload=upload, shown=text))
    return made


def _composed(text: str) -> str:
    """A text with one character for each letter with its accents: some systems write two."""
    return unicodedata.normalize("NFC", text)


def _distinct(text: str, taken: set[str]) -> str:
    number, name = 1, text
    while _composed(name) in taken:
        number += 1
        name = f"{text} ({number})"
    return name


def _ours(image: ImageFiles, place: str) -> str:
    """A plain name, told from all others by what follows from the image's place in the dataset."""
    mark = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:12]
    name = Path(image.name)
    stem, suffix = (image.name, "") if image.is_packed else (name.stem, name.suffix)
    ascii_ = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", ascii_).strip("-")[:60] or "image"
    return f"{readable}-{mark}{suffix if re.fullmatch(r'[.][A-Za-z0-9_-]+', suffix) else ''}"


def pack(image: ImageFiles, target: Path) -> None:
    """Write a slide of several files as a zip of one folder, which has the name of the upload."""
    base = image.main.parent
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as content:
        for path in image.files:
            inside = path.relative_to(base) if path.is_relative_to(base) else Path(path.name)
            content.write(path, f"{image.upload or image.alias}/{inside.as_posix()}")


def open_all(image: ImageFiles) -> None:
    """Find out whether an image's files can be read, before any is sent.

    Raises:
        DatasetError: one cannot.
    """
    try:
        for path in image.files:
            path.open("rb").close()
    except OSError as error:
        raise unreadable(error, image.main) from None
