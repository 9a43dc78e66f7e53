"""Fixtures of the stacks' tests: an API server with controllers and three nodes that run nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev import cluster
from tests.support.apiserver import Kubectl, define_stacks
from tests.support.cutter import Cutter
from tests.support.stackservice import Service, server_of


@pytest.fixture(scope="session")
def stack_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """An API server that knows the stacks' resource definition, for all tests of a run."""
    folder = tmp_path_factory.mktemp("stacks-api")
    try:
        kubectl = Kubectl(cluster.api_up(folder, nodes=3, controllers=True))
        define_stacks(kubectl)
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


@pytest.fixture(scope="session")
def shared(stack_server: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with usual settings for all tests that bring stacks of their own and disturb nobody else's."""
    name = f"shared-{secrets.token_hex(4)}"
    stack_server("create", "namespace", name)
    stack_server("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    service = Service(tmp_path_factory.mktemp("shared"), stack_server.kubeconfig, name)
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def service(stack_kubectl: Kubectl, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services with given settings in the test's own namespace; all are ended."""
    running: list[Service] = []

    def start(through: Cutter | None = None, **settings: object) -> Service:
        folder = tmp_path / f"service-{len(running)}"
        server = through.url if through else ""
        running.append(
            Service(folder, stack_kubectl.kubeconfig, stack_kubectl.namespace, server=server, **settings)
        )
        return running[-1].start()

    yield start
    for one in running:
        one.close()


@pytest.fixture
def cutter(stack_server: Kubectl) -> Iterator[Cutter]:
    """A way to the API server whose connections can be cut."""
    cutter = Cutter(server_of(stack_server.kubeconfig))
    yield cutter
    cutter.close()


@pytest.fixture
def owner() -> str:
    """A user whom no other test knows."""
    return f"user-{secrets.token_hex(4)}"
