"""Calls to a stack as the client makes them, signed with API keys, for what must go on after a cut."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiohttp

from ..common.signing import signed
from .errors import DatasetError

log = logging.getLogger(__name__)

CALL_SECONDS = 30.0
# How core says that its database ended a transaction in favour of another; nothing of it was stored.
GAVE_WAY = ("deadlock detected", "OptimisticLockException")
GAVE_WAY_STATUS = (400, 409, 500)
T = TypeVar("T")


class Unreachable(Exception):
    """The stack did not answer; trying again may help."""


class GaveWay(Unreachable):
    """The stack took a change back, because someone else changed the same at that moment; trying again helps."""


class Refused(Exception):
    """The stack answered with an error status.

    Attributes:
        status: the status.
        said: the status with its reason, where the stack gave one.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.said = status, f"{status}: {text}" if text else str(status)


class Connection:
    """Calls to a stack, signed with API keys.

    Args:
        url: the stack's address, as a notebook reaches it.
        public_key: of the owner.
        private_key: of the owner.
        session: for the requests; the caller closes it.
    """

    def __init__(self, url: str, public_key: str, private_key: str, session: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/")
        self._public, self._private, self._session = public_key, private_key, session

    @classmethod
    async def with_token(cls, url: str, token: str, session: aiohttp.ClientSession) -> Connection:
        """A connection by the keys of whom a bearer token names: the image server takes no tokens."""
        address = f"{url.rstrip('/')}/api/user/current/keys"
        head = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        try:
            async with session.get(address, headers=head, timeout=timeout) as answer:
                if answer.status != 200:
                    raise DatasetError(f"The stack refused the token ({answer.status}). Ask for a new one.")
                keys = await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise DatasetError(
                f"The stack at {url} does not answer ({_why(error)}). Is it running?"
            ) from None
        return cls(url, keys["primaryKey"], keys["secondaryKey"], session)

    def _head(self, method: str, kind: str) -> dict[str, str]:
        head = {
            "Accept": "application/json",
            **signed(self._public, self._private, method=method, content_type=kind),
        }
        return {**head, "Content-Type": kind} if kind else head

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: aiohttp.MultipartWriter | None = None,
        seconds: float = CALL_SECONDS,
        **query: Any,
    ) -> Any:
        """The JSON of an answer.

        Args:
            method: of HTTP.
            path: from the root, with its slash.
            body: to be sent as JSON.
            content: a form to be sent instead.
            seconds: without a byte from the stack after which it counts as gone.
            query: parameters.

        Raises:
            Unreachable: no answer, or one that says the stack is not ready (502 to 504).
            GaveWay: someone else changed the same at that moment.
            Refused: an error status.
        """
        kind = "application/json" if method != "GET" else ""
        data: Any = json.dumps(body).encode() if body is not None else None
        if content is not None:
            kind, data = f"multipart/form-data; boundary={content.boundary}", content
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=seconds)
        skip = None if kind else ["Content-Type"]
        parameters = {k: str(v) for k, v in query.items()}
        try:
            async with self._session.request(
                method,
                self.url + path,
                params=parameters,
                data=data,
                headers=self._head(method, kind),
                skip_auto_headers=skip,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                text = await answer.text()
                # 408: a server on the way waited too long for the rest of an upload.
                if answer.status in (408, 502, 503, 504):
                    raise Unreachable(f"{answer.status} from {path}")
                if answer.status in GAVE_WAY_STATUS and any(mark in text for mark in GAVE_WAY):
                    raise GaveWay(f"{answer.status} from {path}: someone else changed the same")
                if answer.status != 200:
                    raise Refused(answer.status, _message(text))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(_why(error)) from None
        try:
            return json.loads(text) if text else {}
        except ValueError:
            return text

    async def listed(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """All entries of a list: of core's, which take ``max=0``, and of the repository's, which only know pages of 20."""
        found: list[dict[str, Any]] = []
        page = 0
        while True:
            data = await self.call("GET", path, max=0, offset=0, page=page, size=200, **query)
            part = data.get("collection", []) if isinstance(data, dict) else []
            found += part
            page += 1
            if not part or len(found) >= int(data.get("size", 0)):
                return found


def _why(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _message(text: str) -> str:
    try:
        data = json.loads(text)
    except ValueError:
        # Core's page says no more than the status.
        return "" if text.lstrip().startswith("<") else " ".join(text.split())[:200]
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, dict):
        found = data.get("errors") or data.get("error") or data.get("detail") or data
        return str(found.get("message", found) if isinstance(found, dict) else found)[:300]
    return str(data)[:300]


async def again(action: Callable[[], Awaitable[T]], pauses: Sequence[float]) -> T:
    """The action's result; it looks at what is there first, so that a second try does no harm."""
    waits = iter(pauses)
    while True:
        try:
            return await action()
        except Unreachable as error:
            if (pause := next(waits, None)) is None:
                raise
            log.info("the stack did not do it (%s), trying again in %s s", error, pause)
        await asyncio.sleep(pause)
