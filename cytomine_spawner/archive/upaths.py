"""Paths of universal_pathlib in the archive: wsidicom opens slides by them."""

from __future__ import annotations

from upath import UPath


class SdaPath(UPath):
    """A path ``sda://<dataset>/<path>``; all that UPath does by itself does here."""

    __slots__ = ()
