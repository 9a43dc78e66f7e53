"""Somebody with a notebook and a Cytomine stack at the tests' hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dev.demo import install
from tests.support.person import Person, wait

KINDS = (
    "pods,deployments,statefulsets,replicasets,jobs,services,configmaps,secrets,persistentvolumeclaims,networkpolicies,"
    "ingresses,cytominestacks"
)


class Lab:
    """Somebody with a notebook and a stack."""

    def __init__(self, hub: install.Installed, key: str) -> None:
        self.hub, self.person = hub, Person(hub, key)
        self.kube, self.namespace = hub.target.kube, hub.place.namespace
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

    def start(self, **options: Any) -> None:
        answer = self.person.start(options)
        assert answer.status_code in (201, 202), answer.text
        wait(self.person.ready, "the notebook")

    def wait_ready(self) -> None:
        wait(self.is_ready, f"the stack, which is {self.status()}", 150)

    def importing(self) -> dict[str, Any]:
        """The condition that says how the import of datasets stands; empty if there is none."""
        found = self.status().get("conditions", [])
        return next((c for c in found if c["type"] == "DatasetsImported"), {})

    def wait_imported(self, seconds: float = 240) -> None:
        """Wait for the datasets to be in the stack; a failure ends it at once."""
        end = ("Imported", "Failed", "NotOffered")
        wait(lambda: self.importing().get("reason") in end, f"the import: {self.importing()}", seconds)
        assert self.importing()["reason"] == "Imported", self.importing()

    def python(self, code: str) -> Any:
        """Run code in the notebook's pod, as its user would; what it prints last, from JSON."""
        (pod,) = self.person.pods()
        name = pod["metadata"]["name"]
        out = self.kubectl("exec", name, "-c", "notebook", "--", "python", "-c", code, timeout=240)
        return json.loads(out.strip().splitlines()[-1])

    def left(self) -> set[str]:
        """Objects of this stack, of any kind."""
        found = self.kube.get("-n", self.namespace, KINDS) or {"items": []}
        return {
            f"{o['kind']}/{o['metadata']['name']}"
            for o in found["items"]
            if "cytomine-spawner.org/owner" in o["metadata"].get("annotations", {})
            and o["metadata"]["annotations"]["cytomine-spawner.org/owner"] == self.person.name
        }

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The stacks' REST API, as this person's browser does."""
        url = f"{self.hub.url}/services/cytomine/{path}"
        self.person.client.get(f"{self.hub.url}/services/cytomine/")
        token = self.person.client.cookies.get("_xsrf", path="/services/cytomine/")
        headers = {"X-XSRFToken": token or "", "Sec-Fetch-Site": "same-origin"}
        answer = self.person.client.request(method, url, json=body, headers=headers)
        assert answer.status_code < 300, (answer.status_code, answer.text)
        return answer.json() if answer.text else None

    @classmethod
    @contextmanager
    def beside(
        cls, hub: install.Installed, key: str, *, ready: bool = True, datasets: Sequence[str] = ()
    ) -> Iterator[Lab]:
        """Somebody with a notebook and a stack made anew, until the block ends.

        Args:
            hub: the tests' hub.
            key: the test user's.
            ready: whether to wait for the stack, and for the datasets to be in it.
            datasets: the datasets that are ticked in the options: ``mock-skin``, ``mock-landmarks``.
        """
        lab = cls(hub, key)
        lab.remove()
        lab.start(cytomine={"size": "S", "datasets": list(datasets)})
        if ready:
            lab.wait_ready()
            if datasets:
                lab.wait_imported()
        try:
            yield lab
        finally:
            lab.remove()

    def remove(self) -> None:
        """End the notebook and delete the stacks."""
        if self.person.server():
            self.person.stop()
        for stack in self.stacks():
            name = stack["metadata"]["name"]
            self.kubectl("delete", "cytominestack", name, "--timeout=90s", timeout=100)
