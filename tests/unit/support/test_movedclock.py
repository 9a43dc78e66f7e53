"""The clock that tests of the service move."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

EARLY = """
import asyncio, os, signal, sys
from datetime import datetime, timezone
from pathlib import Path
from tests.support.movedclock import MovedClock

async def hours():
    return (clock.now() - datetime.now(timezone.utc)).total_seconds() / 3600

file = Path(sys.argv[1])
file.write_text("0")
clock = MovedClock(file)
file.write_text("7200")
os.kill(os.getpid(), signal.SIGUSR1)
print(round(asyncio.run(hours()), 2))
"""


def test_a_clock_that_is_moved_before_anybody_asked_for_the_time_tells_the_moved_time(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", EARLY, str(tmp_path / "clock")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "2.0\n", "")
