"""A plugin of pytest: where the time of a run goes, by test, by phase and by fixture, computing apart from waiting."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Names the file to write. Where it is not set, nothing is measured.
WHERE = "CYTOMINE_TEST_TIMES"
# Set by ``./test --profile``: each fixture is measured, too, and each block exactly.
EXACTLY = "CYTOMINE_TEST_PROFILE"
# Seconds. To add up what all descendants compute takes milliseconds, some twenty times a test: whatever is over sooner
# has its own time alone, unless it is to be exact.
LONG = 0.1
_TICK = os.sysconf("SC_CLK_TCK")


def computed(pid: int | str = "self") -> float:
    """Seconds of processor time of a process and of all that it started, as long as they stay its descendants."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has just ended: its parent has its time now, or will have
        return 0.0
    children: list[str] = []
    for task in tasks:
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            children += (task / "children").read_text().split()
    return sum(map(int, fields[11:15])) / _TICK + sum(computed(child) for child in children)


def own() -> float:
    """Seconds of processor time of this process and of those of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


class Clock:
    """Measures one block: seconds that passed, seconds that this process and its descendants computed.

    Args:
        exact: whether to look at the descendants before a block, too, and however short it is. Otherwise what they computed
            in short blocks counts for the next long one.
    """

    _last = (0.0, 0.0)

    def __init__(self, exact: bool = False) -> None:
        self._exact = exact

    def __enter__(self) -> Clock:
        self.began, self._own = time.monotonic(), own()
        self._all = computed() if self._exact else 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.monotonic() - self.began
        now = own()
        self.cpu = now - self._own
        if self._exact:
            self.cpu = max(0.0, computed() - self._all)
        elif self.wall >= LONG:
            last_own, last_all = Clock._last
            whole = computed()
            self.cpu = max(self.cpu, whole - last_all - (self._own - last_own))
            Clock._last = (now, whole)


class Times:
    """What was measured in one process of pytest.

    Args:
        path: the JSON file that gets it at the end.
        exact: whether each block is measured exactly.
    """

    def __init__(self, path: Path, exact: bool = False) -> None:
        self.path, self.exact, self.began = path, exact, Clock(exact=True).__enter__()
        self.tests: dict[str, dict[str, list[float]]] = {}
        self.fixtures: dict[str, dict[str, Any]] = {}
        self.collected = 0.0

    @pytest.hookimpl
    def pytest_collection_finish(self) -> None:
        self.collected = time.monotonic() - self.began.began

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._phase(item, "setup"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._phase(item, "call"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._phase(item, "teardown"))

    def _phase(self, item: pytest.Item, phase: str) -> Iterator[None]:
        clock = Clock(self.exact)
        try:
            with clock:
                return (yield)
        finally:
            self.tests.setdefault(item.nodeid, {})[phase] = [clock.wall, clock.cpu]

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        self.began.__exit__()
        whole = {"wall": self.began.wall, "cpu": self.began.cpu, "collected": self.collected}
        self.path.write_text(json.dumps({**whole, "tests": self.tests, "fixtures": self.fixtures}))


class Exactly(Times):
    """The same, exactly, and by fixture.

    Args:
        path: the JSON file that gets it at the end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, exact=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
        # What a fixture asks for is set up before it: its own time has none of theirs.
        clock = Clock(exact=True)
        try:
            with clock:
                return (yield)
        finally:
            if clock.wall > 0.01:
                entry = self.fixtures.setdefault(
                    f"{fixturedef.baseid}::{fixturedef.argname}",
                    {"scope": str(fixturedef.scope), "times": 0, "wall": 0.0, "cpu": 0.0},
                )
                entry["times"] += 1
                entry["wall"] += clock.wall
                entry["cpu"] += clock.cpu


def pytest_configure(config: pytest.Config) -> None:
    """Measure, if the environment names a file for it; each worker of a run has one of its own."""
    if where := os.environ.get(WHERE):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        kind = Exactly if EXACTLY in os.environ else Times
        config.pluginmanager.register(kind(Path(f"{where}-{worker}.json" if worker else f"{where}.json")))
