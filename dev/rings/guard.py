"""Whatever ends ``./test``, nothing of it stays: a guardian process outlives it and clears up.

``./test`` is three processes: the one that was called, which holds a pipe; the guardian, in a session of its own, which
reads it; and the runner, which works. The pipe says when the first one is interrupted or gone, by whatever signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# In the runner's environment: the file in which it notes what is to be cleared up.
NOTES = "CYTOMINE_TEST_NOTES"
INTERRUPTED = 130
# Seconds: how long the runner may go on after an interrupt, to say what failed until then, and what stays after that.
PATIENCE, LAST = 5.0, 2.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(argv: list[str], runner: Path = ROOT / "test") -> int:
    """What ``./test`` does where it was not started by the guardian: start the guardian and wait for it.

    Args:
        argv: the command's arguments.
        runner: the program that the guardian starts, which is this command itself.
    """
    ours, theirs = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-B", "-m", "dev.rings.guard", str(ours), str(runner), *argv]
    guardian = subprocess.Popen(command, env=environment, pass_fds=[ours], start_new_session=True)
    os.close(ours)

    def interrupt(*_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(theirs, b"i")

    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, interrupt)
    return guardian.wait()


def note(**what: Any) -> None:
    """Say in the runner what is to be cleared up if it ends now.

    Args:
        what: ``kubeconfig``: of somebody's own cluster, or empty for the local one; ``namespaces``: whether tests may
            have made some; ``cluster``: whether this run started the local cluster.
    """
    path = Path(os.environ[NOTES])
    # Whole or not at all: the guardian may read it at any moment.
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({**noted(), **what}))
    draft.replace(path)


def noted() -> dict[str, Any]:
    """What :func:`note` was told so far in this run."""
    found: dict[str, Any] = json.loads(Path(os.environ[NOTES]).read_text())
    return found


def descendants(pid: int) -> list[int]:
    """The processes that descend from one, those that were left by their parents included if it adopts them."""
    found: list[int] = []
    tasks: list[Path] = []
    with contextlib.suppress(OSError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    for task in tasks:
        with contextlib.suppress(OSError):  # a thread or process may end meanwhile
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


class Guardian:
    """Starts the runner, ends what it leaves, and clears up.

    Args:
        pipe: descriptor that the process in front writes to.
        command: the runner, a Python program, and its arguments.
    """

    def __init__(self, pipe: int, command: list[str]) -> None:
        self.pipe, self.command = pipe, command
        self.code: int | None = None

    def run(self) -> int:
        """Watch over the runner until it ends, or until its time is up; the code to end with."""
        libc = ctypes.CDLL(None)
        # Whoever loses their parent in this tree becomes our child, so that nobody is lost sight of.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        with tempfile.TemporaryDirectory(prefix="test-notes-") as folder:
            notes = Path(folder) / "notes.json"
            notes.write_text("{}")

            def prepare() -> None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # which we ignore

            self.runner = subprocess.Popen(
                [sys.executable, *self.command],
                env={**os.environ, NOTES: str(notes)},
                preexec_fn=prepare,
            )
            self._watch()
            self._end()
            known = json.loads(notes.read_text())
        done = self.code if self.code is not None else INTERRUPTED
        try:
            clear_up(known)
        except Exception as error:  # the last one who could say it
            traceback.print_exc()
            print(f"Not all could be cleared up: {error}", file=sys.stderr)
            return done or 1
        return done

    def _reap(self) -> None:
        """Take the ended children's codes: ours, and those of processes that we adopted."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.runner.pid:
                    self.code = os.waitstatus_to_exitcode(found[1])

    def _watch(self) -> None:
        deadline: float | None = None
        while self.code is None and (deadline is None or time.monotonic() < deadline):
            if select.select([self.pipe], [], [], 0.1)[0]:
                said = os.read(self.pipe, 16)
                if not said:
                    return  # nobody waits for us any more
                if deadline is None:
                    deadline = time.monotonic() + PATIENCE
                    self.runner.send_signal(signal.SIGINT)
            self._reap()

    def _end(self) -> None:
        spared = local_cluster()

        def left() -> list[int]:
            self._reap()
            return [p for p in descendants(os.getpid()) if p not in spared()]

        for sig in (signal.SIGTERM, signal.SIGKILL):
            for pid in left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
            end = time.monotonic() + LAST
            while left() and time.monotonic() < end:
                time.sleep(0.05)


def local_cluster() -> Callable[[], set[int]]:
    """Tells which processes are the local cluster's, which a run may find and leave running."""
    from dev.cluster import cleanup
    from dev.cluster.layout import RUNTIME
    from dev.cluster.parts import Parts

    def processes() -> set[int]:
        parts = Parts(RUNTIME / "parts", RUNTIME)
        found = {part.pid for name in parts.names() if (part := parts.get(name)) and part.alive()}
        return found | cleanup.shims() | cleanup.pod_processes()

    return processes


def clear_up(known: dict[str, Any]) -> None:
    """Remove what a run has made and not removed itself, once nothing of it runs any more.

    Args:
        known: as :func:`note` was told.
    """
    from dev import cache
    from dev.cluster import cleanup, layout

    remove(known)
    # A build that is killed leaves mounts; those of the cluster's state are the cluster's, and where another command builds,
    # its own are among them.
    with cache.lock("buildah", wait=False) as alone:
        for point in cleanup.mounts(cache.home()) if alone else []:
            if Path(point).is_relative_to(layout.state()):
                continue
            subprocess.run(["umount", "-l", point], capture_output=True, timeout=30, check=False)


def remove(known: dict[str, Any]) -> None:
    """Remove what a run has on a cluster, and the cluster if it has started it; what else runs is not disturbed.

    Args:
        known: as :func:`note` was told.
    """
    from dev import cluster
    from dev.console import Console
    from dev.demo import install
    from dev.kube import Kube

    console = Console(sys.stderr)
    try:
        if known.get("namespaces"):
            if foreign := known.get("kubeconfig"):
                install.remove_tests(console, Kube(Path(foreign)))
            elif cluster.healthy():
                install.remove_tests(console, install.local_kube())
    finally:
        if known.get("cluster"):
            cluster.down(console)


if __name__ == "__main__":
    # Who is in front passes on what is typed; a hang-up of the terminal is not for us.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(Guardian(int(sys.argv[1]), sys.argv[2:]).run())
