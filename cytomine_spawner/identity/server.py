"""OAuth's rules, by oauthlib: what it asks of us for one request is answered from what was found out before.

oauthlib does not wait for anything. So whoever asks the hub and the cluster does it first and hands the answers over
as an :class:`Exchange`.
"""

# ruff: noqa: ARG002 - oauthlib says what its questions are given
from __future__ import annotations

import hmac
import logging
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from oauthlib.common import Request
from oauthlib.oauth2.rfc6749 import errors
from oauthlib.oauth2.rfc6749.endpoints import AuthorizationEndpoint, RevocationEndpoint, TokenEndpoint
from oauthlib.oauth2.rfc6749.tokens import BearerToken
from oauthlib.openid import RequestValidator
from oauthlib.openid.connect.core.grant_types import AuthorizationCodeGrant, RefreshTokenGrant

from .clients import Client
from .grants import Ledger, Session, digest

# At the level DEBUG it writes codes and tokens into the log.
logging.getLogger("oauthlib").setLevel(logging.INFO)

SCOPES = ("openid", "profile", "email")
# Of the values that come back in redirects and tokens. The nonce is kept for each session.
LONGEST = {"state": 512, "nonce": 128}
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


class Issuing:
    """Makes the tokens of a request; the provider knows how."""

    def begin(self, request: Request) -> tuple[str, str]:
        """The code and the session's id for somebody who may come in."""
        raise NotImplementedError

    def access_token(self, session: Session) -> str:
        """An access token."""
        raise NotImplementedError

    def id_token(self, session: Session) -> str:
        """An ID token."""
        raise NotImplementedError

    def refresh_token(self, session: Session) -> str:
        """The session's next refresh token."""
        raise NotImplementedError


@dataclass
class Exchange:
    """What is known of one request before oauthlib judges it.

    Attributes:
        clients: those of the stack.
        issuing: makes tokens.
        issuer: the stack's.
        ledger: the stack's sessions.
        presented: name and secret by which the client presents itself.
        secret: the gateway's; empty if it is not known.
        session: the one that the code or the token names, if it may go on.
        spoilt: set when a good code came with something else that was wrong.
    """

    clients: Mapping[str, Client]
    issuing: Issuing
    issuer: str
    ledger: Ledger | None = None
    presented: tuple[str, str] = ("", "")
    secret: str = ""
    session: Session | None = None
    spoilt: bool = False


def server(exchange: Exchange, seconds: int) -> Server:
    """The rules for one request; access tokens live for so many seconds."""
    return Server(_Validator(exchange), exchange, seconds)


class Server(AuthorizationEndpoint, TokenEndpoint, RevocationEndpoint):  # type: ignore[misc]
    """oauthlib's OpenID server with the authorization code and the refresh token as its only grants."""

    def __init__(self, validator: _Validator, exchange: Exchange, seconds: int) -> None:
        code, refresh = AuthorizationCodeGrant(validator), RefreshTokenGrant(validator)
        code.proxy_target.custom_validators.pre_auth.append(_strict)
        code.proxy_target.register_code_modifier(self._code)
        self._exchange = exchange
        bearer = BearerToken(validator, self._access, seconds, self._refresh)
        AuthorizationEndpoint.__init__(
            self, default_response_type="code", response_types={"code": code}, default_token_type=bearer
        )
        TokenEndpoint.__init__(
            self,
            default_grant_type="authorization_code",
            grant_types={"authorization_code": code, "refresh_token": refresh},
            default_token_type=bearer,
        )
        RevocationEndpoint.__init__(self, validator)

    def _code(self, grant: dict[str, str], _: Any, request: Request) -> dict[str, str]:
        code, session = self._exchange.issuing.begin(request)
        return {**grant, "code": code, "session_state": session, "iss": self._exchange.issuer}

    def _access(self, request: Request) -> str:
        return self._exchange.issuing.access_token(request.session)

    def _refresh(self, request: Request) -> str:
        return self._exchange.issuing.refresh_token(request.session)


def _strict(request: Request) -> dict[str, Any]:
    """Refuse what the specifications leave open: PKCE other than S256, values without end."""
    if request.code_challenge_method != "S256" or not _CHALLENGE.fullmatch(request.code_challenge or ""):
        raise errors.InvalidRequestError("PKCE with S256 is required.", request=request)
    for name, longest in LONGEST.items():
        if len(getattr(request, name) or "") > longest:
            raise errors.InvalidRequestError(f"{name} is too long.", request=request)
    return {}


def credentials(headers: Mapping[str, str], form: Mapping[str, str]) -> tuple[str, str]:
    """Name and secret by which a client presents itself; an empty name if there are two that differ."""
    name, secret = form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return name, secret
    try:
        told, _, secret = b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    told = unquote_plus(told)
    return ("" if name and name != told else told), unquote_plus(secret)


