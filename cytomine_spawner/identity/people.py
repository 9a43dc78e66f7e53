"""Who is logged in at the hub, and who of them may use a stack.

:mod:`..stack.people` decides who may; it says which scopes the service's role at the hub needs for that. Whether a login
still stands is asked with the login's own token, which takes none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from jupyterhub.services.auth import HubOAuth
from jupyterhub.utils import make_ssl_context

from ..access.hubapi import Hub
from ..cluster.store import StoreError
from ..stack.model import Stack
from .claims import Person, Role, readable_name

log = logging.getLogger(__name__)

HUB_SECONDS = 10
# How long the hub's word on a login is believed: requests of one page come together.
LOGIN_SECONDS = 5
CACHE_SIZE = 2000


class HubSilent(Exception):
    """The hub does not answer, or does not let the service ask: nobody is to be logged out for that."""


class Logins:
    """Asks the hub whether a login still stands.

    Args:
        hub_auth: the hub's address and the scopes that open the service.
        clock: seconds that never go back.
    """

    def __init__(self, hub_auth: HubOAuth, clock: Callable[[], float] = time.monotonic) -> None:
        self._auth, self._clock = hub_auth, clock
        self._session: aiohttp.ClientSession | None = None
        self._known: OrderedDict[str, tuple[float, dict[str, Any] | None]] = OrderedDict()

    async def user(self, token: str, username: str) -> dict[str, Any] | None:
        """The hub's model of a user, if a token still is theirs and still opens this service.

        The hub deletes the tokens of a browser's session when that browser logs out.

        Raises:
            HubSilent: the hub did not say.
        """
        model = await self._whose(token)
        if model is None or model.get("name") != username or model.get("kind", "user") != "user":
            return None
        wanted = self._auth.access_scopes
        return model if not wanted or self._auth.check_scopes(wanted, model) else None

    async def close(self) -> None:
        """Give the connections back."""
        if self._session:
            await self._session.close()

    async def _whose(self, token: str) -> dict[str, Any] | None:
        key = hashlib.sha256(token.encode()).hexdigest()
        now = self._clock()
        at, model = self._known.get(key, (now - LOGIN_SECONDS, None))
        if now - at < LOGIN_SECONDS:
            return model
        model = await self._ask(token)
        self._known[key] = (now, model)
        self._known.move_to_end(key)
        while len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return model

    async def _ask(self, token: str) -> dict[str, Any] | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HUB_SECONDS))
        options: dict[str, Any] = {}
        if self._auth.certfile or self._auth.keyfile:
            options["ssl"] = make_ssl_context(
                self._auth.keyfile, self._auth.certfile, cafile=self._auth.client_ca
            )
        try:
            async with self._session.get(
                f"{self._auth.api_url.rstrip('/')}/user",
                headers={"Authorization": f"token {token}"},
                allow_redirects=False,
                **options,
            ) as response:
                if response.status in (401, 403):
                    return None
                if response.status != 200:
                    raise HubSilent(f"The hub answers {response.status} when asked whose a token is.")
                return dict(json.loads(await response.text()))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise HubSilent(f"The hub does not answer: {type(error).__name__}.") from error


class People:
    """Who may use a stack at this moment.

    Args:
        hub: the hub's API, by the service's own token.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def role(self, stack: Stack, username: str) -> Role | None:
        """A user's role in a stack's core; None if they may not use it or are gone from the hub.

        Raises:
            HubSilent: the hub did not say.
        """
        if stack.deleting:
            return None
        try:
            found = await self._hub.role(stack, username)
        except StoreError as error:
            raise HubSilent(str(error)) from error
        return Role(found.in_core) if found else None

    async def allowed(self, stack: Stack, model: Mapping[str, Any]) -> Person | None:
        """The person of the hub's model, if they may use the stack.

        Raises:
            HubSilent: the hub did not say.
        """
        username = str(model["name"])
        role = await self.role(stack, username)
        if role is None:
            return None
        name, email = readable_name(username, model)
        return Person(username, name, email, role)
