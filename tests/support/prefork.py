"""Processes of the stack service that are there at once: forked from one that has imported it already.

To import what the service consists of takes five seconds of a processor; to fork, none. What runs is the same command
in a process of its own: it has its own environment, folder, log and signals, and can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODULE = "cytomine_spawner.stacks.app"


def _run(arguments: Sequence[str], env: dict[str, str], folder: str, log: str, clock: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(out, number)
    os.close(out)
    # Whoever imported it before has read the environment of that moment.
    from kubernetes_asyncio.config import kube_config

    from cytomine_spawner.stacks import app

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = env["KUBECONFIG"]
    if clock:
        from tests.support.movedclock import MovedClock

        app.StacksApp.clock = MovedClock(Path(clock))
    sys.argv = [MODULE, *arguments]
    app.main()


class Forked:
    """The service with arguments, as much of ``subprocess.Popen`` as its tests use.

    Args:
        arguments: of the command.
        env: its whole environment.
        folder: where it runs.
        log: gets what it says.
        clock: the file of a clock that a test moves; empty for the usual one.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        env: dict[str, str],
        folder: Path,
        log: Path,
        clock: Path | None = None,
    ) -> None:
        context: Any = multiprocessing.get_context("forkserver")
        # The first process starts the one that all are forked from; it ends with this one.
        context.set_forkserver_preload([MODULE, "tests.support.movedclock"])
        words = (list(arguments), dict(env), str(folder), str(log), str(clock or ""))
        self._process = context.Process(target=_run, args=words)
        self._process.start()
        self.pid = int(self._process.pid)

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """How it ended, minus the signal if by one; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def send_signal(self, sign: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, sign)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(MODULE, timeout or 0)
        return code
