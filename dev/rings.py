"""``./test``: every ring of tests, with all that they need."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dev import cache, cluster, host, oauth2proxy, proc, venv
from dev.cache import ROOT
from dev.console import Console, Problem, duration
from dev.demo import install
from dev.standin.local import ensure_postgis

RINGS = ["lint", "unit", "api", "cluster", "browser"]
# pytest's code where it had no test to run.
NONE_CHOSEN = 5
REPORTS = ROOT / ".test-output"
# With fewer, rings that run side by side take as long, and what they wait for takes longer.
PROCESSORS = 4
USAGE = """\
./test                     all rings; with four processors or more, two at a time
./test unit api            some of them: lint, unit, api, cluster, browser
./test browser -- -k login what stands behind -- goes to pytest
./test --port 8100         another port for the cluster's ingress

The cluster and browser rings use the local cluster, or the one of KUBECONFIG, in a namespace of
their own beside the demo's. Slides, notebooks and users of the demo are not touched.
"""
# The oldest and the newest JupyterHub that the package works with.
HUBS = {"jupyterhub-6": "jupyterhub>=6.1,<6.2", "jupyterhub-5": "jupyterhub>=5.5.1,<5.6"}


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


def main(argv: list[str]) -> int:
    """Run the command; a failure to prepare is one sentence."""
    extra: list[str] = []
    if "--" in argv:
        split = argv.index("--")
        argv, extra = argv[:split], argv[split + 1 :]
    parser = argparse.ArgumentParser(
        prog="./test",
        usage="./test [RING...] [--port N] [-- PYTEST_ARGUMENTS]",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rings", nargs="*", choices=[*RINGS, []], metavar="RING", help=", ".join(RINGS))
    parser.add_argument("--port", type=int, default=int(os.environ.get("CYTOMINE_DEMO_PORT", "8000")))
    parser.add_argument("--keep", action="store_true", help="leave the tests' hub running at the end")
    args = parser.parse_args(argv)
    console = Console()
    try:
        return run(console, args.rings or RINGS, args.port, args.keep, extra)
    except Problem as problem:
        _log()
        console.say(f"\n{problem}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted.")
        return 130


def run(console: Console, rings: list[str], port: int, keep: bool, extra: list[str]) -> int:
    """Prepare all, then run the rings; 0 when all passed.

    The rings without pods compute, those with pods wait for them: with processors for both they run side by side.
    """
    foreign = os.environ.get("KUBECONFIG", "")
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir()
    pods = [ring for ring in ("cluster", "browser") if ring in rings]
    rest = [ring for ring in ("lint", "unit", "api") if ring in rings]
    was_up = bool(foreign) or not pods or cluster.healthy()
    environments = pythons(console, rings)
    beside = bool(pods and rest) and (os.cpu_count() or 1) >= PROCESSORS

    def prepare_pods() -> install.Target:
        if "browser" in pods:
            host.need(console, host.BROWSER)
            ensure_postgis(console)
        return install.prepare(console, port, foreign)

    # Two builds at a time cost each other more than they save; one lane's cluster need not run beside the other lane.
    early = prepare_pods() if beside else None
    ran = Ran(console, environments, extra, alone=not beside)

    def with_pods() -> None:
        target = early or prepare_pods()
        env = {**target.kube.env, "CYTOMINE_TEST_PORT": str(port)}
        try:
            for ring in pods:
                ran.ring(ring, env)
        finally:
            if keep:
                console.say(f"The tests' hub stays at {install.TEST.url(port)}")
            else:
                install.remove(console, target.kube, install.TEST)

    def without_pods() -> None:
        if "lint" in rest:
            ran.lint()
        for ring in ("unit", "api"):
            if ring in rest:
                ran.ring_with_each_hub(ring, local)

    lanes = [lane for lane, chosen in ((without_pods, rest), (with_pods, pods)) if chosen]
    try:
        local = _prepare_local(console, rings) if {"unit", "api"} & set(rest) else {}
        if beside:
            side_by_side(ran.stopped, lanes)
        else:
            for lane in lanes:
                lane()
    finally:
        if not (was_up or keep):
            cluster.down(console)
    return _close(console, ran.codes, chosen=bool(extra))


def side_by_side(stopped: threading.Event, lanes: list[Callable[[], None]]) -> None:
    """Run functions in threads; whoever interrupts one interrupts all.

    Args:
        stopped: set when somebody interrupts: no lane begins anything then.
        lanes: the functions.
    """
    with ThreadPoolExecutor(len(lanes)) as pool:
        jobs = [pool.submit(lane) for lane in lanes]
        try:
            for job in jobs:
                job.result()
        except KeyboardInterrupt:
            stopped.set()
            raise


@dataclass
class Ran:
    """Runs rings and keeps how they ended.

    Attributes:
        console: where progress goes.
        environments: the Pythons, that with the newest JupyterHub first.
        extra: arguments for pytest.
        alone: whether no ring runs beside: its output is printed at once then, and as a whole at its end otherwise.
        codes: each run's code.
        stopped: set when somebody interrupts.
    """

    console: Console
    environments: dict[str, Path]
    extra: list[str]
    alone: bool
    codes: dict[str, int] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def newest(self) -> str:
        """The name of the environment with the newest JupyterHub."""
        return next(iter(self.environments))

    def lint(self) -> None:
        """The formatter, the linter and the type checker."""
        code = 0
        for tool in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
            if self.stopped.is_set():
                return
            with self.console.step(" ".join(tool)):
                command = [self.environments[self.newest], "-m", *tool]
                done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            if done.returncode:
                self.console.say(done.stdout + done.stderr)
                code = done.returncode
        self.codes["lint"] = code

    def ring(self, ring: str, env: dict[str, str]) -> None:
        """A ring with the newest JupyterHub."""
        if self.stopped.is_set():
            return
        if self.alone:
            self.console.say(f"\n== {ring} ==")
            self.codes[ring] = _pytest(self._command(self.newest, ring, ring, self.extra), ring, env)
            return
        with self.console.step(f"{ring} tests") as step:
            self._quiet(self.newest, ring, ring, self.extra, env, step.detail)
            step.note = "failed" if self.codes.get(ring) else ""

    def ring_with_each_hub(self, ring: str, env: dict[str, str]) -> None:
        """A ring with all versions of JupyterHub, two runs at a time where no other ring runs.

        What never meets JupyterHub runs once; it takes longest, so it begins.
        """
        runs = [(ring, self.newest, "hub_independent")]
        runs += [(f"{ring}-{hub}", hub, "not hub_independent") for hub in self.environments]
        told: dict[str, str] = {}
        title = f"{ring} tests with {' and '.join(self.environments)}"
        with self.console.step(title) as step, ThreadPoolExecutor(2 if self.alone else 1) as pool:

            def one(run: tuple[str, str, str]) -> None:
                name, hub, mark = run

                def tell(text: str) -> None:
                    told[name] = text
                    step.detail(", ".join(f"{other}: {said}" for other, said in told.items()))

                with tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as folder:
                    own = [f"--basetemp={folder}/tests", "-m", mark, *self.extra]
                    self._quiet(hub, ring, name, own, env, tell)

            list(pool.map(one, runs))
            step.note = "failed" if any(self.codes.get(name) for name, _, _ in runs) else ""

    def _command(self, hub: str, ring: str, name: str, extra: list[str]) -> list[str]:
        report = REPORTS / f"{name}.xml"
        command = [str(self.environments[hub]), "-m", "pytest", f"tests/{ring}", "-q"]
        return [*command, f"--junitxml={report}", "--durations=5", *extra]

    def _quiet(
        self,
        hub: str,
        ring: str,
        name: str,
        extra: list[str],
        env: dict[str, str],
        tell: Callable[[str], None],
    ) -> None:
        if self.stopped.is_set():
            return
        began, output = time.monotonic(), io.StringIO()

        def each(text: str) -> None:
            output.write(text)
            counted = progress(output.getvalue())
            if "failed" in counted and name not in failing:
                failing.add(name)
                self.console.say(f"✗ {name}: a test failed; what it says follows when the ring has ended")
            tell(counted)

        failing: set[str] = set()
        code = _pytest(self._command(hub, ring, name, extra), ring, env, each)
        if code == NONE_CHOSEN and self.extra:
            code = 0  # the tests that were chosen may be those of another run
        self.codes[name] = code
        tell("failed" if code else "passed")
        self.console.say(f"\n== {name}: {duration(time.monotonic() - began)} ==\n{output.getvalue()}")


def pythons(console: Console, rings: list[str]) -> dict[str, Path]:
    """The Python of each environment that the rings need, by name."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    meta = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = meta["optional-dependencies"]
    with console.step("Python environments of the tests") as step:
        wanted = HUBS if {"unit", "api"} & set(rings) else {"jupyterhub-6": HUBS["jupyterhub-6"]}
        base = [r for r in meta["dependencies"] if not r.startswith("jupyterhub>")]
        more = [r for name in ("hub", "stacks", "notebook", "test", "lint") for r in extras.get(name, [])]
        return {
            name: venv.ensure(name, [pin, *base, *more], [ROOT / "tests" / "constraints.txt"], step)
            for name, pin in wanted.items()
        }


