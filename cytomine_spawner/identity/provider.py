"""The OpenID provider of the stacks: each stack is an issuer of its own, with the hub's login as its login."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from oauthlib.common import add_params_to_uri
from oauthlib.oauth2.rfc6749.errors import FatalClientError

from ..cluster.client import KubeError
from ..cluster.secretstore import Vault
from ..stack.model import ENDPOINTS, REALM, Stack, component_name
from . import claims
from .claims import Person
from .clients import at_place, clients, is_page, origin, split_place
from .grants import Grants, Ledger, Reused, Session
from .keyring import InvalidToken, Keyring
from .people import HubSilent, Logins, People
from .server import SCOPES, Exchange, credentials, server
from .strange import is_nobodys
from .tokens import AUDIENCE, REFRESH, Tokens, context

log = logging.getLogger(__name__)

MOST_FORM = 32_768
# What is read of a request; oauthlib would take anything for its own attributes.
ASKED = (
    *("client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "prompt"),
    *("code_challenge", "code_challenge_method"),
)
SENT = (
    *("grant_type", "client_id", "client_secret", "code", "code_verifier", "redirect_uri", "refresh_token"),
    *("scope", "token", "token_type_hint"),
)
_SECRET_SECONDS = 60


class BadRequest(Exception):
    """A request that cannot be answered to its sender's page. The sentence is for people."""


@dataclass(frozen=True)
class Lifetimes:
    """Seconds that tokens live."""

    access: int = 300


@dataclass(frozen=True)
class Answer:
    """What to answer a program."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def error(cls, status: int, code: str, sentence: str) -> Answer:
        """One of OAuth's errors."""
        return cls(status, json.dumps({"error": code, "error_description": sentence}))


NOT_NOW = Answer.error(503, "temporarily_unavailable", "The hub or the cluster does not answer. Try again.")


