"""The addresses of the stacks' identity, below the service's prefix: ``<stack>/iam/realms/cytomine/…``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tornado.web import RequestHandler

from ..cluster.client import KubeError
from ..site.handler import Handler, Refusal, Site, refusal
from ..stack.model import ENDPOINTS, REALM, Stack
from . import account, frames
from .browser import Common, Login, Logout
from .grants import Ledger
from .people import HubSilent
from .provider import Answer, Provider

# A stack's name and nothing else, so that no other address of the service is hidden.
NAME = r"(cm-[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)"
# Public keys may be kept for as long as a new one is published before it signs.
CERTS_SECONDS = 300


class Program(Common, Handler):
    """Answers programs: JSON, and to scripts of no other page than the stack's own."""

    public = True
    methods = "GET, OPTIONS"

    async def prepare(self) -> None:
        """Tell the browser whether the page that asks may read the answer.

        Raises:
            Refusal: for another site's page.
        """
        await super().prepare()
        stack = self.the_stack(str(self.path_args[0]))
        origin = self.request.headers.get("Origin")
        self.set_header("Vary", "Origin")
        if origin is None:
            return
        if origin != self.provider.origin(stack.name):
            raise Refusal(403, "Another site's page sent this request.")
        # The answer is for one origin; that the cookies come along is keycloak-js's way, nothing here reads them.
        self.set_header("Access-Control-Allow-Origin", origin)
        self.set_header("Access-Control-Allow-Credentials", "true")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")

    def options(self, _: str) -> None:
        """Answer what a browser asks before it sends."""
        self.set_header("Access-Control-Allow-Methods", self.methods)
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer as OAuth does."""
        answer = refusal(kwargs.get("exc_info", (None, None, None))[1], status_code)
        codes = {404: "invalid_request", 503: "temporarily_unavailable", 403: "access_denied"}
        code = codes.get(
            answer.status_code, "invalid_request" if answer.status_code < 500 else "server_error"
        )
        self.say(Answer.error(answer.status_code, code, answer.sentence))

    def say(self, answer: Answer) -> None:
        """Send an answer."""
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(answer.body)

    def bearer(self) -> str:
        """The token in the header."""
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def body(self) -> str:
        """The form as text."""
        try:
            return self.request.body.decode("ascii")
        except UnicodeDecodeError:
            raise Refusal(400, "The form is damaged.") from None

    async def claims(self, stack: Stack) -> dict[str, Any] | None:
        """The claims of the token in the header, if it is good."""
        try:
            return await self.provider.bearer(stack, self.bearer())
        except KubeError as error:
            raise Refusal(503, "The cluster does not answer. Try again.") from error

    async def ledger(self, stack: Stack) -> Ledger:
        """The sessions of a stack, and what its people chose."""
        try:
            return await self.provider.grants.of(stack)
        except KubeError as error:
            raise Refusal(503, "The cluster does not answer. Try again.") from error

    def unauthorized(self) -> None:
        """Answer somebody without a good token."""
        self.set_header("WWW-Authenticate", 'Bearer error="invalid_token"')
        self.say(Answer.error(401, "invalid_token", "The token is not good here, or not any more."))


class Discovery(Program):
    """The issuer's metadata."""

    async def get(self, name: str) -> None:
        """Answer."""
        self.finish(self.provider.discovery(name))


class Certs(Program):
    """The public keys."""

    async def get(self, _: str) -> None:
        """Answer."""
        self.set_header("Cache-Control", f"public, max-age={CERTS_SECONDS}")
        self.finish(self.provider.keyring.jwks())


class Token(Program):
    """Codes and refresh tokens become tokens here."""

    methods = "POST, OPTIONS"

    async def post(self, name: str) -> None:
        """Answer."""
        answer = await self.provider.token(self.the_stack(name), self.body(), self.request.headers)
        self.say(answer)


class Revoke(Program):
    """Clients give their tokens back here."""

    methods = "POST, OPTIONS"

    async def post(self, name: str) -> None:
        """Answer."""
        self.say(await self.provider.revoke(self.the_stack(name), self.body(), self.request.headers))


class UserInfo(Program):
    """What a token says of its person."""

    methods = "GET, POST, OPTIONS"

    async def get(self, name: str) -> None:
        """Answer."""
        found = await self.claims(self.the_stack(name))
        if found is None:
            self.unauthorized()
            return
        told = ("sub", "preferred_username", "name", "given_name", "family_name", "email")
        self.finish({key: found[key] for key in told if key in found})

    post = get


