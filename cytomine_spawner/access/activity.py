"""When a stack was last used, for real: noted on the stack, and told to the hub for the owner's server.

What counts is a request at the gateway that a person or a program made; the gateway knows which those are and leaves out
what the web interface asks by itself (pings, positions, who is online) and its own files. It answers the time of the last
one at ``GET /activity`` on a port that only this service reaches.

The gateways are not polled. Two things make the service ask:

- Somebody's token is refreshed. An open page does that every few minutes, so while people work the time is at most as
  old as that. The refresh itself proves nothing: a forgotten tab refreshes, too. It only counts through the requests
  that came since the last one; with none, nothing is noted and the stack falls asleep as if nobody were there.
- The stack is about to hibernate for want of use. Programs with keys refresh no token, and a script on somebody's notebook
  may be all the use there is.

When the gateway does not answer though a token was refreshed, the benefit of the doubt is the user's: the refresh counts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest

from ..cluster.client import Kube, KubeError
from ..cluster.store import StackStore, StoreError
from ..stack import model
from ..stack.model import Stack
from .hubapi import Hub
from .keys import serves

log = logging.getLogger(__name__)

ASK_SECONDS = 5
PARALLEL = 20
# Not more often is a stack's gateway asked, and the time written down.
NOTE_SECONDS = 60
# So long before a stack hibernates its gateway is asked.
BEFORE_SECONDS = 15
PORT = 8082


def now() -> datetime:
    """The present time."""
    return datetime.now(timezone.utc)


class Gateways:
    """Asks gateways for the last real request."""

    def __init__(self) -> None:
        self._client: AsyncHTTPClient | None = None

    async def __call__(self, stack: Stack) -> datetime | None:
        """The time of the last real request; None if there was none since the gateway started.

        Raises:
            OSError: if the gateway does not answer, or with something else.
        """
        if self._client is None:
            self._client = AsyncHTTPClient(force_instance=True, max_clients=PARALLEL)
        url = f"{model.internal_url(stack.name, stack.namespace)}:{PORT}/activity"
        request = HTTPRequest(
            url, connect_timeout=ASK_SECONDS, request_timeout=ASK_SECONDS, follow_redirects=False
        )
        try:
            return _read(json.loads((await self._client.fetch(request)).body))
        except (HTTPError, ValueError, KeyError, TypeError) as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def _read(answer: dict[str, float | None]) -> datetime | None:
    last = answer["last"]
    if not last:
        return None
    seconds = float(last)
    if not math.isfinite(seconds) or not 0 < seconds < 1e11:
        msg = f"{last!r} is no time"
        raise ValueError(msg)
    return datetime.fromtimestamp(seconds, timezone.utc)


class Activity:
    """Notes the use of stacks.

    Args:
        store: the stacks.
        kube: the API server.
        hub: is told of the owner's server.
        ask: the time of a gateway's last real request; see :class:`Gateways`.
        clock: the present time.
    """

    def __init__(
        self,
        store: StackStore,
        kube: Kube,
        hub: Hub,
        *,
        ask: Callable[[Stack], Awaitable[datetime | None]] | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store, self._kube, self._hub, self._clock = store, kube, hub, clock
        self._ask = ask or Gateways()
        self._asked: dict[str, datetime] = {}
        self._noted: dict[str, datetime] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, tuple[datetime, asyncio.TimerHandle]] = {}
        self._silent: set[str] = set()

    def seen(self, name: str, user: str = "") -> None:
        """Somebody's token for a stack was refreshed: ask the stack's gateway whether they do anything.

        Returns at once.

        Args:
            name: the stack's name.
            user: whose token it was; for the log.
        """
        log.debug("A token of %s for the stack %s was refreshed", user, name)
        self._look(name, refreshed=True)

    async def run(self) -> None:
        """Ask the gateways of stacks that are about to hibernate, until cancelled; never raises otherwise."""
        try:
            async for changes in self._store.view.changes():
                gone = {stack.name for stack in changes.removed}
                if changes.reset:
                    gone |= set(self._timers) - {stack.name for stack in changes.changed}
                for name in gone:
                    self._forget(name)
                for stack in changes.changed:
                    self._set_timer(stack)
        finally:
            for name in [*self._timers, *self._jobs]:
                self._forget(name)

    def _forget(self, name: str) -> None:
        for known in (self._asked, self._noted):
            known.pop(name, None)
        self._silent.discard(name)
        _, timer = self._timers.pop(name, (None, None))
        if timer:
            timer.cancel()
        job = self._jobs.pop(name, None)
        if job:
            job.cancel()

    def _set_timer(self, stack: Stack) -> None:
        due = stack.status.hibernates_at if serves(stack) else None
        known, timer = self._timers.get(stack.name, (None, None))
        if due == known:
            return
        if timer:
            timer.cancel()
            del self._timers[stack.name]
        if due:
            # Late, for it is the last look: what comes after it does not count. A short time is asked in its last third.
            left = (due - self._clock()).total_seconds()
            delay = max(0.0, left - min(BEFORE_SECONDS, left / 3))
            later = asyncio.get_running_loop().call_later(delay, self._look, stack.name)
            self._timers[stack.name] = (due, later)

    def _look(self, name: str, *, refreshed: bool = False) -> None:
        """Ask a stack's gateway, unless that is being done or, for a refresh, was done a moment ago."""
        last = self._asked.get(name)
        recently = last and self._clock() - last < timedelta(seconds=NOTE_SECONDS)
        if name in self._jobs or (refreshed and recently):
            return
        self._asked[name] = self._clock()
        job = asyncio.get_running_loop().create_task(self._check(name, refreshed))
        self._jobs[name] = job
        job.add_done_callback(
            lambda done: self._jobs.pop(name, None) if self._jobs.get(name) is done else None
        )

    async def _check(self, name: str, refreshed: bool) -> None:
        stack = self._store.view.get(name)
        if stack is None or not serves(stack):
            return
        try:
            used = await self._used(stack, refreshed)
            if used and self._is_news(stack, used):
                await self._note(stack, used)
        except (StoreError, KubeError) as error:
            log.warning("The use of the stack %s is noted later: %s", name, error)
        except Exception:
            log.exception("The use of the stack %s could not be noted", name)

    async def _used(self, stack: Stack, refreshed: bool) -> datetime | None:
        try:
            used = await self._ask(stack)
        except OSError as error:
            if stack.name not in self._silent:
                self._silent.add(stack.name)
                log.warning(
                    "The gateway of the stack %s does not tell when it was used: %s", stack.name, error
                )
            return self._clock() if refreshed else None
        self._silent.discard(stack.name)
        # A clock that is ahead must not keep a stack awake.
        return used and min(used, self._clock())

    def _is_news(self, stack: Stack, used: datetime) -> bool:
        known = max(filter(None, (self._noted.get(stack.name), stack.activity)), default=None)
        return known is None or used - known >= timedelta(seconds=1)

    async def _note(self, stack: Stack, used: datetime) -> None:
        notes = {model.ANNOTATION_ACTIVITY: model.format_time(used)}
        await self._kube.patch(model.KIND, stack.name, {"metadata": {"annotations": notes}})
        self._noted[stack.name] = used
        if not await self._hub.active(stack, used):
            log.debug("The owner of the stack %s has no such server at the hub", stack.name)
