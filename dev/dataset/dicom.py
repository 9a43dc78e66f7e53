"""Mock dataset: the real slide as DICOM whole-slide image, the same bytes each time."""

from __future__ import annotations

import itertools
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID
from wsidicomizer import WsiDicomizer


def _uids() -> Callable[..., UID]:
    numbers = itertools.count(1)
    return lambda *_, **__: UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'mock-slide-{next(numbers)}').int}")


def _fix(path: Path, name: str) -> Path:
    # The time of the conversion, also in the header of the colour profile, would make each run another file.
    data = dcmread(path)
    data.ContentDate, data.ContentTime = "20260101", "000000"
    for optical in data.OpticalPathSequence:
        profile = bytearray(optical.ICCProfile)
        profile[24:36] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
        optical.ICCProfile = bytes(profile)
    target = path.with_name(name)
    data.save_as(target, enforce_file_format=True)
    path.unlink()
    return target


def write(slide: Path, folder: Path) -> list[Path]:
    """Convert the slide at full size, its frames unchanged, without label and overview; the files."""
    folder.mkdir(parents=True)
    made = WsiDicomizer.convert(
        slide,
        folder,
        uid_generator=_uids(),
        tile_size=256,
        include_label=False,
        include_overview=False,
        include_confidential=False,
        # wsidicomizer 0.26 would write cut frames at the borders of the levels that it makes itself.
        add_missing_levels=False,
        workers=1,
    )
    paths = sorted((Path(p) for p in made), key=lambda p: -p.stat().st_size)
    return [_fix(p, f"skin-{n}.dcm") for n, p in enumerate(paths)]
