"""A person's access token of LS Login for their own programs at the hub: what opens the archive in a notebook.

``POST /hub/api/archive/token`` answers a token of the hub that has the scope :data:`SCOPE` by name with the access token of
the user whose token it is, and of nobody else. ``POST /hub/api/archive/import-token`` answers the service of stacks with the
token of a user who chose a dataset of the archive for a server, as long as that choice stands in the hub's database. The
refresh token never leaves the hub. ``POST /hub/api/archive/granted`` tells that service which datasets a user is granted.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from ..common.usertokens import AccessToken, NoToken
from .kept import replaced

if TYPE_CHECKING:
    from .sessions import LSLoginSessions

SCOPE = "custom:cytomine-archive:token"
# What the service of stacks needs to have datasets imported that users chose.
IMPORT_SCOPE = "custom:cytomine-archive:import"
PATH = "/api/archive/token"
IMPORT_PATH = "/api/archive/import-token"
GRANTED_PATH = "/api/archive/granted"
# Of so many datasets is asked at once: more than a stack holds.
_DATASETS = 1000
# Seconds between two questions to LS Login whether a token that an archive refused is still good.
CHECK_SECONDS = 10.0
# How many people's requests are counted.
_COUNTED = 10_000


class Tokens:
    """The access tokens of the hub's users, renewed when they are about to end.

    Args:
        authenticator: knows how to renew one.
    """

    def __init__(self, authenticator: LSLoginSessions) -> None:
        self._authenticator = authenticator
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._checked: dict[str, float] = {}
        self._asked: dict[str, deque[float]] = {}

    async def of(self, user: Any, refused: str = "") -> AccessToken:
        """A user's token, which holds for a while yet.

        Args:
            user: the hub's user.
            refused: the digest of a token that an archive refused.

        Raises:
            NoToken: there is none.
        """
        # One at a time: a renewal spends the refresh token, and who waits finds the new one.
        lock = self._locks.setdefault(user.name, asyncio.Lock())
        async with lock:
            state = await user.get_auth_state() or {}
            token = AccessToken.of(state)
            if token is None:
                raise NoToken(
                    f"The hub has no token of {self._service} for you: sign out of the hub and in again."
                )
            if not token.is_over(self._margin(token)) and not self._to_check(user.name, token, refused):
                return token
            return await self._renewed(user, state, token)

    def wait(self, name: str) -> float:
        """Count a request of a user's programs; so many seconds must they wait, 0 if none."""
        now, most = time.monotonic(), self._authenticator.archive_tokens_per_minute
        asked = self._asked.pop(name, None) or deque()
        while asked and now - asked[0] >= 60:
            asked.popleft()
        # Put last, so that those who asked longest ago are forgotten first.
        self._asked[name] = asked
        while len(self._asked) > _COUNTED:
            del self._asked[next(iter(self._asked))]
        if len(asked) >= most:
            return 60 - (now - asked[0])
        asked.append(now)
        return 0.0

    @property
    def _service(self) -> str:
        return str(self._authenticator.login_service)

    def _margin(self, token: AccessToken) -> float:
        """How long before its end a token is renewed: as the hub does it, but not all the time where it lives shortly."""
        usual = float(self._authenticator.renew_before)
        return usual if token.life is None else min(usual, token.life / 2)

    def _to_check(self, name: str, token: AccessToken, refused: str) -> bool:
        """Whether LS Login is to be asked if a refused token is good; somebody else's program may have renewed it."""
        if not refused or not hmac.compare_digest(refused, token.digest):
            return False
        now = time.monotonic()
        if now - self._checked.get(name, -CHECK_SECONDS) < CHECK_SECONDS:
            return False
        self._checked.pop(name, None)
        self._checked[name] = now
        while len(self._checked) > _COUNTED:
            del self._checked[next(iter(self._checked))]
        return True

    async def _renewed(self, user: Any, kept: dict[str, Any], before: AccessToken) -> AccessToken:
        model = await self._authenticator.refresh_user(user)
        if model and model is not True:
            state = model["auth_state"]
            token = AccessToken.of(state)
            if token is None:
                raise NoToken(f"{self._service} gives no token: sign out of the hub and in again.")
            if await replaced(user, kept, state):
                return self._good(token)
        # Who signed out meanwhile took their tokens out of the database, and who signed in put others there: so it stays.
        now = await user.get_auth_state() or {}
        there = AccessToken.of(now)
        if there is None:
            if model and model is not True:
                self._authenticator.revoke(user.name, model["auth_state"], kept)
            raise NoToken("You signed out of the hub: sign in again.")
        if there.value != before.value:
            return self._good(there)
        if not model:
            raise NoToken(
                f"Your sign-in with {self._service} has ended, or may no longer use this hub: sign out of the hub and in again."
            )
        if before.is_over():
            raise NoToken(
                f"{self._service} does not answer, and your token has ended. Try again in some minutes.",
                passing=True,
            )
        return before

    def _good(self, token: AccessToken) -> AccessToken:
        if token.is_over():
            raise NoToken(
                f"Your token of {self._service} has ended, and it gives no other: sign out of the hub and in again. "
                "An administrator can have refresh tokens turned on for this hub there."
            )
        return token


class _Later(web.HTTPError):
    """An answer that says when to ask again; JupyterHub takes the headers of errors from them."""

    def __init__(self, status: int, sentence: str, seconds: float) -> None:
        super().__init__(status, sentence)
        self.headers = {"Retry-After": str(math.ceil(seconds))}


