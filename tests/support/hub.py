"""A real JupyterHub in a process of its own, for the time of a test."""

from __future__ import annotations

import http.client
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from bs4 import BeautifulSoup

from dev.standin.local import free_port as free_port
from tests.support import hubprocess
from tests.support.kube import kubeconfig

ROOT = Path(__file__).parents[2]


@dataclass
class Hub:
    """A running hub, seen from outside."""

    url: str
    token: str
    process: BaseProcess
    logfile: Path
    clients: list[httpx.Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clients.append(rest(self.url, self.token))

    @property
    def log(self) -> str:
        return self.logfile.read_text()

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """A request to the REST API, as the tests' service."""
        return self.clients[0].request(method, path, **kwargs)

    def user(self, name: str) -> None:
        """Make sure that a user exists."""
        assert self.api("POST", f"/users/{name}").status_code in (201, 409)

    def browser(self, name: str) -> Browser:
        """Somebody who has logged in."""
        client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=30, verify=False)
        self.clients.append(client)
        page = client.get("/hub/login")
        form = {"username": name, "password": "x", "_xsrf": xsrf(page)}
        assert client.post("/hub/login", data=form, follow_redirects=False).status_code == 302
        return Browser(client)


@dataclass
class Browser:
    """A browser without JavaScript."""

    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def submit(self, path: str, choices: dict[str, Any]) -> httpx.Response:
        """Send the spawn form of a page with some choices."""
        form = BeautifulSoup(self.client.get(path).text, "html.parser").select_one("#spawn_form")
        data = {field["name"]: field["value"] for field in form.select("input[checked], input[type=hidden]")}
        return self.client.post(form["action"], data={**data, **choices}, follow_redirects=False)


def rest(url: str, token: str) -> httpx.Client:
    """A client of a hub's REST API."""
    # No TLS here, and reading the system's certificates takes longer than most tests.
    headers = {"Authorization": f"token {token}"}
    return httpx.Client(base_url=f"{url}/hub/api", headers=headers, timeout=30, verify=False)


def xsrf(page: httpx.Response) -> str:
    return str(BeautifulSoup(page.text, "html.parser").select_one("input[name=_xsrf]")["value"])


# JupyterHub writes some twenty times for each start of a server, and on a disk waits each time until it is written.
MEMORY = "sqlite:///:memory:"


@contextmanager
def process(
    folder: Path, config: str, url: str, env: dict[str, str], db: str = MEMORY
) -> Iterator[BaseProcess]:
    """A hub in a process of its own, from when it answers until the block ends.

    Args:
        folder: for its log and, where that is on the disk, its database.
        config: the text of its configuration.
        url: where it will answer.
        env: its environment.
        db: its database.
    """
    (folder / "config.py").write_text(config)
    logfile = folder / "hub.log"
    started = hubprocess.start(folder, ["--config=config.py", f"--db={db}"], env, logfile)
    try:
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert started.is_alive(), logfile.read_text()
            assert time.monotonic() < deadline, logfile.read_text()
            time.sleep(0.05)
        yield started
    finally:
        started.terminate()
        started.join(20)
        assert not started.is_alive(), "the hub does not end"


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def running(folder: Path, db: str = MEMORY, **environment: str) -> Iterator[Hub]:
    """A hub with tests/support/hub_config.py, until the block ends."""
    port, token = int(environment.get("TEST_HUB_PORT") or free_port()), secrets.token_hex(16)
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KUBECONFIG": str(kubeconfig(folder)),
        "TEST_HUB_PORT": str(port),
        "TEST_HUB_TOKEN": token,
        **environment,
    }
    url = f"http://127.0.0.1:{port}"
    config = (ROOT / "tests/support/hub_config.py").read_text()
    with process(folder, config, url, env, db) as started:
        hub = Hub(url, token, started, folder / "hub.log")
        try:
            yield hub
        finally:
            for client in hub.clients:
                client.close()
