"""The command line of ``./test``: what is to run, what it needs, and what came of it."""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dev import cluster, host, proc
from dev.console import Console, Problem
from dev.demo import install
from dev.rings import choose, environments, guard
from dev.rings.environments import NEWEST
from dev.rings.runs import REPORTS, RINGS, Count, Ran, Run, in_groups, with_each_hub
from dev.rings.times import Times
from dev.standin.local import ensure_postgis

# With fewer, rings that compute yield to those with pods beside them, so that nothing is waited for longer than alone.
PROCESSORS = 4
# Up to so many files, starting processes to share them takes longer than running them.
FEW = 3
# Processes of a ring with pods: several would starve the API server where there are two processors. The browser ring's
# second one needs no pods.
LANES = {"cluster": 0, "browser": 2}
USAGE = """\
./test                     all rings: those that compute beside those that wait for pods
./test unit api            some of them: lint, unit, api, cluster, browser
./test --since main        what the changes since a revision can break
./test -k entitlements     tests by name, or ./test tests/unit/test_x.py::test_y: with one JupyterHub, in seconds
./test --profile           all, and where the time went: rings, files, tests, fixtures
./test --thorough unit     what holds for whatever comes is tried with six times as much, and each time with other things
./test unit -- --pdb       what stands behind -- goes to pytest
./test --port 8100         another port for the cluster's ingress

The cluster and browser rings use the local cluster, or the one of KUBECONFIG, in a namespace of
their own beside the demo's. Slides, notebooks and users of the demo are not touched. Whatever ends
the command, no process, namespace or mount of it stays.
"""


@dataclass(frozen=True)
class Wanted:
    """What is to run.

    Attributes:
        tests: the rings, in their order, each with its files or folders.
        named: whether somebody named tests: they run with one JupyterHub only.
        words: pytest's ``-k``.
    """

    tests: dict[str, list[str]]
    named: bool = False
    words: str = ""


def main(argv: list[str]) -> int:
    """Run the command; a failure to prepare is one sentence."""
    extra: list[str] = []
    if "--" in argv:
        split = argv.index("--")
        argv, extra = argv[:split], argv[split + 1 :]
    args = _arguments(argv)
    console = Console()
    try:
        wanted = _wanted(console, args)
        if not wanted.tests:
            console.say("Nothing that the changes can break: no test to run.")
            return 0
        return run(console, wanted, args, extra)
    except Problem as problem:
        _log()
        console.say(f"\n{problem}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted.")
        return guard.INTERRUPTED


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./test",
        usage="./test [RING...] [--since REVISION] [-k WORDS] [TEST...] [--profile] [--thorough] [--port N] [-- PYTEST_ARGUMENTS]",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="*", metavar="RING or TEST", help=", ".join(RINGS) + "; or a test's file"
    )
    parser.add_argument("--since", metavar="REVISION", help="only what the changes since there can break")
    parser.add_argument("-k", dest="words", default="", metavar="WORDS", help="tests by name, as pytest's -k")
    parser.add_argument("--profile", action="store_true", help="say where the time went")
    parser.add_argument("--thorough", action="store_true", help="more examples, and others each time")
    parser.add_argument("--port", type=int, default=int(os.environ.get("CYTOMINE_DEMO_PORT", "8000")))
    parser.add_argument("--keep", action="store_true", help="leave the tests' hub running at the end")
    args = parser.parse_args(argv)
    args.rings = [what for what in args.what if what in RINGS]
    args.paths = [what for what in args.what if what not in RINGS]
    if args.since and (args.paths or args.words):
        parser.error("--since chooses the tests itself: name none beside it")
    return args


def _wanted(console: Console, args: argparse.Namespace) -> Wanted:
    rings = args.rings or RINGS
    if args.since:
        chosen = choose.since(args.since)
        for line in chosen.lines():
            console.say(line)
        found = {ring: [str(path) for path in chosen.paths(ring)] for ring in RINGS[1:] if chosen.rings[ring]}
        lint: dict[str, list[str]] = {"lint": []} if chosen.rings["lint"] else {}
        return Wanted({ring: tests for ring, tests in {**lint, **found}.items() if ring in rings})
    if args.paths or args.words:
        paths = choose.named(
            [args.words] if args.words and not args.paths else [], [r for r in rings if r != "lint"]
        )
        named = {ring: [str(path) for path in found] for ring, found in choose.by_ring(paths).items()}
        for word in args.paths:
            # pytest gets a test's id as it stands; the file tells the ring.
            (ring, (file, *_)), *_ = choose.by_ring(choose.named([word])).items()
            _, colons, test = word.partition("::")
            named.setdefault(ring, []).append(f"{file}{colons}{test}")
        return Wanted({ring: named[ring] for ring in RINGS if ring in named}, named=True, words=args.words)
    return Wanted({ring: [] if ring == "lint" else [f"tests/{ring}"] for ring in RINGS if ring in rings})


