"""A hub with its real proxy, the real page of stacks, and a notebook that serves a page of its user's own."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from cytomine_spawner.hosts import subdomain
from dev.cache import ROOT
from dev.images import node
from tests.support.hub import Hub, free_port, running
from tests.support.stacks import PREFIX, Service, a_stack, serving

PROXY = ROOT / "dev" / "images" / "proxy"
ATTACK = Path(__file__).with_name("attack.html")
HOST = "hub.localhost"


@dataclass
class World:
    """All of it, as browsers see it.

    Attributes:
        url: the hub, without a slash at the end.
        cards: the page of stacks, likewise.
        notebooks: the host of Petra's notebook, likewise.
    """

    hub: Hub
    service: Service
    url: str
    cards: str
    notebooks: str

    @property
    def attack(self) -> str:
        """The page that Petra's notebook serves to whoever opens it."""
        return f"{self.notebooks}/user/petra/attack"


@contextmanager
def _proxy(folder: Path, port: int, api: int, hub: int, token: str, *flags: str) -> Iterator[None]:
    files = [PROXY / "package.json", PROXY / "package-lock.json"]
    packages = node.packages(files, "proxy-packages", "Fetching the hub's proxy")
    program = packages / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    command = [
        str(node.program()), str(program), "--ip=127.0.0.1", f"--port={port}", "--api-ip=127.0.0.1",
        f"--api-port={api}", f"--default-target=http://127.0.0.1:{hub}", *flags,
    ]  # fmt: skip
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, env={"CONFIGPROXY_AUTH_TOKEN": token}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/_chp_healthz", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, (folder / "proxy.log").read_text()
                assert time.monotonic() < deadline, "the proxy does not start"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def world(folder: Path, *, per_user_hosts: bool = True, guarded: bool = True) -> Iterator[World]:
    """A hub with the users Petra, Ivan, who has a stack, and root, who administers; until the block ends.

    Args:
        folder: for logs.
        per_user_hosts: whether users have hosts of their own.
        guarded: whether the hub is started by this package's command; JupyterHub's own if not.
    """
    port, api, hub_port, cards_port = (free_port() for _ in range(4))
    proxy_token, cards_token = secrets.token_hex(16), secrets.token_hex(16)
    url = f"http://{HOST}:{port}"

    def at(name: str, kind: str) -> str:
        return f"http://{subdomain(name, HOST, kind)}:{port}" if per_user_hosts else url

    cards = f"{at('cytomine', 'service')}{PREFIX}".rstrip("/")
    environment = {
        "TEST_HUB_PORT": str(hub_port),
        "TEST_HUB_PROXY": f"http://127.0.0.1:{api}",
        "TEST_HUB_PROXY_TOKEN": proxy_token,
        "TEST_HUB_CARDS": f"http://127.0.0.1:{cards_port}",
        "TEST_HUB_CARDS_TOKEN": cards_token,
        "TEST_HUB_PAGE": str(ATTACK),
        **({"TEST_HUB_DOMAIN": url} if per_user_hosts else {}),
        **({} if guarded else {"TEST_HUB_PROGRAM": "jupyterhub.app"}),
    }
    login = {
        "api_url": f"http://127.0.0.1:{hub_port}/hub/api",
        "api_token": cards_token,
        "hub_host": url if per_user_hosts else "",
        "oauth_redirect_uri": f"{cards if per_user_hosts else PREFIX.rstrip('/')}/oauth_callback",
    }
    with ExitStack() as ends:
        flags = ["--host-routing"] if per_user_hosts else []
        ends.enter_context(_proxy(folder, port, api, hub_port, proxy_token, *flags))
        service = ends.enter_context(serving(cards_port, **login))
        hub = ends.enter_context(running(folder, **environment))
        for user in ("petra", "ivan", "root"):
            hub.user(user)
        service.put(a_stack("ivan"))
        started = hub.api("POST", "/users/petra/server")
        assert started.status_code in (201, 202), started.text
        deadline = time.monotonic() + 60
        while not hub.api("GET", "/users/petra").json()["servers"].get("", {}).get("ready"):
            assert time.monotonic() < deadline, hub.log
            time.sleep(0.1)
        yield World(hub, service, url, cards, at("petra", "user"))