class Account(Program):
    """A person's account in Keycloak's form, for upstream's user interface."""

    methods = "GET, POST, OPTIONS"

    async def get(self, name: str) -> None:
        """Answer."""
        stack = self.the_stack(name)
        found = await self.claims(stack)
        if found is None:
            self.unauthorized()
            return
        self.set_header("Cache-Control", "no-store")
        chosen = (await self.ledger(stack)).choices(found["preferred_username"])
        self.finish(account.shown(found, chosen, self.request.headers.get("Accept-Language", "")))

    async def post(self, name: str) -> None:
        """Keep the language; answer 204, or 400 in Keycloak's form with the field that cannot be changed."""
        stack = self.the_stack(name)
        found = await self.claims(stack)
        if found is None:
            self.unauthorized()
            return
        try:
            chosen = account.chosen(found, self.request.body)
        except account.Unchangeable as error:
            body = {"errorMessage": str(error), "field": error.field}
            self.say(Answer(400, json.dumps(body)))
            return
        (await self.ledger(stack)).choose(found["preferred_username"], chosen)
        self.set_status(204)


class Credentials(Program):
    """How a person may log in: not by a password, but at the hub."""

    async def get(self, name: str) -> None:
        """Answer."""
        if await self.claims(self.the_stack(name)) is None:
            self.unauthorized()
            return
        self.say(Answer(200, json.dumps(account.CREDENTIALS)))


class Verify(Program):
    """For the gateway: whether a bearer token is good for this stack."""

    async def get(self, name: str) -> None:
        """Answer 204 with the user's name in Cytomine, or 401."""
        stack = self.the_stack(name)
        found = await self.claims(stack)
        if found is None or not await self._still(stack, found):
            self.unauthorized()
            return
        self.set_header("X-Cytomine-User", found["preferred_username"])
        self.set_status(204)

    async def _still(self, stack: Stack, found: dict[str, Any]) -> bool:
        """Whether the person has not been shut out since the token was made."""
        try:
            session = (await self.provider.grants.of(stack)).get(str(found.get("sid")))
            if session is None:
                return "sid" not in found  # made by this service for a moment's use
            return await self.provider.people.role(stack, session.user) is not None
        except (HubSilent, KubeError):
            return True  # the token itself has only minutes left


class Frame(Program):
    """A page without words for a frame in the stack's own pages, and in no others."""

    frame: frames.Frame

    def initialize(self, site: Site, **shared: Any) -> None:
        """Take over which one."""
        super().initialize(site, **shared)
        self.frame = shared["frame"]

    async def get(self, name: str) -> None:
        """Answer."""
        origin = self.provider.origin(name)
        self.clear_header("X-Frame-Options")
        self.set_header("Content-Security-Policy", self.frame.policy(origin))
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.frame.html(origin))


class Status(Program):
    """For the status frame: whether a session goes on. Who asks has to know its unguessable name."""

    async def get(self, name: str) -> None:
        """Answer 204 or 403."""
        ledger = await self.ledger(self.the_stack(name))
        session = ledger.get(self.get_query_argument("session_state", ""))
        good = session is not None and session.client == self.get_query_argument("client_id", "")
        self.set_status(204 if good else 403)


def handlers(
    provider: Provider, site: Site, ready: Callable[[], str]
) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """All addresses, as patterns relative to the service's prefix."""
    shared = {"site": site, "provider": provider, "ready": ready}
    realm = NAME + REALM
    oidc = realm + ENDPOINTS
    addresses: list[tuple[str, type[RequestHandler]]] = [
        (rf"{realm}/\.well-known/openid-configuration", Discovery),
        (rf"{oidc}/auth", Login),
        (rf"{oidc}/token", Token),
        (rf"{oidc}/certs", Certs),
        (rf"{oidc}/userinfo", UserInfo),
        (rf"{oidc}/logout", Logout),
        (rf"{oidc}/revoke", Revoke),
        (rf"{oidc}/login-status-iframe\.html/init", Status),
        (rf"{realm}/account/?", Account),
        (rf"{realm}/account/credentials", Credentials),
        (rf"{NAME}/verify", Verify),
    ]
    return [
        *((pattern, handler, shared) for pattern, handler in addresses),
        *((rf"{oidc}/{path}", Frame, {**shared, "frame": frame}) for path, frame in frames.ALL.items()),
    ]
