"""The Bigpicture archive, or another sensitive data archive, as a filesystem: ``fsspec.open("sda://<dataset>/<path>")``.

Needs the extra ``archive``. Imports nothing else of this package.
"""

from __future__ import annotations

from .errors import (
    ArchiveError,
    Changed,
    Damaged,
    EmptyArchive,
    NoSuchPath,
    NotGranted,
    NoToken,
    ReadOnly,
    Refused,
    TokenRefused,
    Unreachable,
)
from .filesystem import SdaFileSystem
from .hubtoken import HubToken
from .tokens import CallableToken, FileToken, FixedToken

__all__ = [
    "ArchiveError",
    "CallableToken",
    "Changed",
    "Damaged",
    "EmptyArchive",
    "FileToken",
    "FixedToken",
    "HubToken",
    "NoSuchPath",
    "NoToken",
    "NotGranted",
    "ReadOnly",
    "Refused",
    "SdaFileSystem",
    "TokenRefused",
    "Unreachable",
]
