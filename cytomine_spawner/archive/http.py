"""Requests to the archive: the token, retries, time limits, and answers that are refused.

Only GET and HEAD are sent, so each may be repeated. A request that fails for a moment (no connection, a cut, 429, 5xx) is
repeated with growing pauses until ``patience`` seconds went by in which nothing came.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl

from .errors import Damaged, NoSuchPath, NotGranted, Refused, Temporary, TokenRefused
from .jwt import checked, expiry
from .patience import Patience
from .tokens import LOOK, Source, called

LIMIT = 64 * 1024 * 1024  # of an answer that is read whole
BUFFER = 1024 * 1024
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Before what is not granted is asked for once more, in seconds.
DOUBT = 0.3
# How often an error is worth a try: a server that fails at each request says 500, too.
TRIES = {408: 5, 429: 1000, 500: 4, 502: 1000, 503: 1000, 504: 1000}


@dataclass
class Answer:
    """An answer that was read whole.

    Attributes:
        status: the HTTP status.
        headers: its headers.
        body: its bytes.
    """

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        """What it says.

        Raises:
            Refused: it is no JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refused("The archive's answer is no JSON: is the address that of an archive?") from None


class Http:
    """Requests to one archive, with one person's token.

    Args:
        base: the archive's address.
        source: where tokens come from.
        patience: how long to go on trying while nothing comes, in seconds.
        stall: how long the archive may say nothing before a request counts as cut, in seconds.
        parallel: how many requests for content there are at a time.
        allow_http: whether tokens may travel unencrypted to other machines.

    Attributes:
        waits: hears what is waited for before a request is repeated, and "" once something came; must not block.

    Raises:
        ValueError: the address is none, or would have the token travel unencrypted.
    """

    def __init__(
        self, base: str, source: Source, patience: float, stall: float, parallel: int, allow_http: bool
    ) -> None:
        try:
            url = yarl.URL(base.rstrip("/"))
        except ValueError:
            url = yarl.URL()
        if url.scheme not in {"http", "https"} or not url.host or url.user or url.query_string:
            raise ValueError(
                f"{base!r} is no address of an archive: it looks like https://download.example.org."
            )
        if url.scheme == "http" and url.host not in LOOPBACK and not allow_http:
            raise ValueError(
                f"{base} is not encrypted, so your token could be read on the way: use https, or allow_http=True within a "
                "network that you trust."
            )
        self.base = str(url)
        self._url, self.source, self.allow_http = url, source, allow_http
        self.patience, self.stall = patience, stall
        self._parallel = parallel
        self._session: aiohttp.ClientSession | None = None
        self._limit: asyncio.Semaphore | None = None
        self._renewing: asyncio.Lock | None = None
        self._token, self._asked = "", 0.0
        self.requests = 0
        self.waits: Callable[[str], object] = lambda _: None

    @property
    def limit(self) -> asyncio.Semaphore:
        """Held by each request for content."""
        if self._limit is None:
            self._limit = asyncio.Semaphore(self._parallel)
        return self._limit

    async def session(self) -> aiohttp.ClientSession:
        """The session, made in the loop that uses it."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=self.stall),
                connector=aiohttp.TCPConnector(limit=self._parallel + 4),
                # Of one archive alone, but its address may be a number, whose cookies aiohttp drops otherwise.
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                auto_decompress=False,
                read_bufsize=BUFFER,
                headers={"Accept-Encoding": "identity"},
            )
            self._renewing = asyncio.Lock()
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def token(self, refused: str = "") -> str:
        """The token to send.

        Args:
            refused: one that the archive did not accept.

        Raises:
            TokenRefused: there is none.
        """
        session = await self.session()
        assert self._renewing is not None  # noqa: S101
        async with self._renewing:
            now = time.monotonic()
            if refused and self._token != refused:
                return self._token  # another request has renewed it meanwhile
            if refused or not self._token or now - self._asked > LOOK:
                call = (lambda: self.source.renew(refused)) if refused else self.source.current
                token = checked(await called(call), "The token's source")
                if token != self._token:
                    # A session of the former token would hold its former rights.
                    session.cookie_jar.clear()
                self._token, self._asked = token, now
            return self._token

    async def read(
        self,
        path: str,
        what: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        anonymous: bool = False,
    ) -> Answer:
        """An answer, read whole.

        Args:
            path: with its query, percent-encoded.
            what: what is asked for, for sentences, such as "Listing the datasets".
            headers: more headers.
            method: GET or HEAD.
            anonymous: whether it goes without the token.

        Raises:
            ArchiveError: it is refused, or does not come.
        """
        patience = Patience(self.patience, what, self.waits)
        while True:
            try:
                async with self.respond(method, path, what, headers or {}, anonymous) as response:
                    body = b"" if method == "HEAD" else await _limited(response)
                    patience.progress()
                    return Answer(response.status, response.headers, body)
            except Temporary as failure:  # noqa: PERF203
                await patience.pause(failure)

    async def stream(
        self,
        path: str,
        what: str,
        first: int,
        stop: int,
        headers: dict[str, str],
        check: Callable[[aiohttp.ClientResponse, int, int], None],
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a range, in pieces; what was cut goes on where it ended.

        Args:
            path: percent-encoded.
            what: what is asked for.
            first: the first byte.
            stop: the one behind the last.
            headers: more headers.
            check: called with an answer and the range that was asked for; raises Temporary or an ArchiveError.

        Raises:
            ArchiveError: it is refused, or does not come.
        """
        patience = Patience(self.patience, what, self.waits)
        at = first
        while at < stop:
            try:
                asked = {**headers, "Range": f"bytes={at}-{stop - 1}"}
                async with self.respond("GET", path, what, asked) as response:
                    check(response, at, stop)
                    async for chunk in response.content.iter_any():
                        if at + len(chunk) > stop:
                            raise Temporary("the archive sent more than was asked for", tries=4)
                        at += len(chunk)
                        patience.progress()
                        yield chunk
                if at < stop:
                    raise Temporary("the connection was cut")
            except Temporary as failure:  # noqa: PERF203
                await patience.pause(failure)

    @contextlib.asynccontextmanager
    async def respond(
        self, method: str, path: str, what: str, headers: dict[str, str], anonymous: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer that is no error; a refused token is renewed, and what is not granted is asked for once more.

        Raises:
            Temporary: it is worth another try.
            ArchiveError: it is not.
        """
        session = await self.session()
        url = yarl.URL(f"{self.base}{path}", encoded=True)
        refused, renewals, doubted = "", 0, False
        try:
            while True:
                sent = dict(headers)
                token = ""
                if not anonymous:
                    token = await self.token(refused)
                    sent["Authorization"] = f"Bearer {token}"
                self.requests += 1
                # A redirect would carry the token to another address.
                async with session.request(method, url, headers=sent, allow_redirects=False) as response:
                    if response.status == 401 and not anonymous and token != refused and renewals < 2:
                        refused, renewals = token, renewals + 1
                        continue
                    if response.status == 403 and not anonymous and not doubted:
                        # The archive asks the issuer twice, who it is and for which visas, and takes it for none when the
                        # second answer does not come: the token ended in between, or the issuer was slow.
                        doubted = True
                        response.release()
                        await asyncio.sleep(DOUBT)
                        continue
                    if response.status >= 300:
                        await _refuse(response, what, token)
                    yield response
                    return
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise _temporary(error) from None


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > LIMIT:
            raise Refused(
                f"The archive's answer is longer than {LIMIT >> 20} MiB: is the address that of an archive?"
            )
        parts.append(chunk)
    return b"".join(parts)


def _temporary(error: BaseException) -> Temporary:
    # The text of aiohttp's errors can hold a request with its headers: only their kind is told.
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Temporary("the archive's certificate is not valid for its name, or not trusted here", tries=1)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        # A server of names that is away, as one is while a cluster starts, has not said that there is no such name.
        if error.os_error.errno == socket.EAI_AGAIN:
            return Temporary("the archive's name cannot be looked up at the moment")
        return Temporary("the archive's name is not known", tries=5)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Temporary("the archive cannot be reached")
    if isinstance(error, asyncio.TimeoutError):
        return Temporary("the archive did not answer in time")
    return Temporary("the connection was cut")


def retry_after(value: str | None) -> float | None:
    """The seconds that a ``Retry-After`` asks to wait.

    Args:
        value: seconds or a date.
    """
    if not value:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        # "nan" is a number, too, and no pause.
        return seconds if seconds == seconds else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


async def _refuse(response: aiohttp.ClientResponse, what: str, token: str) -> None:
    """Raise what the status of an answer means."""
    status = response.status
    detail = _detail(await _limited(response), token)
    said = f" ({detail})" if detail else ""
    if status in TRIES:
        after = retry_after(response.headers.get("Retry-After"))
        raise Temporary(f"the archive answers {status}{said}", after, TRIES[status])
    if status == 401:
        end = expiry(token)
        if end is not None and end < time.time():
            ended = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
            raise TokenRefused(f"{what} failed: your token ended at {ended}. Log in again.")
        raise TokenRefused(
            f"{what} failed: the archive does not accept your token{said}. Log in again, with the archive's own login."
        )
    if status == 403:
        raise NotGranted.or_not_there(what)
    if status == 404:
        raise NoSuchPath(f"{what} failed: the archive does not have it.")
    if status == 412:
        raise Refused(f"{what} failed: the archive wants a newer client{said}. Update this package.")
    if status == 416:
        raise Damaged(
            f"{what} failed: the archive's content is shorter than it says. Tell the archive's operators."
        )
    if 300 <= status < 400:
        raise Refused(f"{what} failed: the archive sends on to another address. Give that one, as endpoint=.")
    raise Refused(f"{what} failed: the archive answers {status}{said}. Tell the archive's operators.")


def _detail(body: bytes, token: str) -> str:
    """What an error's body says, in one short line."""
    text = body[:4096].decode("utf-8", "replace")
    try:
        found = json.loads(text)
        parts = [str(found[key]) for key in ("detail", "errorCode") if found.get(key)]
        text = ", ".join(parts) or str(found.get("title", ""))
    except (ValueError, AttributeError, TypeError):
        if "<" in text:
            return ""  # some proxy's page
    text = " ".join(text.split())
    # Before it is cut, which may be within the token.
    return "" if token and token[:16] in text else text[:200]
