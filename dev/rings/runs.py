"""The rings' runs of pytest: how each is called, what it says on the way, and what all of them counted."""

from __future__ import annotations

import codecs
import io
import os
import re
import subprocess
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dev import cache
from dev.cache import ROOT
from dev.console import Console, duration
from dev.rings import guard
from dev.rings.environments import NEWEST, OLDEST
from dev.rings.groups import contract, groups
from dev.rings.times import Times

RINGS = ["lint", "unit", "api", "cluster", "browser"]
# pytest's code where it had no test to run.
NONE_CHOSEN = 5
REPORTS = ROOT / ".test-output"
# A tenth of the usual weight: tests that wait for pods do not notice, and those that yield never starve.
NICE = "10"
# Marks what has a contract with JupyterHub: it runs with the oldest one, too.
CONTRACT = "hub_contract"


@dataclass
class Count:
    """What one or more runs of pytest counted; ``ran`` has the tests of each that were not skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    ran: dict[str, int] = field(default_factory=dict)

    def add(self, report: Path, run: str) -> None:
        """Add a run's JUnit report; one without a report has failed."""
        if not report.exists():
            self.failed += 1
            return
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - written by our own pytest
            total, bad = (
                int(suite.get("tests", 0)),
                int(suite.get("failures", 0)) + int(suite.get("errors", 0)),
            )
            skipped = int(suite.get("skipped", 0))
            self.passed += total - bad - skipped
            self.failed += bad
            self.skipped += skipped
            self.ran[run] = self.ran.get(run, 0) + total - skipped

    def empty(self, chosen: bool) -> list[str]:
        """What ran no test: runs, or, where somebody chose among the tests, whole rings."""
        ran: dict[str, int] = {}
        for run, number in self.ran.items():
            name = run.partition("-")[0] if chosen else run
            ran[name] = ran.get(name, 0) + number
        return [name for name, number in ran.items() if not number]


@dataclass(frozen=True)
class Run:
    """One run of pytest.

    Attributes:
        name: the ring's, with the group or the JupyterHub behind it if it is not all of the ring with the newest.
        hub: the environment's name.
        tests: files or folders.
        more: further arguments.
        workers: processes that share its tests, by file unless its conftest knows better; 0 for pytest's own alone.
        yielding: whether it takes only what processors the runs beside it leave.
    """

    name: str
    hub: str
    tests: tuple[str, ...]
    more: tuple[str, ...] = ()
    workers: int = 0
    yielding: bool = False

    @property
    def ring(self) -> str:
        """The ring that it is of."""
        return self.name.partition("-")[0]


