"""Stands in for the Bigpicture archive in development and tests; never what production runs.

The server: one version of the API over one content, with faults on request and counters.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from typing import Any

from aiohttp import web

from . import call
from .content import Content, Entry
from .faults import Body, Count, Counters, Cut, Fault
from .settings import Settings
from .storage import Reader, Storage, Virtual
from .tokens import Door, Provider, Unauthorized
from .v1 import Version1
from .v2 import Version2
from .visas import Passports

# How long somebody who looks at the counters waits at most for what is being answered.
SETTLED_SECONDS = 2


class Archive:
    """An archive that can be started and stopped.

    Args:
        settings: how it behaves.
        storage: where bodies lie; without one they are encrypted on the fly and take no room.
        content: datasets and files that another archive has, too; replaces ``storage``.

    Attributes:
        url: where it answers, once it was started.
        content: what is in it.
        faults: what is to go wrong; append to it.
        revoked: datasets that nobody gets any more.
        down: services that ``/health/ready`` calls unresponsive: ``database``, ``storage``, ``grpc``.
    """

    def __init__(
        self, settings: Settings, storage: Storage | None = None, content: Content | None = None
    ) -> None:
        self.settings = settings
        self.content = content or Content(storage or Virtual())
        self._counters = Counters()
        self._busy = 0
        self.faults: list[Fault] = []
        self.revoked: set[str] = set()
        self.down: set[str] = set()
        self.url = ""
        self._provider = Provider(settings)
        passports = Passports(settings, lambda d: d in self.content.datasets, self._provider.keys)
        self.door = Door(settings, passports, self._provider, self._owned)
        self._runner: web.AppRunner | None = None

    @property
    def counters(self) -> Counters:
        """What was counted.

        A client has the last byte before the request is written down, so whoever asks from outside of the server's loop
        waits a moment until nothing is being answered.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            end = time.monotonic() + SETTLED_SECONDS
            while self._busy and time.monotonic() < end:
                time.sleep(0.002)
        return self._counters

    def _owned(self, subject: str) -> list[str]:
        return [d.id for d in self.content.datasets.values() if d.owner == subject and d.files]

    def app(self) -> web.Application:
        """The application, to be served by whoever wants to."""
        version = Version1(self) if self.settings.version == 1 else Version2(self)
        app = web.Application(middlewares=[self._outermost, version.middleware, self._failing])
        app.add_routes(version.routes())
        app.on_cleanup.append(self._closed)
        return app

    async def _closed(self, _app: web.Application) -> None:
        await self._provider.close()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve in the running loop; a free port is taken if none is named.

        Returns:
            the address.
        """
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        taken = self._runner.addresses[0][1]
        self.url = f"http://{host}:{taken}"
        return self.url

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Archive:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def forget(self) -> None:
        """End all sessions and drop what is cached, as after the longest of their lives."""
        self.door.forget()

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self._counters.total.requests += 1
        self._busy += 1
        made = call.begin(request, [f for f in self.faults if f.due(request.method, request.path)])
        self.faults[:] = [f for f in self.faults if not f.spent]
        status = 500
        try:
            response: web.StreamResponse = await handler(request)
            status = response.status
        except Cut:
            # The connection is gone; the head said this.
            status = made.status
            response = web.Response(status=status)
        finally:
            self._counters.statuses[status] += 1
            self._record(request, made, status)
            self._busy -= 1
        return response

    def _record(self, request: web.Request, made: call.Call, status: int) -> None:
        file, person = made.file, made.person
        if file is not None:
            self._counters.files[file.id].requests += 1
        self._counters.audit.append(
            {
                "user": person.subject if person else "",
                "dataset": file.dataset if file else "",
                "file": file.id if file else "",
                "correlation": made.correlation,
                "method": request.method,
                "path": request.path,
                "range": request.headers.get("Range", ""),
                "status": status,
                "sent": made.sent.sent,
                "auth": person.source if person else "",
            }
        )

    @web.middleware
    async def _failing(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Inside of the version's own errors, so that a fault looks as the server's own."""
        for fault in call.of(request).faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault.kind == "revoke":
                self.revoked.add(fault.dataset)
            elif fault.kind == "forget":
                self.forget()
            elif fault.kind == "stale":
                self.settings.page_secret = secrets.token_bytes(32)
            elif fault.kind == "expired":
                self.door.expire(request)
            elif fault.kind == "status":
                if fault.status == 401:
                    raise Unauthorized("get visas failed")
                return web.Response(status=fault.status, text=f"fault on request: {fault.status}\n")
        response: web.StreamResponse = await handler(request)
        return response

    async def send(
        self,
        request: web.Request,
        file: Entry,
        status: int,
        headers: dict[str, str],
        part: tuple[int, int] | None,
        header: bytes,
        length: int | None,
    ) -> web.StreamResponse:
        """Send header and body of a file, or some of it.

        Args:
            request: what is answered.
            file: of which file.
            status: of the answer.
            headers: of the answer.
            part: first byte and length, counted over header and body; None sends the header alone.
            header: what goes before the body; may be empty.
            length: the size that is told; None tells none.
        """
        response = web.StreamResponse(status=status, headers=headers)
        made = call.of(request)
        response.headers.update(made.headers)
        made.status = status
        count = self._counters.files[file.id]
        if length is not None:
            response.content_length = part[1] if part else length
        if request.method == "HEAD":
            await response.prepare(request)
            await response.write_eof()
            return response
        body = Body(request, response, made.faults, [self._counters.total, count, made.sent])
        await body.start()
        start, size = part or (0, len(header))
        end = start + size
        if start < len(header):
            await body.write(header[start:end])
        first, last = max(0, start - len(header)), end - len(header)
        if part and last > first:
            flip = made.fault("flip")
            at = first
            async with aclosing(self._pieces(file, count, first, last - first)) as pieces:
                async for piece in pieces:
                    await body.write(_flipped(piece, flip.at - at) if flip else piece)
                    at += len(piece)
        await response.write_eof()
        return response

    def _pieces(self, file: Entry, count: Count, start: int, length: int) -> Any:
        known = self.settings
        reader = Reader(
            self.content.storage,
            file.id,
            file.size,
            [self._counters.total, count],
            block=known.block,
            delay=known.storage_delay,
            rate=known.storage_rate,
        )
        return reader.discarding(start, length) if known.version == 1 else reader.seeking(start, length)


def _flipped(piece: bytes, at: int) -> bytes:
    """A piece with one bit changed, if that byte is in it."""
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
