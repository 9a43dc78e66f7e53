"""One real API server for a whole run, with nodes that KWOK plays, and a namespace for each test."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dev import cluster
from dev.rings.groups import HUB_CONTRACT
from tests.support.apiserver import Kubectl, new_namespace, start_with_stacks
from tests.support.stackservice import Objects
from tests.support.together import base, together

# Spawners as a hub makes them: what may differ between two versions of JupyterHub, and runs with each. All else of this
# ring never meets JupyterHub, or only a module of it, and runs once.
CONTRACT = Path(__file__).parent / HUB_CONTRACT


def is_hub_contract(path: Path) -> bool:
    """Whether a file's tests run with every version of JupyterHub."""
    return path.is_relative_to(CONTRACT)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what is not wanted."""
    if config.option.markexpr != "hub_contract" or collection_path.is_dir():
        return None
    return None if is_hub_contract(collection_path) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        if is_hub_contract(item.path):
            item.add_marker(pytest.mark.hub_contract)


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

    def delete_now(self, path: str) -> None:
        """Delete without waiting for a node to agree."""
        self.http.delete(path, params={"gracePeriodSeconds": "0"})


def service_account(api: Api, namespace: str, name: str) -> str:
    """Make an account without any right; a token of it."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.create(path, {"metadata": {"name": name}})
    token: str = api.create(f"{path}/{name}/token", {"spec": {}})["status"]["token"]
    return token


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a running API server with controllers, three fake nodes and the stacks' resource definition.

    All tests of a run use it, those of pytest-xdist's other workers too: what has no namespace must have a name of its own.
    """
    with together(base(tmp_path_factory) / "api-server", start_with_stacks, cluster.api_down) as folder:
        yield folder / "kubeconfig"


@pytest.fixture(scope="session")
def api(server: Path) -> Iterator[Api]:
    """The run's API server."""
    api = Api(server)
    yield api
    api.http.close()


@pytest.fixture
def kubectl(server: Path, namespace: str) -> Kubectl:
    """kubectl in the test's namespace."""
    return Kubectl(server, namespace)


@pytest.fixture
def objects(server: Path, namespace: str) -> Iterator[Objects]:
    """The objects of the test's namespace."""
    found = Objects(server, namespace)
    yield found
    found.http.close()


@pytest.fixture
def namespace(api: Api) -> str:
    """A new namespace that takes only pods of the restricted Pod Security Standard."""
    return new_namespace(api.http, "test")
