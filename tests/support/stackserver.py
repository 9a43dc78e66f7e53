"""Fixtures of the operator's tests: stack services on the run's API server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import Kubectl, new_namespace
from tests.support.cutter import Cutter
from tests.support.stackservice import Objects, Service, server_of


@pytest.fixture(scope="session")
def shared(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with usual settings for all tests that bring stacks of their own and disturb nobody else's."""
    with Objects(server, "").http as http:
        name = new_namespace(http, "shared")
    service = Service(tmp_path_factory.mktemp("shared"), server, name, forked=True)
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture
def service(kubectl: Kubectl, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services with given settings in the test's own namespace; all are ended."""
    running: list[Service] = []

    def start(through: Cutter | None = None, *, forked: bool = True, **settings: object) -> Service:
        folder = tmp_path / f"service-{len(running)}"
        way = through.url if through else ""
        place = (kubectl.kubeconfig, kubectl.namespace)
        running.append(Service(folder, *place, server=way, forked=forked, **settings))
        return running[-1].start()

    yield start
    for one in running:
        one.close()


@pytest.fixture
def cutter(server: Path) -> Iterator[Cutter]:
    """A way to the API server whose connections can be cut."""
    cutter = Cutter(server_of(server))
    yield cutter
    cutter.close()


@pytest.fixture
def owner() -> str:
    """A user whom no other test knows."""
    return f"user-{secrets.token_hex(4)}"
