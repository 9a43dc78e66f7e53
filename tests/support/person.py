"""A test user at the tests' hub, without a browser, and waiting for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from cytomine_spawner.hosts import subdomain
from dev.demo import install
from tests.support.browserless import log_in, xsrf

# How many times slower than usual a machine may be.
SLOWEST = 3


def wait(
    condition: Callable[[], Any],
    what: str | Callable[[], str],
    seconds: float = 90,
    *,
    promised: bool = False,
) -> Any:
    """The first true value of ``condition()``; a failure says what was waited for, as it is then.

    Args:
        condition: is asked again and again.
        what: what is waited for.
        seconds: how long that takes at most where the machine is as fast as usual.
        promised: whether it is a promise that it takes no longer anywhere.
    """
    seconds *= 1 if promised else SLOWEST
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"waited {seconds} s in vain for {what if isinstance(what, str) else what()}")


def notebook_url(hub: install.Installed, name: str) -> str:
    """The address of a user's server, on a host of its own; without a slash at the end."""
    host = subdomain(name, f"{hub.place.hub}.localhost", "user")
    return f"http://{host}:{hub.target.port}/user/{quote(name, safe='@~')}"


class Person:
    """A logged-in test user and what they ask of the hub's REST API."""

    def __init__(self, hub: install.Installed, key: str) -> None:
        self.hub, self.key = hub, key
        self.client = log_in(hub.url, key)
        self.name: str = self.get("user").json()["name"]

    def again(self) -> Person:
        """The same person after another login."""
        return Person(self.hub, self.key)

    def come(self, url: str) -> httpx.Response:
        """Open a page of a stack as somebody who is logged in at the hub; forms are not filled in."""
        return self.client.get(f"{url}/", headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})

    def who(self, url: str) -> httpx.Response:
        """What a script of the stack's page asks of Cytomine."""
        return self.client.get(
            f"{url}/api/user/current.json",
            headers={"Accept": "application/json", "Sec-Fetch-Site": "same-origin"},
            follow_redirects=False,
        )

    @property
    def notebook(self) -> str:
        """The address of this person's server, on a host of their own; without a slash at the end."""
        return notebook_url(self.hub, self.name)

    def _url(self, path: str) -> str:
        return f"{self.hub.url}/hub/api/{path}"

    def get(self, path: str) -> httpx.Response:
        return self.client.get(self._url(path), headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {**xsrf(self.client, self.hub.url), "Referer": f"{self.hub.url}/hub/home"}

    def start(self, options: Any = None) -> httpx.Response:
        return self.client.post(self._url(f"users/{self.name}/server"), json=options, headers=self._headers())

    def server(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.get(f"users/{self.name}").json()["servers"].get("")
        return found

    def said(self) -> str:
        """What the hub says about the start of the server, the last time."""
        url = self._url(f"users/{self.name}/server/progress")
        with self.client.stream("GET", url, headers=self._headers()) as answer:
            return next(reversed([line for line in answer.iter_lines() if line.startswith("data:")]), "")

    def ready(self) -> bool:
        server = self.server()
        return bool(server and server["ready"])

    def stop(self) -> None:
        self.client.delete(self._url(f"users/{self.name}/server"), headers=self._headers())
        wait(lambda: not self.server(), "the server to stop")

    def pods(self) -> list[dict[str, Any]]:
        found = self.hub.target.kube.get(
            "-n", self.hub.place.users, "pods", "-l", "component=singleuser-server"
        )
        mine = [
            p
            for p in (found or {"items": []})["items"]
            if p["metadata"].get("annotations", {}).get("hub.jupyter.org/username") == self.name
        ]
        return [p for p in mine if "deletionTimestamp" not in p["metadata"]]
