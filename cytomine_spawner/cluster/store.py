"""What the page and the REST API know of the stacks: one view in memory and the few things they may do.

The exceptions form one tree, each with a sentence for the person who asked::

    StoreError
    ├── NotFound      there is no such stack, component or log
    ├── Conflict      the stack's state does not allow it now
    ├── Invalid       the API server refuses the change
    ├── Denied        the service's account lacks a right
    └── Unavailable   the API server does not answer
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from ..common.waiting import within
from ..stack.model import Stack
from ..stack.notices import Notice

REMEMBER_REMOVED = 1000
LOOK_SECONDS = 3600


class StoreError(Exception):
    """The store cannot do what was asked; the message is one sentence for people."""


class NotFound(StoreError):
    """There is no such stack, component or log."""


class Conflict(StoreError):
    """The state of the stack does not allow it now."""


class Invalid(StoreError):
    """The API server refuses the change."""


class Denied(StoreError):
    """The service's account lacks a right in the cluster."""


class Unavailable(StoreError):
    """The API server does not answer, or not in time."""


@dataclass(frozen=True)
class LogSource:
    """One container whose log can be read.

    Attributes:
        pod: the pod's name.
        container: the container's name.
        state: one or two words on the container, such as ``running`` or ``CrashLoopBackOff``.
        restarts: how often it was started anew.
        started: whether the current run has begun, so that it has a log.
        previous: whether the log of the run before can be read.
        stack: the name of its stack.
        secrets: the names of the Secrets that its pod needs.
        optional_secrets: the names of those that it uses if they are there.
    """

    pod: str
    container: str
    state: str = ""
    restarts: int = 0
    started: bool = True
    previous: bool = False
    stack: str = ""
    secrets: tuple[str, ...] = ()
    optional_secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogQuery:
    """What to read of a log: the last ``tail`` lines of a container, then, with ``follow``, what comes."""

    source: LogSource
    tail: int = 200
    follow: bool = False
    previous: bool = False


@dataclass(frozen=True)
class Changes:
    """What became different since a cursor.

    Attributes:
        changed: stacks that are new or different.
        removed: stacks that are gone, as they were last seen.
        cursor: where to go on from.
        reset: whether ``changed`` is everything there is, because the cursor was too old or of another process.
    """

    changed: list[Stack]
    removed: list[Stack]
    cursor: str
    reset: bool


@dataclass(eq=False)
class Subscription:
    """Wakes one listener of the view; however much happens, it holds one flag and nothing more."""

    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Say that something changed."""
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for a change; False if none came within ``timeout`` seconds."""
        with suppress(asyncio.TimeoutError):
            await within(self._event.wait(), timeout)
        woken = self._event.is_set()
        self._event.clear()
        return woken