class _Giver(APIHandler):  # type: ignore[misc]
    """Gives programs a user's access token."""

    # A browser's session opens nothing here: pages, also those of the hub itself, have no use for it.
    _accept_cookie_auth = False

    async def give(self, user: Any, refused: object) -> None:
        """Answer with ``access_token`` and when it ends.

        Args:
            user: whose.
            refused: the digest of a token that the archive refused, as it was sent.
        """
        if not isinstance(refused, str) or len(refused) > 64 or not refused.isascii():
            raise web.HTTPError(
                400, "The field refused must be the SHA-256 of a token, in hexadecimal, or empty."
            )
        tokens: Tokens = self.authenticator.archive
        if wait := tokens.wait(user.name):
            raise _Later(429, "The archive's token is asked for too often. Try again in a minute.", wait)
        try:
            token = await tokens.of(user, refused)
        except NoToken as none:
            if none.passing:
                raise _Later(503, str(none), 10) from none
            raise web.HTTPError(409, str(none)) from none
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        # How long it holds, too: the clocks of the hub and of a node may differ.
        left = None if token.ends is None else max(0.0, token.ends - time.time())
        answer = {"access_token": token.value, "token_type": "Bearer", "expires_at": token.ends}
        self.finish(json.dumps({**answer, "expires_in": left}))

    def sent(self) -> dict[str, Any]:
        """The JSON object in the request; an empty one where there is none."""
        body = self.get_json_body()
        if body is not None and not isinstance(body, dict):
            raise web.HTTPError(400, "The request is not a JSON object.")
        return body or {}


class ArchiveTokenHandler(_Giver):
    """Gives programs the access token of the user whose token of the hub they show."""

    async def post(self) -> None:
        """Answer; the body may name a refused token by its SHA-256."""
        user = self._entitled()
        await self.give(user, self.sent().get("refused", ""))

    def _entitled(self) -> Any:
        """The user whose token this is.

        Raises:
            HTTPError: it is no user's, or lacks the scope.
        """
        shown = self.get_token()
        if shown is None or self.current_user is None:
            raise web.HTTPError(403, "Send a token of this hub: sessions of browsers get no token.")
        # Tokens of logins to services and to servers are others'; and what merely inherits all of its user's rights, as
        # tokens made without a choice do, was not made for this.
        named = any(scope.partition("!")[0] == SCOPE for scope in shown.scopes)
        own = shown.user is not None and shown.client_id == "jupyterhub"
        if not own or not named or SCOPE not in self.parsed_scopes:
            raise web.HTTPError(
                403,
                f"This token lacks the scope {SCOPE}. Stop and start your server; if that does not help, an administrator "
                "has to give the scope to the servers' tokens and to the role user.",
            )
        return self.current_user


class ImportTokenHandler(_Giver):
    """Gives the service of stacks the access token of a user who chose a dataset of the archive."""

    async def post(self) -> None:
        """Answer; the body names ``user``, ``server`` and ``dataset``."""
        shown = self.get_token()
        if shown is None or shown.service is None or IMPORT_SCOPE not in self.parsed_scopes:
            raise web.HTTPError(403, f"Only services with the scope {IMPORT_SCOPE} get tokens here.")
        body = self.sent()
        name, server, dataset = (body.get(key) for key in ("user", "server", "dataset"))
        if not all(isinstance(text, str) for text in (name, server, dataset)):
            raise web.HTTPError(400, "The request must name user, server and dataset.")
        user = self.find_user(name)
        if user is None or not _chose(user, str(server), str(dataset)):
            # What the service says is no choice: a service that was broken into gets no tokens of those who chose nothing.
            raise web.HTTPError(
                403,
                f"{dataset} is not among what the owner chose for this server in the hub's options. Choose it there and start "
                "the server again.",
            )
        await self.give(user, body.get("refused", ""))


class GrantedHandler(APIHandler):  # type: ignore[misc]
    """Tells the service of stacks which of some datasets a user is granted now; no token leaves the hub for that."""

    _accept_cookie_auth = False

    async def post(self) -> None:
        """Answer with ``granted``, or with ``trouble`` where it cannot be known; the body names ``user`` and ``datasets``."""
        shown = self.get_token()
        if shown is None or shown.service is None or IMPORT_SCOPE not in self.parsed_scopes:
            raise web.HTTPError(403, f"Only services with the scope {IMPORT_SCOPE} are told here.")
        body = self.get_json_body()
        name, datasets = (body.get("user"), body.get("datasets")) if isinstance(body, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(datasets, list) or len(datasets) > _DATASETS:
            raise web.HTTPError(400, "The request must name user and datasets.")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(await self._told(name, [one for one in datasets if isinstance(one, str)])))

    async def _told(self, name: str, datasets: list[str]) -> dict[str, Any]:
        user = self.find_user(name)
        if user is None:
            return {"granted": None, "trouble": "the hub does not know the owner any more"}
        look = getattr(user.spawner, "still_granted", None)
        if look is None:
            return {"granted": None, "trouble": "this hub's spawner knows no archive"}
        tokens: Tokens = self.authenticator.archive
        if tokens.wait(user.name):
            return {
                "granted": None,
                "trouble": "the archive was asked too often for this person in the last minute",
            }
        granted, trouble = await look(datasets)
        return {"granted": granted, "trouble": trouble}


def _chose(user: Any, server: str, dataset: str) -> bool:
    """Whether a user's last options for a server name a dataset."""
    orm = user.orm_user.orm_spawners.get(server)
    options = (orm.user_options if orm is not None else None) or {}
    cytomine = options.get("cytomine") if isinstance(options, dict) else None
    chosen = cytomine.get("datasets") if isinstance(cytomine, dict) else None
    return isinstance(chosen, list) and dataset in chosen
