"""Tests on real pods wait for pods: on a slow machine each may take minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.demo import install, mock
from tests.support.lab import Lab

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time than others, and begin with those of the cluster itself.

    One of them cuts the cluster off, which is for a cluster without a hub: it never ran after others had made one.
    """
    items.sort(key=lambda item: item.path != HERE / "test_dev_cluster.py")
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="module")
def owner(hub: install.Installed) -> Iterator[Lab]:
    """Somebody with a notebook and a stack that is ready, for the tests of one file."""
    with Lab.beside(hub, "petra") as lab:
        yield lab


@pytest.fixture(scope="module")
def analyst(hub: install.Installed, slides: Path) -> Iterator[Lab]:
    """Somebody with a notebook and a stack in which the mock dataset is, for the tests of one file."""
    with Lab.beside(hub, "petra", datasets=[d["name"] for d in mock.OFFERED]) as lab:
        yield lab