class View:
    """All stacks as the API server last told, and who wants to know of changes.

    Attributes:
        synced: whether a first list arrived.
        connected: whether the view is kept up to date now.
        as_of: the time of the last word from the API server once ``connected`` is False.
    """

    def __init__(self, max_subscribers: int = 2000) -> None:
        self.synced = False
        self.connected = False
        self.as_of: datetime | None = None
        self.max_subscribers = max_subscribers
        self._epoch = secrets.token_hex(4)
        self._sequence = 0
        # Both ordered by the sequence of the last change, so that a listener reads only what is new to it.
        self._stacks: OrderedDict[str, tuple[int, Stack]] = OrderedDict()
        self._removed: OrderedDict[str, tuple[int, Stack]] = OrderedDict()
        self._forgotten = 0
        self._subscribers: set[Subscription] = set()

    def all(self) -> list[Stack]:
        """All stacks, in no particular order."""
        return [stack for _, stack in self._stacks.values()]

    def get(self, name: str) -> Stack | None:
        """The stack of this name."""
        found = self._stacks.get(name)
        return found[1] if found else None

    @property
    def cursor(self) -> str:
        """Where :meth:`since` goes on from for one who knows the view as it is now."""
        return f"{self._epoch}-{self._sequence}"

    def since(self, cursor: str) -> Changes:
        """What became different since a cursor; everything for an unknown one."""
        epoch, _, text = cursor.partition("-")
        # isascii: isdigit is true of characters that int() refuses
        known = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
        if epoch != self._epoch or not self._forgotten <= known <= self._sequence:
            return Changes(self.all(), [], self.cursor, reset=True)
        return Changes(_newer(self._stacks, known), _newer(self._removed, known), self.cursor, reset=False)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Be woken at each change while the context lasts.

        Raises:
            Unavailable: if too many listen already.
        """
        if len(self._subscribers) >= self.max_subscribers:
            raise Unavailable("Too many pages follow their stacks live at the moment; this one will not.")
        subscription = Subscription()
        self._subscribers.add(subscription)
        try:
            yield subscription
        finally:
            self._subscribers.discard(subscription)

    async def changes(self) -> AsyncIterator[Changes]:
        """What is there, once that is known, then what becomes different, for ever.

        Raises:
            Unavailable: if too many listen already.
        """
        cursor = ""
        with self.subscribe() as subscription:
            while True:
                if self.synced and cursor != self.cursor:
                    changes = self.since(cursor)
                    cursor = changes.cursor
                    yield changes
                await subscription.wait(LOOK_SECONDS)

    async def follow(
        self, known: Mapping[str, Any], consider: Callable[[Stack], None], forget: Callable[[set[str]], None]
    ) -> None:
        """Tell of the stacks until cancelled.

        Args:
            known: by name, what was considered and not forgotten; it is read anew each time.
            consider: is told of each stack that is there or became different.
            forget: is told the names of those that are gone.

        Raises:
            Unavailable: if too many listen already.
        """
        async for changes in self.changes():
            if changes.reset:
                forget(set(known) - {stack.name for stack in changes.changed})
            forget({stack.name for stack in changes.removed})
            for stack in changes.changed:
                consider(stack)

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscribers)

    def replace(self, stacks: Iterable[Stack]) -> None:
        """Take over a complete list; the view is up to date from now on."""
        listed = {stack.name: stack for stack in stacks}
        for name in [n for n in self._stacks if n not in listed]:
            self.remove(name)
        for stack in listed.values():
            self.put(stack, listed=True)
        self.synced = self.connected = True
        self.as_of = None
        self._wake()

    def put(self, stack: Stack, *, listed: bool = False) -> None:
        """Note a new or changed stack."""
        old = self.get(stack.name)
        if old == stack:
            return
        if old and old.uid == stack.uid and not listed and old.generation > stack.generation:
            return  # the answer to a write of ours came before the watch told of what was before it
        self._sequence += 1
        self._removed.pop(stack.name, None)
        self._stacks[stack.name] = (self._sequence, stack)
        self._stacks.move_to_end(stack.name)
        self._wake()

    def remove(self, name: str) -> None:
        """Note that a stack is gone."""
        found = self._stacks.pop(name, None)
        if not found:
            return
        self._sequence += 1
        self._removed[name] = (self._sequence, found[1])
        self._removed.move_to_end(name)
        while len(self._removed) > REMEMBER_REMOVED:
            self._forgotten = self._removed.popitem(last=False)[1][0]
        self._wake()

    def lost(self, since: datetime | None = None) -> None:
        """Note that the API server does not answer any more; what is known stays."""
        if self.connected or self.as_of is None:
            self.as_of = since or datetime.now(timezone.utc)
        self.connected = False
        self._wake()

    def _wake(self) -> None:
        for subscription in self._subscribers:
            subscription.wake()


def _newer(entries: OrderedDict[str, tuple[int, Stack]], known: int) -> list[Stack]:
    newer = []
    for sequence, stack in reversed(entries.values()):
        if sequence <= known:
            break
        newer.append(stack)
    return newer[::-1]


class StackStore(Protocol):
    """What the page and the REST API need of the cluster. Every method may raise :class:`StoreError`."""

    @property
    def view(self) -> View:
        """The stacks as last told."""

    async def patch(
        self, name: str, change: Callable[[Stack], dict[str, Any]], *, notice: Notice | None = None
    ) -> Stack:
        """Change some fields of a stack's spec.

        Args:
            name: the stack's name.
            change: given the stack as the API server has it now, the fields to set, in the object's spelling;
                none to leave it. It may raise StoreError to refuse.
            notice: written on the stack together with the change, and not without one.

        Returns:
            The stack as it is afterwards.
        """

    async def delete(self, name: str, *, keep_data: bool, uid: str) -> None:
        """Delete a stack, with its volumes or without.

        Args:
            name: the stack's name.
            keep_data: whether the volumes stay.
            uid: the one stack of this name that is meant; a newer one is left alone.
        """

    async def log_sources(self, stack: Stack, component: str) -> list[LogSource]:
        """The containers of a component, the most interesting first; empty when no pod is there."""

    def logs(self, query: LogQuery) -> AsyncIterator[str]:
        """The lines of a log, without their line ends and without secrets, each cut at a bounded length."""
