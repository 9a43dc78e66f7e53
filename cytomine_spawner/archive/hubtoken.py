"""The token of whoever runs a notebook at a hub, asked of the hub: nothing is to be set, and nothing is written down.

What puts datasets into a stack for somebody asks the stacks' service in the same words.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import aiohttp

from .errors import NoToken, Temporary
from .jwt import MARGIN, checked, expiry

# Where the hub gives it, below its API.
PATH = "/archive/token"
SECONDS = 15.0
LIMIT = 256 * 1024
# How often an answer is worth a try that does not say that the hub is away: it may be a fault that stays.
_TRIES = {500: 8}
_WAITS = (408, 429)
_CURE = "ask an administrator of the hub if it stays so"


def is_at_a_hub() -> bool:
    """Whether this process belongs to a server of a hub, as its environment says."""
    return bool(os.environ.get("JUPYTERHUB_API_URL") and os.environ.get("JUPYTERHUB_API_TOKEN"))


class HubToken:
    """The hub's: asked at first, before the token ends, and when it is refused.

    What lets us ask stays where it is: this object holds it no longer than a request lasts, and can be pickled.

    Args:
        url: where tokens are given; below JUPYTERHUB_API_URL where left out.
        identity: a file with what lets us ask, read each time; JUPYTERHUB_API_TOKEN where left out.
    """

    def __init__(self, url: str = "", identity: str = "") -> None:
        self.url, self.identity = url, identity
        self._token = ""
        # By this machine's monotonic clock: until when the token is used, and when it ends.
        self._until = self._ends = 0.0

    def __repr__(self) -> str:
        return f"HubToken({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HubToken) and (other.url, other.identity) == (self.url, self.identity)

    def __hash__(self) -> int:
        return hash((self.url, self.identity))

    def __reduce__(self) -> tuple[Any, ...]:
        return HubToken, (self.url, self.identity)

    async def current(self) -> str:
        """The token.

        Raises:
            TokenRefused: the hub gives none.
        """
        if self._token and time.monotonic() < self._until:
            return self._token
        try:
            return await self._ask("")
        except Temporary:
            # A hub that starts anew is no reason to stop: the token holds for a moment yet.
            if self._token and time.monotonic() < self._ends:
                return self._token
            raise

    async def renew(self, refused: str) -> str:
        """A token, asked anew; the same where LS Login says that it is good.

        Args:
            refused: the token that the archive refused.

        Raises:
            TokenRefused: the hub gives none.
        """
        return await self._ask(hashlib.sha256(refused.encode()).hexdigest() if refused else "")

    async def _ask(self, refused: str) -> str:
        base = os.environ.get("JUPYTERHUB_API_URL", "")
        url = self.url or f"{base.rstrip('/')}{PATH}"
        own = await asyncio.to_thread(self._own)
        if not own or not (base or self.url):
            raise NoToken(
                "This process belongs to no server of a hub, so no hub gives it a token: name a file with one by SDA_TOKEN_FILE."
            )
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
                session.post(
                    url,
                    json={"refused": refused},
                    headers={"Authorization": f"Bearer {own}"},
                    # The hub's token must not follow wherever an answer points.
                    allow_redirects=False,
                ) as response,
            ):
                found = await _json(response)
                if response.status != 200:
                    _refuse(response, found, own)
        except asyncio.TimeoutError:
            raise Temporary("the hub, which gives the token, did not answer in time", cure=_CURE) from None
        except aiohttp.ClientError:
            # Its text can hold the request.
            raise Temporary("the hub, which gives the token, cannot be reached", cure=_CURE) from None
        token = checked(found.get("access_token"), "The hub")
        now, left = time.monotonic(), found.get("expires_in")
        if not isinstance(left, (int, float)):
            end = expiry(token)
            left = end - time.time() if end is not None else float("inf")
        self._token, self._ends = token, now + left
        # Before its end, as requests take a while; and a token that lives shortly is not renewed all the time.
        self._until = self._ends - min(MARGIN, left / 3) if left != float("inf") else self._ends
        return token

    def _own(self) -> str:
        if not self.identity:
            return os.environ.get("JUPYTERHUB_API_TOKEN", "")
        try:
            return Path(self.identity).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NoToken(
                f"What names this program cannot be read from {self.identity} ({type(error).__name__}): mount it there."
            ) from None


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    if (response.content_length or 0) > LIMIT:
        return {}
    try:
        found = await response.json(content_type=None)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refuse(response: aiohttp.ClientResponse, found: dict[str, Any], own: str) -> None:
    said = " ".join(str(found.get("message") or "").split())
    # Before it is cut, which may be within it.
    said = "" if own[:16] in said else said[:500]
    if response.status in _WAITS or response.status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise Temporary(
            f"the hub gives no token at the moment ({response.status}){': ' if said else ''}{said.rstrip('.')}",
            float(wait) if wait.isdigit() else None,
            _TRIES.get(response.status, 1000),
            _CURE,
        )
    if response.status == 404:
        raise NoToken(
            "This hub gives no tokens for the archive: an administrator can turn it on (archive.enabled). Until then name a "
            "file with a token by SDA_TOKEN_FILE."
        )
    raise NoToken(
        f"The hub gives no token for the archive ({response.status}). "
        f"{said or 'Stop and start your server, or ask an administrator.'}"
    )
