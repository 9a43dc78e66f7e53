"""Files in object storage and at web addresses, by fsspec: ``s3://…``, ``https://…``, ``sda://…``.

Needs the extra ``storage`` for those in object storage.
"""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.spec import AbstractBufferedFile

from .storageurls import STORES, without_secrets

BLOCK = 256 * 1024
BLOCKS = 128  # in memory, of one file


def filesystem(url: str, options: dict[str, Any] | None = None) -> tuple[Any, str]:
    """The filesystem of a URL, and the path in it.

    Args:
        url: of any kind that fsspec knows; a path without one is a file of this machine.
        options: of the filesystem: an endpoint, credentials.

    Raises:
        ValueError: nothing here speaks its protocol, or it names no place.
    """
    protocol, rest = split_protocol(url)
    options = dict(options or {})
    if protocol in STORES:
        _register(protocol)
        # Whoever writes an endpoint without TLS means it; obstore wants to hear it twice.
        if str(options.get("endpoint", "")).startswith("http://"):
            options.setdefault("client_options", {"allow_http": True})
    if protocol and not rest.strip("/"):
        raise ValueError(
            f"{without_secrets(url)} names no place: it looks like s3://bucket/folder or https://host/folder."
        )
    try:
        fs, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        if protocol and protocol not in fsspec.available_protocols():
            raise ValueError(
                f"Nothing here reads {protocol}://: use s3://, gs://, az://, https:// or sda://."
            ) from error
        raise ValueError(f"{without_secrets(url)} cannot be opened: {error}") from error
    return fs, str(path)


def _register(protocol: str) -> None:
    """Have obstore speak a protocol, unless somebody registered something else for it."""
    if protocol in fsspec.registry:
        return
    try:
        from obstore.fsspec import register
    except ImportError as error:
        raise ValueError(
            f"{protocol}:// needs obstore: install it, for instance by pip install 'cytomine-spawner[storage]'."
        ) from error
    register(protocol)


class RangeFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read by ranges: nothing comes but blocks of 256 KiB that are looked at.

    The filesystems' own files read ahead, megabytes for each tile of a slide.

    Args:
        fs: the filesystem.
        path: the file.

    Raises:
        FileNotFoundError: there is none.
        OSError: its length is not known, so no range can be asked for.
    """

    def __init__(self, fs: Any, path: str) -> None:
        size = fs.size(path)
        if size is None:
            raise OSError(
                f"{path} cannot be read by ranges: the server does not say how long it is. Copy it, and open the copy."
            )
        super().__init__(
            fs,
            path,
            "rb",
            BLOCK,
            cache_type="blockcache",
            cache_options={"maxblocks": BLOCKS},
            size=int(size),
        )

    def _fetch_range(self, start: int, end: int) -> bytes:
        found = self.fs.cat_file(self.path, start=start, end=end)
        # A server that knows no ranges sends the whole file, from its beginning.
        if len(found) != end - start:
            raise OSError(
                f"{self.path} cannot be read by ranges: {len(found)} bytes came where {end - start} were asked for. Copy it, "
                "and open the copy."
            )
        return bytes(found)
