"""A real hub with LS Login whose servers are make-believe, and an archive that asks the same LS Login for visas."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from bs4 import BeautifulSoup

from dev import archive
from tests.support.hub import free_port, process, rest
from tests.support.kube import kubeconfig
from tests.support.lsloginfake import ADA, CLIENT, ROOT, SECRET, Provider

REPOSITORY = Path(__file__).parents[2]
SCOPE = "custom:cytomine-archive:token"
ADMINS = f"{ROOT}:cytomine:admins#aai.lifescience-ri.eu"
GRANTED, OTHER = "aa-Dataset-granted-slides1", "https://doi.org/10.17044/other"
BOB = {**ADA, "sub": "b0b0b0b0" * 5 + "@lifescience-ri.eu", "name": "Bob", "preferred_username": "bob"}
ROOT_USER = {
    **ADA,
    "sub": "ad319000" * 5 + "@lifescience-ri.eu",
    "name": "Grace",
    "preferred_username": "grace",
    "eduperson_entitlement": [*ADA["eduperson_entitlement"], ADMINS],
}

CONFIG = """
import json
import os

from jupyterhub.proxy import Proxy
from kubespawner import KubeSpawner
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


class NoProxy(Proxy):
    should_start = False

    async def add_route(self, routespec, target, data): pass
    async def delete_route(self, routespec): pass
    async def get_all_routes(self): return {}


class Answer(RequestHandler):
    def get(self):
        self.write("{}")


async def start(self):
    await self.load_user_options()
    # What a notebook has, and what the description of its pod says.
    env = self.get_env()
    env["TEST_POD"] = str(await self.get_pod_manifest())
    with open(f"server-{self.user.id}", "w") as record:
        json.dump({key: str(value) for key, value in env.items()}, record)
    sockets = bind_sockets(0, "127.0.0.1")
    self.notebook = HTTPServer(Application([(".*", Answer)]))
    self.notebook.add_sockets(sockets)
    return f"http://127.0.0.1:{sockets[0].getsockname()[1]}"


async def stop(self, now=False):
    self.notebook.stop()
    del self.notebook


async def poll(self):
    return None if hasattr(self, "notebook") else 1


async def quiet(self):
    return
    yield


