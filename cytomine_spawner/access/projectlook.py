"""One look at one stack: what the projects' worker knows of it, and the steps by which it brings it in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..cluster.store import StoreError
from ..stack.model import Access, ProjectRole, Stack
from ..stack.people import Role
from .projectcalls import Gone, ProjectCalls, Refused
from .projectrecord import Made, Record, Step

log = logging.getLogger(__name__)

# A token lives for a minute.
TOKEN_SECONDS = 30


class Tokens(Protocol):
    """Gives tokens with which this service speaks to core in somebody's name."""

    async def token(self, stack: Stack, user: str, role: Role) -> tuple[str, int]:
        """The token, and when it ends."""


@dataclass
class State:
    """What is known of one stack in this process.

    Attributes:
        wake: set when there may be something to do.
        task: brings the stack in order.
        arrived: members by group or share who logged in.
        roles: when the hub was asked for these, and what the owner chose for them.
        ids: the numbers of people in Cytomine.
        standing: who was found in a project as is wanted, by somebody else's doing.
        record: what was made; None until it is read.
        written: the record as it stands in the cluster.
        looked: when the last look ended.
        trouble: why it is not in order; empty if it is.
        turn: raised with each change of the stack, after which older words of the hub count no more.
        alone: held by whoever brings the stack in order.
    """

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    arrived: set[str] = field(default_factory=set)
    roles: dict[str, tuple[float, list[Access]]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    standing: set[tuple[str, int, ProjectRole]] = field(default_factory=set)
    record: Record | None = None
    written: str = ""
    looked: float = 0
    trouble: str = ""
    turn: int = 0
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)


class Voice:
    """A token of a person that lasts as long as it is asked for."""

    def __init__(self, tokens: Tokens, stack: Stack, user: str, role: Role) -> None:
        self._tokens, self._whose = tokens, (stack, user, role)
        self._token, self._at = "", 0.0

    async def __call__(self) -> str:
        """The token."""
        now = asyncio.get_running_loop().time()
        if not self._token or now - self._at > TOKEN_SECONDS:
            self._token, self._at = (await self._tokens.token(*self._whose))[0], now
        return self._token


class Look:
    """Settles what is open in one stack: all that is read comes first, then what is to be made is written down.

    Args:
        calls: core.
        host: the stack's address.
        stack: the stack.
        state: what is known of it.
        voice: the owner's.
        number: gives the number in Cytomine of one who may use the stack; 0 for one whom the hub does not know.
        keep: writes down what was made.
    """

    def __init__(
        self,
        calls: ProjectCalls,
        host: str,
        stack: Stack,
        state: State,
        voice: Voice,
        *,
        number: Callable[[str], Awaitable[int]],
        keep: Callable[[], Awaitable[None]],
    ) -> None:
        self._calls, self._host, self._voice = calls, host, voice
        self._stack, self._state = stack, state
        self._ask_number, self._keep = number, keep
        self._fault: StoreError | None = None

    async def settle(self, open_: dict[int, dict[str, ProjectRole | None]], may: set[str]) -> None:
        """Do it.

        Args:
            open_: what the people are to be in the projects where that may not be so yet.
            may: who may use the stack.

        Raises:
            StoreError: if something is left to do.
            KubeError: if the record cannot be written.
        """
        record = self._state.record or {}
        await self._number({name for people in open_.values() for name in people}, may)
        steps: list[tuple[int, str, Step]] = []
        for project, people in sorted(open_.items()):
            known = {name: role for name, role in people.items() if record[name].id}
            if known:
                steps += await self._steps(project, known)
        for project, name, step in steps:
            record[name].begin(project, step)
        await self._keep()
        await self._make(steps)
        await self._keep()
        if self._fault:
            raise self._fault

    async def _number(self, names: set[str], may: set[str]) -> None:
        """Learn the numbers of people, and let core make users of those whom it does not know."""
        record = self._state.record or {}
        for name in sorted(names):
            if record[name].id:
                continue
            if name not in may:
                # No token for one who may not use the stack, and nothing to be taken back from one without a number.
                record[name] = Made()
                continue
            try:
                record[name].id = await self._ask_number(name)
            except Refused as error:
                self._fault = error

    async def _steps(
        self, project: int, people: dict[str, ProjectRole | None]
    ) -> list[tuple[int, str, Step]]:
        """What is to be done in a project."""
        record = self._state.record or {}
        try:
            there = await self._calls.people(self._host, await self._voice(), project)
        except Refused as error:
            self._fault = error
            return []
        found: list[tuple[int, str, Step]] = []
        for name, role in people.items():
            made = record[name]
            if there is None:
                made.forget(project)
                continue
            present = there.get(made.id)
            made.found(project, present)
            steps = made.steps(project, role, present)
            found += [(project, name, step) for step in steps]
            if steps:
                continue
            if role is None:
                made.forget(project)
            else:
                self._state.standing.add((name, project, role))
        return found

    async def _make(self, steps: list[tuple[int, str, Step]]) -> None:
        record = self._state.record or {}
        done: dict[Step, int] = {}
        failed: set[tuple[int, str]] = set()
        for project, name, step in steps:
            made = record[name]
            if (project, name) in failed or not made.id:
                continue
            try:
                await self._calls.change(self._host, await self._voice(), step, project, made.id)
            except Gone as error:
                # Either of the two. Both are asked for again.
                made.id = 0
                self._state.ids.pop(name, None)
                self._fault = error
            except Refused as error:
                failed.add((project, name))
                self._fault = error
            else:
                made.done(project, step)
                done[step] = done.get(step, 0) + 1
        for step, count in done.items():
            log.info(
                "Memberships of projects in the stack %s: %s, %d times", self._stack.name, step.value, count
            )
