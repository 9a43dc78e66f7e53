"""Processes of the stack service and of stand-ins that are there at once: forked from one that has imported it already.

To import what the service consists of takes five seconds of a processor; to fork, none. What runs is the same command
in a process of its own: it has its own environment, folder, log and signals, and can be killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dev.standin.local import Local

ROOT = Path(__file__).parents[2]
MODULE = "cytomine_spawner.app"
STAND_INS = [
    f"dev.standin.{name}"
    for name in ("__main__", "cbir", "core", "gateway", "mongo", "pims", "repository", "webui")
]


def _take(env: dict[str, str], folder: str, out: str, error: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for number, name in ((1, out), (2, error)):
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, number)
        os.close(file)


def _become(env: dict[str, str], folder: str, out: str, error: str) -> None:
    _take(env, folder, out, error)
    # Whoever imported it before has read the environment of that moment.
    from kubernetes_asyncio.config import kube_config

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = env["KUBECONFIG"]


def _serve(arguments: Sequence[str], env: dict[str, str], folder: str, log: str, clock: str) -> None:
    _become(env, folder, log, log)
    from cytomine_spawner import app

    if clock:
        from tests.support.movedclock import MovedClock

        app.StacksApp.clock = MovedClock(Path(clock))
    sys.argv = [MODULE, *arguments]
    app.main()


def _command(
    module: str, arguments: Sequence[str], env: dict[str, str], folder: str, out: str, error: str
) -> None:
    _become(env, folder, out, error)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


SERVICE = [MODULE, "tests.support.movedclock"]


def _process(
    target: Callable[..., None], *words: object, imported: Sequence[str] = SERVICE, daemon: bool = False
) -> Any:
    context: Any = multiprocessing.get_context("forkserver")
    # The first process starts the one that all are forked from; it ends with this one.
    context.set_forkserver_preload(list(imported))
    process = context.Process(target=target, args=words, daemon=daemon)
    process.start()
    return process


def run(
    module: str, arguments: Sequence[str], env: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """What ``python -m MODULE`` does and says, for a program that talks to Kubernetes.

    Args:
        module: the program.
        arguments: of the program.
        env: its whole environment.
        folder: an empty one, for what it says.
    """
    out, error = folder / "out", folder / "error"
    process = _process(_command, module, list(arguments), dict(env), str(folder), str(out), str(error))
    process.join(60)
    assert process.exitcode is not None, f"{module} does not end"
    return subprocess.CompletedProcess(module, process.exitcode, out.read_text(), error.read_text())


class Forked:
    """A forked process, as much of ``subprocess.Popen`` as tests use.

    Args:
        process: one that has started.
    """

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid = int(process.pid)

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
            # It can have ended already: the forkserver, which waits for it, has not said so yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sign)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code


class ForkedService(Forked):
    """The service with arguments.

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
        words = (list(arguments), dict(env), str(folder), str(log), str(clock or ""))
        super().__init__(_process(_serve, *words))


def _play(roles: tuple[str, ...], env: dict[str, str], log: str) -> None:
    _take(env, str(ROOT), log, log)
    sys.argv = ["dev.standin", *roles]
    from dev.standin.__main__ import main

    sys.exit(main())


class ForkedStandIns(Local):
    """A stack of stand-ins whose programs are forked from one that has imported them: most of a start is imports."""

    def start(self, roles: tuple[str, ...], variables: dict[str, str], log_file: Path) -> Any:
        """Start the program with an environment; what it says is added to a file."""
        log_file.touch()
        # A daemon in multiprocessing's sense: it ends with the tests, whatever becomes of them.
        return Forked(_process(_play, roles, variables, str(log_file), imported=STAND_INS, daemon=True))
