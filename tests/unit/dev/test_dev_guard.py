"""Whatever ends ./test, its guardian ends what the run has started and clears up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import cache
from dev.cluster import cleanup
from dev.rings import guard
from dev.wait import until

# In front: what ./test is, with another runner.
FRONT = """
import sys
import tempfile
from pathlib import Path
from dev.rings import guard
sys.exit(guard.main(sys.argv[2:], Path(sys.argv[1])))
"""
# The runner leaves a server that has cut itself off, as a daemon does, and one that hears no SIGTERM.
RUNNER = """
import os, signal, subprocess, sys, time
from pathlib import Path
from dev.rings import guard
folder, end = Path(sys.argv[1]), sys.argv[2]
forever = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    deaf = subprocess.Popen([sys.executable, "-c", forever], stdout=subprocess.PIPE)
    deaf.stdout.readline()
    (folder / "servers.new").write_text(f"{os.getpid()} {deaf.pid}")
    (folder / "servers.new").rename(folder / "servers")
    time.sleep(600)
while not (folder / "servers").exists():
    time.sleep(0.01)
(folder / "runner").write_text(str(os.getpid()))
if end == "by itself":
    sys.exit(7)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("two failed until now", flush=True)
    sys.exit(guard.INTERRUPTED)
"""


class Started:
    """A command with its guardian; its runner has servers."""

    def __init__(self, folder: Path, end: str) -> None:
        self.folder = folder
        (folder / "front.py").write_text(FRONT)
        (folder / "runner.py").write_text(RUNNER)
        self.process = subprocess.Popen(
            [sys.executable, folder / "front.py", folder / "runner.py", folder, end],
            env={**os.environ, "PYTHONPATH": str(guard.ROOT), "CYTOMINE_SPAWNER_CACHE": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )
        until((folder / "runner").exists, "the runner to run", 30, cure="Read its output")

    def pids(self) -> list[int]:
        texts = [(self.folder / name).read_text() for name in ("servers", "runner")]
        return [int(pid) for text in texts for pid in text.split()]

    def gone(self) -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in self.pids())


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path, "when told")
    yield started
    started.process.kill()
    started.process.communicate(timeout=10)
    until(started.gone, "nothing to be left", 30, cure="Read its output")


def test_a_command_that_is_killed_outright_leaves_no_process(cut: Started) -> None:
    assert not cut.gone()
    cut.process.kill()
    until(cut.gone, "nothing to be left", 30, cure="Read its output")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_interrupted_says_what_failed_and_leaves_no_process(cut: Started, sig: signal.Signals) -> None:
    cut.process.send_signal(sig)
    said, _ = cut.process.communicate(timeout=30)
    assert said == "two failed until now\n"
    assert cut.process.returncode == guard.INTERRUPTED
    assert cut.gone()


def test_a_command_ends_with_its_runners_code_and_without_what_the_runner_left(tmp_path: Path) -> None:
    started = Started(tmp_path, "by itself")
    started.process.communicate(timeout=30)
    assert started.process.returncode == 7
    assert started.gone()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for a cache, whose path is as short as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        yield Path(folder)


def test_what_a_killed_build_left_mounted_goes_unless_another_command_builds(
    monkeypatch: pytest.MonkeyPatch, short: Path
) -> None:
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(short))
    monkeypatch.setattr(cleanup, "mounts", lambda _: [str(short / "buildah" / "merged")])
    gone: list[str] = []
    monkeypatch.setattr(guard.subprocess, "run", lambda command, **_: gone.append(command[-1]))
    with cache.lock("buildah"):
        guard.clear_up({})
        assert gone == []
    guard.clear_up({})
    assert gone == [str(short / "buildah" / "merged")]
