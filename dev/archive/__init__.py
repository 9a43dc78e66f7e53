"""Stands in for the Bigpicture archive in development and tests; never what production runs.

README.md says what it is and what it follows. In tests::

    with archive.running() as local:
        local.add("aa-Dataset-x", "DATASET_x/IMAGES/IMAGE_1/a.dcm", archive.Bytes(b"..."))
        petra = local.someone("petra", "aa-Dataset-x")
        with local.archive(version=2) as server:
            httpx.get(f"{server.url}/datasets", headers={"Authorization": f"Bearer {local.issuer.token(petra)}"})
            server.faults.append(archive.Fault("cut", path="/content", after=1000))
            server.counters.total.pulled
"""

from __future__ import annotations

import importlib
from typing import Any

# Loaded when they are asked for: the command starts with a Python that has none of the packages yet.
_WHERE = {
    "Archive": "server",
    "Bucket": "storage",
    "Bytes": "sources",
    "Content": "content",
    "Dataset": "content",
    "Entry": "content",
    "Fault": "faults",
    "File": "sources",
    "Folder": "storage",
    "Issuer": "issuer",
    "Key": "issuer",
    "Local": "local",
    "MIB": "settings",
    "Noise": "sources",
    "Patched": "sources",
    "Settings": "settings",
    "Someone": "issuer",
    "Source": "sources",
    "Storage": "storage",
    "Virtual": "storage",
    "key_header": "crypt",
    "running": "local",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