class Provider:
    """Who logs in where, and what they get.

    Args:
        service_url: this service as browsers know it.
        stack_url: gives the address of a stack.
        keyring: signs.
        grants: the sessions.
        logins: knows whether a login still stands.
        people: knows who may.
        vault: has the stacks' own secrets.
        lifetimes: seconds that tokens live.
        seen: called with a stack's and a user's name when somebody's session goes on.
        clock: the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        service_url: str,
        stack_url: Callable[[str], str],
        keyring: Keyring,
        grants: Grants,
        logins: Logins,
        people: People,
        vault: Vault,
        lifetimes: Lifetimes = Lifetimes(),
        seen: Callable[[str, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keyring, self.grants, self.logins, self.people = keyring, grants, logins, people
        self.lifetimes, self.clock = lifetimes, clock
        self._service_url, self._stack_url = service_url.rstrip("/"), stack_url
        self._vault, self._seen = vault, seen
        self._secrets: dict[str, tuple[float, str]] = {}

    # -- names --------------------------------------------------------------------------------------------

    def issuer(self, stack: str) -> str:
        """The issuer of a stack's tokens."""
        return f"{self._service_url}/{stack}{REALM}"

    def url(self, stack: str) -> str:
        """Where a browser opens the stack."""
        return self._stack_url(stack)

    def origin(self, stack: str) -> str:
        """The stack's address as an origin."""
        return origin(self.url(stack))

    def discovery(self, stack: str) -> dict[str, Any]:
        """The metadata of a stack's issuer."""
        issuer = self.issuer(stack)
        base = issuer + ENDPOINTS
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{base}/auth",
            "token_endpoint": f"{base}/token",
            "userinfo_endpoint": f"{base}/userinfo",
            "jwks_uri": f"{base}/certs",
            "end_session_endpoint": f"{base}/logout",
            "revocation_endpoint": f"{base}/revoke",
            "check_session_iframe": f"{base}/login-status-iframe.html",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "fragment"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": [
                "none",
                "client_secret_basic",
                "client_secret_post",
            ],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": list(SCOPES),
            "claims_supported": [
                *("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "azp", "sid", "session_state"),
                *("name", "given_name", "family_name", "preferred_username", "email", "resource_access"),
            ],
            "prompt_values_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }

    # -- authorize ----------------------------------------------------------------------------------------

    def asked(self, stack: str, query: str) -> dict[str, str]:
        """The parameters of a request for a login, once it is known where the answer goes.

        ``redirect_uri`` is without its fragment, which is ``place``: OAuth knows no fragment there, Keycloak keeps it.

        Raises:
            BadRequest: if it cannot be known; nothing may be sent anywhere then.
        """
        pairs = _pairs(query)
        found = {name: value for name, value in pairs if name in ASKED}
        if len(found) != sum(name in ASKED for name, _ in pairs):
            raise BadRequest("The address of this login says something twice. Open the stack anew.")
        client = clients(self.url(stack)).get(found.get("client_id", ""))
        if client is None:
            raise BadRequest("The address of this login names no client of this stack. Open the stack anew.")
        uri, place = found.get("redirect_uri", ""), ""
        if client.public:
            uri, place = split_place(uri)
        found.update(redirect_uri=uri, place=place)
        if not client.redirect_allowed(uri):
            raise BadRequest(
                "The address of this login would send you to a page that is not this stack's. Open the stack anew."
            )
        return found

    def refuse(self, stack: str, asked: Mapping[str, str], error: str, sentence: str) -> str:
        """Where to send somebody with an error."""
        fields = {"error": error, "error_description": sentence, "iss": self.issuer(stack)}
        if asked.get("state"):
            fields["state"] = asked["state"]
        address = add_params_to_uri(
            asked["redirect_uri"],
            list(fields.items()),
            fragment=asked.get("response_mode") == "fragment",
        )
        return at_place(address, asked["place"])

    async def authorize(self, stack: Stack, asked: Mapping[str, str], person: Person, hub_token: str) -> str:
        """Where to send somebody who is logged in and may use the stack.

        Raises:
            BadRequest: the request cannot be answered.
            KubeError: the sessions cannot be read.
        """
        ledger = await self.grants.of(stack)
        exchange = self._exchange(stack, ledger, person=person, hub_token=hub_token)
        query = urlencode({name: value for name, value in asked.items() if name in ASKED})
        uri = f"{self.issuer(stack.name)}{ENDPOINTS}/auth?{query}"
        try:
            headers, _, _ = server(exchange, self.lifetimes.access).create_authorization_response(uri)
        except (FatalClientError, ValueError) as error:
            raise BadRequest("The address of this login is damaged. Open the stack anew.") from error
        return at_place(headers["Location"], asked["place"])

    # -- token --------------------------------------------------------------------------------------------

    async def token(self, stack: Stack, body: str, headers: Mapping[str, str]) -> Answer:
        """Tokens for a code or for a refresh token."""
        try:
            form, presented = self._form(body, headers)
        except BadRequest as error:
            return Answer.error(400, "invalid_request", str(error))
        client = clients(self.url(stack.name)).get(presented[0])
        try:
            ledger = await self.grants.of(stack)
            secret = await self._secret(stack, presented[1]) if client and not client.public else ""
            session, number = self._shown(stack, ledger, form)
            person = await self._may_go_on(stack, ledger, session) if session else None
            # Meanwhile another request may have used it.
            session, number = self._shown(stack, ledger, form)
        except (HubSilent, KubeError) as error:
            log.warning("A session of %s waits: %s", stack.name, error)
            return NOT_NOW
        except Reused:
            log.warning(
                "A code or refresh token of %s was used twice; its session has been ended", stack.name
            )
            return Answer.error(400, "invalid_grant", "This was used before. Log in again.")
        if session and person is None:
            return Answer.error(
                400, "invalid_grant", "You are logged out, or may not use this stack any more."
            )
        exchange = self._exchange(stack, ledger, person=person, number=number)
        exchange.presented, exchange.secret, exchange.session = presented, secret, session
        given, text, status = server(exchange, self.lifetimes.access).create_token_response(
            f"{self.issuer(stack.name)}{ENDPOINTS}/token", "POST", urlencode(form), {}
        )
        if session and exchange.spoilt:
            ledger.end(session)
        if status == 200 and session:
            self._seen(stack.name, session.user)
        kept = {k: v for k, v in given.items() if k == "WWW-Authenticate"}
        return Answer(status, text, kept)

    async def revoke(self, stack: Stack, body: str, headers: Mapping[str, str]) -> Answer:
        """End the session of a token; whoever has the token may (RFC 7009)."""
        try:
            form, presented = self._form(body, headers)
            ledger = await self.grants.of(stack)
            client = clients(self.url(stack.name)).get(presented[0])
            secret = await self._secret(stack, presented[1]) if client and not client.public else ""
        except BadRequest as error:
            return Answer.error(400, "invalid_request", str(error))
        except KubeError:
            return NOT_NOW
        exchange = self._exchange(stack, ledger)
        exchange.presented, exchange.secret = presented, secret
        exchange.session = self._of_any_token(stack, ledger, form.get("token", ""))
        _, text, status = server(exchange, self.lifetimes.access).create_revocation_response(
            f"{self.issuer(stack.name)}{ENDPOINTS}/revoke", "POST", urlencode(form), {}
        )
        return Answer(status, text or "")

    async def bearer(self, stack: Stack, token: str) -> dict[str, Any] | None:
        """The claims of an access token that is good here and now; None for any other.

        Raises:
            KubeError: the sessions cannot be read.
        """
        try:
            found = self.keyring.verify(token, issuer=self.issuer(stack.name), audience=AUDIENCE)
        except InvalidToken:
            return None
        if found.get("typ") != "Bearer":
            return None
        if "sid" in found and (await self.grants.of(stack)).get(str(found["sid"])) is None:
            return None
        return found

    async def stands(self, stack: Stack, session: str) -> bool:
        """Whether a session goes on: its login at the hub stands, and its person may use the stack. It ends if not.

        Raises:
            HubSilent: the hub did not say.
            KubeError: the sessions cannot be read.
        """
        ledger = await self.grants.of(stack)
        found = ledger.get(session)
        return found is not None and await self._may_go_on(stack, ledger, found) is not None

    async def log_out(self, stack: Stack, hint: str) -> bool:
        """End all sessions of the login that an ID token tells of, which may have expired.

        Returns:
            Whether it was such a token.

        Raises:
            KubeError: the sessions cannot be read.
        """
        try:
            found = self.keyring.verify(hint, issuer=self.issuer(stack.name), audience=None, expired=True)
        except InvalidToken:
            return False
        if found.get("typ") != "ID":
            return False
        ledger = await self.grants.of(stack)
        session = ledger.get(str(found.get("sid")))
        if session and claims.subject(session.user) == found["sub"]:
            ledger.end_login(session)
        return True

    def after_logout(self, stack: str, uri: str, state: str) -> str:
        """Where somebody may go on to after they logged out; empty if the address is not this stack's."""
        bare, place = split_place(uri)
        if not is_page(bare, self.url(stack)):
            return ""
        return at_place(add_params_to_uri(bare, [("state", state)]) if state else bare, place)

    # -- below --------------------------------------------------------------------------------------------

    def _exchange(self, stack: Stack, ledger: Ledger, **about: Any) -> Exchange:
        issuer, seconds = self.issuer(stack.name), self.lifetimes.access
        tokens = Tokens(self.keyring, issuer, stack.uid, ledger, seconds, clock=self.clock, **about)
        return Exchange(clients(self.url(stack.name)), tokens, issuer, ledger)

    def _form(self, body: str, headers: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, str]]:
        if len(body) > MOST_FORM:
            raise BadRequest("The form is too long.")
        pairs = _pairs(body)
        form = {name: value for name, value in pairs if name in SENT}
        if len(form) != sum(name in SENT for name, _ in pairs):
            raise BadRequest("The form says something twice.")
        presented = credentials(headers, form)
        if presented[0]:
            form["client_id"] = presented[0]
        if "redirect_uri" in form and presented[0] == "core":
            form["redirect_uri"] = split_place(form["redirect_uri"])[0]
        return form, presented

    def _shown(self, stack: Stack, ledger: Ledger, form: Mapping[str, str]) -> tuple[Session | None, int]:
        """The session of the code or the refresh token in a form, and the token's number."""
        if form.get("grant_type") == "authorization_code":
            return ledger.by_code(form.get("code", "")), 0
        if form.get("grant_type") == "refresh_token":
            session, number = self._of_refresh_token(stack, ledger, form.get("refresh_token", ""))
            if session:
                ledger.check(session, number)
            return session, number
        return None, 0

    def _of_refresh_token(self, stack: Stack, ledger: Ledger, token: str) -> tuple[Session | None, int]:
        try:
            found = self.keyring.verify_private(token, REFRESH, issuer=self.issuer(stack.name))
        except InvalidToken:
            return None, 0
        session = ledger.get(str(found.get("sid")))
        number = found.get("number")
        if session is None or not isinstance(number, int) or number < 1 or found.get("azp") != session.client:
            return None, 0
        return session, number

    def _of_any_token(self, stack: Stack, ledger: Ledger, token: str) -> Session | None:
        session, _ = self._of_refresh_token(stack, ledger, token)
        if session:
            return session
        try:
            found = self.keyring.verify(token, issuer=self.issuer(stack.name), audience=AUDIENCE)
        except InvalidToken:
            return None
        return ledger.get(str(found.get("sid")))

    async def _may_go_on(self, stack: Stack, ledger: Ledger, session: Session) -> Person | None:
        """Whether the login at the hub still stands and the person still may; the session ends if not."""
        token = self.keyring.unseal(session.hub_token, context(stack.uid, session.id))
        model = await self.logins.user(token, session.user) if token else None
        person = await self.people.allowed(stack, model) if model else None
        if person is None:
            ledger.end(session)
        return person

    async def _secret(self, stack: Stack, presented: str) -> str:
        """The gateway's secret; read anew when another one is presented, for the gateway may know a newer."""
        if is_nobodys(stack):
            return ""
        at, known = self._secrets.get(stack.uid, (0.0, ""))
        age = self.clock() - at
        if age > _SECRET_SECONDS or (age > 2 and presented != known):
            found = await self._vault.read(component_name(stack.name, "secrets"))
            known = found.data.get("oidc-client-secret", "") if found else ""
            self._secrets[stack.uid] = (self.clock(), known)
            if len(self._secrets) > 2000:
                self._secrets.pop(next(iter(self._secrets)))
        return known


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=False, max_num_fields=50)
    except ValueError:
        raise BadRequest("The request is damaged.") from None
