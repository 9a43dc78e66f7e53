"""The stacks' identity over Secrets in memory, and a client that logs in as browsers and proxies do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt

from cytomine_spawner.stacks.identity import Identity
from cytomine_spawner.stacks.identity.vault import Record
from cytomine_spawner.stacks.kube import KubeError
from cytomine_spawner.stacks.model import Stack
from cytomine_spawner.stacks.settings import StackSettings
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
class Pkce:
    """A verifier and its challenge."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


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
        return f"{self.service.url}{PREFIX}{stack}/iam/realms/cytomine"

    def oidc(self, stack: str, endpoint: str) -> str:
        return f"{self.issuer(stack)}/protocol/openid-connect/{endpoint}"

    def origin(self, stack: str) -> str:
        return STACK_URL.format(stack=stack)

    def person(self, name: str, *groups: str) -> None:
        """Make a user of the hub."""
        self.service.do(lambda: self.service.hub.people.__setitem__(name, groups))

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.service.loop).result(10)

    def query(self, stack: str, client: str = "core", **changes: str) -> dict[str, str]:
        """What keycloak-js or oauth2-proxy ask for."""
        path = "/" if client == "core" else "/oauth2/callback"
        usual = {
            "client_id": client,
            "redirect_uri": self.origin(stack) + path,
            "response_type": "code",
            "response_mode": "fragment" if client == "core" else "query",
            "scope": "openid",
            "state": "a state",
            "nonce": "a nonce",
            "code_challenge_method": "S256",
        }
        return {k: v for k, v in {**usual, **changes}.items() if v}

    def ask(self, browser: httpx.Client, stack: str, **query: str) -> httpx.Response:
        """Open the login; follows the redirects within the service and the hub."""
        page = browser.get(self.oidc(stack, "auth"), params=query, follow_redirects=False)
        while page.is_redirect and urlsplit(page.headers["Location"]).netloc in (
            "",
            urlsplit(self.service.url).netloc,
        ):
            page = browser.get(page.url.join(page.headers["Location"]), follow_redirects=False)
        return page

    def code(
        self, browser: httpx.Client, stack: str, pkce: Pkce, client: str = "core", **changes: str
    ) -> str:
        """Log in as far as the code."""
        query = self.query(stack, client, code_challenge=pkce.challenge, **changes)
        return answer(self.ask(browser, stack, **query))["code"]

    def post(self, stack: str, endpoint: str = "token", origin: str = "", **form: str) -> httpx.Response:
        headers = {"Origin": origin} if origin else {}
        return self.service.client().post(self.oidc(stack, endpoint), data=form, headers=headers)

    def exchange(
        self, stack: str, code: str, pkce: Pkce, client: str = "core", **changes: str
    ) -> httpx.Response:
        usual = {
            "grant_type": "authorization_code",
            "client_id": client,
            "code": code,
            "redirect_uri": self.query(stack, client)["redirect_uri"],
            "code_verifier": pkce.verifier,
            "client_secret": GATEWAY_SECRET if client == "gateway" else "",
        }
        return self.post(stack, **{k: v for k, v in {**usual, **changes}.items() if v})

    def refresh(self, stack: str, token: str, client: str = "core", **changes: str) -> httpx.Response:
        secret = {"client_secret": GATEWAY_SECRET} if client == "gateway" else {}
        form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": token}
        return self.post(stack, **{**form, **secret, **changes})

    def log_in(self, browser: httpx.Client, stack: str, client: str = "core") -> dict[str, Any]:
        """The whole login; the token endpoint's answer."""
        pkce = Pkce()
        response = self.exchange(stack, self.code(browser, stack, pkce, client), pkce, client)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens


def answer(page: httpx.Response) -> dict[str, str]:
    """The parameters with which a browser is sent back to its stack."""
    assert page.status_code == 302, page.text
    parts = urlsplit(page.headers["Location"])
    found = parse_qs(parts.fragment or parts.query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


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
