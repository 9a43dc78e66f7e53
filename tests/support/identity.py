"""The stacks' identity over Secrets in memory, and a client that logs in as browsers and proxies do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.cluster.secretstore import Record
from cytomine_spawner.identity import Identity
from cytomine_spawner.stack.model import ENDPOINTS, REALM, Stack
from tests.support.adapter import Adapter, Pkce
from tests.support.stacks import PREFIX, Service, serving

STACK_URL = "http://{stack}.stacks.localhost:8000"
GATEWAY_SECRET = "the gateway's secret"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class FakeVault:
    """Secrets in memory, with Kubernetes' way of noticing that somebody else was faster."""

    def __init__(self) -> None:
        self.secrets: dict[str, tuple[dict[str, str], int]] = {}
        self.owners: dict[str, Stack | None] = {}
        self.silent = False
        self.writes = self.asked = 0

    def _answer(self) -> None:
        self.asked += 1
        if self.silent:
            raise KubeError(0, "TimeoutError", "The API server does not answer")

    async def read(self, name: str) -> Record | None:
        await asyncio.sleep(0)
        self._answer()
        found = self.secrets.get(name)
        return Record(dict(found[0]), str(found[1])) if found else None

    async def create(self, name: str, data: dict[str, str], owner: Stack | None = None) -> bool:
        await asyncio.sleep(0)
        self._answer()
        if name in self.secrets:
            return False
        self.secrets[name], self.owners[name] = (dict(data), 1), owner
        self.writes += 1
        return True

    async def replace(self, name: str, data: dict[str, str], version: str) -> str | None:
        await asyncio.sleep(0)
        self._answer()
        found = self.secrets.get(name)
        if found is None or str(found[1]) != version:
            return None
        self.secrets[name] = ({**found[0], **data}, found[1] + 1)
        self.writes += 1
        return str(found[1] + 1)

    def put(self, name: str, **data: str) -> None:
        self.secrets[name] = ({k.replace("_", "-"): v for k, v in data.items()}, 1)


def unverified(token: str) -> dict[str, Any]:
    """What a token says, whoever signed it."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


@dataclass
class World:
    """The running service with an identity, and what one does at it."""

    service: Service
    vault: FakeVault

    @property
    def identity(self) -> Identity:
        found: Identity = self.service.identity
        return found

    def issuer(self, stack: str) -> str:
        return f"{self.service.url}{PREFIX}{stack}{REALM}"

    def oidc(self, stack: str, endpoint: str) -> str:
        return f"{self.issuer(stack)}{ENDPOINTS}/{endpoint}"

    def origin(self, stack: str) -> str:
        return STACK_URL.format(stack=stack)

    def person(self, name: str, *groups: str) -> None:
        """Make a user of the hub."""
        self.service.do(lambda: self.service.hub.people.__setitem__(name, groups))

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.service.loop).result(10)

    def at(self, stack: str, browser: httpx.Client | None = None) -> Adapter:
        """Who asks the login of a stack for tokens."""
        program = self.service.client()
        return Adapter(self.issuer(stack), self.origin(stack), browser or program, program, GATEWAY_SECRET)

    def query(self, stack: str, client: str = "core", **changes: str) -> dict[str, str]:
        return self.at(stack).query(client, **changes)

    def ask(self, browser: httpx.Client, stack: str, **query: str) -> httpx.Response:
        return self.at(stack, browser).ask(**query)

    def code(
        self, browser: httpx.Client, stack: str, pkce: Pkce, client: str = "core", **changes: str
    ) -> str:
        return self.at(stack, browser).code(pkce, client, **changes)

    def post(self, stack: str, endpoint: str = "token", origin: str = "", **form: str) -> httpx.Response:
        return self.at(stack).post(endpoint, origin, **form)

    def exchange(
        self, stack: str, code: str, pkce: Pkce, client: str = "core", **changes: str
    ) -> httpx.Response:
        return self.at(stack).exchange(code, pkce, client, **changes)

    def refresh(self, stack: str, token: str, client: str = "core", **changes: str) -> httpx.Response:
        return self.at(stack).refresh(token, client, **changes)

    def log_in(self, browser: httpx.Client, stack: str, client: str = "core") -> dict[str, Any]:
        return self.at(stack, browser).log_in(client)


@contextmanager
def world(vault: FakeVault | None = None, port: int = 0, **options: Any) -> Iterator[World]:
    """The service with an identity; other options are those of ``serving`` and of the identity's traits."""
    vault = vault or FakeVault()
    stack_url = options.pop("stack_url", STACK_URL)
    service_url = options.pop("service_url", "")
    traits = {name: options.pop(name) for name in list(options) if name in Identity.class_trait_names()}
    seen: Callable[[str, str], None] = options.pop("seen", lambda *_: None)

    def identity(store: Any, hub_auth: Any, hub: Any, url: str) -> Identity:
        settings = StackSettings(
            service_url=(service_url or url) + PREFIX.rstrip("/"), stack_url=stack_url, namespace="cytomine"
        )
        return Identity(
            store=store, hub_auth=hub_auth, hub=hub, settings=settings, vault=vault, seen=seen, **traits
        )

    with serving(port, identity=identity, **options) as service:
        yield World(service, vault)
