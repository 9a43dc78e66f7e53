"""Fixtures of the rings that need a whole hub on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dev.console import Console
from dev.demo import install
from tests.support.looks import looking


@pytest.fixture(scope="session")
def target() -> Iterator[install.Target]:
    """A cluster that has this checkout's images: ours, or the one of KUBECONFIG."""
    port = int(os.environ.get("CYTOMINE_TEST_PORT", "8000"))
    foreign = os.environ.get("KUBECONFIG", "")
    from dev import cluster

    if foreign and foreign == str(cluster.kubeconfig()):
        foreign = ""  # set by ./test for child processes: still our own cluster
    found = install.prepare(Console(), port, foreign)
    with looking(found.kube) as kube:
        yield replace(found, kube=kube)


@pytest.fixture(scope="session")
def hub(target: install.Target) -> install.Installed:
    """A hub of the tests' own, in its own namespace, that answers."""
    return install.install(Console(), target, install.TEST)


@pytest.fixture(scope="session")
def slides(hub: install.Installed) -> Path:
    """The folder with the mock dataset, where the hub offers it."""
    if hub.target.dataset is None:
        pytest.skip("the mock dataset is not on the nodes of this cluster")
    return hub.target.dataset