KubeSpawner._start, KubeSpawner.stop, KubeSpawner.poll, KubeSpawner.progress = start, stop, poll, quiet
c = get_config()
port = os.environ["TEST_PORT"]
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.hub_bind_url = c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.log_level = "DEBUG"
c.JupyterHub.spawner_class = "cytomine_spawner.CytomineSpawner"
c.CytomineSpawner.token_in_secret = False
c.CytomineSpawner.cytomine_enabled = True
c.CytomineSpawner.k8s_api_request_retry_timeout = 1
c.CytomineSpawner.archive_url = os.environ["TEST_ARCHIVE"]
c.CytomineSpawner.archive_timeout = float(os.environ.get("TEST_PATIENCE", "9"))
c.CytomineSpawner.archive_cache = int(os.environ.get("TEST_CACHE", "0"))
c.StackSettings.datasets = [{"name": "mock", "title": "Mock dataset"}]
c.JupyterHub.authenticator_class = "cytomine_spawner.lslogin.LSLoginAuthenticator"
c.LSLoginAuthenticator.allowed_groups = {"cytomine:users"}
c.LSLoginAuthenticator.admin_groups = {"cytomine:admins"}
c.LSLoginAuthenticator.issuer = os.environ["TEST_ISSUER"]
c.LSLoginAuthenticator.client_id = os.environ["TEST_CLIENT"]
c.LSLoginAuthenticator.client_secret_file = "client-secret"
c.LSLoginAuthenticator.oauth_callback_url = f"http://127.0.0.1:{port}/hub/oauth_callback"
c.LSLoginAuthenticator.check_before_login = False
c.LSLoginAuthenticator.archive_tokens = True
c.LSLoginAuthenticator.archive_tokens_per_minute = int(os.environ.get("TEST_RATE", "100000"))
scope = "custom:cytomine-archive:token"
staging = "custom:cytomine-archive:import"
c.JupyterHub.custom_scopes = {scope: {"description": "Read the archive."}, staging: {"description": "Import from it."}}
c.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server", scope]
c.JupyterHub.services = [
    {"name": "tester", "api_token": os.environ["TEST_HUB_TOKEN"]},
    {"name": "stacks", "api_token": os.environ["TEST_STACKS_TOKEN"]},
    {"name": "cards", "url": "http://127.0.0.1:1", "api_token": os.environ["TEST_CARDS_TOKEN"], "oauth_no_confirm": True},
]
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", "access:services!service=cards", scope]},
    {"name": "stacks", "services": ["stacks"], "scopes": [staging]},
    {"name": "tester", "services": ["tester"], "scopes": ["admin:users", "admin:servers", "tokens", scope]},
]
"""


@dataclass
class Hub:
    """A running hub, its LS Login, and an archive."""

    url: str
    folder: Path
    provider: Provider
    local: archive.Local
    archive: archive.Archive
    token: str
    cards: str
    stacks: str
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def api_url(self) -> str:
        """As a server's environment has it."""
        return f"{self.url}/hub/api"

    @property
    def log(self) -> str:
        return (self.folder / "hub.log").read_text()

    def browser(self, person: dict[str, Any]) -> httpx.Client:
        """Somebody who has logged in."""
        client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=30, verify=False)
        self.clients.append(client)
        self.provider.person = person
        assert client.get("/hub/oauth_login", params={"next": "/hub/home"}).url.path == "/hub/home"
        return client

    def tester(self, method: str, path: str, **given: Any) -> httpx.Response:
        """A request to the REST API, as the tests' service."""
        return self.clients[0].request(method, path, **given)

    def environment(self, person: dict[str, Any]) -> dict[str, str]:
        """What the server of somebody who has logged in has for an environment; started unless it runs."""
        name = person["sub"]
        answer = self.tester("POST", f"/users/{name}/server", json={})
        assert answer.status_code in (201, 400), answer.text
        number = self.tester("GET", f"/users/{name}").json()
        assert number["servers"], number
        record = next(
            found
            for path in self.folder.glob("server-*")
            if (found := json.loads(path.read_text()))["JUPYTERHUB_USER"] == name
        )
        return dict(record)

    def ask(self, token: str, method: str = "POST", **given: Any) -> httpx.Response:
        """Ask for the archive's token with a token of the hub, or without."""
        headers = {**({"Authorization": f"token {token}"} if token else {}), **given.pop("headers", {})}
        return httpx.request(
            method, f"{self.api_url}/archive/token", headers=headers, timeout=30, verify=False, **given
        )

    def grant(self, *datasets: str, sub: str = ADA["sub"]) -> None:
        """What the visas of whoever asks LS Login say from now on."""
        someone = archive.Someone(sub)
        self.local.issuer.grant(someone, *datasets)
        self.provider.claims = {"ga4gh_passport_v1": someone.visas}

    def form(self, browser: httpx.Client) -> BeautifulSoup:
        """The options form."""
        page = browser.get("/hub/spawn")
        assert page.status_code == 200, page.text
        return BeautifulSoup(page.text, "html.parser")


@contextmanager
def running(folder: Path, provider: Provider, local: archive.Local, **environment: str) -> Iterator[Hub]:
    """A hub with an archive, until the block ends."""
    port = free_port()
    token, cards, stacks = (secrets.token_hex(16) for _ in range(3))
    (folder / "client-secret").write_text(SECRET)
    trusting = {
        "issuer": provider.issuer,
        "userinfo": f"{provider.issuer}userinfo",
        "jwks": "",
        # Nothing is kept: what counts is what LS Login says now.
        "session_ttl": 0,
        "userinfo_ttl": 0,
    }
    url = f"http://127.0.0.1:{port}"
    with local.archive(version=2, **trusting) as server:
        env = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "KUBECONFIG": str(kubeconfig(folder)),
            "JUPYTERHUB_CRYPT_KEY": secrets.token_hex(32),
            "TEST_PORT": str(port),
            "TEST_ISSUER": provider.issuer,
            "TEST_CLIENT": CLIENT,
            "TEST_ARCHIVE": server.url,
            "TEST_HUB_TOKEN": token,
            "TEST_CARDS_TOKEN": cards,
            "TEST_STACKS_TOKEN": stacks,
            **environment,
        }
        with process(folder, CONFIG, url, env):
            hub = Hub(url, folder, provider, local, server, token, cards, stacks, [rest(url, token)])
            try:
                yield hub
            finally:
                for client in hub.clients:
                    client.close()
