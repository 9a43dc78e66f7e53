"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Version 1 of the download API, with the oddities that were measured or read in the real server.
"""

from __future__ import annotations

import asyncio
import re
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from aiohttp import web

from . import call, ranges
from .content import Dataset, Entry
from .crypt import SEALED, KeyRefused
from .tokens import Person, Unauthorized

if TYPE_CHECKING:
    from .served import Served

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_HELD = 2048
_VERSION = re.compile(r"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")


class Said(Exception):
    """An answer in plain text."""

    def __init__(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers or {}

    def response(self) -> web.Response:
        """The answer; one without a word has no type either."""
        made = web.Response(status=self.status, body=self.text.encode())
        made.headers.popall("Content-Type", None)
        if self.text:
            made.headers["Content-Type"] = "text/plain; charset=utf-8"
        made.headers.update(self.headers)
        return made


class Version1:
    """The handlers.

    Args:
        archive: whose they are.
    """

    def __init__(self, archive: Served) -> None:
        self._archive = archive

    def routes(self) -> list[web.AbstractRouteDef]:
        """What is answered."""
        return [
            web.get("/metadata/datasets", self.datasets, allow_head=False),
            web.get("/metadata/datasets/{dataset:.*}", self.files, allow_head=False),
            web.get("/files/{file}", self.file, allow_head=False),
            web.get("/s3/{path:.*}", self.s3),
            web.get("/health", self.health, allow_head=False),
            web.head("/", self.health),
        ]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Errors are plain text."""
        try:
            response: web.StreamResponse = await handler(request)
        except Said as said:
            response = said.response()
        except Unauthorized as error:
            response = web.Response(status=error.status, text=str(error))
        except web.HTTPMethodNotAllowed as error:
            allowed = {"Allow": ", ".join(sorted(error.allowed_methods)), "Content-Type": "text/plain"}
            response = Said(405, "405 method not allowed", allowed).response()
        except web.HTTPNotFound:
            response = Said(404, "404 page not found", {"Content-Type": "text/plain"}).response()
        if not response.prepared:
            response.headers.update(call.of(request).headers)
        return response

    async def _person(self, request: web.Request) -> Person:
        """Token first, client's version second."""
        person, cookie = await self._archive.door.person(request)
        if cookie:
            session, life = cookie
            secure = "; Secure" if self._archive.settings.secure_cookies else ""
            # Without a life of sessions the cookie is one that clients drop at once.
            age = f"; Max-Age={max(0, life)}" if life else ""
            call.of(request).headers["Set-Cookie"] = (
                f"sda_session_key={session}; Path=/{age}; HttpOnly{secure}"
            )
        call.of(request).person = person
        if least := self._archive.settings.client_version:
            given = request.headers.get("SDA-Client-Version", "")
            if not given:
                raise Said(412, "Missing client version header in request")
            if not _VERSION.fullmatch(given):
                raise Said(412, "client version header is not a valid semantic version")
            # A version before a release is less than the release.
            if (_numbers(given), "-" not in given.partition("+")[0]) < (_numbers(least), "-" not in least):
                said = (
                    f"Your sda-cli client version is outdated, please update to at least version '{least}'."
                )
                raise Said(412, f"Error: {said}")
        return person

    def _granted(self, person: Person) -> list[str]:
        return [d for d in person.datasets if d not in self._archive.revoked]

    async def health(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return web.Response()

    async def datasets(self, request: web.Request) -> web.Response:
        """The datasets that somebody may read."""
        return web.json_response(self._granted(await self._person(request)))

    async def files(self, request: web.Request) -> web.Response:
        """The files of a dataset, without the uploader's folder."""
        person, name = await self._person(request), request.match_info["dataset"]
        if not name.endswith("/files"):
            raise Said(404, "API path not found, maybe /files is missing")
        name = name.removesuffix("/files")
        if scheme := request.query.get("scheme"):
            name = f"{scheme}://{name}"
        if name not in self._granted(person):
            raise Said(404, "dataset not found")
        dataset = self._archive.content.datasets[name]
        return web.json_response([_told(file, dataset) for file in dataset.files] or None)

    async def file(self, request: web.Request) -> web.Response:
        """Plain data by file id, which no archive of ours hands out."""
        await self._person(request)
        raise Said(400, "downloading unencrypted data is not supported")

    async def s3(self, request: web.Request) -> web.StreamResponse:
        """Files by path. What is no dataset of the person's is 403, a file that is not there 404, both without a word."""
        person = await self._person(request)
        path = unquote_plus((request.match_info["path"] + request.query.get("prefix", "")).strip("/"))
        # Many tools and proxies make one slash of two.
        path = re.sub(r"^(https?:/)([^/])", r"\1/\2", path)
        found = next(
            (d for d in self._granted(person) if path == d or path.startswith(f"{d}/")),
            None,
        )
        if found is None:
            raise Said(403)
        dataset, rest = self._archive.content.datasets[found], path[len(found) + 1 :]
        if "?location" in str(request.rel_url):
            place = '<LocationConstraint xmlns="https://s3.amazonaws.com/doc/2006-03-01/">us-west-2</LocationConstraint>'
            return _xml(place)
        if not rest or request.query.get("prefix"):
            return self._listed(dataset, rest)
        return await self._object(request, self._match(dataset, rest))

    def _listed(self, dataset: Dataset, prefix: str) -> web.Response:
        """A bucket's list, with plain sizes, and with names that lack the folder behind the uploader's, too."""
        rows = ""
        for file in dataset.files:
            parts = _told(file, dataset)["filePath"].removesuffix(".c4gh").split("/")
            key = "/".join(parts[1:] or parts)
            if not key.startswith(prefix):
                continue
            rows += f"<Contents><Key>{escape(key)}</Key><Owner></Owner><Size>{file.decrypted_size}</Size></Contents>"
        name = f"<Name>{escape(dataset.id)}</Name>"
        return _xml(f"<ListBucketResult><CommonPrefixes></CommonPrefixes>{rows}{name}</ListBucketResult>")

    def _match(self, dataset: Dataset, path: str) -> Entry:
        """Upstream's database matches the path as a regular expression behind any first folder, and open at the end."""
        path = path if path.endswith(".c4gh") else f"{path}.c4gh"
        try:
            pattern = re.compile(f"[^/]*/?{path}")
        except re.error:
            raise Said(500) from None
        found = next((file for file in dataset.files if pattern.match(file.path)), None)
        if found is None:
            raise Said(404)
        return found

    async def _object(self, request: web.Request, file: Entry) -> web.StreamResponse:
        call.of(request).file = file
        key = _key(request)
        start, end = _coordinates(request)
        try:
            if wanted := ranges.parse_v1(request.headers.get("Range", "")):
                start, end = wanted
            else:
                end = _to_segments(start, end, file)
        except ranges.RangeInvalid:
            raise Said(400, "Range header byte coordinates invalid") from None
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"filename: {file.id}",
            "ETag": file.sum,
            "Last-Modified": format_datetime(file.modified, usegmt=True),
        }
        try:
            new = (
                await asyncio.to_thread(self._archive.content.vault.reencrypted, file.header, key)
                if key
                else b""
            )
        except KeyRefused:
            raise Said(500, "file re-encryption error", headers) from None
        if request.method == "HEAD":
            headers["Server-Additional-Bytes"] = str(len(file.header))
            headers |= {"Client-Additional-Bytes": str(len(new))} if key else {}
            size = (len(new) if key else len(file.header)) + file.size
            return await self._archive.send(request, file, 200, headers, None, new, size)
        if not key:
            raise Said(400, "c4gh public key is missing from the header", headers)
        size = len(new) + file.size
        if start > size:
            raise Said(500, "file decoding error", headers)
        # An end of 0 is no end; no length is told, and a range is a 200 like all else.
        stop = min(end, size) if end else size
        if call.of(request).fault("whole"):
            start, stop = 0, size
        if shift := call.of(request).fault("shift", "lie"):
            start, stop = min(start + shift.after, size), min(stop + shift.after, size)
        part = (start, max(0, stop - start))
        # Only what the server holds back until its end gets a length.
        told = part[1] if part[1] <= _HELD else None
        return await self._archive.send(request, file, 200, headers, part, new, told)