def run(console: Console, wanted: Wanted, args: argparse.Namespace, extra: list[str]) -> int:
    """Prepare all, then run the rings; 0 when all passed.

    The rings without pods compute, those with pods wait for them: they run side by side, and where processors are few,
    those that compute take what the others leave.
    """
    foreign = os.environ.get("KUBECONFIG", "")
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir()
    times = Times(REPORTS)
    pods = [ring for ring in ("cluster", "browser") if ring in wanted.tests]
    rest = [ring for ring in ("lint", "unit", "api") if ring in wanted.tests]
    processors = os.cpu_count() or 1
    beside = bool(pods and rest)
    yielding = beside and processors < PROCESSORS
    extra = [*(["-k", wanted.words] if wanted.words else []), *extra]
    told = {
        **({"CYTOMINE_TEST_PROFILE": "1"} if args.profile else {}),
        **({"CYTOMINE_TEST_THOROUGH": "1"} if args.thorough else {}),
    }

    def prepare_pods() -> install.Target:
        started = not (foreign or args.keep or cluster.healthy())
        guard.note(kubeconfig=foreign, namespaces=not args.keep, cluster=started)
        with times.phase("preparation"):
            if "browser" in pods:
                host.need(console, host.BROWSER)
                ensure_postgis(console)
            return install.prepare(console, args.port, foreign, built=built)

    with times.phase("preparation"):
        hubs = environments.HUBS if {"unit", "api"} & set(rest) and not wanted.named else [NEWEST]
        pythons = environments.pythons(console, hubs)
    ran = Ran(console, pythons, times, extra, alone=not beside)

    def few(ring: str) -> bool:
        return wanted.named and len(wanted.tests[ring]) <= FEW

    def with_pods() -> None:
        target = prepare_pods()
        env = {**target.kube.env, "CYTOMINE_TEST_PORT": str(args.port), **told}
        for ring in pods:
            ran.aloud(
                Run(ring, NEWEST, tuple(wanted.tests[ring]), workers=0 if few(ring) else LANES[ring]), env
            )
        if args.keep:
            console.say(f"The tests' hub stays at {install.TEST.url(args.port)}")
        if not ran.stopped.is_set():
            # That pods end is mostly waited for: the other rings go on meanwhile.
            with times.phase("clearing up"):
                guard.remove(guard.noted())
                guard.note(namespaces=False, cluster=False)

    def without_pods() -> None:
        if "lint" in rest:
            ran.lint()
        for ring in ("unit", "api"):
            if ring in rest:
                # One more than there are processors: each test waits now and then.
                workers = 0 if few(ring) else processors // (2 if beside else 1) + 1
                runs = with_each_hub(ring, wanted.tests[ring], workers, yielding)
                if wanted.named:
                    ran.aloud(runs[0], local)
                elif ring == "unit":
                    ran.quietly(in_groups(ring, wanted.tests[ring], yielding), local, lanes=workers)
                else:
                    ran.quietly(runs, local)

    lanes = [lane for lane, chosen in ((without_pods, rest), (with_pods, pods)) if chosen]
    with ThreadPoolExecutor(1) as pool:
        # Where nothing is built yet, what is compiled and what is downloaded share the processors; where only the images
        # are to be built anew, nobody but the rings with pods waits for them.
        built = pool.submit(install.build, console) if pods and not foreign else None
        with times.phase("preparation"):
            local = {**(environments.programs(console, rest) if {"unit", "api"} & set(rest) else {}), **told}
        if beside:
            side_by_side(ran.stopped, lanes)
        else:
            for lane in lanes:
                lane()
    times.say(console, whole=args.profile)
    return _close(console, ran.codes, chosen=bool(extra) or wanted.named or bool(args.since))


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
