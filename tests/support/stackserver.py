"""Fixtures of the stacks' tests: an API server with controllers and three nodes that run nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import cluster
from tests.support.apiserver import Kubectl

CRDS = Path(__file__).parents[2] / "helm/cytomine-hub/crds"


@pytest.fixture(scope="session")
def stack_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """An API server that knows the stacks' resource definition, for all tests of a run."""
    folder = tmp_path_factory.mktemp("stacks-api")
    try:
        kubectl = Kubectl(cluster.api_up(folder, nodes=3, controllers=True))
        kubectl("apply", "-f", str(CRDS))
        kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield kubectl
    finally:
        cluster.api_down(folder)


@pytest.fixture
def stack_kubectl(stack_server: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a new namespace that enforces restricted Pod Security."""
    name = f"stacks-{secrets.token_hex(4)}"
    stack_server("create", "namespace", name)
    stack_server("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Kubectl(stack_server.kubeconfig, name)
    stack_server("delete", "namespace", name, "--wait=false")
