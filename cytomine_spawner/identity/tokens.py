"""The tokens of one request: what goes into them, and whose session they belong to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oauthlib.common import Request

from . import claims
from .claims import Person
from .grants import Ledger, Session, digest
from .keyring import Keyring
from .server import Issuing

# Core is the one that reads access tokens, whichever client they were made for.
AUDIENCE = "core"
# What the keyring derives the key of refresh tokens for.
REFRESH = "refresh"


@dataclass
class Tokens(Issuing):
    """Makes the tokens of one request.

    Attributes:
        keyring: signs them.
        issuer: the stack's.
        uid: of the stack.
        ledger: the stack's sessions.
        seconds: that access and ID tokens live.
        person: whose they are; None where none are to be made.
        hub_token: of the login at the hub, for a new session.
        number: of the refresh token that was shown; 0 for a code.
        clock: the time in seconds since 1970.
    """

    keyring: Keyring
    issuer: str
    uid: str
    ledger: Ledger
    seconds: int
    person: Person | None = None
    hub_token: str = ""
    number: int = 0
    clock: Callable[[], float] = time.time

    def begin(self, request: Request) -> tuple[str, str]:
        """See :class:`Issuing`."""
        assert self.person is not None  # noqa: S101 - for the type checker
        session, code = self.ledger.begin(
            seal=lambda id_: self.keyring.seal(self.hub_token, context(self.uid, id_)),
            client=request.client.client_id,
            user=self.person.username,
            login=digest(self.hub_token),
            scopes=list(request.scopes),
            nonce=request.nonce or "",
            redirect=digest(request.redirect_uri),
            challenge=request.code_challenge,
        )
        return code, session.id

    def _common(self, session: Session, seconds: float) -> dict[str, Any]:
        now = int(self.clock())
        found = {
            "iss": self.issuer,
            "azp": session.client,
            "iat": now,
            "exp": now + int(seconds),
            "sid": session.id,
            "session_state": session.id,
        }
        return {**found, "nonce": session.nonce} if session.nonce else found

    def access_token(self, session: Session) -> str:
        """See :class:`Issuing`."""
        assert self.person is not None  # noqa: S101 - for the type checker
        token = {
            **self._common(session, self.seconds),
            **claims.about(self.person),
            **claims.access(self.person),
            "aud": AUDIENCE,
            "scope": " ".join(session.scopes),
        }
        return self.keyring.sign(token)

    def id_token(self, session: Session) -> str:
        """See :class:`Issuing`."""
        assert self.person is not None  # noqa: S101 - for the type checker
        token = {
            **self._common(session, self.seconds),
            **claims.about(self.person),
            "typ": "ID",
            "aud": session.client,
            "auth_time": int(session.created),
        }
        return self.keyring.sign(token)

    def refresh_token(self, session: Session) -> str:
        """See :class:`Issuing`."""
        self.ledger.advance(session, self.number)
        common = self._common(session, 0)
        token = {
            **common,
            "sub": claims.subject(session.user),
            "aud": common["iss"],
            "typ": "Refresh",
            "exp": int(session.expires),
            "number": session.number,
        }
        return self.keyring.sign_private(token, REFRESH)


def context(uid: str, session: str) -> str:
    """What a session's sealed token of the hub is bound to."""
    return f"{uid} {session}"
