"""Running other programs: output to a log, failures as one sentence."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dev import cache
from dev.console import Problem

# What the registries' clients say when a registry does not answer.
_NETWORK = (
    "temporary failure",
    "could not resolve",
    "connection timed out",
    "connection refused",
    "network is unreachable",
    "i/o timeout",
    "etimedout",
    "econnrefused",
    "enotfound",
    "failed to establish a new connection",
    "tls handshake timeout",
    "no such host",
)


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    # A command that is killed outright ends nobody: its helm would work on beside the next command's.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def log_folder() -> Path:
    """Where the logs of all commands are kept."""
    path = cache.home() / "log"
    path.mkdir(exist_ok=True)
    return path


def run(
    command: Sequence[str | Path],
    what: str,
    *,
    log: str,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    each_line: Callable[[str], None] | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        command: the program and its arguments.
        what: what it does, for the failure's sentence ("building the cluster's programs").
        log: name of the log file that gets its output.
        timeout: seconds after which it and its children are ended.
        cwd: folder to run it in.
        env: further environment variables.
        stdin: text for its standard input.
        each_line: called with each line of output, for progress.

    Raises:
        Problem: it failed, could not be started or took too long.
    """
    path = log_folder() / f"{log}.log"
    lines: list[str] = []
    try:
        child = subprocess.Popen(
            [str(c) for c in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that a time-out ends its children too
            preexec_fn=_die_with_parent,
        )
    except FileNotFoundError:
        raise Problem(
            f"{what} needs the program {command[0]}, which is not installed", f"Install {command[0]}"
        ) from None
    late = threading.Event()

    def end() -> None:
        late.set()
        os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, end)
    timer.start()
    try:
        with path.open("a") as out:
            out.write(f"\n$ {' '.join(str(c) for c in command)}\n")
            if stdin is not None:
                assert child.stdin
                child.stdin.write(stdin)
                child.stdin.close()
            assert child.stdout
            for line in child.stdout:
                out.write(line)
                lines.append(line)
                if each_line:
                    each_line(line)
        code = child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    finally:
        timer.cancel()
        if child.stdout:
            child.stdout.close()
    if code == 0:
        return "".join(lines)
    tail = "".join(lines[-30:])
    if late.is_set():
        raise Problem(f"{what} did not end within {timeout:.0f} s", f"Read {path} and run the command again")
    if "no space left" in tail.lower():
        raise Problem(
            f"{what} failed: no space left on the disk",
            f"Free some space (the cache is {cache.home()}) and run the command again",
        )
    if any(word in tail.lower() for word in _NETWORK):
        raise Problem(
            f"{what} failed: a package registry did not answer",
            f"Check the network and run the command again; details are in {path}",
        )
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
    raise Problem(f"{what} failed: {last[:300]}", f"Read {path}, mend the cause and run the command again")


@contextlib.contextmanager
def serving(
    command: Sequence[str | Path],
    what: str,
    says: str,
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a server as a child process, and yield what it says of where it listens.

    Args:
        command: the program and its arguments.
        what: what it is, for the failure's sentence ("The S3 server").
        says: a regular expression; its group is what is yielded, once a line of the output fits.
        timeout: seconds that it may take until then.
        cwd: folder to run it in.
        env: its whole environment; this process's if absent.

    Raises:
        Problem: it did not start.
    """
    child = subprocess.Popen(
        [str(c) for c in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    late = threading.Timer(timeout, child.kill)
    late.start()
    lines: list[str] = []
    reader = None
    assert child.stdout
    try:
        for line in child.stdout:
            lines.append(line)
            if found := re.search(says, line):
                break
        else:
            said = lines[-1].strip() if lines else f"it did not start within {timeout:.0f} s"
            raise Problem(f"{what} did not start: {said}", "Mend the cause and run the command again")
        late.cancel()
        # Somebody must read on, or a full pipe stops the server.
        reader = threading.Thread(target=child.stdout.read, daemon=True)
        reader.start()
        yield found[1]
    finally:
        late.cancel()
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if reader:
            reader.join()
        child.stdout.close()
