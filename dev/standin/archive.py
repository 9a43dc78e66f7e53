"""Stand-in for Cytomine's image server: a slide of several files is uploaded as zip, best with one folder in it.

Upstream looks at the archive as a whole first, which it then names after the slide's main file; else each folder in it that is
a slide becomes an image with the folder's name. Archives of plain images, which upstream takes apart, are not taken here.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from .readers import Unreadable


def unpack(path: Path) -> Path:
    """The file to open: the upload itself or, of a zip, the main file of the slide in it, unpacked beside it.

    Raises:
        Unreadable: the zip is broken, holds no slide or would not fit.
    """
    if path.suffix.lower() != ".zip":
        return path
    folder = path.parent / "processed"
    try:
        # What the form leaves at the end of the file does not disturb.
        with zipfile.ZipFile(path) as content:
            items = [i for i in content.infolist() if not i.is_dir()]
            if sum(i.file_size for i in items) > shutil.disk_usage(path.parent).free:
                raise Unreadable("the archive does not fit on the image volume")
            folder.mkdir()
            for item in items:
                # Names inside an archive are the uploader's.
                parts = [p for p in PurePosixPath(item.filename).parts if p not in ("..", "/")]
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(item) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Unreadable(str(error)) from None
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if main := _main(place):
            return main
    shutil.rmtree(folder, ignore_errors=True)
    raise Unreadable("the archive holds no slide")


def name(upload: str, path: Path, inside: Path) -> str:
    """How upstream names an image.

    Args:
        upload: the upload's name.
        path: where the upload is.
        inside: the file that is opened, as `unpack` gives it.
    """
    if inside == path:
        return upload
    if inside.parent != path.parent / "processed":
        return inside.parent.name
    return "original.WSIDICOM" if inside.suffix.lower() == ".dcm" else inside.name


def _main(place: Path) -> Path | None:
    """The main file of a folder that is one slide: DICOM files alone, an MRXS with its folder, a VMS."""
    there = sorted(place.iterdir())
    if there and all(p.is_file() and p.suffix.lower() == ".dcm" for p in there):
        return max(there, key=lambda p: p.stat().st_size)
    for path in there:
        if path.suffix == ".mrxs" and (path.with_suffix("") / "Slidedat.ini").exists():
            return path
        if path.suffix == ".vms" and path.read_bytes().splitlines()[:1] == [b"[Virtual Microscope Specimen]"]:
            return path
    return None
