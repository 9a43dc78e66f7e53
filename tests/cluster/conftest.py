"""Tests on real pods wait for pods: on a slow machine each may take minutes, and several run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.console import Console
from dev.demo import install, mock
from tests.conftest import installed
from tests.support import podbooks
from tests.support.failing import provoke
from tests.support.lab import Lab
from tests.support.notebooks import paths
from tests.support.restarting import Restarted, restarting

HERE = Path(__file__).parent
# Files that share what their fixtures made follow each other; those from test_restarts.py on have a hub of their own, which
# is restarted. What the last two look at has happened meanwhile.
ORDER = (
    "test_dev_cluster.py",
    "test_datasets.py",
    "test_stack_login.py",
    "test_stack_security.py",
    "test_stack_tokens.py",
    "test_restarts.py",
    "test_datasets_cut.py",
    "test_stacks.py",
    "test_hub.py",
    "test_notebooks.py",
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
    """Begin early what mostly waits, or what others need not wait for: failing stacks, notebooks, restarts."""
    if not _mine(request.node) or request.path.name == ORDER[0]:
        return
    if _chosen(request.session, "test_stack_failures.py", "cause"):
        request.getfixturevalue("provoked")
    if request.path.name == "test_datasets.py":
        return  # it has its stack to itself, whose notebooks these are
    if _chosen(request.session, "test_notebooks.py", "path"):
        request.getfixturevalue("executed")
    if _uses(request.session, "restarted"):
        request.getfixturevalue("shaking")


def _uses(session: pytest.Session, fixture: str) -> bool:
    """Whether a test of this run needs a fixture."""
    return any(fixture in getattr(item, "fixturenames", ()) for item in session.items)


def _chosen(session: pytest.Session, file: str, parameter: str) -> list[Any]:
    """What this run has chosen of a file's tests, by their parameter."""
    mine = [item for item in session.items if item.path == HERE / file and isinstance(item, pytest.Function)]
    found = [item.callspec.params for item in mine if hasattr(item, "callspec")]
    return [params[parameter] for params in found if parameter in params]


@pytest.fixture(scope="session")
def provoked(
    request: pytest.FixtureRequest, target: install.Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """What comes of each cause of a failure that this run has chosen, one after the other."""
    folder = tmp_path_factory.mktemp("failures")
    causes = _chosen(request.session, "test_stack_failures.py", "cause")
    with ThreadPoolExecutor(1) as pool:
        yield {cause: pool.submit(provoke, target, folder, cause) for cause in causes}


@pytest.fixture(scope="session")
def executed(request: pytest.FixtureRequest, analyst: Lab) -> Iterator[dict[Path, Future[podbooks.Executed]]]:
    """What each notebook that this run has chosen says at its end; they run one after the other, as a reader's would."""
    chosen = [path for path in paths() if path in _chosen(request.session, "test_notebooks.py", "path")]
    with ThreadPoolExecutor(1) as pool:
        yield {path: pool.submit(podbooks.execute, analyst, path) for path in chosen}
        pool.shutdown(cancel_futures=True)


@dataclass
class Shaking:
    """A second hub, which is restarted and upgraded while other tests rely on the first one.

    Attributes:
        hub: when it answers.
        lab: somebody with a notebook there, and a stack that is not waited for.
        restarted: what was under way when hub and stack service were restarted; None if no test looks at it.
    """

    hub: Future[install.Installed]
    lab: Future[Lab]
    restarted: Future[Restarted] | None


@pytest.fixture(scope="session")
def shaking(
    request: pytest.FixtureRequest, target: install.Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shaking]:
    """The second hub is made, used and restarted while tests of the first one run."""
    with ExitStack() as ends, ThreadPoolExecutor(1) as pool:
        hub = pool.submit(installed, tmp_path_factory, target, install.SHAKEN)
        ends.callback(install.remove, Console(), target.kube, install.SHAKEN)
        # One thread: each begins when the one before has ended.
        lab = pool.submit(lambda: ends.enter_context(Lab.beside(hub.result(), "jonas", ready=False)))
        restarted = None
        if _uses(request.session, "restarted"):
            restarted = pool.submit(lambda: ends.enter_context(restarting(hub.result(), lab.result())))
        yield Shaking(hub, lab, restarted)


@pytest.fixture(scope="session")
def shaken(shaking: Shaking) -> install.Installed:
    """A second hub, which is restarted and upgraded while other tests rely on the first one."""
    return shaking.hub.result()


@pytest.fixture(scope="session")
def lab(shaking: Shaking) -> Lab:
    """Somebody with a notebook at the second hub, and a stack that is not waited for."""
    return shaking.lab.result()


@pytest.fixture(scope="session")
def restarted(shaking: Shaking) -> Restarted:
    """What was under way when hub and stack service were restarted."""
    assert shaking.restarted
    return shaking.restarted.result()


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
