"""The plugin that measures where the time of a run goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.timing import EXACTLY, WHERE

ROOT = Path(__file__).parents[3]
MEASURED = """
import subprocess, sys, time

import pytest

COMPUTES = "import time\\nwhile time.process_time() < 0.4: pass\\nprint(flush=True)\\ntime.sleep(60)"

@pytest.fixture
def helper():
    time.sleep(0.05)  # shorter ones are not told
    child = subprocess.Popen([sys.executable, "-c", COMPUTES], stdout=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()

def test_its_program_computes(helper):
    assert helper.stdout.readline()

def test_waits():
    time.sleep(0.3)
"""


@pytest.mark.parametrize("exactly", [False, True])
def test_what_a_program_computes_that_still_runs_counts_for_its_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exactly: bool
) -> None:
    (tmp_path / "test_measured.py").write_text(MEASURED)
    monkeypatch.setenv(WHERE, str(tmp_path / "unit"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv(EXACTLY, raising=False)
    if exactly:
        monkeypatch.setenv(EXACTLY, "1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.timing", "-c", "/dev/null"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    told = json.loads((tmp_path / "unit.json").read_text())
    ((computes, first), (waits, second)) = told["tests"].items()
    assert computes.endswith("::test_its_program_computes")
    assert first["call"][1] > 0.3
    assert waits.endswith("::test_waits")
    assert second["call"][0] >= 0.3
    assert sum(phase[1] for phase in second.values()) < 0.25
    assert bool(told["fixtures"]) == exactly
