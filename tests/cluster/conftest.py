"""Tests on real pods wait for pods: on a slow machine each may take minutes, and several run side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dev.console import Console
from dev.demo import install, mock
from tests.conftest import installed
from tests.support.lab import Lab
from tests.support.restarting import Restarted, restarting
from tests.support.together import base

HERE = Path(__file__).parent
# With `-n 5` each lane is a process. Tests of one lane follow each other, and share what their
# fixtures made; tests of two lanes never touch the same hub's people, and none restarts a hub that another lane uses.
LANES = {
    "cluster": ("test_dev_cluster.py",),
    "analyst": ("test_datasets.py", "test_notebooks.py"),
    "people": ("test_stack_login.py", "test_stack_security.py", "test_stack_tokens.py"),
    "shaken": ("test_restarts.py", "test_datasets_cut.py", "test_stacks.py", "test_hub.py"),
    "failures": ("test_stack_failures.py",),
}
_LANE = {file: lane for lane, files in LANES.items() for file in files}
# It computes, and needs no cluster: it runs where otherwise one would wait for it.
_LANE["test_the_parts_written_in_go_pass_their_own_tests"] = "failures"
# What is about the cluster as a whole: it runs before there is a hub, and nothing runs beside it.
ALONE = (
    "test_pods_and_volumes_survive_a_cluster_that_was_cut_off",
    "test_a_running_cluster_is_found_at_once",
)
_WHOLE = "cluster-is-whole"


def _mine(item: pytest.Item) -> bool:
    return item.path.parent == HERE


def _alone(items: list[pytest.Item]) -> list[str]:
    return [item.name for item in items if _mine(item) and item.name in ALONE]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time than others, a lane, and the order of the lanes."""
    order = [file for files in LANES.values() for file in files]

    def turn(item: pytest.Item) -> tuple[bool, int, int]:
        alone = ALONE.index(item.name) if _mine(item) and item.name in ALONE else len(ALONE)
        file = item.path.name
        return not _mine(item), alone, order.index(file) if file in order else len(order)

    items.sort(key=turn)
    for item in items:
        if not _mine(item):
            continue
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1500))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With processes, each takes a lane after the other, and all of it."""
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.rpartition("/")[2].partition("::")
            return _LANE.get(test) or _LANE.get(file, file)

    config.option.loadscopereorder = False
    return Lanes(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let those who use the cluster wait until nobody cuts it off any more, in whichever process that is."""
    alone = _alone(item.session.items)
    if (
        not _mine(item)
        or not alone
        or item.name in ALONE
        or not {"target", "programs"} & set(item.fixturenames)
    ):
        return
    whole = base(item.config._tmp_path_factory) / _WHOLE
    end = time.monotonic() + 300
    while not whole.exists():
        if time.monotonic() > end:
            pytest.fail(f"waited 300 s in vain for the end of {', '.join(alone)}", pytrace=False)
        time.sleep(0.1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Say that the cluster is whole, after the last test that has it alone."""
    if _mine(item) and _alone(item.session.items)[-1:] == [item.name]:
        (base(item.config._tmp_path_factory) / _WHOLE).touch()


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
