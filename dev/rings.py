"""``./test``: every ring of tests, with all that they need."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import traceback
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dev import cluster, host, oauth2proxy, proc, venv
from dev.cache import ROOT
from dev.console import Console, Problem
from dev.demo import install
from dev.standin.local import ensure_postgis

RINGS = ["lint", "unit", "api", "cluster", "browser"]
USAGE = """\
./test                     all rings, one after the other
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
    """What one or more runs of pytest counted."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    empty: list[str] = field(default_factory=list)

    def add(self, report: Path, ring: str) -> None:
        """Add a run's JUnit report; a ring that ran no test is a failure."""
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
            if total - skipped == 0:
                self.empty.append(ring)


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
    """Prepare and run the rings in their order; 0 when all passed."""
    foreign = os.environ.get("KUBECONFIG", "")
    count = Count()
    codes: dict[str, int] = {}
    reports = ROOT / ".test-output"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    environments = pythons(console, rings)
    new = environments["jupyterhub-6"]
    if "lint" in rings:
        codes["lint"] = _lint(console, new)
    if {"unit", "api"} & set(rings):
        local = _prepare_local(console, rings)
    for ring in ("unit", "api"):
        if ring in rings:
            codes |= _with_each_hub(console, ring, environments, extra, count, local)
    if {"cluster", "browser"} & set(rings):
        was_up = bool(foreign) or cluster.healthy()
        if "browser" in rings:
            host.need(console, host.BROWSER)
            ensure_postgis(console)
        target = install.prepare(console, port, foreign)
        try:
            env = {**target.kube.env, "CYTOMINE_TEST_PORT": str(port)}
            for ring in ("cluster", "browser"):
                if ring in rings:
                    console.say(f"\n== {ring} ==")
                    codes[ring], _ = _pytest(new, ring, ring, extra, env)
                    count.add(reports / f"{ring}.xml", ring)
        finally:
            if keep:
                console.say(f"The tests' hub stays at {install.TEST.url(port)}")
            else:
                install.remove(console, target.kube, install.TEST)
                if not was_up:
                    cluster.down(console)
    return _close(console, codes, count)


def _with_each_hub(
    console: Console,
    ring: str,
    environments: dict[str, Path],
    extra: list[str],
    count: Count,
    env: dict[str, str],
) -> dict[str, int]:
    """A ring with all versions of JupyterHub side by side: its tests wait more than they compute."""
    newest = next(iter(environments))

    def one(hub: str) -> tuple[int, str]:
        # What never meets JupyterHub runs with the newest one only.
        once = [] if hub == newest else ["-m", "not hub_independent"]
        name = f"{ring}-{hub}"
        with tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as folder:
            own = [f"--basetemp={folder}/tests", *once, *extra]
            return _pytest(environments[hub], ring, name, own, env, quiet=True)

    codes: dict[str, int] = {}
    with (
        console.step(f"{ring} tests with {' and '.join(environments)}") as step,
        ThreadPoolExecutor() as pool,
    ):
        done = {hub: pool.submit(one, hub) for hub in environments}
        for hub, job in done.items():
            codes[f"{ring} {hub}"], output = job.result()
            step.detail(f"{hub} has ended")
            console.say(f"\n== {ring}-{hub} ==\n{output}")
            count.add(ROOT / ".test-output" / f"{ring}-{hub}.xml", f"{ring}-{hub}")
    return codes


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


def _lint(console: Console, python: Path) -> int:
    code = 0
    for tool in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        with console.step(" ".join(tool)):
            done = subprocess.run(
                [python, "-m", *tool], cwd=ROOT, check=False, capture_output=True, text=True
            )
        if done.returncode:
            console.say(done.stdout + done.stderr)
            code = done.returncode
    return code


def _pytest(
    python: Path, ring: str, name: str, extra: list[str], env: dict[str, str], quiet: bool = False
) -> tuple[int, str]:
    """Run pytest on a ring: its code, and its output where it is not printed at once."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env}
    if ring in ("unit", "api"):
        whole.pop("KUBECONFIG", None)  # these rings start what they need, they never touch a real cluster
    report = ROOT / ".test-output" / f"{name}.xml"
    command = [python, "-m", "pytest", f"tests/{ring}", "-q", f"--junitxml={report}", "--durations=5", *extra]
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=whole, check=False, text=True,
        stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None,
    )  # fmt: skip
    return done.returncode, done.stdout or ""


def _close(console: Console, codes: dict[str, int], count: Count) -> int:
    bad = [name for name, code in codes.items() if code]
    for name in count.empty:
        console.say(f"{name} ran no test.")
    console.say("\n" + "  ".join(f"{name}: {'failed' if code else 'passed'}" for name, code in codes.items()))
    failed = max(count.failed, len(bad) + len(count.empty))
    console.say(f"{count.passed} passed, {failed} failed, {count.skipped} skipped")
    return 1 if failed else 0


def _log() -> None:
    with (proc.log_folder() / "test.log").open("a") as f:
        traceback.print_exc(file=f)