def _xml(text: str) -> web.Response:
    return web.Response(text=_XML + text, content_type="text/xml")


def _told(file: Entry, dataset: Dataset) -> dict[str, Any]:
    return {
        "fileId": file.id,
        "displayFileName": file.name,
        "filePath": file.path.removeprefix(f"{dataset.owner.replace('@', '_')}/"),
        "decryptedFileSize": file.decrypted_size,
        "decryptedFileChecksum": file.sum,
        "decryptedFileChecksumType": "SHA256",
    }


def _key(request: web.Request) -> str:
    names = [n for n in ("Htsget-Context-Public-Key", "Client-Public-Key") if request.headers.get(n)]
    if len(names) > 1:
        raise Said(400, "both Htsget-Context-Public-Key, and Client-Public-Key headers are set")
    key = request.headers[names[0]] if names else ""
    if not re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", key):
        raise Said(400, f"invalid base64 encoding for {names[0]} header")
    return key


def _coordinates(request: web.Request) -> tuple[int, int]:
    found = []
    for name in ("startCoordinate", "endCoordinate"):
        text = request.query.get(name, "0")
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise Said(400, f"{name} must be an integer")
        found.append(int(text))
    if found[1] < found[0]:
        raise Said(400, "endCoordinate must be greater than startCoordinate")
    return found[0], found[1]


def _to_segments(start: int, end: int, file: Entry) -> int:
    """Coordinates are moved to the end of a segment, behind the header."""
    head = len(file.header)
    if end <= 0:
        return head + file.size
    body = max(end - start - head, 0)
    return head + min(file.size, SEALED * -(-body // SEALED))


def _numbers(version: str) -> tuple[int, ...]:
    found = _VERSION.fullmatch(version)
    return tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)
