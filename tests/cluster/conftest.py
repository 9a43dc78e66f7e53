"""Tests on real pods wait for pods: on a slow machine each may take minutes, and several run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from dev.console import Console
from dev.demo import install, mock
from tests.conftest import installed
from tests.support.failing import provoke
from tests.support.lab import Lab
from tests.support.restarting import Restarted, restarting

HERE = Path(__file__).parent
# Files that share what their fixtures made follow each other; the last but one have a hub of their own, which they restart.
# What the last one looks at has happened meanwhile.
ORDER = (
    "test_dev_cluster.py",
    "test_datasets.py",
    "test_notebooks.py",
    "test_stack_login.py",
    "test_stack_security.py",
    "test_stack_tokens.py",
    "test_restarts.py",
    "test_datasets_cut.py",
    "test_stacks.py",
    "test_hub.py",
    "test_stack_failures.py",
)
# What is about the cluster as a whole: it runs before there is a hub.
ALONE = (
    "test_pods_and_volumes_survive_a_cluster_that_was_cut_off",
    "test_a_running_cluster_is_found_at_once",
)


def _mine(item: pytest.Item) -> bool:
    return item.path.parent == HERE


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time than others, and their order."""

    def turn(item: pytest.Item) -> tuple[bool, int, int]:
        alone = ALONE.index(item.name) if _mine(item) and item.name in ALONE else len(ALONE)
        file = item.path.name
        return not _mine(item), alone, ORDER.index(file) if file in ORDER else len(ORDER)

    items.sort(key=turn)
    for item in items:
        if not _mine(item):
            continue
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(autouse=True)
def _meanwhile(request: pytest.FixtureRequest) -> None:
    """Have stacks begin to fail as soon as the cluster itself was tried: they mostly wait, and other tests do not."""
    if _mine(request.node) and request.path.name != ORDER[0] and _causes(request.session):
        request.getfixturevalue("provoked")


def _causes(session: pytest.Session) -> list[str]:
    """The causes of failures that this run has chosen."""
    mine = [item for item in session.items if item.path == HERE / ORDER[-1]]
    return [item.callspec.params["cause"] for item in mine if isinstance(item, pytest.Function)]


@pytest.fixture(scope="session")
def provoked(
    request: pytest.FixtureRequest, target: install.Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """What comes of each cause of a failure that this run has chosen, one after the other."""
    folder = tmp_path_factory.mktemp("failures")
    with ThreadPoolExecutor(1) as pool:
        yield {cause: pool.submit(provoke, target, folder, cause) for cause in _causes(request.session)}


@pytest.fixture(scope="session")
def shaken(target: install.Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[install.Installed]:
    """A second hub, which is restarted and upgraded while other tests rely on the first one."""
    yield installed(tmp_path_factory, target, install.SHAKEN)
    install.remove(Console(), target.kube, install.SHAKEN)


@pytest.fixture(scope="session")
def lab(shaken: install.Installed) -> Iterator[Lab]:
    """Somebody with a notebook, and a stack that is not waited for."""
    with Lab.beside(shaken, "jonas", ready=False) as lab:
        yield lab


@pytest.fixture(scope="session")
def restarted(shaken: install.Installed, lab: Lab) -> Iterator[Restarted]:
    """What was under way when hub and stack service were restarted."""
    with restarting(shaken, lab) as found:
        yield found


@pytest.fixture(scope="session")
def neighbours(hub: install.Installed) -> Iterator[tuple[Lab, Lab]]:
    """Two people, each with a notebook and a stack that is ready."""
    with ExitStack() as ends:
        owner, other = (ends.enter_context(Lab.beside(hub, key, ready=False)) for key in ("karin", "ivan"))
        for lab in (owner, other):
            lab.wait_ready()
        yield owner, other


@pytest.fixture(scope="session")
def owner(neighbours: tuple[Lab, Lab]) -> Lab:
    """Somebody with a notebook and a stack that is ready."""
    return neighbours[0]


@pytest.fixture(scope="session")
def analyst(hub: install.Installed, slides: Path) -> Iterator[Lab]:
    """Somebody with a notebook and a stack in which the mock dataset is."""
    with Lab.beside(hub, "petra", datasets=[d["name"] for d in mock.OFFERED]) as lab:
        yield lab
