"""Who asks, and the manners of every handler: login by the hub, XSRF, security headers. :mod:`..stack.rights` says who may."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jinja2
from jupyterhub.services.auth import HubOAuth, HubOAuthenticated, UserNotAllowed
from tornado.log import access_log
from tornado.web import HTTPError, RequestHandler

from ..access.hubapi import Hub
from ..blueprint.lifecycle import NO_LIMITS, Limits
from ..cluster.store import Conflict, Denied, Invalid, NotFound, StackStore, StoreError, Unavailable
from ..stack import notices
from ..stack.model import Stack
from ..stack.notices import Notice
from ..stack.people import Server
from ..stack.rights import Action, Person, by_role, may, why_not

if TYPE_CHECKING:
    from ..access.importtokens import ImportTokens
    from ..access.keys import Connections
    from ..access.projects import Projects

log = logging.getLogger(__name__)

HUB_SECONDS = 10
# How long the hub's word on a token is believed: bounds how long a revoked one still works.
CACHE_SECONDS = 60
SAFE = ("GET", "HEAD", "OPTIONS")

HUB_SILENT = "The hub does not answer, so the service cannot tell who you are. Try again in a minute."


class Seats:
    """Counts open streams, so that nobody takes all there are.

    Args:
        limits: for each kind of stream, how many in all and how many a person.
    """

    def __init__(self, limits: Mapping[str, tuple[int, int]]) -> None:
        self._limits = limits
        self._taken: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def take(self, kind: str, who: str) -> Iterator[None]:
        """Hold a seat while the context lasts.

        Raises:
            Refusal: 503 if none is free.
        """
        most, each = self._limits[kind]
        if self._taken[kind, who] >= each or sum(n for (k, _), n in self._taken.items() if k == kind) >= most:
            raise Refusal(
                503, "Too many pages are open that follow stacks or logs live; close some and try again."
            )
        self._taken[kind, who] += 1
        try:
            yield
        finally:
            self._taken[kind, who] -= 1
            self._taken += Counter()  # forgets those at zero


# Followed logs are connections to the API server, which has to have some left for everything else.
SEATS = {"events": (2000, 50), "logs": (30, 4)}


@dataclass(frozen=True)
class Site:
    """What the handlers share.

    Attributes:
        store: the stacks.
        hub_auth: the hub's login.
        prefix: where the service is, with a slash at both ends.
        templates: the pages.
        hub: the hub's API, by the service's own token.
        connections: gives out the keys of Cytomine; None where the service has no identity.
        projects: keeps the members in their projects; None where the service has no identity.
        imports: gives imports from the archive their owners' tokens; None where there is no archive.
        ready: says in one sentence why the service is not ready; nothing when it is.
        seats: counts open streams.
        limits: how long stacks may run.
    """

    store: StackStore
    hub_auth: HubOAuth
    prefix: str
    templates: jinja2.Environment
    hub: Hub
    connections: Connections | None = None
    projects: Projects | None = None
    imports: ImportTokens | None = None
    ready: Callable[[], str] = field(default=lambda: "")
    seats: Seats = field(default_factory=lambda: Seats(SEATS))
    limits: Limits = NO_LIMITS

    @property
    def hub_url(self) -> str:
        """The hub's public address with a slash at the end, ``/hub/`` unless it has a host of its own."""
        return f"{self.hub_auth.hub_host}{self.hub_auth.hub_prefix}"


def login(**settings: Any) -> HubOAuth:
    """The hub's login with this service's manners.

    Args:
        settings: HubOAuth's own, such as ``parent`` for its config; the others come from JUPYTERHUB_*.
    """
    hub_auth = HubOAuth(**{"cache_max_age": CACHE_SECONDS, **settings})
    # Lax, not Strict: the hub sends people here from its own pages and after the login elsewhere.
    hub_auth.cookie_options = {"samesite": "Lax", **hub_auth.cookie_options}
    return hub_auth


def cookie_secret(hub_auth: HubOAuth) -> bytes:
    """The key of the cookies' signatures: stable over restarts, without another secret to keep."""
    return hmac.new(hub_auth.api_token.encode(), b"cytomine-stacks cookies", hashlib.sha256).digest()


