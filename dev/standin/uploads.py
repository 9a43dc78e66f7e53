"""Stand-in for Cytomine's image server: an upload, checked and registered through core's API.

The image server asks core, with its own keys, for the uploader's private key, checks the signature of the upload
itself, stores the file on its volume and then registers it in the uploader's name.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import Message
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, ClientError, web

from . import archive, faults, slide
from .errors import answer as reply
from .signing import credentials, signature, signed
from .web import HTTP, LOG, SETTINGS

IMPORTED, FAILED_FORMAT = 100, 11
TASKS: set[asyncio.Task[Any]] = set()


class Rejected(Exception):
    """An upload that is not taken; the message goes to the client."""


@dataclass(frozen=True)
class Core:
    """Calls to core, signed with one pair of keys."""

    app: web.Application
    public: str
    private: str

    async def call(self, method: str, path: str, data: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Status and JSON of core's answer."""
        kind = "application/json" if method != "GET" else ""
        date = formatdate(usegmt=False)
        head = {"Accept": "application/json", "Date": date}
        head["Authorization"] = f"CYTOMINE {self.public}:{signature(self.private, method, kind, date)}"
        if kind:
            head["Content-Type"] = kind
        url = f"{self.app[SETTINGS].core_url}/api/{path}"
        body = json.dumps(data).encode() if data is not None else None
        skip = ["Content-Type"] if not kind else None
        try:
            async with self.app[HTTP].request(
                method, url, data=body, headers=head, skip_auto_headers=skip
            ) as response:
                text = await response.text()
        except (ClientError, TimeoutError, OSError) as error:
            raise Rejected(f"core does not answer at {url}: {error}") from None
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    async def fetch(self, what: str, number: int) -> dict[str, Any]:
        """An object, or ``Rejected`` with its name."""
        status, data = await self.call("GET", f"{what.lower()}/{number}.json")
        if status != 200:
            raise Rejected(f"{what} {number} not found")
        return dict(data)

    async def save(self, what: str, data: dict[str, Any], number: int | None = None) -> dict[str, Any]:
        """Create or update an object; the stored one."""
        path = f"{what}.json" if number is None else f"{what}/{number}.json"
        status, answer = await self.call("POST" if number is None else "PUT", path, data)
        if status != 200:
            raise Rejected(f"core answered {status} to {path}: {str(answer)[:200]}")
        return dict(answer.get("data") or answer.get(what) or answer)


async def _uploader(request: web.Request) -> Core:
    pair = credentials(request)
    if pair is None:
        raise Rejected("Auth failed")
    settings = request.app[SETTINGS]
    own = Core(request.app, settings.image_public_key, settings.image_private_key)
    status, keys = await own.call("GET", f"userkey/{pair[0]}/keys.json")
    if status != 200 or not isinstance(keys, dict):
        # Upstream's message for an unknown key.
        raise Rejected("'bool' object is not subscriptable")
    if not signed(request, pair[1], keys["privateKey"]):
        raise Rejected("Auth failed")
    return Core(request.app, keys["publicKey"], keys["privateKey"])


def named(disposition: str) -> str:
    """The name of an uploaded file as upstream's parser of forms reads it: what is escaped stays so."""
    message = Message()
    message["Content-Disposition"] = disposition
    options = dict(message.get_params(header="Content-Disposition") or [])
    found = options.get("filename", "")
    # As a tuple where the form says the encoding.
    text = found[-1] if isinstance(found, tuple) else found
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def on_disk(name: str) -> str:
    """The name under which upstream keeps an upload: without what would disturb in a path or an address."""
    return re.sub("[\x00-\x1f\x7f:*?\"<>|/\\\\ ()+@'$€£°`\\[\\]#]", "-", name) or "file"


async def _store(request: web.Request, folder: Path) -> tuple[str, Path]:
    reader = await request.multipart()
    part = await reader.next()
    if not isinstance(part, BodyPartReader) or not part.filename:
        raise Rejected("no file in the form")
    disposition = part.headers.get("Content-Disposition", "")
    # Bytes, as they came.
    name = named(disposition.encode(errors="surrogateescape").decode("latin-1"))
    path = folder / on_disk(name)
    try:
        await asyncio.to_thread(folder.mkdir, parents=True)
        with path.open("wb") as out:
            while chunk := await part.read_chunk(1 << 20):
                await asyncio.to_thread(out.write, chunk)
            # Upstream keeps the closing line of the form at the end of the file.
            boundary = re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])
            out.write(f"\r\n--{boundary[1] if boundary else ''}--\r\n".encode())
    except OSError as error:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise Rejected(f"the image volume cannot be written: {error.strerror}") from None
    return name, path


def _ids(text: str) -> list[int]:
    return [int(p) for p in text.split(",") if p.strip().isdigit()]


