"""Somebody with a notebook and a Cytomine stack at the tests' hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from cytomine_spawner.stack.model import REALM
from dev.demo import install
from tests.support.adapter import Adapter
from tests.support.browserless import browserless
from tests.support.person import Person, wait

KINDS = (
    "pods,deployments,statefulsets,replicasets,jobs,services,configmaps,secrets,persistentvolumeclaims,networkpolicies,"
    "ingresses,cytominestacks"
)


class Lab:
    """Somebody with a notebook and a stack."""

    def __init__(self, hub: install.Installed, key: str) -> None:
        self.hub, self.person = hub, Person(hub, key)
        self.kube, self.namespace = hub.target.kube, hub.place.users
        self.work: dict[str, Any] = {}

    def kubectl(self, *args: str, **kwargs: Any) -> str:
        return self.kube.kubectl("-n", self.namespace, *args, **kwargs)

    def stacks(self) -> list[dict[str, Any]]:
        found = self.kube.get("-n", self.namespace, "cytominestacks") or {"items": []}
        return [s for s in found["items"] if s["spec"]["owner"] == self.person.name]

    @property
    def name(self) -> str:
        (stack,) = self.stacks()
        return str(stack["metadata"]["name"])

    def status(self) -> dict[str, Any]:
        found = self.stacks()
        status: dict[str, Any] = found[0].get("status", {}) if found else {}
        return status

    def is_ready(self) -> bool:
        return self.status().get("phase") == "Ready"

    def begin(self, **options: Any) -> None:
        """Start the notebook, without waiting for it."""
        answer = self.person.start(options)
        assert answer.status_code in (201, 202), answer.text

    def start(self, **options: Any) -> None:
        self.begin(**options)
        self.wait_notebook()

    def wait_notebook(self) -> None:
        wait(
            self.person.ready, lambda: f"the notebook, which is {self.person.server()}: {self.person.said()}"
        )

    def wait_ready(self) -> None:
        """Wait for the notebook and the stack."""
        self.wait_notebook()
        wait(self.is_ready, lambda: f"the stack, which is {self.status()}", 150)

    def stack_url(self) -> str:
        """Where a browser opens the stack."""
        return self.hub.place.stack_url(self.hub.target.port).replace("{stack}", self.name)

    def hibernate(self) -> None:
        """Put the stack to sleep, and wait until it is."""
        self.ask("PATCH", f"api/stacks/{self.name}", {"desiredState": "Hibernated"})
        self.wait_asleep()

    def wait_asleep(self) -> None:
        wait(lambda: self.status().get("phase") == "Hibernated", "the stack to sleep", 90)

    def jobs(self) -> list[dict[str, Any]]:
        """The Jobs of the stack, which are its imports."""
        found = self.kube.get("-n", self.namespace, "jobs", "-l", f"app.kubernetes.io/instance={self.name}")
        return list((found or {"items": []})["items"])

    def importing(self) -> dict[str, Any]:
        """The condition that says how the import of datasets stands; empty if there is none."""
        found = self.status().get("conditions", [])
        return next((c for c in found if c["type"] == "DatasetsImported"), {})

    def wait_imported(self, seconds: float = 240) -> None:
        """Wait for the datasets to be in the stack; a failure ends it at once."""
        end = ("Imported", "Failed", "NotOffered")
        wait(
            lambda: self.importing().get("reason") in end, lambda: f"the import: {self.importing()}", seconds
        )
        assert self.importing()["reason"] == "Imported", self.importing()

    def python(self, code: str) -> Any:
        """Run code in the notebook's pod, as its user would; what it prints last, from JSON."""
        return json.loads(self.inside("python", "-c", code, timeout=240).strip().splitlines()[-1])

    def inside(self, *command: str, **kwargs: Any) -> str:
        """Run a command in the notebook's pod; what it prints."""
        (pod,) = self.person.pods()
        return self.kubectl("exec", "-i", pod["metadata"]["name"], "-c", "notebook", "--", *command, **kwargs)

    def left(self, kinds: str = KINDS) -> set[str]:
        """Objects of this person's stacks, of any kind."""
        found = self.kube.get("-n", self.namespace, kinds) or {"items": []}
        return {
            f"{o['kind']}/{o['metadata']['name']}"
            for o in found["items"]
            if "cytomine-spawner.org/owner" in o["metadata"].get("annotations", {})
            and o["metadata"]["annotations"]["cytomine-spawner.org/owner"] == self.person.name
        }

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The answer of the stacks' REST API, as this person's browser asks it."""
        url = f"{self.hub.cards}/{path}"
        self.person.client.get(f"{self.hub.cards}/")
        token = self.person.client.cookies.get("_xsrf", path="/services/cytomine/")
        headers = {"X-XSRFToken": token or "", "Sec-Fetch-Site": "same-origin"}
        return self.person.client.request(method, url, json=body, headers=headers)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the stacks' REST API tells this person's browser."""
        answer = self.request(method, path, body)
        assert answer.status_code < 300, (answer.status_code, answer.text)
        return answer.json() if answer.text else None

    def adapter(self, stack: str) -> Adapter:
        """This person's browser at the login of a stack."""
        issuer = f"{self.hub.cards}/{stack}{REALM}"
        origin = self.hub.place.stack_url(self.hub.target.port).replace("{stack}", stack)
        return Adapter(issuer, origin, self.person.client, browserless())

    @classmethod
    @contextmanager
    def beside(
        cls, hub: install.Installed, key: str, *, ready: bool = True, datasets: Sequence[str] = ()
    ) -> Iterator[Lab]:
        """Somebody with a notebook and a stack made anew, until the block ends.

        Args:
            hub: the tests' hub.
            key: the test user's.
            ready: whether to wait for the notebook and the stack, and for the datasets to be in it.
            datasets: the datasets that are ticked in the options: ``mock-skin``, ``mock-landmarks``, or ``sda://`` and the id
                of one of the archive.
        """
        lab = cls(hub, key)
        lab.remove()
        try:
            lab.begin(cytomine={"size": "S", "datasets": list(datasets)})
            if ready:
                lab.wait_ready()
                if datasets:
                    lab.wait_imported()
            yield lab
        finally:
            lab.remove()

    def remove(self) -> None:
        """End the notebook and delete the stacks, and volumes that a run which was cut has kept."""
        if self.person.server():
            self.person.stop()
        for stack in self.stacks():
            name = stack["metadata"]["name"]
            self.kubectl("delete", "cytominestack", name, "--timeout=270s", timeout=290)
        for kept in self.left(kinds="persistentvolumeclaims"):
            self.kubectl("delete", kept, "--timeout=270s", timeout=290)
