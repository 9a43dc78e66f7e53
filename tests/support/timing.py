"""A plugin of pytest: where the time of a run goes, by test, by phase and by fixture, computing apart from waiting."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Names the file to write. Where it is not set, nothing is measured.
WHERE = "CYTOMINE_TEST_TIMES"
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


class Clock:
    """Measures one block: seconds that passed, seconds that this process and its descendants computed."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.monotonic(), computed()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.monotonic() - self._wall
        self.cpu = max(0.0, computed() - self._cpu)


class Times:
    """What was measured in one process of pytest.

    Args:
        path: the JSON file that gets it at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.began = path, Clock().__enter__()
        self.tests: dict[str, dict[str, list[float]]] = {}
        self.fixtures: dict[str, dict[str, Any]] = {}
        self.collected = 0.0

    @pytest.hookimpl
    def pytest_collection_finish(self) -> None:
        self.collected = time.monotonic() - self.began._wall

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
        clock = Clock()
        try:
            with clock:
                return (yield)
        finally:
            self.tests.setdefault(item.nodeid, {})[phase] = [clock.wall, clock.cpu]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
        # What a fixture asks for is set up before it: its own time has none of theirs.
        clock = Clock()
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

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        self.began.__exit__()
        whole = {"wall": self.began.wall, "cpu": self.began.cpu, "collected": self.collected}
        self.path.write_text(json.dumps({**whole, "tests": self.tests, "fixtures": self.fixtures}))


def pytest_configure(config: pytest.Config) -> None:
    """Measure, if the environment names a file for it; each worker of a run has one of its own."""
    if where := os.environ.get(WHERE):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        config.pluginmanager.register(Times(Path(f"{where}-{worker}.json" if worker else f"{where}.json")))