class _Validator(RequestValidator):  # type: ignore[misc]
    """Answers oauthlib's questions on one request."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    # -- clients ------------------------------------------------------------------------------------------

    def validate_client_id(self, client_id: str, request: Request, *_: Any, **__: Any) -> bool:
        request.client = self.exchange.clients.get(client_id)
        return request.client is not None

    def client_authentication_required(self, request: Request, *_: Any, **__: Any) -> bool:
        client = self.exchange.clients.get(self.exchange.presented[0])
        return client is not None and not client.public

    def authenticate_client(self, request: Request, *_: Any, **__: Any) -> bool:
        name, secret = self.exchange.presented
        client, known = self.exchange.clients.get(name), self.exchange.secret
        if client is None or client.public or not known:
            return False
        request.client = client
        return hmac.compare_digest(secret.encode(), known.encode())

    def authenticate_client_id(self, client_id: str, request: Request, *_: Any, **__: Any) -> bool:
        # oauthlib knows the form's name only: a header may say another.
        client = self.exchange.clients.get(self.exchange.presented[0])
        if client is None or not client.public or client.client_id != client_id:
            return False
        request.client = client
        return True

    # -- authorize ----------------------------------------------------------------------------------------

    def validate_redirect_uri(
        self, client_id: str, redirect_uri: str, request: Request, *_: Any, **__: Any
    ) -> bool:
        client = self.exchange.clients.get(client_id)
        return client is not None and client.redirect_allowed(redirect_uri)

    def get_default_redirect_uri(self, *_: Any, **__: Any) -> None:
        return None

    def validate_response_type(self, client_id: str, response_type: str, *_: Any, **__: Any) -> bool:
        return response_type == "code"

    def validate_scopes(
        self, client_id: str, scopes: list[str], client: Any, request: Request, *_: Any
    ) -> bool:
        asked = set(scopes or ())
        request.scopes = [s for s in SCOPES if s in asked or s == "openid"]
        return True

    def get_default_scopes(self, *_: Any, **__: Any) -> list[str]:
        return ["openid"]

    def is_pkce_required(self, *_: Any) -> bool:
        return True

    def validate_silent_login(self, request: Request) -> bool:
        return True  # nobody comes so far who is not logged in

    def validate_silent_authorization(self, request: Request) -> bool:
        return True

    def validate_user_match(self, *_: Any) -> bool:
        return True

    def save_authorization_code(self, *_: Any, **__: Any) -> None:
        """The session was begun with the code."""

    # -- token --------------------------------------------------------------------------------------------

    def validate_grant_type(self, client_id: str, grant_type: str, *_: Any, **__: Any) -> bool:
        return grant_type in ("authorization_code", "refresh_token")

    def _take(self, client: Client, request: Request) -> bool:
        session = self.exchange.session
        if session is None or session.client != client.client_id:
            self.exchange.spoilt = session is not None
            return False
        request.session, request.user, request.scopes = session, session.user, list(session.scopes)
        return True

    def validate_code(self, client_id: str, code: str, client: Client, request: Request, *_: Any) -> bool:
        taken = self._take(client, request)
        if taken and not _VERIFIER.fullmatch(request.code_verifier or ""):
            self.exchange.spoilt = True
            raise errors.InvalidGrantError("code_verifier is missing or malformed.", request=request)
        # Taken back when the rest is right.
        self.exchange.spoilt = self.exchange.spoilt or taken
        return taken

    def get_code_challenge(self, code: str, request: Request) -> str:
        return str(request.session.challenge)

    def get_code_challenge_method(self, code: str, request: Request) -> str:
        return "S256"

    def confirm_redirect_uri(
        self, client_id: str, code: str, redirect_uri: str, client: Client, request: Request, *_: Any
    ) -> bool:
        right = hmac.compare_digest(digest(redirect_uri), str(request.session.redirect))
        self.exchange.spoilt = not right
        return right

    def get_authorization_code_nonce(
        self, client_id: str, code: str, redirect_uri: str, request: Request
    ) -> str | None:
        return request.session.nonce or None

    def get_authorization_code_scopes(self, *_: Any) -> list[str]:
        return ["openid"]

    def invalidate_authorization_code(self, *_: Any, **__: Any) -> None:
        """Done when the first refresh token was made."""

    def validate_refresh_token(self, refresh_token: str, client: Client, request: Request, *_: Any) -> bool:
        return self._take(client, request)

    def get_original_scopes(self, refresh_token: str, request: Request, *_: Any, **__: Any) -> list[str]:
        return list(request.session.scopes)

    def rotate_refresh_token(self, request: Request) -> bool:
        return True

    def refresh_id_token(self, request: Request) -> bool:
        return True

    def get_id_token(self, token: Mapping[str, Any], token_handler: Any, request: Request) -> str:
        return self.exchange.issuing.id_token(request.session)

    def save_token(self, *_: Any, **__: Any) -> None:
        """Tokens are kept nowhere."""

    # -- revoke -------------------------------------------------------------------------------------------

    def revoke_token(self, token: str, token_type_hint: str, request: Request, *_: Any, **__: Any) -> None:
        session, ledger = self.exchange.session, self.exchange.ledger
        if session and ledger and session.client == request.client.client_id:
            ledger.end(session)
