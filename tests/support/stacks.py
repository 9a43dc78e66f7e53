"""The stack service's site over a store in memory and a hub of a few lines, both on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode

import httpx
import tornado.httpserver
import tornado.netutil
import tornado.web

from cytomine_spawner.access.hubapi import Hub
from cytomine_spawner.blueprint.lifecycle import NO_LIMITS, Limits
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.store import Conflict, LogQuery, LogSource, NotFound, Unavailable, View
from cytomine_spawner.site.handler import login
from cytomine_spawner.stack import notices
from cytomine_spawner.stack.model import (
    ComponentStatus,
    Phase,
    Stack,
    StackSpec,
    StackStatus,
    State,
    new_stack,
)
from cytomine_spawner.stack.notices import Notice
from cytomine_spawner.stack.rights import HUB_ADMIN_SCOPE, MANAGE_SCOPE
from cytomine_spawner.web import entrance, routes

T = TypeVar("T")
PREFIX = "/services/cytomine/"
ACCESS_SCOPE = "access:services!service=cytomine"
NAMES = ("postgis", "mongo", "repository", "core", "pims", "web-ui", "gateway")


def a_stack(owner: str = "ada", server: str = "", phase: Phase | None = Phase.READY, **changes: Any) -> Stack:
    """A stack as the operator would leave it.

    Status fields and spec fields are told apart by their names,
    but for the spec's components, which are called extras here.
    """
    now = datetime.now(timezone.utc)
    serves = phase in (Phase.READY, Phase.DEGRADED)
    usual: dict[str, Any] = {
        "phase": phase,
        "ready": "7/7" if serves else "0/7",
        "components": tuple(
            ComponentStatus(
                name=name,
                state=State.READY
                if serves
                else State.STOPPED
                if phase is Phase.HIBERNATED
                else State.STARTING,
                message="It serves." if serves else "",
                ready_seconds=21.4 if serves else None,
            )
            for name in NAMES
        ),
        "url": "https://cm-ada.stacks.example.org/",
        "observed_generation": 1,
        "last_activity": now - timedelta(minutes=42),
    }
    usual.update({key: value for key, value in changes.items() if key in StackStatus.model_fields})
    spec = {key: changes[key] for key in set(changes) & set(StackSpec.model_fields) - {"components"}}
    if "extras" in changes:
        spec["components"] = changes["extras"]
    rest = {key: changes[key] for key in set(changes) & set(Stack.model_fields)}
    made = new_stack("cytomine", StackSpec(owner=owner, server_name=server, **spec))
    return made.replace(
        status=StackStatus(**usual),
        **{"created": now - timedelta(days=3, hours=1), "uid": f"uid-{made.name}", **rest},
    )


class FakeStore:
    """Keeps stacks in memory and does with them what an API server and a slow operator do."""

    def __init__(self) -> None:
        self.view = View()
        self.view.replace([])
        self.silent = False
        self.sources: list[LogSource] = []
        self.lines: list[str] = []
        self.coming: asyncio.Queue[str | None] | None = None
        self.asked: list[LogQuery] = []
        self.open_logs = 0
        self.deleted: list[tuple[str, bool]] = []

    async def patch(
        self, name: str, change: Callable[[Stack], dict[str, Any]], *, notice: Notice | None = None
    ) -> Stack:
        if self.silent:
            raise Unavailable("The cluster does not answer at the moment; nothing was changed.")
        stack = self.view.get(name)
        if stack is None:
            raise NotFound("There is no such stack any more.")
        fields = change(stack)
        if fields:
            spec = StackSpec.model_validate({**stack.spec.to_dict(), **fields})
            noted = notices.added(stack, notice) if notice else {}
            stack = stack.replace(
                spec=spec, generation=stack.generation + 1, annotations={**stack.annotations, **noted}
            )
            self.view.put(stack)
        return stack

    async def delete(self, name: str, *, keep_data: bool, uid: str) -> None:
        def mark(stack: Stack) -> dict[str, Any]:
            if stack.uid != uid:
                raise Conflict("The stack was created anew meanwhile.")
            return {} if stack.spec.keep_data == keep_data else {"keepData": keep_data}

        stack = await self.patch(name, mark)
        if not stack.deleting:
            self.deleted.append((name, keep_data))
            self.view.put(stack.replace(deleting=True))

    async def log_sources(self, stack: Stack, component: str) -> list[LogSource]:
        if self.silent:
            raise Unavailable("The cluster does not answer at the moment.")
        return [s for s in self.sources if s.pod.startswith(f"{stack.name}-{component}-")]

    async def logs(self, query: LogQuery) -> AsyncIterator[str]:
        self.asked.append(query)
        self.open_logs += 1
        try:
            for line in self.lines[-query.tail :]:
                yield line
            while query.follow and self.coming:
                line_or_end = await self.coming.get()
                if line_or_end is None:
                    return
                yield line_or_end
        finally:
            self.open_logs -= 1


@dataclass
class FakeHub:
    """Knows tokens, who the browser with its cookie is, and, for the service, users, groups and shares.

    Attributes:
        people: the users and their groups.
        shared: servers, as pairs of owner and name, and with whom they are shared, as pairs of kind and name.
        active: what was told of servers' activity.
    """

    people: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shared: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    active: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    service_token: str = ""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    asked: int = 0

    def token(self, name: str, *, scopes: tuple[str, ...] | None = None, **model: Any) -> str:
        """A token of a user that has what roles give all users, and all administrators; or the given scopes alone."""
        token = secrets.token_hex(8)
        admin = (HUB_ADMIN_SCOPE,) if model.get("admin") else ()
        access = (ACCESS_SCOPE, MANAGE_SCOPE, *admin) if scopes is None else scopes
        usual = {"name": name, "kind": "user", "admin": False, "groups": [], "scopes": list(access)}
        self.tokens[token] = {**usual, **model}
        return token

    def application(self) -> tornado.web.Application:
        hub = self

        class User(tornado.web.RequestHandler):
            def get(self) -> None:
                hub.asked += 1
                if hub.silent:
                    raise tornado.web.HTTPError(502)
                model = hub.tokens.get(self.request.headers["Authorization"].partition(" ")[2])
                if model is None:
                    raise tornado.web.HTTPError(403)
                self.finish(model)

        class Authorize(tornado.web.RequestHandler):
            def get(self) -> None:
                token = self.get_cookie("who")
                if not token:
                    self.finish("Sign in")
                    return
                code = secrets.token_hex(8)
                hub.codes[code] = token
                query = urlencode({"code": code, "state": self.get_argument("state")})
                self.redirect(f"{self.get_argument('redirect_uri')}?{query}")

        class Token(tornado.web.RequestHandler):
            def post(self) -> None:
                code = parse_qs(self.request.body.decode())["code"][0]
                self.finish({"access_token": hub.codes.pop(code)})

        class Api(tornado.web.RequestHandler):
            def prepare(self) -> None:
                if hub.silent:
                    raise tornado.web.HTTPError(502)
                if self.request.headers["Authorization"] != f"token {hub.service_token}":
                    raise tornado.web.HTTPError(403)

            def post(self, name: str) -> None:
                servers = json.loads(self.request.body)["servers"]
                if any((name, server) not in hub.shared for server in servers):
                    raise tornado.web.HTTPError(400)
                hub.active.append((name, servers))

            def get(self, what: str, name: str, more: str | None = None) -> None:
                self.finish(self.answer(what, name, (more or "").removeprefix("/")))

            def answer(self, what: str, name: str, more: str) -> Any:
                groups = {group for found in hub.people.values() for group in found}
                if what == "users" and not more and name in hub.people:
                    return {"name": name, "kind": "user", "groups": list(hub.people[name])}
                if what == "groups" and name in groups:
                    return {"name": name, "kind": "group"}
                if what == "users" and more == "shared" and name in hub.people:
                    mine = {("user", name), *(("group", group) for group in hub.people[name])}
                    return self.page(lambda _, one: one in mine)
                if what == "shares" and (name, more) in hub.shared:
                    return self.page(lambda server, _: server == (name, more))
                raise tornado.web.HTTPError(404)

            def page(self, fits: Callable[[tuple[str, str], tuple[str, str]], bool]) -> Any:
                """A page of one share, to have more than one."""
                assert self.request.headers["Accept"] == "application/jupyterhub-pagination+json"
                offset = int(self.get_query_argument("offset"))
                found = [
                    {
                        "server": {"user": {"name": server[0]}, "name": server[1]},
                        "scopes": [f"access:servers!server={server[0]}/{server[1]}"],
                        "kind": kind,
                        kind: {"name": name},
                    }
                    for server, ones in hub.shared.items()
                    for kind, name in ones
                    if fits(server, (kind, name))
                ]
                more = {"offset": offset + 1} if len(found) > offset + 1 else None
                return {"items": found[offset : offset + 1], "_pagination": {"next": more}}

        class Logo(tornado.web.RequestHandler):
            def get(self) -> None:
                self.set_header("Content-Type", "image/svg+xml")
                self.finish(
                    '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="28"><rect width="90" height="28" fill="#f37524"/></svg>'
                )

        return tornado.web.Application(
            [
                ("/hub/api/user", User),
                ("/hub/api/oauth2/authorize", Authorize),
                ("/hub/api/oauth2/token", Token),
                (r"/hub/api/users/([^/]+)/activity", Api),
                (r"/hub/api/(users|groups|shares)/([^/]+)(/[^/]*)?", Api),
                ("/hub/logo", Logo),
            ]
        )


@dataclass
class Service:
    """The running site, seen from outside, and the levers behind it."""

    url: str
    store: FakeStore
    hub: FakeHub
    loop: asyncio.AbstractEventLoop
    site: routes.Mounted
    site_hub: Hub
    identity: Any = None
    clients: list[httpx.Client] = field(default_factory=list)

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call something in the service's loop and wait for it."""

        async def call() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def put(self, *stacks: Stack) -> None:
        for stack in stacks:
            self.do(self.store.view.put, stack)

    def clear(self) -> None:
        """Forget all that a test did."""

        def reset() -> None:
            self.store.__init__()  # type: ignore[misc]
            self.hub.silent = False
            self.hub.people.clear()
            self.hub.shared.clear()
            self.hub.active.clear()
            self.site_hub.forget()

        self.do(reset)

    def client(self, **kwargs: Any) -> httpx.Client:
        # No TLS here, and reading the system's certificates takes longer than most tests.
        client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=20, verify=False, **kwargs)
        self.clients.append(client)
        return client

    def program(self, name: str = "ada", **model: Any) -> httpx.Client:
        """A program with a user's token."""
        return self.client(headers={"Authorization": f"token {self.hub.token(name, **model)}"})

    def browser(self, name: str = "ada", **model: Any) -> httpx.Client:
        """A browser without scripts that is logged in at the hub, and so, by its first page, at the service."""
        client = self.client(cookies={"who": self.hub.token(name, **model)})
        page = client.get(PREFIX)
        assert PREFIX in str(page.url), page.text
        return client


