"""A real JupyterHub in a process of its own, for the time of a test."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from bs4 import BeautifulSoup

from tests.support.kube import kubeconfig

ROOT = Path(__file__).parents[2]


@dataclass
class Hub:
    """A running hub, seen from outside."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    logfile: Path
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.logfile.read_text()

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """A request to the REST API, as the tests' service."""
        headers = {"Authorization": f"token {self.token}", **kwargs.pop("headers", {})}
        return httpx.request(method, f"{self.url}/hub/api{path}", headers=headers, timeout=30, **kwargs)

    def user(self, name: str) -> None:
        """Make sure that a user exists."""
        assert self.api("POST", f"/users/{name}").status_code in (201, 409)

    def browser(self, name: str) -> Browser:
        """Somebody who has logged in."""
        client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=30)
        page = client.get("/hub/login")
        form = {"username": name, "password": "x", "_xsrf": xsrf(page)}
        assert client.post("/hub/login", data=form, follow_redirects=False).status_code == 302
        self.clients.append(client)
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


def xsrf(page: httpx.Response) -> str:
    return str(BeautifulSoup(page.text, "html.parser").select_one("input[name=_xsrf]")["value"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(folder: Path, config: str, url: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A hub in a process of its own, from when it answers until the block ends.

    Args:
        folder: for its state and its log.
        config: the text of its configuration.
        url: where it will answer.
        env: its environment.
    """
    (folder / "config.py").write_text(config)
    logfile = folder / "hub.log"
    command = [sys.executable, "-m", "jupyterhub", "--config", "config.py"]
    with logfile.open("ab") as log:
        started = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{url}/hub/health", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert started.poll() is None, logfile.read_text()
            assert time.monotonic() < deadline, logfile.read_text()
            time.sleep(0.1)
        yield started
    finally:
        started.terminate()
        started.wait(20)


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Hub]:
    """A hub with tests/support/hub_config.py and its state in a folder, until the block ends."""
    port, token = free_port(), secrets.token_hex(16)
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
    with process(folder, config, url, env) as started:
        hub = Hub(url, token, started, folder / "hub.log")
        try:
            yield hub
        finally:
            for client in hub.clients:
                client.close()
