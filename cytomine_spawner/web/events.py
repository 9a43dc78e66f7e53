"""Streams of server-sent events: what changes, as it changes, from the one view in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tornado.iostream import StreamClosedError

from ..cluster.store import Subscription, View
from ..site.handler import Handler, Refusal, Site
from ..stack.model import Stack
from ..stack.rights import Action, may

# Proxies cut connections that are silent for a minute.
HEARTBEAT_SECONDS = 25
# So often the hub is asked again who listens, with which scopes, of which groups and shares; the service believes its
# word for as long as elsewhere. A stream ends after the longer time at the latest, or when nobody could say for so long;
# browsers come back by themselves.
RECHECK_SECONDS = 30
STREAM_SECONDS = 240
# Changes that follow each other within this time make one event per stack.
GATHER_SECONDS = 0.2
SLOW_SECONDS = 30


class Stream(Handler):
    """Sends events until the listener goes or the time is up."""

    _subscription: Subscription | None = None
    _shown: set[str]

    def initialize(self, site: Site) -> None:
        """Note that nobody left yet."""
        super().initialize(site)
        self.left = asyncio.Event()
        self._confirmed = self._asks = 0.0

    def on_connection_close(self) -> None:
        """Stop waiting for somebody who left."""
        self.left.set()
        if self._subscription:
            self._subscription.wake()

    def begin(self) -> None:
        """Set the headers of a stream that no proxy keeps back."""
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        self._confirmed = asyncio.get_running_loop().time()
        self._asks = self._confirmed + RECHECK_SECONDS

    async def stands(self) -> bool:
        """Whether the listener still is logged in and may use the service; ``person`` is as the hub tells now."""
        now = asyncio.get_running_loop().time()
        if now < self._asks:
            return True
        self._asks = now + RECHECK_SECONDS
        try:
            model = await self._ask_hub()
            if model is None:
                return False
            await self.let_in(model)
        except Refusal as error:
            # A hub that restarts ends no stream; but nobody goes on for ever on what it said once.
            return error.status_code == 503 and now < self._confirmed + STREAM_SECONDS
        self._confirmed = now
        return True

    async def send(self, event: str, data: Any, event_id: str = "") -> None:
        """Send one event.

        Raises:
            StreamClosedError: if the listener is gone.
        """
        self.write(
            f"event: {event}\ndata: {json.dumps(data)}\n" + (f"id: {event_id}\n" if event_id else "") + "\n"
        )
        await self.flushed()

    async def beat(self) -> None:
        """Send a comment, so that no proxy takes the silence for the end."""
        self.write(": still here\n\n")
        await self.flushed()

    async def flushed(self) -> None:
        """Send what was written; one who does not take it in time is gone."""
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(self.flush())), SLOW_SECONDS)
        except asyncio.TimeoutError as error:
            self.left.set()
            raise StreamClosedError from error

    async def follow(self, name: str = "", owner: str = "") -> None:
        """Tell of the changes of one stack, of one owner's, or of all that the person may see.

        It begins after the cursor in the argument ``since`` or the header ``Last-Event-ID``, or with all there is.
        """
        view = self.site.store.view
        cursor = self.get_argument("since", "") or self.request.headers.get("Last-Event-ID", "")
        with (
            self.site.seats.take("events", self.person.name),
            view.subscribe() as subscription,
            suppress(StreamClosedError),
        ):
            self.begin()
            self._subscription = subscription
            self._shown = {stack.name for stack in view.all() if self._concerns(stack, name, owner)}
            ends = asyncio.get_running_loop().time() + STREAM_SECONDS
            told, person = None, self.person
            while not self.left.is_set() and asyncio.get_running_loop().time() < ends:
                if not await self.stands():
                    break
                if self.person != person:
                    # Other groups, shares or scopes show other stacks, though none of them changed.
                    person = self.person
                    await self._tell(view.all(), [], False, name, owner)
                if told != (told := self.outage(view)):
                    await self.send("view", told)
                changes = view.since(cursor)
                await self._tell(changes.changed, changes.removed, changes.reset, name, owner)
                if changes.cursor != cursor:
                    cursor = changes.cursor
                    # The cursor comes last: a listener cut off before it hears the whole batch again.
                    await self.send("cursor", {"cursor": cursor}, cursor)
                if await subscription.wait(HEARTBEAT_SECONDS):
                    await asyncio.sleep(GATHER_SECONDS)
                else:
                    await self.beat()

    async def _tell(
        self, changed: Iterable[Stack], removed: Iterable[Stack], reset: bool, name: str, owner: str
    ) -> None:
        # Somebody who may not see a stack any more loses its card, and hears of no stack that they never saw.
        closed = [s for s in changed if s.name in self._shown and not may(self.person, s, Action.SEE)]
        changed = [s for s in changed if self._concerns(s, name, owner)]
        removed = [s for s in removed if self._concerns(s, name, owner)]
        if reset:
            await self.send("reset", {"names": [stack.name for stack in changed]})
        for stack in [*removed, *closed]:
            self._shown.discard(stack.name)
            await self.send("removed", self.removed_data(stack))
        for stack in changed:
            self._shown.add(stack.name)
            await self.send("stack", self.stack_data(stack))

    def _concerns(self, stack: Stack, name: str, owner: str) -> bool:
        return (
            may(self.person, stack, Action.SEE)
            and (not name or stack.name == name)
            and (not owner or stack.spec.owner == owner)
        )

    def outage(self, view: View) -> Any:
        """Whether the view is up to date, as the data of an event."""
        return {"connected": view.connected, "asOf": view.as_of and view.as_of.isoformat()}

    def stack_data(self, stack: Stack) -> Any:
        """A stack as the data of an event."""
        raise NotImplementedError

    def removed_data(self, stack: Stack) -> Any:
        """A stack that is gone as the data of an event."""
        return {"name": stack.name}