def security_headers(hub_host: str) -> dict[str, str]:
    """Headers of every answer: nothing inline, nothing from elsewhere, in nobody's frame."""
    hub = f" {hub_host}" if hub_host else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self'{hub}; form-action 'self'{hub}; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def secured(handler: RequestHandler) -> None:
    """Set the security headers of an answer."""
    for name, value in handler.settings["security_headers"].items():
        handler.set_header(name, value)


def never_kept(handler: RequestHandler) -> None:
    """Set the security headers of an answer that holds for this moment and this person only."""
    secured(handler)
    handler.set_header("Cache-Control", "no-store")
    handler.clear_header("Server")


STATUS: dict[type[StoreError], int] = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 400,
    Denied: 500,
    Unavailable: 503,
}


class Refusal(HTTPError):
    """An answer other than success, with a sentence for the person who asked.

    Args:
        status: the HTTP status.
        sentence: names the cause and the cure.
        field: the field of the request that is at fault, if one is.
    """

    def __init__(self, status: int, sentence: str, field: str = "") -> None:
        super().__init__(status, sentence)
        self.sentence = sentence
        self.field = field
        self.faults: list[dict[str, str]] = []


def refusal(error: BaseException | None, status: int = 500) -> Refusal:
    """Any error as an answer; what is not meant for people stays in the log."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, StoreError):
        return Refusal(next(s for kind, s in STATUS.items() if isinstance(error, kind)), str(error))
    if isinstance(error, HTTPError):
        status = error.status_code
    if status == 404:
        return Refusal(404, "There is no such page.")
    if status == 405:
        return Refusal(405, "This address does not take requests of this kind.")
    if status >= 500:
        return Refusal(
            status, "The service made a mistake; its log says more. Try again, or tell your administrator."
        )
    text = error.log_message if isinstance(error, HTTPError) else None
    return Refusal(status, (text or HTTPStatus(status).phrase).replace("%%", "%"))


class Handler(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """The base of all handlers: asks the hub who it is and guards what changes something."""

    public = False
    site: Site
    person: Person

    def initialize(self, site: Site) -> None:
        """Take over what all handlers share."""
        self.site = site
        self.hub_auth = site.hub_auth

    def set_default_headers(self) -> None:
        """Set the security headers; pages are never kept."""
        never_kept(self)

    def get_current_user(self) -> Any:
        """Nobody until :meth:`prepare` asked: the mixin's own way would block the loop."""
        return None

    async def prepare(self) -> None:
        """Find out who asks.

        Raises:
            Refusal: if they may not use the service, if the form is not from here, or if the hub is silent.
        """
        if self.public:
            return
        model = await self._ask_hub()
        if model is None and not self._has_session():
            self.not_logged_in()
            return
        if self.request.method not in SAFE and not getattr(self, "_token_authenticated", False):
            self._check_origin()
            try:
                self.check_xsrf_cookie()
            except HTTPError as error:
                raise Refusal(
                    403, "This form is too old or not from this page. Go back, reload and try again."
                ) from error
        if model is None or self.outdated(model):
            self.not_logged_in()
            return
        await self.let_in(model)

    async def let_in(self, model: Any) -> None:
        """Note whom the hub named.

        Raises:
            Refusal: if they may not use the service.
        """
        try:
            model = self.check_hub_user(model)
        except UserNotAllowed as error:
            raise Refusal(
                403, f"{model['name']} may not use this service; an administrator of the hub can allow it."
            ) from error
        self._hub_auth_user_cache = self.current_user = model
        self.person = Person.from_model(model, await self._shared(model))

    def _has_session(self) -> bool:
        """Whether the request comes with a browser's session and with no token of its own: those are asked for forms."""
        return not self.hub_auth.get_token(self, in_cookie=False) and bool(self.hub_auth.get_token(self))

    def outdated(self, model: Mapping[str, Any]) -> bool:  # noqa: ARG002 - for those who override it
        """Whether a login is to be renewed though the hub knows it."""
        return False

    def not_logged_in(self) -> None:
        """Answer somebody whom the hub does not know."""
        raise Refusal(401, "Log in at the hub first, or send one of its tokens.")

    async def _shared(self, model: Mapping[str, Any]) -> frozenset[Server]:
        """The servers that are shared with a user; none while the hub does not tell."""
        if model.get("kind", "user") != "user":
            return frozenset()
        try:
            return await self.site.hub.shared_with(model["name"])
        except StoreError as error:
            log.info("Shares of servers are left out: %s", error)
            return frozenset()

    async def _ask_hub(self) -> Any:
        # The mixin keeps its answer for as long as the request lasts, and streams last.
        if hasattr(self, "_cached_hub_user"):
            del self._cached_hub_user
        try:
            return await asyncio.wait_for(self.hub_auth.get_user(self, sync=False), HUB_SECONDS)
        except (HTTPError, asyncio.TimeoutError) as error:
            if isinstance(error, HTTPError) and error.status_code < 500:
                raise
            self._cached_hub_user: Any = None
            raise Refusal(503, HUB_SILENT) from error

    def _check_origin(self) -> None:
        """Refuse what another site's page sends with the user's cookies.

        The header that the browser sets names the relation; browsers without it name the origin.
        """
        headers = self.request.headers
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        hosts = {self.request.host, headers.get("X-Forwarded-Host", self.request.host).split(",")[0].strip()}
        if site not in (None, "same-origin", "none") or (
            origin is not None and urlsplit(origin).netloc not in hosts
        ):
            raise Refusal(
                403, "Another site sent this request; open the page of your stacks and do it there."
            )

    def _request_summary(self) -> str:
        return summary(self)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is our own mistake, without the request's query and form: they may hold codes and tokens."""
        answer = refusal(value)
        if answer.status_code < 500 or isinstance(value, Unavailable):
            return
        if isinstance(value, HTTPError):
            log.warning("%d %s: %s", answer.status_code, summary(self), value.log_message)
        else:
            log.error("Uncaught exception: %s", summary(self), exc_info=(typ, value, tb))

    # -- the stack in the address -------------------------------------------------------------------------

    def stack(self, name: str, action: Action = Action.SEE) -> Stack:
        """The stack of this name.

        Raises:
            Refusal: 404 also for one that the person may not see: its existence is none of their business.
        """
        view = self.site.store.view
        if not view.synced:
            raise Refusal(503, not_synced())
        found = view.get(name)
        if found is None or not may(self.person, found, Action.SEE):
            raise Refusal(404, f"You have no stack called {name}.")
        if not may(self.person, found, action):
            raise Refusal(403, why_not(self.person, found, action))
        if action is not Action.SEE and not by_role(self.person, found, action):
            notices.log(self.person.name, action.value, found, f"{self.request.method} {self.request.path}")
        return found

    def notice(self, stack: Stack, action: Action, what: str) -> Notice | None:
        """What the owner is to read of this; nothing where it is the owner, or one of the members, who does it."""
        if by_role(self.person, stack, action):
            return None
        return Notice(datetime.now(timezone.utc), self.person.name, what)

    def visible(self, owner: str = "") -> list[Stack]:
        """The stacks that the person may see, newest first; of one owner if one is given."""
        stacks = [s for s in self.site.store.view.all() if may(self.person, s, Action.SEE)]
        if owner:
            stacks = [s for s in stacks if s.spec.owner == owner]
        return sorted(stacks, key=lambda s: (-(s.created.timestamp() if s.created else 0), s.name))


def summary(handler: RequestHandler) -> str:
    """A request for the log. The query is left out: some send tokens there, though none are taken from it."""
    request = handler.request
    return f"{request.method} {request.path} ({request.remote_ip})"


def log_request(handler: RequestHandler) -> None:
    """Log an answer as tornado does, without the query."""
    status = handler.get_status()
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    milliseconds = 1000 * handler.request.request_time()
    access_log.log(level, "%d %s %.2fms", status, summary(handler), milliseconds)


def not_synced() -> str:
    """Why there is nothing to show yet."""
    return "The cluster has not told the service of your stacks yet. Try again in a minute."


def https() -> bool:
    """Whether the hub says that browsers come by HTTPS."""
    return urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", "")).scheme == "https"
