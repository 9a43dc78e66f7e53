"""Stand-in for Cytomine's image server: a DICOM slide is uploaded as zip of one folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from .readers import Unreadable


def unpack(path: Path) -> Path:
    """The file to open: the upload itself or, of a zip, the largest of the DICOM files, unpacked beside it.

    Raises:
        Unreadable: the zip is broken, holds no DICOM files or would not fit.
    """
    if path.suffix.lower() != ".zip":
        return path
    folder = path.parent / "processed"
    try:
        # What the form leaves at the end of the file does not disturb.
        with zipfile.ZipFile(path) as content:
            items = [i for i in content.infolist() if i.filename.lower().endswith(".dcm") and not i.is_dir()]
            if not items:
                raise Unreadable("the archive holds no DICOM files")
            if sum(i.file_size for i in items) > shutil.disk_usage(path.parent).free:
                raise Unreadable("the archive does not fit on the image volume")
            folder.mkdir()
            for number, item in enumerate(items):
                # Names inside an archive are the uploader's.
                name = f"{number}-{PurePosixPath(item.filename).name}"
                with content.open(item) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Unreadable(str(error)) from None
    return max(folder.iterdir(), key=lambda p: p.stat().st_size)