@dataclass
class Ran:
    """Runs rings and keeps how they ended.

    Attributes:
        console: where progress goes.
        environments: the Python of each JupyterHub, by name.
        times: gets the time of each ring.
        extra: arguments for pytest.
        alone: whether no ring runs beside: its output is printed at once then, and as a whole at its end otherwise.
        codes: each run's code.
        stopped: set when somebody interrupts.
    """

    console: Console
    environments: dict[str, Path]
    times: Times
    extra: list[str]
    alone: bool
    codes: dict[str, int] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def lint(self) -> None:
        """The formatter, the linter, the type checker, and the check of what each room of the package may import."""
        code = 0
        # A checkout has none of their caches when it is new.
        env = {
            **os.environ,
            "MYPY_CACHE_DIR": str(cache.home() / "mypy"),
            "RUFF_CACHE_DIR": str(cache.home() / "ruff"),
        }
        with self.times.phase("lint"):
            for tool in (
                ["ruff", "check", "."],
                ["ruff", "format", "--check", "."],
                ["mypy"],
                ["lint-imports", "--no-logo", "--no-cache"],
            ):
                if self.stopped.is_set():
                    return
                with self.console.step(" ".join(tool)):
                    # Each has a program of its own there; import-linter has no module that runs.
                    command = [self.environments[NEWEST].with_name(tool[0]), *tool[1:]]
                    done = subprocess.run(
                        command, cwd=ROOT, env=env, check=False, capture_output=True, text=True
                    )
                if done.returncode:
                    self.console.say(done.stdout + done.stderr)
                    code = done.returncode
        self.codes["lint"] = code

    def aloud(self, run: Run, env: dict[str, str]) -> None:
        """A run that prints what it says as it comes, if it is alone."""
        if self.stopped.is_set():
            return
        if not self.alone:
            self.quietly([run], env)
            return
        self.console.say(f"\n== {run.name} ==")
        with self.times.phase(run.ring):
            self.codes[run.name] = _pytest(self._command(run), run, env)

    def quietly(self, runs: Sequence[Run], env: dict[str, str], lanes: int = 0) -> None:
        """Runs of one ring beside each other; what each says is printed when it has ended.

        Args:
            runs: the runs, the longest first.
            env: for pytest.
            lanes: how many run at a time; all if 0.
        """
        if self.stopped.is_set():
            return
        told: dict[str, str] = {}
        with (
            self.times.phase(runs[0].ring),
            self.console.step(f"{runs[0].ring} tests") as step,
            ThreadPoolExecutor(lanes or len(runs)) as pool,
        ):

            def one(run: Run) -> None:
                if self.stopped.is_set():
                    return

                def tell(text: str) -> None:
                    told[run.name] = text
                    step.detail(", ".join(f"{other}: {said}" for other, said in told.items()))

                self._quiet(run, env, tell)

            list(pool.map(one, runs))
            step.note = "failed" if any(self.codes.get(run.name) for run in runs) else ""

    def _command(self, run: Run, *more: str) -> list[str]:
        report = REPORTS / f"{run.name}.xml"
        command = ["nice", "-n", NICE] if run.yielding else []
        command += [str(self.environments[run.hub]), "-m", "pytest", *run.tests, "-q"]
        command += [
            "-p",
            "tests.support.garbage",
            "-p",
            "tests.support.timing",
            f"--junitxml={report}",
            *run.more,
            *more,
        ]
        if run.workers:
            command += [f"--numprocesses={run.workers}", "--dist=loadfile"]
        return [*command, *self.extra]

    def _quiet(self, run: Run, env: dict[str, str], tell: Callable[[str], None]) -> None:
        began, output = time.monotonic(), io.StringIO()
        failing = False

        def each(text: str) -> None:
            nonlocal failing
            output.write(text)
            counted = progress(output.getvalue())
            if "failed" in counted and not failing:
                failing = True
                self.console.say(f"✗ {run.name}: a test failed; what it says follows when the run has ended")
            tell(counted)

        with tempfile.TemporaryDirectory(prefix=f"{run.name}-", ignore_cleanup_errors=True) as folder:
            code = _pytest(self._command(run, f"--basetemp={folder}/tests"), run, env, each)
        if code == NONE_CHOSEN and self.extra:
            code = 0  # the tests that were chosen may be those of another run
        self.codes[run.name] = code
        tell("failed" if code else "passed")
        self.console.say(f"\n== {run.name}: {duration(time.monotonic() - began)} ==\n{output.getvalue()}")


def with_each_hub(ring: str, tests: Sequence[str], workers: int, yielding: bool) -> list[Run]:
    """The runs of a ring that meets JupyterHub: all of it with the newest, its contract with the oldest, too."""
    return [
        Run(ring, NEWEST, tuple(tests), workers=workers, yielding=yielding),
        Run(f"{ring}-{OLDEST}", OLDEST, tuple(tests), ("-m", CONTRACT), yielding=yielding),
    ]


def in_groups(ring: str, tests: Sequence[str], yielding: bool) -> list[Run]:
    """The runs of the unit ring: each of its groups with the newest JupyterHub, and the contract with the oldest."""
    runs = [
        Run(f"{ring}-{name}", NEWEST, tuple(files), yielding=yielding)
        for name, files in groups(tests).items()
    ]
    if files := contract(tests):
        runs.append(Run(f"{ring}-{OLDEST}", OLDEST, tuple(files), ("-m", CONTRACT), yielding=yielding))
    return runs


def progress(output: str) -> str:
    """How far pytest is by what it printed: ``31 tests, 1 failed``."""
    marks = "".join(re.findall(r"^([.FEsxX]+)(?: *\[ *\d+%\])?$", output, re.MULTILINE))
    bad = sum(marks.count(mark) for mark in "FE")
    return f"{len(marks)} tests" + (f", {bad} failed" if bad else "")


def _pytest(
    command: list[str], run: Run, env: dict[str, str], each: Callable[[str], None] | None = None
) -> int:
    """Run pytest; its code. What it says is printed, or given to ``each`` as it comes."""
    whole = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Bytecode is kept, as each of the many programs that tests start would compile anew, but not in the checkout.
        "PYTHONPYCACHEPREFIX": str(cache.home() / "bytecode"),
        "CYTOMINE_TEST_TIMES": str(REPORTS / run.name),
        **env,
    }
    whole.pop("PYTHONDONTWRITEBYTECODE", None)
    whole.pop(guard.NOTES, None)  # this run's, not that of a command which a test starts
    if run.ring in ("unit", "api"):
        whole.pop("KUBECONFIG", None)  # these rings start what they need, they never touch a real cluster
    if each is None:
        return subprocess.run(command, cwd=ROOT, env=whole, check=False).returncode
    child = subprocess.Popen(command, cwd=ROOT, env=whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with child:
        assert child.stdout
        text = codecs.getincrementaldecoder("utf-8")("replace")
        while data := os.read(child.stdout.fileno(), 65536):
            each(text.decode(data))
    return child.returncode
