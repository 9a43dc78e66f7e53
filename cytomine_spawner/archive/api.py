"""The two versions of the archive's download API, behind the same methods.

``detect`` asks ``/service-info``, which version 2 has.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp

from .crypt import HEADER_BYTES, KeyPair
from .errors import Changed, Damaged, NoSuchPath, NotGranted, Refused, Temporary
from .http import Http

PAGE = 1000
# What the archive's own command-line client says; version 1 refuses what is older than its minimum.
CLIENT_VERSION = "0.3.0"
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class RemoteFile:
    """A file as the archive lists it.

    Attributes:
        dataset: the dataset's id.
        id: the file's id.
        path: its path in the archive's words.
        plain_size: its length when decrypted, in bytes; None if the archive does not say.
        body_size: the length of its encrypted body, in bytes; None if the archive does not say.
        checksum: of the decrypted file, such as ``sha256:1f2e…``; None if the archive does not say.
    """

    dataset: str
    id: str
    path: str
    plain_size: int | None
    body_size: int | None
    checksum: str | None


@dataclass(frozen=True)
class Opened:
    """What reading a file needs.

    Attributes:
        header: its Crypt4GH header, encrypted for our key.
        etag: what names this very content; empty if the archive does not say.
        body_size: the length of its encrypted body, in bytes.
    """

    header: bytes
    etag: str
    body_size: int


class Api(Protocol):
    """One version of the API."""

    version: int
    http: Http

    async def datasets(self) -> list[str]:
        """The ids of the datasets that the token grants."""

    async def files(self, dataset: str) -> list[RemoteFile]:
        """All files of a dataset."""

    async def open(self, file: RemoteFile, pair: KeyPair) -> Opened:
        """A file's header for a key pair."""

    def body(
        self, file: RemoteFile, opened: Opened, pair: KeyPair, first: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        """Bytes of the encrypted body."""

    async def encrypted_checksum(self, file: RemoteFile) -> str | None:
        """The checksum of the encrypted body; None if the archive does not say."""


async def detect(http: Http) -> Api:
    """The version that an archive speaks.

    Args:
        http: requests to it.

    Raises:
        ArchiveError: it does not answer, or is no archive.
    """
    what = f"Asking {http.base} for its version"
    with contextlib.suppress(NoSuchPath, NotGranted):
        answer = await http.read("/service-info", what, anonymous=True)
        found = answer.json()
        kind = found.get("type") if isinstance(found, dict) else None
        if isinstance(kind, dict) and kind.get("artifact") == "drs":
            return V2(http)
        raise Refused(
            f"{http.base} answers, but not as an archive of sensitive data does: check the address."
        )
    return V1(http)


class V2:
    """Version 2: the header and the content apart, pages, ETags."""

    version = 2

    def __init__(self, http: Http) -> None:
        self.http = http

    async def datasets(self) -> list[str]:
        """The ids of the datasets that the token grants, sorted."""
        return sorted(
            {str(name) for name in await self._pages("/datasets?", "datasets", "Listing the datasets")}
        )

    async def files(self, dataset: str) -> list[RemoteFile]:
        """All files of a dataset.

        Raises:
            ArchiveError: it is not granted, or the list does not come.
        """
        path = f"/datasets/{quote(dataset, safe='')}/files?"
        found = await self._pages(path, "files", f"Listing the dataset {dataset}")
        return [
            RemoteFile(
                dataset,
                _text(entry, "fileId"),
                _text(entry, "filePath"),
                _size(entry.get("decryptedSize")),
                _size(entry.get("size")),
                _checksum(_sums(entry)),
            )
            for entry in found
        ]

    async def open(self, file: RemoteFile, pair: KeyPair) -> Opened:
        """A file's header for a key pair, in one request.

        Raises:
            ArchiveError: it is not granted, or does not come.
        """
        what = f"Opening {file.path}"
        asked = {"X-C4GH-Public-Key": pair.header}
        answer = await self.http.read(f"{self._path(file)}/header", what, asked)
        size = file.body_size
        if size is None:
            head = await self.http.read(f"{self._path(file)}/content", what, method="HEAD")
            size = _size(head.headers.get("Content-Length"))
        if size is None:
            raise Refused(
                f"{what} failed: the archive does not say how long it is. Tell the archive's operators."
            )
        return Opened(answer.body, answer.headers.get("SDA-Content-ETag", ""), size)

    def body(
        self,
        file: RemoteFile,
        opened: Opened,
        pair: KeyPair,  # noqa: ARG002
        first: int,
        stop: int,
    ) -> AsyncGenerator[bytes, None]:
        """Bytes of the encrypted body.

        Raises:
            ArchiveError: they are not granted, do not come, or are another content's.
        """

        def check(response: aiohttp.ClientResponse, at: int, end: int) -> None:
            etag = response.headers.get("ETag", "")
            if opened.etag and etag and etag != opened.etag:
                raise Changed(f"{file.path} was changed in the archive while it was read: open it anew.")
            if response.status == 206:
                _check_range(response, at, end, opened.body_size, file)
            elif at:
                raise Temporary("the archive does not send the range that was asked for", tries=4)

        headers = {"If-Range": opened.etag} if opened.etag else {}
        return self.http.stream(
            f"{self._path(file)}/content", f"Reading {file.path}", first, stop, headers, check
        )

    async def encrypted_checksum(self, file: RemoteFile) -> str | None:
        """The checksum of the encrypted body, from the file's DRS object.

        Raises:
            ArchiveError: it is not granted, or does not come.
        """
        path = f"/objects/{quote(file.dataset, safe='')}/{quote(file.path)}"
        found = (await self.http.read(path, f"Asking for the checksum of {file.path}")).json()
        return _checksum(_sums(found))

    @staticmethod
    def _path(file: RemoteFile) -> str:
        return f"/files/{quote(file.id, safe='')}"

    async def _pages(self, path: str, key: str, what: str) -> list[Any]:
        """All pages of a list; from the first again where a page's token is not accepted any more."""
        for last in (False, False, True):
            found: list[Any] = []
            token = ""
            try:
                while True:
                    more = f"&pageToken={quote(token, safe='')}" if token else ""
                    page = (await self.http.read(f"{path}pageSize={PAGE}{more}", what)).json()
                    if not isinstance(page, dict) or not isinstance(page.get(key) or [], list):
                        raise Refused(f"{what} failed: the archive's answer is no list of {key}.")
                    found += page.get(key) or []
                    token = page.get("nextPageToken") or ""
                    if not token:
                        return found
            except Refused:
                if not token or last:
                    raise
        raise AssertionError


class V1:
    """Version 1: header and content in one stream, which the archive reads from its start for each request."""

    version = 1

    def __init__(self, http: Http) -> None:
        self.http = http
        self._headers = {"SDA-Client-Version": CLIENT_VERSION}

    async def datasets(self) -> list[str]:
        """The ids of the datasets that the token grants, sorted."""
        found = (await self.http.read("/metadata/datasets", "Listing the datasets", self._headers)).json()
        if not isinstance(found or [], list):
            raise Refused("Listing the datasets failed: the archive's answer is no list.")
        return sorted({str(name) for name in found or []})

    async def files(self, dataset: str) -> list[RemoteFile]:
        """All files of a dataset.

        Raises:
            ArchiveError: it is not granted, or the list does not come.
        """
        scheme, separator, rest = dataset.partition("://")
        query = f"?scheme={quote(scheme, safe='')}" if separator else ""
        path = f"/metadata/datasets/{quote(rest if separator else dataset)}/files{query}"
        what = f"Listing the dataset {dataset}"
        try:
            found = (await self.http.read(path, what, self._headers)).json()
        except NoSuchPath:
            # Version 1 says the same of what is not granted.
            raise NotGranted.or_not_there(what) from None
        if not isinstance(found or [], list):
            raise Refused(f"{what} failed: the archive's answer is no list.")
        return [
            RemoteFile(
                dataset,
                _text(entry, "fileId"),
                _text(entry, "filePath"),
                _size(entry.get("decryptedFileSize")),
                None,
                _checksum([(entry.get("decryptedFileChecksumType"), entry.get("decryptedFileChecksum"))]),
            )
            for entry in found or []
        ]

    async def open(self, file: RemoteFile, pair: KeyPair) -> Opened:
        """A file's header for a key pair: its length from one request, its bytes from another.

        Raises:
            ArchiveError: it is not granted, or does not come.
        """
        what = f"Opening {file.path}"
        headers = {**self._headers, "Client-Public-Key": pair.header}
        head = await self.http.read(self._path(file), what, headers, method="HEAD")
        whole = _size(head.headers.get("Content-Length"))
        length = _size(head.headers.get("Client-Additional-Bytes"))
        if not whole or not length or length > min(whole, HEADER_BYTES):
            raise Refused(
                f"{what} failed: the archive does not say how long its header is, or no header is so long. Tell the "
                "archive's operators."
            )
        parts = [part async for part in self._stream(file, what, pair, 0, length)]
        return Opened(b"".join(parts), "", whole - length)

    def body(
        self, file: RemoteFile, opened: Opened, pair: KeyPair, first: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        """Bytes of the encrypted body.

        Raises:
            ArchiveError: they are not granted, or do not come.
        """
        # The header is encrypted anew for each request, and its length stays.
        shift = len(opened.header)
        return self._stream(file, f"Reading {file.path}", pair, first + shift, stop + shift)

    async def encrypted_checksum(self, file: RemoteFile) -> str | None:  # noqa: ARG002
        """None: version 1 does not say."""
        return None

    def _stream(
        self, file: RemoteFile, what: str, pair: KeyPair, first: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        def check(response: aiohttp.ClientResponse, at: int, end: int) -> None:
            if response.status == 206 and "Content-Range" in response.headers:
                _check_range(response, at, end, None, file)
            length = _size(response.headers.get("Content-Length"))
            if length is not None and length != end - at:
                raise Temporary("the archive does not send the range that was asked for", tries=4)

        headers = {**self._headers, "Client-Public-Key": pair.header}
        return self.http.stream(self._path(file), what, first, stop, headers, check)

    @staticmethod
    def _path(file: RemoteFile) -> str:
        # The archive decodes a path once more than it is encoded, where "+" is a space, too.
        # It then takes the file's path for a regular expression.
        escaped = re.sub(r"([\\^$|?*+()\[\]{}])", r"\\\1", file.path)
        path = f"{file.dataset}/{escaped}".replace("%", "%25").replace("+", "%2B")
        return f"/s3/{quote(path, safe='/:')}"


def _check_range(
    response: aiohttp.ClientResponse, at: int, end: int, total: int | None, file: RemoteFile
) -> None:
    found = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not found or (int(found[1]), int(found[2])) != (at, end - 1):
        raise Temporary("the archive does not send the range that was asked for", tries=4)
    if total is not None and int(found[3]) != total:
        raise Damaged(
            f"{file.path} has {found[3]} bytes where the archive's list says {total}: tell its operators."
        )


def _text(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise Refused(
            f"The archive's list of files has an entry without {key}: tell the archive's operators."
        )
    return value


def _size(value: object) -> int | None:
    try:
        found = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found >= 0 else None


def _sums(entry: Any) -> list[tuple[Any, Any]]:
    """The kinds and values of the checksums that an entry has."""
    found = entry.get("checksums") if isinstance(entry, dict) else None
    return [
        (one.get("type"), one.get("checksum"))
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
    ]


def _checksum(sums: list[tuple[Any, Any]]) -> str | None:
    """The strongest of several checksums."""
    known = {}
    for kind, value in sums:
        name = str(kind or "").lower().replace("-", "")
        if name in {"sha256", "sha384", "sha512", "md5"} and value:
            known[name] = str(value).lower()
    for name in ("sha512", "sha384", "sha256", "md5"):
        if name in known:
            return f"{name}:{known[name]}"
    return None
