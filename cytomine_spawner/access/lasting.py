"""Connections of stacks that last for hours, such as WebSockets and uploads, end when their person's right ends.

A gateway asks about a session when a request begins, and knows which requests go on. This module reads it from each stack
that serves, every minute, asks whether those people still may, and has the gateway end what lasts where one may not.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError
from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest

from ..cluster.client import KubeError
from ..cluster.store import StackStore, StoreError
from ..stack import model
from ..stack.model import Stack
from .activity import PORT
from .keys import serves

log = logging.getLogger(__name__)

ASK_SECONDS = 5
PARALLEL = 20
# With the half a minute for which the hub's word on a person is believed, and the seconds in which a gateway cuts what
# lasts, nobody goes on for longer than the four minutes of a session, even if a gateway misses two rounds.
ROUND_SECONDS = 60


class Lasting(BaseModel):
    """One connection, as a gateway tells.

    Attributes:
        since: when it began, in seconds since 1970.
        side: ``public`` for browsers, ``internal`` for notebooks.
        session: the session's name in the identity; empty for what comes without one.
        user: whom a token names.
        key: the public key that signed; empty for what was not signed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    since: int
    side: str
    session: str = ""
    user: str = ""
    key: str = ""


class _Answer(BaseModel):
    lasting: list[Lasting]


class Rights(Protocol):
    """Who may go on. Each may raise what it cannot find out: nobody is cut off for that."""

    async def session(self, stack: Stack, name: str) -> bool:
        """Whether a session of this name goes on: its login stands, and its person may use the stack."""

    async def user(self, stack: Stack, name: str) -> bool:
        """Whether a user may use the stack."""

    async def key(self, stack: Stack, key: str) -> bool:
        """Whether a public key is one of the stack's, and its person may use it."""


class Gateways:
    """Asks gateways."""

    def __init__(self) -> None:
        self._client: AsyncHTTPClient | None = None

    async def lasting(self, stack: Stack) -> list[Lasting]:
        """What lasts at a stack's gateway.

        Raises:
            OSError: if the gateway does not answer, or with something else.
        """
        try:
            return _Answer.model_validate(json.loads(await self._ask(stack, "lasting", "GET"))).lasting
        except (ValidationError, ValueError) as error:
            raise OSError(f"The answer is none: {type(error).__name__}") from error

    async def end(self, stack: Stack) -> None:
        """Have all that lasts at a stack's gateway ended.

        Raises:
            OSError: if the gateway does not answer.
        """
        await self._ask(stack, "lasting/end", "POST")

    async def _ask(self, stack: Stack, path: str, method: str) -> bytes:
        if self._client is None:
            self._client = AsyncHTTPClient(force_instance=True, max_clients=PARALLEL)
        request = HTTPRequest(
            f"{model.internal_url(stack.name, stack.namespace)}:{PORT}/{path}",
            method,
            body=b"" if method == "POST" else None,
            connect_timeout=ASK_SECONDS,
            request_timeout=ASK_SECONDS,
            follow_redirects=False,
        )
        try:
            return bytes((await self._client.fetch(request)).body)
        except HTTPError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


class Watchman:
    """Goes round the gateways.

    Args:
        store: the stacks.
        rights: who may go on.
        gateways: asks them.
        pause: waits between two rounds.
    """

    def __init__(
        self,
        store: StackStore,
        rights: Rights,
        gateways: Gateways | None = None,
        pause: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(ROUND_SECONDS),
    ) -> None:
        self._store, self._rights, self._pause = store, rights, pause
        self._gateways = gateways or Gateways()
        self._silent: set[str] = set()

    async def run(self) -> None:
        """Go round until cancelled; never raises otherwise."""
        while True:
            await self._pause()
            stacks = [stack for stack in self._store.view.all() if serves(stack)]
            self._silent &= {stack.name for stack in stacks}
            # Not all at once: the client serves a bounded number at a time, and those who wait for it time out.
            for start in range(0, len(stacks), PARALLEL):
                await asyncio.gather(*(self._look(stack) for stack in stacks[start : start + PARALLEL]))

    async def _look(self, stack: Stack) -> None:
        try:
            found = await self._gateways.lasting(stack)
            self._silent.discard(stack.name)
            people = {one.model_copy(update={"since": 0}) for one in found}
            if not all([await self._may_go_on(stack, one) for one in people]):
                await self._gateways.end(stack)
                log.info(
                    "What lasted at the stack %s is ended: somebody there may not go on, or is logged out",
                    stack.name,
                )
        except OSError as error:
            if stack.name not in self._silent:
                self._silent.add(stack.name)
                log.warning("The gateway of the stack %s does not tell what lasts: %s", stack.name, error)
        except Exception:
            log.exception("What lasts at the stack %s could not be looked at", stack.name)

    async def _may_go_on(self, stack: Stack, one: Lasting) -> bool:
        try:
            if one.session:
                return await self._rights.session(stack, one.session)
            if one.side == "public":
                return False  # nobody is let in there without a session
            if one.key:
                return await self._rights.key(stack, one.key)
            return bool(one.user) and await self._rights.user(stack, one.user)
        except (StoreError, KubeError) as error:
            log.info("Somebody at the stack %s is looked at again in a minute: %s", stack.name, error)
            return True
