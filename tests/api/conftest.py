"""A real API server, with one node that KWOK plays, and a namespace for each test."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dev import cluster
from tests.support.apiserver import Kubectl, define_stacks


class Api:
    """The API server, from outside of what is tested."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        content = yaml.safe_load(kubeconfig.read_text())
        target, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        trust = ssl.create_default_context()
        if "certificate-authority-data" in target:
            trust.load_verify_locations(
                cadata=base64.b64decode(target["certificate-authority-data"]).decode()
            )
        else:
            trust.load_verify_locations(kubeconfig.parent / target["certificate-authority"])
        headers = {"Authorization": f"Bearer {user['token']}"}
        self.http = httpx.Client(base_url=target["server"], verify=trust, headers=headers, timeout=30)

    def get(self, path: str) -> dict[str, Any]:
        """An object, or a list."""
        answer = self.http.get(path)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def items(self, namespace: str, kind: str) -> list[dict[str, Any]]:
        """All objects of a core kind in a namespace."""
        found: list[dict[str, Any]] = self.get(f"/api/v1/namespaces/{namespace}/{kind}")["items"]
        return found

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        answer = self.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def patch(self, path: str, body: dict[str, Any]) -> None:
        """Patch an object, or its status."""
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = self.http.patch(path, content=json.dumps(body), headers=headers)
        assert answer.status_code == 200, answer.text

    def untaint(self, node: str) -> None:
        """Take away what keeps pods off a new node: the controller manager does so, which does not run here."""
        self.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": None}})

    def delete_now(self, path: str) -> None:
        """Delete without waiting for a node to agree."""
        self.http.delete(path, params={"gracePeriodSeconds": "0"})


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A running API server with one fake node of 64 cores and 256 GiB, for all tests of a run."""
    folder = tmp_path_factory.mktemp("api")
    try:
        api = Api(cluster.api_up(folder, nodes=1))
        api.untaint("fake-0")
        yield api
        api.http.close()
    finally:
        cluster.api_down(folder)


@pytest.fixture(scope="session")
def definitions(api: Api) -> None:
    """The chart's resource definitions, served."""
    define_stacks(Kubectl(api.kubeconfig))


@pytest.fixture
def kubectl(api: Api, namespace: str, definitions: None) -> Kubectl:
    """kubectl in the test's namespace, with the CytomineStack known."""
    return Kubectl(api.kubeconfig, namespace)


_numbers = itertools.count(1)


@pytest.fixture
def namespace(api: Api) -> str:
    """A new namespace that takes only pods of the restricted Pod Security Standard."""
    name = f"test-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    return name