def _prepare_local(console: Console, rings: list[str]) -> dict[str, str]:
    """What the unit and api rings start on this machine (helm, an API server, a database): their environment."""
    cluster.build(console)
    if "api" in rings:
        cluster.build_kwok(console)
    if "unit" not in rings:
        return {}
    ensure_postgis(console)
    with console.step("nginx, for the gateway's tests") as step:
        modules = host.unpacked("libnginx-mod-http-js", step.detail) / "usr/lib/nginx/modules"
        nginx = host.unpacked("nginx", step.detail) / "usr/sbin/nginx"
    login = oauth2proxy.program(console)
    return {"NGINX_PROGRAM": str(nginx), "NGINX_MODULES": str(modules), "OAUTH2_PROXY_PROGRAM": str(login)}


def progress(output: str) -> str:
    """How far pytest is by what it printed: ``31 tests, 1 failed``."""
    marks = "".join(re.findall(r"^([.FEsxX]+)(?: *\[ *\d+%\])?$", output, re.MULTILINE))
    bad = sum(marks.count(mark) for mark in "FE")
    return f"{len(marks)} tests" + (f", {bad} failed" if bad else "")


def _pytest(
    command: list[str], ring: str, env: dict[str, str], each: Callable[[str], None] | None = None
) -> int:
    """Run pytest; its code. What it says is printed, or given to ``each`` as it comes."""
    # Bytecode is kept, as each of the many programs that tests start would compile anew, but not in the checkout.
    bytecode = {"PYTHONPYCACHEPREFIX": str(cache.home() / "bytecode")}
    whole = {**os.environ, "PYTHONPATH": str(ROOT), **bytecode, **env}
    if ring in ("unit", "api"):
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


def _close(console: Console, codes: dict[str, int], chosen: bool) -> int:
    codes = dict(sorted(codes.items(), key=lambda run: RINGS.index(run[0].partition("-")[0])))
    count = Count()
    for name in codes:
        if name != "lint":
            count.add(REPORTS / f"{name}.xml", name)
    bad = [name for name, code in codes.items() if code]
    empty = count.empty(chosen)
    for name in empty:
        console.say(f"{name} ran no test.")
    console.say("\n" + "  ".join(f"{name}: {'failed' if code else 'passed'}" for name, code in codes.items()))
    failed = max(count.failed, len(bad) + len(empty))
    console.say(f"{count.passed} passed, {failed} failed, {count.skipped} skipped")
    return 1 if failed else 0


def _log() -> None:
    with (proc.log_folder() / "test.log").open("a") as f:
        traceback.print_exc(file=f)
