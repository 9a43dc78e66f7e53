"""Logins to a stack: codes of 60 seconds, then refresh tokens that change at each use.

A session is one login of one client: it begins with a code and lives on in a chain of refresh tokens, of which only
the newest is good. The tokens themselves are kept nowhere. A code is kept as its digest; a refresh token is signed
with a key that only this service has and carries its number in the chain, so that the number is all there is to
keep. Whoever shows an older number than the last has a copy: the session ends for both. Two requests of one browser
that were on their way at the same time are no theft: for a few seconds the number before the last gets the same
answer as the last one did.

The sessions of a stack are in a Secret of their own, which dies with the stack, and with them what people chose for
themselves in its user interface. It is written some moments after a change. What a crash takes with it costs nobody a login: a number that is higher than the known one was signed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..cluster.client import KubeError
from ..cluster.secretstore import Vault
from ..common.waiting import within
from ..stack.model import Stack, component_name
from .strange import is_nobodys

log = logging.getLogger(__name__)

CODE_SECONDS = 60
# For how long the number before the last gets the last one's answer.
GRACE_SECONDS = 10
# Changes that decide who is in are written sooner than mere numbers.
SOON, LATER = 0.5, 20.0
MOST_PAUSE = 60.0
_SESSIONS, _OWNER, _CHOICES = "sessions.json", "stack-uid", "choices.json"


@dataclass
class Session:
    """One login of one client. Times are seconds since 1970.

    Attributes:
        id: unguessable; the ``sid`` of its tokens.
        client: the client it belongs to.
        user: the hub's name of the user.
        login: tells which login at the hub it came from: the digest of the hub's token.
        hub_token: the hub's token, sealed.
        created: the time of the login.
        used: the time of the last refresh.
        expires: when it ends whatever happens.
        scopes: what was granted.
        nonce: the client's, for its tokens.
        code: digest of the code it began with.
        redirect: digest of the address that the code was sent to.
        challenge: PKCE's; empty once the code was used.
        number: of the newest refresh token; 0 before the first.
    """

    id: str
    client: str
    user: str
    login: str
    hub_token: str
    created: float
    used: float
    expires: float
    scopes: list[str]
    nonce: str
    code: str
    redirect: str
    challenge: str
    number: int = 0

    @property
    def pending(self) -> bool:
        """Whether its code has not been used yet."""
        return bool(self.challenge)


class Reused(Exception):
    """A code or a refresh token was shown a second time: somebody has a copy."""


@dataclass(frozen=True)
class Limits:
    """How long and how many.

    Attributes:
        lifetime: seconds from login to end.
        idle: seconds without a refresh until the end.
        per_user: sessions that one user has in one stack.
        per_stack: sessions in one stack; up to some 1200 bytes each, and a Secret holds a mebibyte.
    """

    lifetime: float = 7 * 86_400
    idle: float = 86_400
    per_user: int = 20
    per_stack: int = 400


class Ledger:
    """The sessions of one stack.

    Args:
        sessions: those that were kept.
        limits: how long and how many.
        changed: called with the seconds within which to write.
        clock: the time in seconds since 1970.
        choices: what people chose for themselves, by their name in Cytomine.
    """

    def __init__(
        self,
        sessions: Iterable[Session],
        limits: Limits,
        changed: Callable[[float], None],
        clock: Callable[[], float] = time.time,
        choices: Mapping[str, dict[str, str]] | None = None,
    ) -> None:
        self._sessions = {s.id: s for s in sessions}
        self._choices = dict(choices or {})
        self._ended: dict[str, float] = {}
        self._limits, self._changed, self._clock = limits, changed, clock

    # -- codes --------------------------------------------------------------------------------------------

    def begin(self, *, seal: Callable[[str], str], **about: Any) -> tuple[Session, str]:
        """A new session and the code that opens it.

        Args:
            seal: makes the sealed token of the hub for a session's id.
            about: client, user, login, scopes, nonce, redirect and challenge.
        """
        now, code, id_ = self._clock(), secrets.token_urlsafe(32), secrets.token_urlsafe(24)
        session = Session(
            id=id_,
            hub_token=seal(id_),
            created=now,
            used=now,
            expires=now + self._limits.lifetime,
            code=digest(code),
            **about,
        )
        self._sessions[id_] = session
        self._make_room(session.user)
        self._changed(SOON)
        return session, code

    def by_code(self, code: str) -> Session | None:
        """The session that a code opens.

        Raises:
            Reused: the code was used before; the session has been ended.
        """
        shown = digest(code)
        for session in self._sessions.values():
            if hmac.compare_digest(session.code, shown):
                if not session.pending:
                    self.end(session)
                    raise Reused
                return session if self._alive(session) else None
        return None

    # -- refresh tokens -----------------------------------------------------------------------------------

    def get(self, id_: str) -> Session | None:
        """The session of this id, if its code was used and it has not ended."""
        session = self._sessions.get(id_)
        return session if session and not session.pending and self._alive(session) else None

    def check(self, session: Session, number: int) -> None:
        """See whether a refresh token may be used; nothing changes if so.

        Raises:
            Reused: the token was used before; the session has been ended.
        """
        if number >= session.number or self._in_grace(session, number):
            return
        self.end(session)
        raise Reused

    def advance(self, session: Session, number: int = 0) -> None:
        """Make the number of the next refresh token the session's, for one that was shown (0: for the code)."""
        now = self._clock()
        if session.pending:
            session.challenge = session.redirect = ""
            self._changed(SOON)
        elif self._in_grace(session, number):
            return
        else:
            self._changed(LATER)
        session.number = max(session.number, number) + 1
        session.used = now

    def _in_grace(self, session: Session, number: int) -> bool:
        return number == session.number - 1 and 0 <= self._clock() - session.used <= GRACE_SECONDS

    # -- ends ---------------------------------------------------------------------------------------------

    def end(self, session: Session) -> None:
        """End a session."""
        if self._sessions.pop(session.id, None):
            self._ended[session.id] = session.expires
            self._changed(SOON)

    def end_login(self, session: Session) -> int:
        """End all sessions that came from the same login at the hub, and count them."""
        same = [s for s in self._sessions.values() if (s.user, s.login) == (session.user, session.login)]
        for each in same:
            self.end(each)
        return len(same)

    def _alive(self, session: Session) -> bool:
        now = self._clock()
        if session.pending:
            return now < session.created + CODE_SECONDS
        return now < min(session.expires, session.used + self._limits.idle)

    def _make_room(self, user: str) -> None:
        for session in [s for s in self._sessions.values() if not self._alive(s)]:
            del self._sessions[session.id]
        mine = sorted((s for s in self._sessions.values() if s.user == user), key=lambda s: s.used)
        for session in mine[: -self._limits.per_user]:
            self.end(session)
        while len(self._sessions) > self._limits.per_stack:
            # Whoever has most gives way, so that nobody can push the others out.
            most = Counter(s.user for s in self._sessions.values()).most_common(1)[0][0]
            self.end(min((s for s in self._sessions.values() if s.user == most), key=lambda s: s.used))

    # -- choices ------------------------------------------------------------------------------------------

    def choices(self, user: str) -> dict[str, str]:
        """What somebody chose for themselves in this stack's user interface."""
        return dict(self._choices.get(user, {}))

    def choose(self, user: str, chosen: Mapping[str, str]) -> None:
        """Keep what somebody chose; with more people than sessions the oldest choices are given up."""
        self._choices.pop(user, None)
        self._choices[user] = dict(chosen)
        for name in list(self._choices)[: -self._limits.per_stack]:
            del self._choices[name]
        self._changed(SOON)

    # -- writing ------------------------------------------------------------------------------------------

    def dump_choices(self) -> str:
        """All choices as they are kept."""
        return json.dumps(self._choices, separators=(",", ":"))

    def dump(self) -> str:
        """All sessions as they are kept."""
        return json.dumps(
            [asdict(s) for s in self._sessions.values() if self._alive(s)], separators=(",", ":")
        )

    def merge(self, others: Iterable[Session], choices: Mapping[str, dict[str, str]]) -> None:
        """Take over what another process of this service wrote while it came or went."""
        self._choices = {**choices, **self._choices}
        now = self._clock()
        self._ended = {id_: expires for id_, expires in self._ended.items() if expires > now}
        for other in others:
            mine = self._sessions.get(other.id)
            newer = mine is None or other.number > mine.number or (mine.pending and not other.pending)
            if other.id not in self._ended and newer:
                self._sessions[other.id] = other


