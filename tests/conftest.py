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
from tests.support.once import once


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[install.Target]:
    """A cluster that has this checkout's images: ours, or the one of KUBECONFIG."""
    port = int(os.environ.get("CYTOMINE_TEST_PORT", "8000"))
    foreign = os.environ.get("KUBECONFIG", "")
    from dev import cluster

    if foreign and foreign == str(cluster.kubeconfig()):
        foreign = ""  # set by ./test for child processes: still our own cluster
    found = once(tmp_path_factory, "target", lambda: install.prepare(Console(), port, foreign))
    with looking(found.kube) as kube:
        yield replace(found, kube=kube)


def installed(
    factory: pytest.TempPathFactory, target: install.Target, place: install.Place
) -> install.Installed:
    """A hub that answers, installed once a run."""

    def make() -> None:
        install.install(Console(), target, place)

    once(factory, place.namespace, make)
    return install.Installed(place.url(target.port), place.issuer(target.port), place, target)


@pytest.fixture(scope="session")
def hub(target: install.Target, tmp_path_factory: pytest.TempPathFactory) -> install.Installed:
    """A hub of the tests' own, in its own namespace, that answers: all tests use it, none disturbs it."""
    return installed(tmp_path_factory, target, install.TEST)


@pytest.fixture(scope="session")
def slides(target: install.Target) -> Path:
    """The folder with the mock dataset, where the hub offers it."""
    if target.dataset is None:
        pytest.skip("the mock dataset is not on the nodes of this cluster")
    return target.dataset
