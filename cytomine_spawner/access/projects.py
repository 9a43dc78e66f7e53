"""Brings the members of a stack into the projects that its owner chose for them, and out again.

Whoever logs in has a user in Cytomine and nothing else: an empty list of projects. This worker adds members of whom the
owner named each when they are invited, and those by group or share when they first log in. It speaks to core as the
owner, one stack after the other's steps in turn, for writes that meet in one project can end each other in core. No login
waits for it, and what fails is tried again, with growing pauses.

What somebody sets in Cytomine by hand stays: only what was made here is taken back, see :mod:`.projectrecord`. What is
written down as made is not made again either, so that an owner can take a member out of a project in Cytomine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..cluster.client import Kube, KubeError
from ..cluster.store import StackStore, StoreError, Unavailable
from ..common.waiting import within
from ..stack import model
from ..stack.model import Access, ProjectRole, Reach, Stack
from ..stack.people import Role
from ..stack.state import is_going, run_of
from .hubapi import Hub
from .keys import serves
from .projectcalls import Project, ProjectCalls, Refused
from .projectlook import Look, State, Tokens, Voice
from .projectrecord import Made, Record, entries, read, wanted, write
from .stackrecord import keep, kept

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (1, 2, 5, 10, 30, 60)
# How often a stack is asked for new projects while it has members who are to be in them: one call each time.
LOOK_SECONDS = 60
# A login makes the next look come at once, unless the last one was so short a time ago.
LOGIN_SECONDS = 10
# How long the hub's word on members by group and share is believed.
ROLE_SECONDS = 120
# How long a page waits for the list.
LIST_SECONDS = 5
MANAGED_BY = "cytomine-projects"
COMPONENT = "memberships"
KEY = "made"


class Projects:
    """Keeps the members of all stacks in their projects.

    Args:
        store: the stacks.
        kube: the API server.
        hub: knows who is a member.
        tokens: gives tokens for core.
        address: where a stack is reached; its gateway's internal address.
    """

    def __init__(
        self,
        store: StackStore,
        kube: Kube,
        hub: Hub,
        tokens: Tokens,
        *,
        address: Callable[[Stack], str] = lambda stack: model.internal_url(stack.name, stack.namespace),
    ) -> None:
        self._store, self._kube, self._hub, self._tokens = store, kube, hub, tokens
        self._address = address
        self.calls = ProjectCalls()
        self._known: dict[str, tuple[Any, ...]] = {}
        self._states: dict[str, State] = {}

    # -- for the page and the login -----------------------------------------------------------------------

    async def listed(self, stack: Stack) -> list[Project]:
        """The projects of a stack's owner, by name.

        Raises:
            Conflict: if the stack does not serve now.
            Unavailable: if core does not answer in time.
        """
        token, _ = await self._tokens.token(stack, stack.spec.owner, Role.OWNER)
        try:
            found = await within(self.calls.projects(self._address(stack), token), LIST_SECONDS)
        except (asyncio.TimeoutError, Refused) as error:
            raise Unavailable("Cytomine does not tell its projects at the moment.") from error
        return sorted(found, key=lambda one: (one.name.casefold(), one.id))

    def trouble(self, stack: Stack) -> str:
        """Why the members are not in their projects yet; empty if they are, or if the stack sleeps."""
        state = self._states.get(stack.name)
        return state.trouble if state and serves(stack) else ""

    def arrived(self, name: str, user: str) -> None:
        """Somebody logged in to a stack, or goes on. Returns at once.

        Args:
            name: the stack's name.
            user: the person's name at the hub.
        """
        state, stack = self._states.get(name), self._store.view.get(name)
        if state is None or stack is None:
            return
        new = user != stack.spec.owner and user not in state.arrived
        if new:
            state.arrived.add(user)
            state.roles.pop(user, None)
        if new or asyncio.get_running_loop().time() - state.looked > LOGIN_SECONDS:
            state.wake.set()

    async def settle(self, stack: Stack) -> None:
        """Bring the members of a stack into its projects now, and out of those that its owner is not in any more.

        Raises:
            StoreError: if something is left to do.
            KubeError: if the record cannot be read or written.
        """
        state = self._states.setdefault(stack.name, State())
        async with state.alone:
            # Who was found in a project may have been taken out of it since.
            state.standing.clear()
            await self._bring(stack, state)

    # -- following the stacks -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the stacks until cancelled; never raises otherwise."""
        try:
            await self._store.view.follow(self._known, self._consider, self._forget)
        finally:
            tasks = [state.task for state in self._states.values() if state.task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._states.clear()

    def _forget(self, names: set[str]) -> None:
        for name in names:
            self._known.pop(name, None)
            state = self._states.pop(name, None)
            if state and state.task:
                state.task.cancel()

    def _consider(self, stack: Stack) -> None:
        facts = (stack.uid, serves(stack), run_of(stack), stack.spec.members)
        known = self._known.get(stack.name)
        if known == facts:
            return
        if known and known[0] != stack.uid:
            self._forget({stack.name})
        self._known[stack.name] = facts
        state = self._states.setdefault(stack.name, State())
        state.turn += 1
        state.roles.clear()
        state.standing.clear()
        state.wake.set()
        if state.task is None:
            state.task = asyncio.create_task(self._tend(stack.name, state))

    async def _tend(self, name: str, state: State) -> None:
        """Bring one stack in order whenever there may be something to do."""
        failures = 0
        while True:
            state.wake.clear()
            stack = self._store.view.get(name)
            pause: float | None = None
            if stack is not None and not is_going(stack) and serves(stack):
                try:
                    async with state.alone:
                        pause = LOOK_SECONDS if await self._bring(stack, state) else None
                    state.trouble, failures = "", 0
                except Exception as error:
                    pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                    failures += 1
                    self._say(name, state, error)
                state.looked = asyncio.get_running_loop().time()
            try:
                await within(state.wake.wait(), pause)
            except asyncio.TimeoutError:
                continue

    def _say(self, name: str, state: State, error: Exception) -> None:
        known = isinstance(error, (StoreError, KubeError))
        sentence = str(error) if isinstance(error, StoreError) else "The cluster does not keep what was done."
        if not known:
            sentence = "The service made a mistake; its log says more."
            log.exception("The members of the stack %s could not be brought into projects", name)
        if state.trouble != sentence:
            state.trouble = sentence
            log.warning("The members of the stack %s are brought into projects later: %s", name, error)

    # -- one stack ----------------------------------------------------------------------------------------

    async def _bring(self, stack: Stack, state: State) -> bool:
        """Bring core to what is wanted.

        Returns:
            Whether to look again after a while.

        Raises:
            StoreError: if something is left to do.
            KubeError: if the record cannot be read or written.
        """
        if state.record is None:
            state.record, state.written = await self._read(stack)
        chosen = await self._chosen(stack, state)
        reaching = any(access.projects is not Reach.NONE for one in chosen.values() for access in one)
        if not reaching and not any(made.projects for made in state.record.values()):
            return False
        voice = Voice(self._tokens, stack, stack.spec.owner, Role.OWNER)
        listed = {one.id for one in await self.calls.projects(self._address(stack), await voice())}
        open_: dict[int, dict[str, ProjectRole | None]] = {}
        for name, accesses in chosen.items():
            made = state.record.setdefault(name, Made())
            want = wanted(accesses, listed)
            for project in set(want) | made.projects:
                role = want.get(project)
                if not made.settled(project, role) and (
                    role is None or (name, project, role) not in state.standing
                ):
                    open_.setdefault(project, {})[name] = role
        may = {name for name, accesses in chosen.items() if accesses}
        look = Look(
            self.calls,
            self._address(stack),
            stack,
            state,
            voice,
            number=lambda name: self._number(stack, state, name),
            keep=lambda: self._keep(stack, state),
        )
        await look.settle(open_, may)
        return reaching

    async def _chosen(self, stack: Stack, state: State) -> dict[str, list[Access]]:
        """What the owner chose for each who is, or was, a member."""
        members, owner = stack.spec.members, stack.spec.owner
        found = {name: [members.access_of("user", name)] for name in members.users if name != owner}
        now = asyncio.get_running_loop().time()
        for name in sorted({*(state.record or {}), *state.arrived} - set(found) - {owner}):
            at, accesses = state.roles.get(name, (0.0, []))
            if name not in state.roles or now - at > ROLE_SECONDS:
                turn = state.turn
                role = await self._hub.role(stack, name, fresh=True)
                user = await self._hub.user(name) if role is Role.GROUP else None
                accesses = entries(members, name, role, user.groups if user else ())
                if turn == state.turn:
                    state.roles[name] = (now, accesses)
                if role is None:
                    state.arrived.discard(name)
            found[name] = accesses
        return found

    async def _number(self, stack: Stack, state: State, name: str) -> int:
        """The number in Cytomine of one who may use the stack; 0 if the hub knows no such user.

        Raises:
            StoreError: if core or the hub does not answer as it should.
        """
        if name not in state.ids and await self._hub.user(name) is not None:
            token, _ = await self._tokens.token(stack, name, Role.USER)
            state.ids[name] = await self.calls.me(self._address(stack), token)
        return state.ids.get(name, 0)

    # -- what was made ------------------------------------------------------------------------------------

    async def _read(self, stack: Stack) -> tuple[Record, str]:
        try:
            text = await kept(self._kube, stack, COMPONENT, KEY)
            return ({}, write({})) if text is None else (read(text), text)
        except (KeyError, ValueError):
            log.warning(
                "What was made of memberships in the stack %s is not readable and left alone", stack.name
            )
            return {}, write({})

    async def _keep(self, stack: Stack, state: State) -> None:
        """Write down what was made, if it is news."""
        text = write(state.record or {})
        if text == state.written:
            return
        await keep(self._kube, stack, COMPONENT, MANAGED_BY, KEY, text)
        state.written = text
