"""The runner of the rings: lanes beside each other, progress, environments that others still use."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dev import rings, venv
from dev.console import Console


def test_lanes_run_beside_each_other_and_a_failure_waits_for_the_others() -> None:
    meet, ended = threading.Barrier(2, timeout=10), threading.Event()

    def fails() -> None:
        meet.wait()
        raise ValueError("no pods")

    def works() -> None:
        meet.wait()
        ended.set()

    with pytest.raises(ValueError, match="no pods"):
        rings.side_by_side(threading.Event(), [fails, works])
    assert ended.is_set()


def test_whoever_interrupts_one_lane_interrupts_all() -> None:
    stopped = threading.Event()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rings.side_by_side(stopped, [interrupted, lambda: None])
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
    assert rings.progress(said) == progress


def test_a_run_without_a_test_is_told_and_a_ring_where_somebody_chose_among_them() -> None:
    count = rings.Count(ran={"unit": 3, "unit-jupyterhub-5": 0, "api": 0, "api-jupyterhub-5": 0})
    assert count.empty(chosen=False) == ["unit-jupyterhub-5", "api", "api-jupyterhub-5"]
    assert count.empty(chosen=True) == ["api"]


def test_each_test_runs_with_each_hub_that_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def no_test(command: list[str], *_: object) -> int:
        commands.append((command[0], command[command.index("-m", 3) + 1]))
        return rings.NONE_CHOSEN

    monkeypatch.setattr(rings, "_pytest", no_test)
    environments = {"new": Path("new/python"), "old": Path("old/python")}
    for extra, code in (([], rings.NONE_CHOSEN), (["-k", "chosen"], 0)):
        ran = rings.Ran(Console(), environments, extra, alone=True)
        ran.ring_with_each_hub("unit", {})
        assert ran.codes == {"unit": code, "unit-new": code, "unit-old": code}
    assert sorted(commands[:3]) == [
        ("new/python", "hub_independent"),
        ("new/python", "not hub_independent"),
        ("old/python", "not hub_independent"),
    ]


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