def xsrf(page: httpx.Response | str) -> str:
    """The token in a page, as its script reads it."""
    text = page if isinstance(page, str) else page.text
    found = re.search(r'<meta name="xsrf" content="([^"]+)">', text)
    assert found, text
    return found[1]


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            key, _, value = line.partition(": ")
            fields[key] = value
        elif "event" in fields:
            yield fields["event"], json.loads(fields["data"])
            fields = {}


@contextmanager
def serving(
    port: int = 0,
    connections: Callable[[FakeStore, Hub], Any] | None = None,
    identity: Callable[..., Any] | None = None,
    projects: Any = None,
    imports: Any = None,
    entered: StackSettings | None = None,
    limits: Limits = NO_LIMITS,
    **real_hub: Any,
) -> Iterator[Service]:
    """The site and its hub in a thread of their own; with settings of HubOAuth for a real hub.

    With settings of stacks their hosts lead to the site's entrance.

    The identity, if one is wanted, is made from the store, the hub's login, the hub's API and the service's address.
    """
    started: dict[str, Any] = {}
    ready = threading.Event()

    async def main(port: int) -> None:
        hub, store = FakeHub(), FakeStore()
        hub_sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
        hub_port, port = hub_sockets[0].getsockname()[1], sockets[0].getsockname()[1]
        usual = {
            "api_url": f"http://127.0.0.1:{hub_port}/hub/api",
            "api_token": secrets.token_hex(16),
            "oauth_client_id": "service-cytomine",
            "base_url": PREFIX,
            "hub_prefix": "/hub/",
            "access_scopes": {"access:services!service=cytomine"},
            "cache_max_age": 1,
        }
        hub_auth = login(
            **{**usual, "oauth_redirect_uri": f"http://127.0.0.1:{port}{PREFIX}oauth_callback", **real_hub}
        )
        hub.service_token = hub_auth.api_token
        site_hub = Hub(hub_auth.api_url, lambda: hub_auth.api_token)
        given = connections(store, site_hub) if connections else None
        url = f"http://127.0.0.1:{port}"
        login_to_stacks = identity(store, hub_auth, site_hub, url) if identity else None
        extra = []
        if login_to_stacks:
            await login_to_stacks.start()
            extra = login_to_stacks.handlers()
        site = routes.mount(
            store,
            hub_auth=hub_auth,
            hub=site_hub,
            connections=given,
            projects=projects,
            imports=imports,
            limits=limits,
            extra=extra,
        )
        # One origin for both, as behind the hub's proxy.
        application = tornado.web.Application(site.handlers, **site.settings)
        if entered:
            entrance.stand_before(application, entered)
        application.add_handlers(".*", hub.application().wildcard_router.rules)
        servers = []
        for app, listening in ((hub.application(), hub_sockets), (application, sockets)):
            server = tornado.httpserver.HTTPServer(app, xheaders=True)
            server.add_sockets(listening)
            servers.append(server)
        stop = asyncio.Event()
        started.update(
            service=Service(url, store, hub, asyncio.get_running_loop(), site, site_hub, login_to_stacks),
            stop=stop,
        )
        ready.set()
        await stop.wait()
        for server in servers:
            server.stop()
            await server.close_all_connections()
        if login_to_stacks:
            await login_to_stacks.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(port),), daemon=True)
    thread.start()
    assert ready.wait(10)
    service = started["service"]
    try:
        yield service
    finally:
        for client in service.clients:
            client.close()
        service.loop.call_soon_threadsafe(started["stop"].set)
        thread.join(10)
