"""Stand-in for Cytomine: what goes wrong on request.

Where ``STANDIN_FAULTS`` is set a role has the faults that it lists, as JSON, and takes others on its own port:
``GET``, ``POST`` and ``DELETE /standin/faults``. Nobody is asked who they are, and a stack's gateway has no way there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .errors import answer, page
from .settings import Settings
from .web import LOG, Handler

if TYPE_CHECKING:
    from .database import Connection

PATH = "/standin/faults"
KINDS = {
    "slow": "answer once `seconds` are over and the file `until` is there",
    "status": "do nothing, and answer `status` as core does where it failed",
    "deadlock": "do nothing, and answer as core does when its database ended the transaction for another's",
    "killed": "do nothing, and close the connection as a worker that is killed; for `seconds` all wait for the next one",
    "lost": "do what is asked, and close the connection in the place of the answer",
    "half": "close the connection after `after` bytes of the answer's body",
    "migration": "repository: wait as for `slow` before each step of the migration; at the start alone",
    "alone": "core: keep a project's row for as long as something comes into it, as upstream's triggers do",
    "blocked": "image server: its one worker answers nobody while it imports a slide",
}
# They hold for as long as they are set, whatever is asked.
STATES = {"migration", "alone", "blocked"}
DEADLOCK = (
    "jakarta.persistence.OptimisticLockException: org.hibernate.exception.LockAcquisitionException: could not execute "
    "batch [Batch entry 0 delete from user_annotation where id={} was aborted: ERROR: deadlock detected"
)


@dataclass
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: one of ``KINDS``.
        path: pattern that the request's path must have somewhere.
        method: the request's method; empty fits all.
        role: at which role; empty is any.
        times: how often; 0 is without end.
        skip: how many requests that fit pass before.
        seconds: see the kind.
        until: see the kind.
        after: see the kind.
        status: see the kind.
    """

    kind: str
    path: str = ""
    method: str = ""
    role: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 0
    until: str = ""
    after: int = 0
    status: int = 500

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind}")
        re.compile(self.path)
        self._left = self.times

    def due(self, method: str, path: str) -> bool:
        """Whether it is this request's turn; counts it."""
        if self.kind in STATES or self.spent:
            return False
        if self.method not in ("", method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self._left -= 1
        return True

    @property
    def spent(self) -> bool:
        """Whether it has happened as often as it was to."""
        return self.kind not in STATES and bool(self.times) and self._left <= 0

    async def wait(self, over: asyncio.Event) -> None:
        """As long as it says, or until all is over."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), self.seconds)
        # Another process makes the file.
        while self.until and not (over.is_set() or await asyncio.to_thread(Path(self.until).exists)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Faults:
    """What goes wrong at one role.

    Args:
        found: from the start on.
    """

    def __init__(self, found: list[Fault]) -> None:
        self._found = found
        self._worker = asyncio.Lock()
        self._over = asyncio.Event()
        self._killed_until = 0.0

    @classmethod
    def read(cls, settings: Settings) -> Faults | None:
        """Those of a role's environment; None where nothing may go wrong.

        Raises:
            ValueError: the variable is no list of faults.
        """
        if settings.faults is None:
            return None
        try:
            found = [Fault(**item) for item in json.loads(settings.faults or "[]")]
        except TypeError as error:
            raise ValueError(f"STANDIN_FAULTS: {error}") from None
        return cls([fault for fault in found if fault.role in ("", settings.role)])

    def has(self, kind: str) -> bool:
        """Whether there is one of this kind."""
        return any(fault.kind == kind for fault in self._found)

    async def before_step(self) -> None:
        """Hold up a step of the migration."""
        for fault in [f for f in self._found if f.kind == "migration"]:
            LOG.warning("fault on request: the migration waits before its next step")
            await fault.wait(self._over)

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """The one worker, where there is only one."""
        async with self._worker if self.has("blocked") else contextlib.nullcontext():
            yield

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer for the control address, and let go wrong what is to."""
        if request.path == PATH:
            return await self._control(request)
        if (left := self._killed_until - time.monotonic()) > 0:
            await asyncio.sleep(left)
        due = {fault.kind: fault for fault in self._found if fault.due(request.method, request.path)}
        self._found[:] = [fault for fault in self._found if not fault.spent]
        for fault in due.values():
            LOG.warning("fault on request at %s %s: %s", request.method, request.path, fault.kind)
        if "slow" in due:
            await due["slow"].wait(self._over)
        if "status" in due:
            return page(due["status"].status)
        if "deadlock" in due:
            return answer({"errors": DEADLOCK.format(request.path.rpartition("/")[2])}, 400)
        if "killed" in due:
            self._killed_until = time.monotonic() + due["killed"].seconds
            return _cut(request)
        response = await handler(request)
        if "lost" in due:
            return _cut(request)
        if "half" in due:
            return await _half(request, response, due["half"].after)
        return response

    async def end(self, _: web.Application | None = None) -> None:
        """Nothing goes wrong any more, and nobody is kept waiting."""
        self._found.clear()
        self._killed_until = 0.0
        self._over.set()
        self._over = asyncio.Event()

    async def _control(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            try:
                self._found.append(Fault(**await request.json()))
            except (TypeError, ValueError, re.error) as error:
                return web.json_response({"error": str(error)}, status=400)
        elif request.method == "DELETE":
            await self.end()
        elif request.method != "GET":
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "POST", "DELETE"])
        return web.json_response({"kinds": KINDS, "faults": [asdict(fault) for fault in self._found]})


FAULTS: web.AppKey[Faults] = web.AppKey("faults", Faults)


def install(app: web.Application, settings: Settings) -> web.Application:
    """Let go wrong at an application what its settings say; without them it is left as it is."""
    if found := Faults.read(settings):
        app[FAULTS] = found
        # Before all others: what goes wrong asks nobody who they are.
        app.middlewares.insert(0, found.middleware)
        app.on_shutdown.append(found.end)
    return app


def worker(app: web.Application) -> contextlib.AbstractAsyncContextManager[None]:
    """The image server's worker, which others may have to wait for."""
    found = app.get(FAULTS)
    return found.worker() if found else contextlib.nullcontext()


async def keep_project(app: web.Application, conn: Connection, project: int) -> None:
    """Keep a project's row until the transaction ends, where that was asked for; others wait."""
    found = app.get(FAULTS)
    if found and found.has("alone"):
        await conn.execute("SELECT 1 FROM project WHERE id = %s FOR UPDATE", (project,))


def before_step(settings: Settings) -> Callable[[], Awaitable[None]] | None:
    """What holds up each step of the migration, if anything does."""
    found = Faults.read(settings)
    return found.before_step if found and found.has("migration") else None


def _cut(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


async def _half(request: web.Request, response: web.StreamResponse, after: int) -> web.StreamResponse:
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return _cut(request)
    sent = web.StreamResponse(status=response.status, headers=response.headers)
    sent.content_length = len(response.body)
    await sent.prepare(request)
    await sent.write(response.body[:after])
    if request.transport:
        # What was written leaves before the end.
        request.transport.close()
    return sent


def told(kind: str, **more: Any) -> str:
    """A fault for ``STANDIN_FAULTS``."""
    return json.dumps([asdict(Fault(kind, **more))])
