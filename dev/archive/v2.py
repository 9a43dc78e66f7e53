"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Version 2 of the download API: datasets, files, DRS objects, service-info and health.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import call, paging, ranges
from .content import Entry
from .crypt import KeyRefused
from .tokens import Person, Unauthorized

if TYPE_CHECKING:
    from .served import Served

_CACHED = {"Cache-Control": "private, max-age=60, must-revalidate"}
_TOO_LONG = 4096


class Problem(Exception):
    """An answer by RFC 9457."""

    def __init__(
        self, status: int, detail: str, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code, self.headers = status, detail, code, headers or {}

    def response(self, correlation: str = "") -> web.Response:
        """The answer; without an id it is what upstream's token check sends."""
        fields: dict[str, Any] = {"title": HTTPStatus(self.status).phrase, "status": self.status}
        fields |= {"detail": self.detail}
        fields |= {"errorCode": self.code} if self.code else {}
        fields |= {"correlationId": correlation} if correlation else {}
        return web.Response(
            status=self.status,
            body=json.dumps(fields, separators=(",", ":")).encode(),
            content_type="application/problem+json",
            headers=self.headers,
        )


def _refused() -> Problem:
    # The same for what is not there and what is not granted: nobody learns which.
    return Problem(403, "access denied")


class Version2:
    """The handlers.

    Args:
        archive: whose they are.
    """

    def __init__(self, archive: Served) -> None:
        self._archive = archive

    def routes(self) -> list[web.AbstractRouteDef]:
        """What is answered. HEAD is known of files alone."""
        plain = {"allow_head": False}
        return [
            web.get("/health/live", self.live, **plain),
            web.get("/health/ready", self.ready, **plain),
            web.get("/service-info", self.service_info, **plain),
            web.get("/datasets", self.datasets, **plain),
            web.get("/datasets/{dataset}", self.dataset, **plain),
            web.get("/datasets/{dataset}/files", self.files, **plain),
            web.get("/objects/{path:.*}", self.drs, **plain),
            web.route("*", "/files/{file}", self.file),
            web.route("*", "/files/{file}/header", self.header),
            web.route("*", "/files/{file}/content", self.content),
        ]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """An id for each request, and problems in the form that clients read."""
        made = call.of(request)
        correlation = made.correlation = str(uuid.uuid4())
        made.headers["X-Correlation-ID"] = correlation
        try:
            response: web.StreamResponse = await handler(request)
        except Problem as problem:
            response = problem.response(correlation)
        except Unauthorized:
            response = Problem(401, "Missing, invalid, or expired bearer token.").response()
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            response = _nowhere(request)
        if not response.prepared:
            response.headers.update(call.of(request).headers)
        return response

    async def _person(self, request: web.Request) -> Person:
        person, cookie = await self._archive.door.person(request)
        if cookie:
            session, life = cookie
            secure = "; Secure" if self._archive.settings.secure_cookies else ""
            text = f"sda_session={session}; Path=/; Max-Age={life}; HttpOnly{secure}; SameSite=Lax"
            call.of(request).headers["Set-Cookie"] = text
        call.of(request).person = person
        return person

    async def _may(self, request: web.Request, dataset: str) -> None:
        person = await self._person(request)
        if dataset not in person.datasets or dataset in self._archive.revoked:
            raise _refused()

    async def live(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return web.json_response({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """What the server needs answers, or what the test has made unready."""
        down = self._archive.down
        services = {
            name: "error: backend unresponsive" if name in down else "ok"
            for name in ("database", "storage", "grpc")
        }
        status = {"status": "degraded" if down else "ok", "services": services}
        return web.json_response(status, status=503 if down else 200)

    async def service_info(self, _request: web.Request) -> web.Response:
        """What this is: clients tell the version by it."""
        info = {
            "id": "org.cytomine-spawner.dev.archive",
            "name": "SDA Download",
            "type": {"group": "org.ga4gh", "artifact": "drs", "version": "1.0.0"},
            "organization": {"name": "A stand-in for tests, not the archive", "url": "http://localhost/"},
            "version": "2.0.0",
        }
        return web.json_response(info, headers={"Cache-Control": "public, max-age=300"})

    async def datasets(self, request: web.Request) -> web.Response:
        """The datasets that somebody may read, those that the archive has."""
        person, archive = await self._person(request), self._archive
        ids = sorted(d for d in person.datasets if d in archive.content.datasets and d not in archive.revoked)
        query = paging.fingerprint("datasets")
        try:
            size, page = self._page(request, query)
        except paging.BadPage as error:
            raise Problem(400, str(error)) from None
        start = 0
        if page:
            if page.size != size:
                raise Problem(400, "pageSize must not change between pages")
            # A cursor that is no longer there begins anew, as upstream does.
            start = ids.index(page.cursor) + 1 if page.cursor in ids else 0
        found = ids[start : start + size]
        token = None
        if start + size < len(ids):
            token = paging.encode(paging.Page(found[-1], "", size, query), archive.settings)
        return web.json_response({"datasets": found, "nextPageToken": token}, headers=_CACHED)

    def _page(self, request: web.Request, query: str) -> tuple[int, paging.Page | None]:
        size = paging.page_size(request.query.get("pageSize"))
        text = request.query.get("pageToken")
        if not text:
            return size, None
        page = paging.decode(text, self._archive.settings)
        if page.query != query:
            raise paging.BadPage("page token does not match this query")
        return size, page

    async def dataset(self, request: web.Request) -> web.Response:
        """One dataset in numbers."""
        name = request.match_info["dataset"]
        await self._may(request, name)
        dataset = self._archive.content.datasets.get(name)
        if dataset is None:
            raise _refused()
        info = {
            "datasetId": dataset.id,
            "date": dataset.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "files": len(dataset.files),
            "size": sum(file.decrypted_size for file in dataset.files),
        }
        return web.json_response(info, headers=_CACHED)

    async def files(self, request: web.Request) -> web.Response:
        """The files of a dataset by path. Another page size than before is taken here, though not by ``/datasets``."""
        name = request.match_info["dataset"]
        await self._may(request, name)
        dataset = self._archive.content.datasets.get(name)
        if dataset is None:
            raise _refused()
        exact, prefix = request.query.get("filePath", ""), request.query.get("pathPrefix", "")
        if max(len(exact.encode()), len(prefix.encode())) > _TOO_LONG:
            raise Problem(400, "filter value too long")
        if exact and prefix:
            raise Problem(400, "filePath and pathPrefix are mutually exclusive", "FILTER_CONFLICT")
        query = paging.fingerprint(name, exact, prefix)
        try:
            size, page = self._page(request, query)
        except paging.BadPage as error:
            raise Problem(400, str(error)) from None
        found = [f for f in dataset.files if (not exact or f.path == exact) and f.path.startswith(prefix)]
        if page and not exact:
            found = [f for f in found if (f.path, f.id) > (page.cursor, page.tie)]
        token = None
        if len(found) > size:
            last = found[size - 1]
            token = paging.encode(paging.Page(last.path, last.id, size, query), self._archive.settings)
        told = [
            {
                "fileId": file.id,
                "filePath": file.path,
                "size": file.size,
                "decryptedSize": file.decrypted_size,
                "checksums": [{"type": "sha256", "checksum": file.sum}] if file.sum else [],
                "downloadUrl": f"/files/{file.id}",
            }
            for file in found[:size]
        ]
        return web.json_response({"files": told, "nextPageToken": token}, headers=_CACHED)

    async def drs(self, request: web.Request) -> web.Response:
        """A DRS object. The dataset's id ends at the first slash even of a decoded path: no URL can be one here."""
        dataset, slash, path = request.match_info["path"].lstrip("/").partition("/")
        person = await self._person(request)
        if not (dataset and slash and path):
            raise Problem(400, "path must contain {datasetId}/{filePath}")
        if dataset not in person.datasets or dataset in self._archive.revoked:
            raise _refused()
        file = self._archive.content.find(dataset, path)
        if file is None:
            raise _refused()
        if not file.body_sum:
            raise Problem(500, "file has no checksums")
        url = f"{request.scheme}://{request.host}/files/{file.id}/content"
        told = {
            "id": file.id,
            "self_uri": f"drs://{request.host}/{file.id}",
            "size": file.size,
            "created_time": file.modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "checksums": [{"checksum": file.body_sum, "type": "sha-256"}],
            "access_methods": [{"type": request.scheme, "access_url": {"url": url}}],
        }
        return web.json_response(told, headers=_CACHED)

    async def _file(self, request: web.Request) -> Entry:
        person = await self._person(request)
        file = self._archive.content.files.get(request.match_info["file"])
        if file is None or file.dataset not in person.datasets or file.dataset in self._archive.revoked:
            raise _refused()
        call.of(request).file = file
        return file

    async def _with_key(self, request: web.Request) -> tuple[Entry, bytes]:
        """The file, and its header for the client's key."""
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPNotFound
        # Upstream looks at the token before, at the file behind the key.
        await self._person(request)
        names = [n for n in ("X-C4GH-Public-Key", "Htsget-Context-Public-Key") if request.headers.get(n)]
        if len(names) > 1:
            said = "only one of X-C4GH-Public-Key or Htsget-Context-Public-Key may be provided"
            raise Problem(400, said, "KEY_CONFLICT")
        if not names:
            said = "X-C4GH-Public-Key or Htsget-Context-Public-Key header is required"
            raise Problem(400, said, "KEY_MISSING")
        file = await self._file(request)
        try:
            key = request.headers[names[0]]
            header = await asyncio.to_thread(self._archive.content.vault.reencrypted, file.header, key)
        except KeyRefused:
            raise Problem(500, "failed to prepare file for download") from None
        return file, header

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Header and body in one: its ETag differs each time, for the header does."""
        file, header = await self._with_key(request)
        name = file.name if file.name.endswith(".c4gh") else f"{file.name}.c4gh"
        etag = f'"{hashlib.sha256(header).hexdigest()}"'
        return await self._served(
            request, file, header, etag, {"Content-Disposition": f"attachment; filename={_quoted(name)}"}
        )

    async def header(self, request: web.Request) -> web.StreamResponse:
        """The header alone."""
        file, header = await self._with_key(request)
        headers = {"Content-Type": "application/octet-stream", "SDA-Content-ETag": content_etag(file)}
        return await self._archive.send(request, file, 200, headers, None, header, len(header))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """The body alone: no key is needed, and its ETag stays."""
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPNotFound
        file = await self._file(request)
        return await self._served(request, file, b"", content_etag(file), {})

    async def _served(
        self, request: web.Request, file: Entry, header: bytes, etag: str, more: dict[str, str]
    ) -> web.StreamResponse:
        size = len(header) + file.size
        headers = {"Accept-Ranges": "bytes", "ETag": etag, "Content-Type": "application/octet-stream"}
        headers |= _CACHED | more
        if request.method == "HEAD":
            return await self._archive.send(request, file, 200, headers, None, header, size)
        text = request.headers.get("Range", "")
        if call.of(request).fault("whole") or not ranges.honoured(request.headers.get("If-Range", ""), etag):
            text = ""
        try:
            wanted = ranges.parse(text, size)
        except ranges.RangeInvalid:
            raise Problem(400, "invalid range header", "RANGE_INVALID") from None
        except ranges.RangeUnsatisfiable:
            raise Problem(
                416, "range not satisfiable", headers={"Content-Range": f"bytes */{size}"}
            ) from None
        if wanted is None:
            return await self._archive.send(request, file, 200, headers, (0, size), header, size)
        start, end = wanted
        length = end - start + 1
        if shift := call.of(request).fault("shift", "lie"):
            told, start = start, min(start + shift.after, size - length)
            said = start if shift.kind == "shift" else told
        else:
            said = start
        headers["Content-Range"] = f"bytes {said}-{said + length - 1}/{size}"
        return await self._archive.send(request, file, 206, headers, (start, length), header, length)


def _nowhere(request: web.Request) -> web.Response:
    """What the router says: a path with a slash too many is sent on, all else is not found."""
    path = request.rel_url.raw_path
    if request.method == "GET" and path.startswith("/datasets") and path.endswith("/"):
        return web.Response(status=301, headers={"Location": path.rstrip("/")})
    return web.Response(status=404, body=b"404 page not found", headers={"Content-Type": "text/plain"})


def content_etag(file: Entry) -> str:
    """The ETag of a body: it tells nothing of the bytes, only of the file and its size."""
    return f'"{hashlib.sha256(f"{file.id}:{file.size}".encode()).hexdigest()}"'


def _quoted(name: str) -> str:
    token = all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name) and name.isascii()
    return name if token else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