class Grants:
    """The ledgers of all stacks, each read once and written when it changed.

    Args:
        vault: where the Secrets are.
        limits: how long and how many.
        clock: the time in seconds since 1970.
    """

    def __init__(
        self, vault: Vault, limits: Limits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._vault, self._limits, self._clock = vault, limits or Limits(), clock
        self._books: dict[str, _Book] = {}

    async def of(self, stack: Stack) -> Ledger:
        """The sessions of a stack.

        Raises:
            KubeError: they could not be read.
        """
        if is_nobodys(stack):
            # Nothing is read or kept, whatever names somebody tries.
            return Ledger([], self._limits, lambda _: None, self._clock)
        book = self._books.get(stack.name)
        if book is None or book.stack.uid != stack.uid:
            if book:
                book.stop()
            book = self._books[stack.name] = _Book(stack, self._vault, self._limits, self._clock)
        return await book.open()

    def forget(self, stacks: set[str]) -> None:
        """Let go of the stacks that are not among these names."""
        for name in set(self._books) - stacks:
            self._books.pop(name).stop()

    async def flush(self) -> None:
        """Write all that has not been written."""
        await asyncio.gather(*(book.flush() for book in self._books.values()))


class _Book:
    """One stack's ledger and its Secret."""

    def __init__(self, stack: Stack, vault: Vault, limits: Limits, clock: Callable[[], float]) -> None:
        self.stack = stack
        self._name = sessions_secret(stack.name)
        self._vault, self._limits, self._clock = vault, limits, clock
        self._ledger: Ledger | None = None
        self._version = ""
        self._lock = asyncio.Lock()
        self._due: float | None = None
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> Ledger:
        async with self._lock:
            if self._ledger is None:
                kept, choices = await self._read()
                self._ledger = Ledger(kept, self._limits, self._changed, self._clock, choices)
            return self._ledger

    def stop(self) -> None:
        if self._writer:
            self._writer.cancel()

    async def flush(self) -> None:
        self.stop()
        if self._writer:
            await asyncio.gather(self._writer, return_exceptions=True)
        if self._due is None:
            return
        try:
            await self._write()
        except KubeError as error:
            log.warning("The last changes of %s were not written: %s", self._name, error)

    def _changed(self, within: float) -> None:
        at = asyncio.get_running_loop().time() + within
        if self._due is None or at < self._due:
            self._due = at
            self._wake.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._keep_writing())

    async def _keep_writing(self) -> None:
        loop, pause = asyncio.get_running_loop(), 1.0
        while self._due is not None:
            left = self._due - loop.time()
            if left > 0:
                self._wake.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._wake.wait(), left)
                continue
            try:
                await self._write()
                pause = 1.0
            except KubeError as error:
                log.warning("The sessions in %s are written later: %s", self._name, error)
                self._due = loop.time() + pause
                pause = min(2 * pause, MOST_PAUSE)

    async def _write(self) -> None:
        async with self._lock:
            assert self._ledger is not None  # noqa: S101 - for the type checker: nothing changes before it is open
            while True:
                data = {
                    _SESSIONS: self._ledger.dump(),
                    _CHOICES: self._ledger.dump_choices(),
                    _OWNER: self.stack.uid,
                }
                self._due = None
                try:
                    if self._version:
                        version = await self._vault.replace(self._name, data, self._version)
                        if version:
                            self._version = version
                            return
                    elif await self._vault.create(self._name, data, self.stack):
                        self._version = ""
                        await self._read()
                        return
                    self._ledger.merge(*await self._read())
                except (KubeError, asyncio.CancelledError):
                    self._due = self._due or asyncio.get_running_loop().time()
                    raise

    async def _read(self) -> tuple[list[Session], dict[str, dict[str, str]]]:
        found = await self._vault.read(self._name)
        self._version = found.version if found else ""
        if found is None or found.data.get(_OWNER) != self.stack.uid:
            # A stack of this name that was deleted had its own people; its Secret is on its way out.
            return [], {}
        return _sessions(found.data.get(_SESSIONS, ""), self._name), _choices(found.data.get(_CHOICES, "{}"))


def sessions_secret(stack: str) -> str:
    """The name of the Secret with a stack's sessions."""
    return component_name(stack, "sessions")


def _sessions(text: str, name: str) -> list[Session]:
    known = {f.name for f in fields(Session)}
    try:
        return [Session(**{k: v for k, v in item.items() if k in known}) for item in json.loads(text)]
    except (ValueError, TypeError, AttributeError):
        log.warning("What is in the Secret %s cannot be read; people log in to the stack anew", name)
        return []


def _choices(text: str) -> dict[str, dict[str, str]]:
    try:
        return {
            str(user): {str(k): str(v) for k, v in kept.items()} for user, kept in json.loads(text).items()
        }
    except (ValueError, AttributeError):
        return {}  # a language is chosen anew


def digest(text: str) -> str:
    """What is kept of something that is not to be kept."""
    return hashlib.sha256(text.encode()).hexdigest()
