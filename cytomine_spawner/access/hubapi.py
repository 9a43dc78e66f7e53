"""Who may use a stack beside its owner, and what the hub knows of people: users, groups, shares of servers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from ..cluster.store import Denied, StoreError, Unavailable
from ..stack.model import Stack, format_time
from ..stack.people import HubUser, Role, Server, Share, role

log = logging.getLogger(__name__)

HUB_SECONDS = 10
# How long the hub's word on a person is believed.
CACHE_SECONDS = 30
CACHE_LENGTH = 5000
PAGE = 200
PARALLEL = 20
T = TypeVar("T")


class Hub:
    """The hub's API, by the service's own token.

    The token needs the scopes ``read:users:name``, ``read:users:groups``, ``read:groups:name``,
    ``read:shares``, ``read:users:shares`` and, for :meth:`active`, ``users:activity``.

    Args:
        api_url: the hub's API, such as ``http://hub:8081/hub/api``.
        token: gives the service's token; called each time, for it may be replaced.
    """

    def __init__(self, api_url: str, token: Callable[[], str]) -> None:
        self._url = api_url.rstrip("/")
        self._token = token
        self._known: dict[tuple[str, ...], tuple[float, Any]] = {}
        self._clients: dict[int, AsyncHTTPClient] = {}
        self._said: set[str] = set()

    async def user(self, name: str, *, fresh: bool = False) -> HubUser | None:
        """A user; None if there is none of this name.

        Raises:
            StoreError: if the hub does not answer, or not to this service.
        """

        async def ask() -> HubUser | None:
            model = await self._get("users", name)
            return HubUser.from_model(model) if model else None

        return await self._cached(("user", name), ask, fresh=fresh)

    async def group(self, name: str) -> str | None:
        """The name of a group as the hub writes it; None if there is none.

        Raises:
            StoreError: if the hub does not answer, or not to this service.
        """

        async def ask() -> str | None:
            model = await self._get("groups", name)
            return model and str(model["name"])

        return await self._cached(("group", name), ask)

    async def shared_with(self, name: str, *, fresh: bool = False) -> frozenset[Server]:
        """The servers of others that a user may use, by shares with the user and with the user's groups.

        Raises:
            StoreError: if the hub does not answer, or not to this service.
        """

        async def ask() -> frozenset[Server]:
            found = [share["server"] async for share in self._shares("users", name, "shared")]
            return frozenset((server["user"]["name"], server["name"]) for server in found)

        return await self._cached(("shared", name), ask, fresh=fresh)

    async def shares(self, stack: Stack) -> list[Share]:
        """With whom the server of a stack is shared.

        Raises:
            StoreError: if the hub does not answer, or not to this service.
        """

        async def ask() -> list[Share]:
            found = []
            async for share in self._shares("shares", stack.spec.owner, stack.spec.server_name):
                kind = share["kind"]
                found.append(Share(kind, share[kind]["name"]))
            return sorted(found, key=lambda share: (share.kind, share.name))

        return await self._cached(("shares", stack.spec.owner, stack.spec.server_name), ask)

    async def role(self, stack: Stack, name: str, *, fresh: bool = False) -> Role | None:
        """Why a user may use a stack, as the hub knows now; None if they may not or are gone from the hub.

        Raises:
            StoreError: if the hub does not answer, or not to this service.
        """
        user = await self.user(name, fresh=fresh)
        if user is None:
            return None
        found = role(stack, user.name, user.groups)
        if found is None:
            found = role(stack, user.name, user.groups, await self.shared_with(user.name, fresh=fresh))
        return found

    async def active(self, stack: Stack, when: datetime) -> bool:
        """Tell the hub that the server of a stack was used, so that it is not stopped as idle.

        Returns:
            Whether there is such a server.

        Raises:
            StoreError: if the hub does not answer, or not to this service.
        """
        body = {"servers": {stack.spec.server_name: {"last_activity": format_time(when)}}}
        try:
            await self._send("POST", self._address("users", stack.spec.owner, "activity"), body)
        except HTTPClientError as error:
            # 400: the user has no such server, 404: no such user. The stack may outlive both.
            if error.code in (400, 404):
                return False
            raise self._refused(error) from error
        return True

    async def archive_token(
        self, stack: Stack, dataset: str, refused: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """The owner's token of LS Login, which reads the archive; the hub gives it for datasets that the owner chose.

        Args:
            stack: whose owner.
            dataset: for which dataset, as it was chosen.
            refused: the digest of a token that the archive refused.

        Returns:
            The status and the JSON of the hub's answer.

        Raises:
            StoreError: if the hub does not answer.
        """
        body = {
            "user": stack.spec.owner,
            "server": stack.spec.server_name,
            "dataset": dataset,
            "refused": refused,
        }
        try:
            return 200, await self._send("POST", self._address("archive", "import-token"), body)
        except HTTPClientError as error:
            answer: Any = {}
            with suppress(ValueError):
                answer = json.loads(error.response.body) if error.response else {}
            return error.code, answer if isinstance(answer, dict) else {}

    async def archive_grants(
        self, stack: Stack, datasets: Sequence[str]
    ) -> tuple[frozenset[str] | None, str]:
        """Which of some datasets of the archive the owner is granted now, as the hub finds with the owner's login.

        Returns:
            The datasets; None if it cannot be known now, and why, as half a sentence.

        Raises:
            StoreError: if the hub does not answer.
        """
        body = {"user": stack.spec.owner, "datasets": list(datasets)}
        try:
            found = await self._send("POST", self._address("archive", "granted"), body)
        except HTTPClientError as error:
            return None, f"the hub does not tell it to this service ({error.code})"
        granted = found.get("granted") if isinstance(found, dict) else None
        if not isinstance(granted, list):
            said = found.get("trouble") if isinstance(found, dict) else ""
            return None, str(said or "the hub's answer is not understood")
        return frozenset(map(str, granted)) & frozenset(datasets), ""

    def forget(self) -> None:
        """Ask anew for everything, even what was told a moment ago."""
        self._known.clear()

    # -- below --------------------------------------------------------------------------------------------

    async def _cached(
        self, key: tuple[str, ...], ask: Callable[[], Awaitable[T]], *, fresh: bool = False
    ) -> T:
        known: tuple[float, T] | None = self._known.get(key)
        if known and not fresh and monotonic() - known[0] < CACHE_SECONDS:
            return known[1]
        answer = await ask()
        if len(self._known) >= CACHE_LENGTH:
            self._known.clear()
        self._known[key] = (monotonic(), answer)
        return answer

    async def _shares(self, *path: str) -> AsyncIterator[dict[str, Any]]:
        """The shares of a list that have not run out and let into the server, page by page."""
        offset: int | None = 0
        while offset is not None:
            page = await self._get(*path, query=f"?limit={PAGE}&offset={offset}", paged=True)
            for share in (page or {}).get("items", ()):
                if any(scope.startswith("access:servers") for scope in share.get("scopes", ())):
                    yield share
            following = ((page or {}).get("_pagination") or {}).get("next")
            offset = following and int(following["offset"])

    async def _get(self, *path: str, query: str = "", paged: bool = False) -> Any:
        try:
            return await self._send("GET", self._address(*path) + query, paged=paged)
        except HTTPClientError as error:
            if error.code == 404:
                return None
            raise self._refused(error) from error

    def _address(self, *path: str) -> str:
        return "/".join([self._url, *(quote(part, safe="") for part in path)])

    async def _send(self, method: str, url: str, body: Any = None, *, paged: bool = False) -> Any:
        headers = {"Authorization": f"token {self._token()}", "Content-Type": "application/json"}
        if paged:
            headers["Accept"] = "application/jupyterhub-pagination+json"
        request = HTTPRequest(
            url,
            method,
            headers,
            json.dumps(body) if body is not None else None,
            connect_timeout=HUB_SECONDS,
            request_timeout=HUB_SECONDS,
            follow_redirects=False,
        )
        try:
            answer = await self._client().fetch(request)
        except HTTPClientError as error:
            # 599: tornado's word for no answer at all
            if error.code >= 500:
                raise Unavailable("The hub does not answer at the moment. Try again in a minute.") from error
            raise
        except OSError as error:
            raise Unavailable("The hub does not answer at the moment. Try again in a minute.") from error
        return json.loads(answer.body) if answer.body else None

    def _client(self) -> AsyncHTTPClient:
        # One for each event loop; tornado's shared one serves no more than ten requests at a time.
        key = id(asyncio.get_running_loop())
        if key not in self._clients:
            self._clients = {key: AsyncHTTPClient(force_instance=True, max_clients=PARALLEL)}
        return self._clients[key]

    def _refused(self, error: HTTPClientError) -> StoreError:
        path = str(error.response.effective_url if error.response else "").removeprefix(self._url)
        sentence = f"The hub refuses the service {path.split('?')[0]} ({error.code})"
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning("%s: does the service's role lack a scope?", sentence)
        return Denied(
            "The hub does not tell this service what it needs to know; an administrator has to give it the scopes."
        )
