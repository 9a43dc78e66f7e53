"""Programs that the development commands run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev import proc
from dev.cache import ROOT
from dev.console import Problem

PARENT = """
from dev import proc
proc.run(["sh", "-c", "echo $$; exec sleep 60"], "sleeping", log="test", timeout=90,
         each_line=lambda line: print(line, end="", flush=True))
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of these tests go to a folder of their own."""
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path))


def runs(pid: int) -> bool:
    """Whether a process is there and not only waiting to be counted out."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_command_leaves_no_program_behind_that_works_on() -> None:
    # an installation that goes on in secret would meet the next one half-way
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert runs(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    end = time.monotonic() + 10
    while runs(child):
        assert time.monotonic() < end, "the program goes on"
        time.sleep(0.05)


def test_a_program_that_takes_too_long_is_ended_and_said() -> None:
    with pytest.raises(Problem, match="waiting did not end within 1 s"):
        proc.run(["sleep", "60"], "waiting", log="test", timeout=1)


def test_a_failure_ends_with_the_programs_last_words() -> None:
    with pytest.raises(Problem, match="trying failed: no such luck"):
        proc.run(["sh", "-c", "echo no such luck; exit 3"], "trying", log="test", timeout=10)


def test_a_registry_that_does_not_answer_is_called_that() -> None:
    with pytest.raises(Problem, match="a package registry did not answer"):
        proc.run(["sh", "-c", "echo dial tcp: i/o timeout; exit 1"], "fetching", log="test", timeout=10)
