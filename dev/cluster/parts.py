"""Programs that run on after the command that started them: records, liveness, ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.console import Problem


def _environment() -> dict[str, str]:
    # a proxy for the outside world would be asked for the kubelet's and the webhooks' addresses, too
    left_out = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "kubeconfig"}
    env = {k: v for k, v in os.environ.items() if k.lower() not in left_out}
    # A third of the API server's time went into collecting garbage.
    env.setdefault("GOGC", "300")
    env["PATH"] = os.pathsep.join([env.get("PATH", ""), "/usr/sbin", "/sbin"])
    return env


def boot_id() -> str:
    """Changes with each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def memory(pid: int) -> int:
    """Memory in bytes, pages that several processes share being divided among them; 0 if it is gone.

    Most parts are one program: what each has resident would count its code many times.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


@dataclass(frozen=True)
class Part:
    """A started program, as its record tells."""

    name: str
    pid: int
    ticks: int
    boot: str
    args: list[str]
    began: float

    def alive(self) -> bool:
        """Whether exactly this process still runs: a pid alone may be another's by now."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # ours if this command started it: let it not stay a zombie
        return self.boot == boot_id() and start_ticks(self.pid) == self.ticks


class Parts:
    """The programs that were started below one folder.

    Args:
        records: folder of the records.
        logs: folder of the programs' output.
    """

    def __init__(self, records: Path, logs: Path) -> None:
        self.records = records
        self.logs = logs

    def log(self, name: str) -> Path:
        """The file with a program's output."""
        return self.logs / f"{name}.log"

    def start(self, name: str, args: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Part:
        """Start a program in a session of its own, its output to its log; with further environment variables."""
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.log(name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        words = [str(a) for a in args]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawnp(
                words[0],
                words,
                {**_environment(), **(env or {})},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT],
            )
        except OSError as e:
            raise Problem(
                f"{name} could not be started: {e.strerror}", f"Check that {words[0]} exists"
            ) from None
        part = Part(name, pid, start_ticks(pid) or 0, boot_id(), words, time.time())
        record = self.records / f"{name}.json"
        tmp = record.with_suffix(".tmp")
        tmp.write_text(json.dumps(part.__dict__))
        tmp.replace(record)
        return part

    def get(self, name: str) -> Part | None:
        """A program's record; None if there is none that can be read."""
        try:
            return Part(**json.loads((self.records / f"{name}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def names(self) -> list[str]:
        """The names of all records, in the order of their start."""
        found = [p for r in self.records.glob("*.json") if (p := self.get(r.stem))]
        return [p.name for p in sorted(found, key=lambda p: p.began)]

    def alive(self, name: str) -> bool:
        """Whether a program runs."""
        part = self.get(name)
        return part is not None and part.alive()

    def stop(self, names: Iterable[str], *, sig: int = signal.SIGTERM, patience: float = 10) -> None:
        """End programs and wait for their end; SIGKILL for those that stay."""
        left = [p for n in names if (p := self.get(n))]
        known = [p.name for p in left]
        for hard in (sig, signal.SIGKILL):
            left = [p for p in left if p.alive()]
            for p in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(p.pid, hard)
            deadline = time.monotonic() + patience
            while any(p.alive() for p in left) and time.monotonic() < deadline:
                time.sleep(0.02)
        for name in known:
            (self.records / f"{name}.json").unlink(missing_ok=True)

    def wait(
        self,
        name: str,
        what: str,
        ready: Callable[[], bool],
        timeout: float,
        cure: str = "",
        needs: Sequence[str] = (),
    ) -> None:
        """Wait until something holds that a program brings about.

        Args:
            name: the program; if it ends meanwhile, waiting ends too.
            what: what is waited for ("the API server to answer").
            ready: whether it holds; OSError counts as not yet.
            timeout: seconds.
            cure: what the reader may do, beside reading the log.
            needs: further programs without which it cannot come to hold.

        Raises:
            Problem: it did not come to hold.
        """
        deadline = time.monotonic() + timeout

        def advice(of: str) -> str:
            return f"Read {self.log(of)} and run the command again" + (
                f"; if that does not help, {cure}" if cure else ""
            )

        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return
            for one in (*needs, name):
                if not self.alive(one):
                    raise Problem(
                        f"{one} ended while waiting for {what}: {self.last_words(one)}", advice(one)
                    )
            if time.monotonic() > deadline:
                raise Problem(
                    f"{what} took longer than {timeout:.0f} s ({name} runs): {self.last_words(name)}",
                    advice(name),
                )
            time.sleep(0.05)

    def last_words(self, name: str) -> str:
        """The line of a program's log that says why it ended: a panic's first one, else the last."""
        try:
            with self.log(name).open("rb") as f:
                f.seek(max(0, f.seek(0, os.SEEK_END) - 16384))
                lines = f.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        panics = [line for line in lines if line.startswith(("panic:", "fatal error:"))]
        return (panics or lines or ["its log is empty"])[0 if panics else -1][:300]
