"""Who asks, what they may do, and the manners of every handler: login by the hub, XSRF, security headers."""

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
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jinja2
from jupyterhub.services.auth import HubOAuth, HubOAuthenticated, UserNotAllowed
from tornado.web import HTTPError, RequestHandler

from . import members
from .members import Hub, Role, Server
from .model import Stack
from .store import Conflict, Denied, Invalid, NotFound, StackStore, StoreError, Unavailable

if TYPE_CHECKING:
    from .keys import Connections
    from .projects import Projects

log = logging.getLogger(__name__)

HUB_SECONDS = 10
# How long the hub's word on a token is believed: bounds how long a revoked one still works.
CACHE_SECONDS = 60
ADMIN_SCOPE = "custom:cytomine-stacks:admin"
SAFE = ("GET", "HEAD", "OPTIONS")

HUB_SILENT = "The hub does not answer, so the service cannot tell who you are. Try again in a minute."


class Action(str, Enum):
    """What one may want to do with a stack."""

    SEE = "see"
    OPEN = "open"
    RESUME = "resume"
    HIBERNATE = "hibernate"
    RETRY = "retry"
    EDIT = "edit"
    LOGS = "read the logs of"
    DELETE = "delete"
    CONNECT = "connect to"
    MEMBERS = "change the members of"
    PROJECTS = "list the projects of"
    LEAVE = "leave"


# What those may do whom the owner let in, but for leaving: that takes an invitation of one's own.
MEMBERS_MAY = (Action.SEE, Action.OPEN, Action.CONNECT)
# What an administrator may not do: the stack itself knows only its own people.
ADMINS_MAY_NOT = (Action.OPEN, Action.CONNECT, Action.LEAVE, Action.PROJECTS)


@dataclass(frozen=True)
class Person:
    """A user or a service of the hub, as the hub tells.

    Attributes:
        name: the hub's name of the user or the service.
        kind: ``user`` or ``service``; a service never owns a stack, whatever its name.
        admin: whether all stacks are theirs to manage.
        groups: the hub's groups of a user.
        shared: the servers of others that are shared with a user.
    """

    name: str
    kind: str = "user"
    admin: bool = False
    groups: frozenset[str] = frozenset()
    shared: frozenset[Server] = frozenset()

    @classmethod
    def from_model(cls, model: Mapping[str, Any], shared: frozenset[Server] = frozenset()) -> Person:
        """Read the hub's answer to "whose token is this?", with what is shared with them."""
        return cls(
            name=model["name"],
            kind=model.get("kind", "user"),
            admin=bool(model.get("admin")) or ADMIN_SCOPE in model.get("scopes", ()),
            groups=frozenset(model.get("groups", ())),
            shared=shared,
        )

    def role(self, stack: Stack) -> Role | None:
        """Why this user may use a stack; None for others, and for all services."""
        if self.kind != "user":
            return None
        return members.role(stack, self.name, self.groups, self.shared)

    def owns(self, stack: Stack) -> bool:
        """Whether the stack is this user's own."""
        return self.kind == "user" and self.name == stack.spec.owner


def may(person: Person, stack: Stack, action: Action) -> bool:
    """Whether a person may do something with a stack: the one place that decides.

    Owners may do all. Members may see and use it. Administrators may do all but use it.
    """
    role = person.role(stack)
    if role is Role.OWNER:
        return action is not Action.LEAVE
    if role is not None and (action in MEMBERS_MAY or (action is Action.LEAVE and role is Role.USER)):
        return True
    return person.admin and action not in ADMINS_MAY_NOT


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
        ready: says in one sentence why the service is not ready; nothing when it is.
        seats: counts open streams.
    """

    store: StackStore
    hub_auth: HubOAuth
    prefix: str
    templates: jinja2.Environment
    hub: Hub
    connections: Connections | None = None
    projects: Projects | None = None
    ready: Callable[[], str] = field(default=lambda: "")
    seats: Seats = field(default_factory=lambda: Seats(SEATS))

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
        for name, value in self.settings["security_headers"].items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Server")

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
        if self.request.method not in SAFE and not getattr(self, "_token_authenticated", False):
            self._check_origin()
            try:
                self.check_xsrf_cookie()
            except HTTPError as error:
                raise Refusal(
                    403, "This form is too old or not from this page. Go back, reload and try again."
                ) from error
        if model is None:
            self.not_logged_in()
            return
        try:
            model = self.check_hub_user(model)
        except UserNotAllowed as error:
            raise Refusal(
                403, f"{model['name']} may not use this service; an administrator of the hub can allow it."
            ) from error
        self._hub_auth_user_cache = self.current_user = model
        self.person = Person.from_model(model, await self._shared(model))

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
        try:
            return await asyncio.wait_for(self.hub_auth.get_user(self, sync=False), HUB_SECONDS)
        except (HTTPError, asyncio.TimeoutError) as error:
            if isinstance(error, HTTPError) and error.status_code < 500:
                raise
            self._cached_hub_user = None
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

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Keep what people did wrong out of the log's tracebacks."""
        answer = refusal(value)
        if answer.status_code < 500 or isinstance(value, Unavailable):
            return
        super().log_exception(typ, value, tb)

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
            raise Refusal(403, f"You may not {action.value} this stack.")
        return found

    def visible(self, owner: str = "") -> list[Stack]:
        """The stacks that the person may see, newest first; of one owner if one is given."""
        stacks = [s for s in self.site.store.view.all() if may(self.person, s, Action.SEE)]
        if owner:
            stacks = [s for s in stacks if s.spec.owner == owner]
        return sorted(stacks, key=lambda s: (-(s.created.timestamp() if s.created else 0), s.name))


def not_synced() -> str:
    """Why there is nothing to show yet."""
    return "The cluster has not told the service of your stacks yet. Try again in a minute."


def https() -> bool:
    """Whether the hub says that browsers come by HTTPS."""
    return urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", "")).scheme == "https"
