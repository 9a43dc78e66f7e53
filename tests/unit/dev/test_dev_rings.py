"""The runner of the rings: lanes beside each other, progress, environments that others still use."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev import cluster, venv
from dev.cache import ROOT
from dev.console import Console
from dev.demo import install
from dev.kube import Kube
from dev.rings import cli, environments, groups, guard, runs
from dev.rings.times import Times


def test_lanes_run_beside_each_other_and_a_failure_waits_for_the_others() -> None:
    meet, ended = threading.Barrier(2, timeout=10), threading.Event()

    def fails() -> None:
        meet.wait()
        raise ValueError("no pods")

    def works() -> None:
        meet.wait()
        ended.set()

    with pytest.raises(ValueError, match="no pods"):
        cli.side_by_side(threading.Event(), [fails, works])
    assert ended.is_set()


def test_whoever_interrupts_one_lane_interrupts_all() -> None:
    stopped = threading.Event()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cli.side_by_side(stopped, [interrupted, lambda: None])
    assert stopped.is_set()


@pytest.mark.parametrize(
    ("said", "progress"),
    [
        ("", "0 tests"),
        ("..s", "3 tests"),
        ("...... [ 50%]\n..F", "9 tests, 1 failed"),
        ("..E [100%]\n\n=== ERRORS ===\nE   no\n1 error in 2 s\n", "3 tests, 1 failed"),
    ],
)
def test_progress_counts_tests_and_failures_and_nothing_else(said: str, progress: str) -> None:
    assert runs.progress(said) == progress


def test_a_run_without_a_test_is_told_and_a_ring_where_somebody_chose_among_them() -> None:
    count = runs.Count(ran={"unit": 3, "unit-jupyterhub-5": 0, "api": 0, "api-jupyterhub-5": 0})
    assert count.empty(chosen=False) == ["unit-jupyterhub-5", "api", "api-jupyterhub-5"]
    assert count.empty(chosen=True) == ["api"]


def test_all_of_a_ring_runs_with_the_newest_hub_and_its_contract_with_the_oldest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: dict[str, list[str]] = {}

    def no_test(command: list[str], run: runs.Run, *_: object) -> int:
        commands[run.name] = command
        return runs.NONE_CHOSEN

    monkeypatch.setattr(runs, "_pytest", no_test)
    pythons = {name: Path(name) for name in environments.HUBS}
    for extra, code in (([], runs.NONE_CHOSEN), (["-k", "chosen"], 0)):
        ran = runs.Ran(Console(), pythons, Times(tmp_path), extra, alone=True)
        ran.quietly(runs.with_each_hub("api", ["tests/api"], 2, yielding=False), {})
        assert ran.codes == {"api": code, "api-jupyterhub-5": code}
    whole, contract = commands["api"], commands["api-jupyterhub-5"]
    assert (whole[0], contract[0]) == ("jupyterhub-6", "jupyterhub-5")
    assert "hub_contract" not in whole
    assert contract[contract.index("-m", 3) + 1] == "hub_contract"
    assert "--numprocesses=2" in whole


def test_each_file_of_the_unit_ring_runs_in_one_group_and_its_contract_with_the_oldest_hub() -> None:
    run = runs.in_groups("unit", ["tests/unit"], yielding=True)
    newest = [file for one in run if one.hub == environments.NEWEST for file in one.tests]
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/unit").rglob("test_*.py")}
    assert len(newest) == len(set(newest))
    assert set(newest) == there
    assert set(groups.ORDER) == set(groups.PATTERNS)
    (oldest,) = (one for one in run if one.hub == environments.OLDEST)
    assert oldest.tests, "a folder that is not there"
    assert {Path(file).parent.name for file in oldest.tests} == {groups.HUB_CONTRACT}
    assert oldest.more == ("-m", "hub_contract")
    some = runs.in_groups(
        "unit", ["tests/unit/blueprint/test_render.py", "tests/unit/notebook/test_plain.py"], True
    )
    assert [(one.name, len(one.tests)) for one in some] == [("unit-service", 1), ("unit-notebook", 1)]


def test_as_many_groups_run_at_a_time_as_there_are_lanes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy, most, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(2, timeout=10)

    def runs_tests(*_: object) -> int:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        meet.wait()
        with lock:
            busy -= 1
        meet.wait()
        return 0

    monkeypatch.setattr(runs, "_pytest", runs_tests)
    ran = runs.Ran(
        Console(), dict.fromkeys(environments.HUBS, Path("python")), Times(tmp_path), [], alone=True
    )
    four = [runs.Run(f"unit-{n}", environments.NEWEST, ("x",)) for n in range(4)]
    ran.quietly(four, {}, lanes=2)
    assert ran.codes == dict.fromkeys((run.name for run in four), 0)
    assert most == 2


def test_a_ring_that_yields_has_a_tenth_of_the_weight_of_those_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nnice >>{told}\n")
    python.chmod(0o755)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path / "home"))
    for yielding in (False, True):
        ran = runs.Ran(Console(), dict.fromkeys(environments.HUBS, python), Times(tmp_path), [], alone=True)
        ran.quietly(runs.with_each_hub("unit", ["tests/unit"], 0, yielding)[:1], {})
    usual, yielded = map(int, told.read_text().split())
    assert yielded == min(usual + 10, 19)


def test_where_the_time_went_is_said_by_ring_by_test_and_as_a_whole_by_file_and_fixture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = Times(tmp_path)
    with times.phase("unit"):
        for number, worker in enumerate(("gw0", "gw1")):
            test = f"tests/unit/test_{worker}.py::test_waits"
            measured = {
                "wall": 9.0,
                "cpu": 1.0,
                "collected": 3.0,
                "tests": {test: {"setup": [1.0, 0.5], "call": [2.0 + number, 0.25], "teardown": [0.0, 0.0]}},
                "fixtures": {"tests/unit::server": {"scope": "module", "times": 1, "wall": 0.75, "cpu": 0.5}},
            }
            (tmp_path / f"unit-{worker}.json").write_text(json.dumps(measured))
    times.say(Console(), whole=False)
    short = capsys.readouterr().out
    assert re.search(r"^  unit +0\.\d s", short, re.MULTILINE)
    assert short.index("4.0 s     0.8 s  tests/unit/test_gw1.py::test_waits") < short.index("test_gw0.py")
    assert "Fixtures" not in short
    times.say(Console(), whole=True)
    said = capsys.readouterr().out
    assert re.search(r"1\.5 s +1\.0 s +2  tests/unit::server \(module\)", said)
    assert re.search(r"4\.0 s +0\.8 s +1\.0 s +1  tests/unit/test_gw1\.py", said)


def test_a_new_environment_leaves_the_newest_of_the_former_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path))
    for number, name in enumerate(("hub-6-old", "hub-6-new", "hub-6-cut", "hub-5-old")):
        folder = tmp_path / "venv" / name
        folder.mkdir(parents=True)
        if name != "hub-6-cut":
            (folder / "complete").touch()
            os.utime(folder / "complete", (number, number))
    venv._remove_old("hub-6")
    assert {path.name for path in (tmp_path / "venv").iterdir()} == {"hub-6-new", "hub-5-old"}


class Whole:
    """A run of a ring without pods and one with, on two processors, in which nothing is real.

    Attributes:
        computing: the ring without pods has begun.
        removed: what the ring with pods has left is removed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.computing, self.removed = threading.Event(), threading.Event()
        self.build: Callable[[Console], Any] = lambda _: ({}, folder)
        self.unit: Callable[[], None] = lambda: None
        self.notes: dict[str, Any] = {}
        monkeypatch.setattr(cli, "REPORTS", folder / "reports")
        monkeypatch.setattr(runs, "REPORTS", folder / "reports")
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setattr(
            environments, "pythons", lambda *_: dict.fromkeys(environments.HUBS, Path("python"))
        )
        monkeypatch.setattr(environments, "programs", lambda *_: {})
        monkeypatch.setattr(cluster, "healthy", lambda: False)
        monkeypatch.setattr(install, "build", lambda console: self.build(console))
        monkeypatch.setattr(install, "prepare", self._prepare)
        monkeypatch.setattr(guard, "note", lambda **what: self.notes.update(what))
        monkeypatch.setattr(guard, "noted", lambda: dict(self.notes))
        monkeypatch.setattr(guard, "remove", self._remove)
        monkeypatch.setattr(runs, "_pytest", self._pytest)
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(folder / "cache"))

    def run(self) -> dict[str, Any]:
        """Run both rings; what is still to be removed afterwards."""
        wanted = cli.Wanted({"unit": ["tests/unit/blueprint/test_render.py"], "cluster": ["tests/cluster"]})
        cli.run(Console(), wanted, cli._arguments([]), [])
        return self.notes

    def _prepare(self, console: Console, port: int, foreign: str, built: Any = None) -> install.Target:
        if built:
            built.result()
        return install.Target(Kube(Path("kubeconfig")), port, {}, "nginx")

    def _remove(self, known: dict[str, Any]) -> None:
        assert known == {"kubeconfig": "", "namespaces": True, "cluster": True}
        self.removed.set()

    def _pytest(self, command: list[str], run: runs.Run, *_: object) -> int:
        if run.ring == "unit":
            self.computing.set()
            self.unit()
        return 0


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Whole:
    return Whole(monkeypatch, tmp_path)


def test_only_rings_with_pods_wait_for_images(whole: Whole) -> None:
    waited: list[bool] = []

    def build(_: Console) -> Any:
        waited.append(whole.computing.wait(10))
        return {}, Path()

    whole.build = build
    whole.run()
    assert waited == [True]


def test_what_pods_leave_is_removed_while_the_other_rings_compute_and_once(whole: Whole) -> None:
    waited: list[bool] = []
    whole.unit = lambda: waited.append(whole.removed.wait(10))
    assert whole.run() == {"kubeconfig": "", "namespaces": False, "cluster": False}
    assert waited == [True]
