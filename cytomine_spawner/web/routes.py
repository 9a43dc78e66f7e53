"""The service's web site: all addresses, and what a tornado application needs to serve them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from ..access.hubapi import Hub
from ..access.importtokens import ImportTokens
from ..access.keys import Connections
from ..access.projects import Projects
from ..blueprint.lifecycle import NO_LIMITS, Limits
from ..cluster.store import StackStore
from ..common.fetchmeta import Guard
from ..site import page
from ..site.handler import (
    Handler,
    Site,
    cookie_secret,
    https,
    log_request,
    login,
    secured,
    security_headers,
    summary,
)
from ..stack.model import NAME_PATTERN
from . import api, archivetokens, entrance, memberapi, memberpages, openapi, pages

HERE = Path(__file__).parent
# Kubernetes' names, so that nothing else reaches the API server.
NAME = rf"({NAME_PATTERN})"
# The hub's names, percent-encoded.
WHO = r"([^/]{1,1024})"


class Callback(pages.Page, HubOAuthCallbackHandler):  # type: ignore[misc]
    """The end of the hub's login."""

    public = True

    async def prepare(self) -> None:
        """Note whether they are logged in already: then an old state is no error."""
        await super().prepare()
        with suppress(HTTPError):
            self.current_user = await self._ask_hub()

    async def get(self) -> None:
        """Log in, and note that this login has the scopes that the service asks for today."""
        self.set_cookie(
            page.RENEWED,
            "1",
            path=self.site.prefix,
            expires_days=1,
            httponly=True,
            samesite="Lax",
            secure=https(),
        )
        went = super().get()
        if went is not None:
            await went


class Health(Handler):
    """Whether the process answers: for Kubernetes' liveness probe."""

    public = True

    async def get(self) -> None:
        """Answer."""
        self.finish({"status": "ok"})


class Ready(Handler):
    """Whether the service can serve: for Kubernetes' readiness probe."""

    public = True

    async def get(self) -> None:
        """Answer 503 with the reason until the stacks are known."""
        reason = self.site.ready() or (
            "" if self.site.store.view.synced else "The list of stacks has not come yet."
        )
        self.set_status(503 if reason else 200)
        self.finish({"status": reason or "ok"})


class Static(StaticFileHandler):
    """The style sheet and the scripts."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - tornado calls it so
        """Add the security headers."""
        secured(self)

    def _request_summary(self) -> str:
        return summary(self)


@dataclass(frozen=True)
class Mounted:
    """What to give to ``tornado.web.Application``.

    Attributes:
        prefix: where the service is.
        handlers: the addresses.
        settings: the application's settings.
    """

    prefix: str
    handlers: list[tuple[Any, ...]]
    settings: dict[str, Any]


def mount(
    store: StackStore,
    *,
    hub_auth: HubOAuth | None = None,
    hub: Hub | None = None,
    connections: Connections | None = None,
    projects: Projects | None = None,
    imports: ImportTokens | None = None,
    ready: Callable[[], str] = lambda: "",
    limits: Limits = NO_LIMITS,
    extra: Sequence[tuple[str, type[RequestHandler], dict[str, Any]]] = (),
) -> Mounted:
    """The page and the REST API over a store.

    Args:
        store: the stacks.
        hub_auth: the hub's login; made from the environment if absent.
        hub: the hub's API by the service's own token; made from its login if absent.
        connections: gives out the keys of Cytomine; without it nobody gets any.
        projects: keeps the members in their projects; without it nobody is brought into any.
        imports: gives imports from the archive their owners' tokens; without it they get none.
        ready: says in one sentence why the service is not ready; nothing when it is.
        limits: how long stacks may run.
        extra: further addresses, as patterns relative to the prefix, which take what is left to the end.
    """
    hub_auth = hub_auth or login()
    prefix = "/" + hub_auth.base_url.strip("/") + "/"
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE / "templates", HERE.parent / "site" / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(pages.FILTERS)
    hub = hub or Hub(hub_auth.api_url, lambda: hub_auth.api_token)
    site = Site(store, hub_auth, prefix, templates, hub, connections, projects, imports, ready, limits=limits)
    addresses: list[tuple[str, type[RequestHandler]]] = [
        (r"", pages.Home),
        (r"updates", pages.Updates),
        (rf"stacks/{NAME}", pages.One),
        (rf"open/{NAME}", entrance.Opening),
        (rf"stacks/{NAME}/(resume|hibernate|retry)", pages.Click),
        (rf"stacks/{NAME}/delete", pages.Delete),
        (rf"stacks/{NAME}/logs/{NAME}", pages.Logs),
        (rf"stacks/{NAME}/members", memberpages.Members),
        (rf"stacks/{NAME}/leave", memberpages.Leave),
        (r"api/stacks", api.Stacks),
        (r"api/stacks/events", api.Events),
        (rf"api/stacks/{NAME}", api.One),
        (rf"api/stacks/{NAME}/retry", api.Retry),
        (rf"api/stacks/{NAME}/events", api.Events),
        (rf"api/stacks/{NAME}/connection", memberapi.Connect),
        (rf"api/stacks/{NAME}/connection/rotate", memberapi.Rotate),
        (rf"api/stacks/{NAME}/token", memberapi.Token),
        (rf"api/stacks/{NAME}/members", memberapi.Members),
        (rf"api/stacks/{NAME}/members/users/{WHO}", memberapi.User),
        (rf"api/stacks/{NAME}/members/groups/{WHO}", memberapi.Group),
        (rf"api/stacks/{NAME}/projects", memberapi.ProjectList),
        (rf"imports/{NAME}/archive-token", archivetokens.ImportToken),
        (rf"api/stacks/{NAME}/components/{NAME}/logs", api.Logs),
        (r"api/openapi\.json", openapi.Document),
        (r"api(?:/.*)?", api.Missing),
        (r"oauth_callback", Callback),
        (r"health", Health),
        (r"health/ready", Ready),
    ]
    here = re.escape(prefix)
    # The stacks' own addresses are asked by their pages and their gateways, and look after themselves.
    guard = Guard((rf"{here}static/.*", rf"{here}health(/ready)?", rf"{here}cm-[a-z0-9-]+/.*"))
    shared = {"site": site}
    secure = {"secure": True} if https() else {}
    return Mounted(
        prefix=prefix,
        handlers=[
            (here + r".*", guard),
            *((prefix + pattern, handler, shared) for pattern, handler in addresses),
            *((prefix + pattern, handler, keywords) for pattern, handler, keywords in extra),
            (prefix + r".*", pages.Missing, shared),
        ],
        settings={
            "cookie_secret": cookie_secret(hub_auth),
            "log_function": log_request,
            "security_headers": security_headers(hub_auth.hub_host),
            "static_path": str(HERE / "static"),
            "static_url_prefix": prefix + "static/",
            "static_handler_class": Static,
            "xsrf_cookie_kwargs": {"samesite": "Lax", "httponly": True, **secure},
        },
    )