async def upload(request: web.Request) -> web.Response:
    """POST /ims/upload: with ``sync=true`` the answer waits for the import."""
    try:
        body = await _upload(request)
    except Rejected as error:
        text = str(error)
        failure = {"status": 500, "error": text, "files": [{"size": 0, "error": text}]}
        return reply([failure], status=400)
    return reply([body])


async def _upload(request: web.Request) -> dict[str, Any]:
    query, settings = request.query, request.app[SETTINGS]
    core = await _uploader(request)
    storage = query.get("storage") or query.get("idStorage") or ""
    if not storage.isdigit():
        raise Rejected("storage is missing")
    await core.fetch("Storage", int(storage))
    projects = _ids(query.get("projects") or query.get("idProject") or "")
    for project in projects:
        await core.fetch("Project", project)
    folder = Path(settings.images) / f"upload-{uuid.uuid4()}"
    name, path = await _store(request, folder)
    size = request.content_length or path.stat().st_size
    pending = f"{settings.writing}/-{uuid.uuid4()}"
    record = {
        "storage": int(storage),
        "filename": pending,
        "originalFilename": name,
        "ext": "",
        "contentType": "",
    }
    record |= {"size": size, "projects": projects, "status": 0}
    uploaded = await core.save("uploadedfile", record)
    keys, values = (query.get(n, "").split(",") for n in ("keys", "values"))
    properties = {k: v for k, v in zip(keys, values, strict=False) if k}
    head = {"status": 200, "name": path.name, "size": str(size)}
    if query.get("sync", "").lower() == "true":
        async with faults.worker(request.app):
            images = await _import(core, core, path, uploaded, projects, properties)
        stored = await core.fetch("UploadedFile", uploaded["id"])
        return {**head, "uploadedFile": _without_none(stored), "images": images}
    # In the background upstream puts the image into projects as its own user.
    own = Core(request.app, settings.image_public_key, settings.image_private_key)
    _background(lambda: _import(core, own, path, uploaded, projects, properties))
    return {**head, "uploadedFile": _without_none(uploaded), "images": []}


def _background(work: Callable[[], Awaitable[Any]]) -> None:
    async def run() -> None:
        try:
            await work()
        except Rejected as error:
            LOG.warning("an import in the background failed: %s", error)

    task = asyncio.create_task(run())
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    # Upstream's answer is written by its Python client, which leaves out what is null.
    return {("class_" if k == "class" else k): v for k, v in data.items() if v is not None}


CLIENT_INSTANCE = ("name", "filenames", "x", "y", "w", "h", "deleted")


def _instance(data: dict[str, Any]) -> dict[str, Any]:
    shown = {("class_" if k == "class" else k): v for k, v in data.items()}
    return {"_query_parameters": {}, "_reference_slice": None, **dict.fromkeys(CLIENT_INSTANCE), **shown}


async def _import(
    core: Core,
    placing: Core,
    path: Path,
    uploaded: dict[str, Any],
    projects: list[int],
    properties: dict[str, str],
) -> list[dict[str, Any]]:
    """Read the slide's header and register it: image, slice, properties, and an instance for each project."""
    relative = f"{path.parent.name}/{path.name}"
    change = {**uploaded, "filename": relative}
    try:
        inside = await asyncio.to_thread(archive.unpack, path)
        if inside != path:
            change["filename"] = inside.relative_to(path.parent.parent).as_posix()
            change["originalFilename"] = archive.name(str(uploaded["originalFilename"]), path, inside)
        found = await asyncio.to_thread(slide.info, inside)
    except slide.Unreadable:
        await core.save("uploadedfile", {**change, "status": FAILED_FORMAT}, uploaded["id"])
        raise Rejected(str(path)) from None
    await core.save("uploadedfile", {**change, "contentType": found.format, "status": 40}, uploaded["id"])
    image = await core.save(
        "abstractimage",
        {
            "uploadedFile": uploaded["id"],
            "originalFilename": change["originalFilename"],
            "width": found.width,
            "height": found.height,
            "bitPerSample": found.bits,
            "samplePerPixel": found.samples,
            "physicalSizeX": found.physical_x,
            "physicalSizeY": found.physical_y,
            "magnification": found.magnification,
            "channels": max(1, len(found.planes)),
        },
    )
    samples = {1: "Gray", 2: "Gray|A", 3: "R|G|B"}.get(found.samples, "R|G|B|A")
    for number, name in enumerate(found.planes or [samples]):
        await core.save("abstractslice", {"image": image["id"], "channel": number, "channelName": name})
    instances = []
    for project in projects:
        instance = await placing.save("imageinstance", {"baseImage": image["id"], "project": project})
        for key, value in properties.items():
            place = f"domain/be.cytomine.domain.image.ImageInstance/{instance['id']}/property"
            await placing.save(place, {"key": key, "value": value})
        instances.append(_instance(instance))
    done = {**change, "contentType": found.format, "status": IMPORTED}
    await core.save("uploadedfile", done, uploaded["id"])
    return [{"image": _without_none(image), "imageInstances": instances}]
