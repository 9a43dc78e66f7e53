"""How the stack service does with many stacks: its time for each, its calls, its memory, its rest, its restart.

python3 -m benchmarks.scale                    10 and 100 stacks
python3 -m benchmarks.scale --stacks 10 100 500

A real API server with its controllers, and nodes that KWOK plays: pods become Ready without running anything, so
what is measured is the operator and the API server. The service runs as a process of its own, without its pages and
login: these ask the stacks' own programs, which do not run here.
Each number of stacks gets a server of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, table

AT_ONCE = 10
SILENCE_SECONDS = 60
READY_SECONDS = 900
# A service that has said nothing for this long has ended what it did.
REST_SECONDS = 15
# It looks for orphans this long after its start, once.
SWEPT_SECONDS = 20
ACCOUNT = "stacks"
NAMESPACE = "bench"


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of the values is (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Bench:
    """One API server with its stacks.

    Args:
        folder: for its files.
        count: how many stacks there will be.
    """

    def __init__(self, folder: Path, count: int) -> None:
        from benchmarks.calls import Requests
        from cytomine_spawner.blueprint import render
        from cytomine_spawner.blueprint.settings import StackSettings
        from cytomine_spawner.stack import model
        from dev import cluster
        from tests.support.apiserver import Kubectl, define_stacks
        from tests.support.stackservice import Service

        self.count, self.folder = count, folder
        self.audit = folder / "audit.log"
        cost = render.cost(model.StackSpec(owner="x"), StackSettings())
        nodes = 1 + math.ceil(count * max(cost.cpu / 64, cost.memory / 2**38, 12 / 1000) * 1.1)
        kubeconfig = cluster.api_up(folder, nodes=nodes, controllers=True, audit=self.audit)
        kubectl = Kubectl(kubeconfig)
        define_stacks(kubectl)
        kubectl("create", "namespace", NAMESPACE)
        kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        kubectl("create", "serviceaccount", ACCOUNT, f"--namespace={NAMESPACE}")
        kubectl(
            "create", "clusterrolebinding", ACCOUNT, "--clusterrole=cluster-admin",
            f"--serviceaccount={NAMESPACE}:{ACCOUNT}",
        )  # fmt: skip
        token = kubectl("create", "token", ACCOUNT, f"--namespace={NAMESPACE}", "--duration=24h").stdout
        self.user = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
        self.requests = Requests(self.audit, self.user)
        settings: dict[str, Any] = {"max_stacks_per_user": 0}
        self.service = Service(folder / "service", kubeconfig, NAMESPACE, token=token.strip(), **settings)
        self.objects = self.service.objects

    # -- one launch ---------------------------------------------------------------------------------------

    def launch_all(self) -> dict[str, dict[str, float]]:
        """Create the stacks, ten launches under way at any time; seconds from the request to Ready, by name."""
        ready: dict[str, threading.Event] = {}
        seen: dict[str, float] = {}
        stop = threading.Event()

        def follow() -> None:
            for obj in watch(self.objects, stop):
                name = obj["metadata"]["name"]
                if (obj.get("status") or {}).get("phase") == "Ready" and name in ready and name not in seen:
                    seen[name] = time.monotonic()
                    ready[name].set()

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        done: dict[str, dict[str, float]] = {}

        def launch(number: int) -> None:
            from cytomine_spawner.stack import model

            spec = model.StackSpec(owner=f"user-{number}", idle_timeout=0)
            stack = model.new_stack(NAMESPACE, spec)
            ready[stack.name] = threading.Event()
            began = time.monotonic()
            self.objects.create(model.KIND, stack.to_object())
            while not ready[stack.name].wait(1):
                if stop.is_set():
                    return
                if time.monotonic() - began < READY_SECONDS:
                    continue
                raise SystemExit(
                    f"The stack {stack.name} was not ready after {READY_SECONDS} s. Read {self.service.log}."
                )
            done[stack.name] = {"ready": seen[stack.name] - began}
            say(f"{len(done)} of {self.count} stacks are ready")

        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                outcomes = [pool.submit(launch, n) for n in range(self.count)]
                try:
                    for outcome in outcomes:
                        outcome.result()
                except BaseException:
                    # The pool waits for all that has begun: nothing more shall.
                    stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            stop.set()
        return done

    def rest(self) -> None:
        """Wait until the service sends nothing but its watches."""
        quiet = 0.0
        while quiet < REST_SECONDS or time.monotonic() < self.swept:
            self.requests.read()
            newest = max((r.began for r in self.requests.calls if r.verb != "watch"), default=0.0)
            quiet = time.time() - newest
            time.sleep(1)

    def start(self) -> float:
        """Start the service; seconds until it is ready."""
        began = time.monotonic()
        self.swept = began + SWEPT_SECONDS
        self.service.start()
        return time.monotonic() - began

    def close(self) -> None:
        """End what was started."""
        from dev import cluster

        try:
            self.service.close()
        finally:
            cluster.api_down(self.folder)


def watch(objects: Any, stop: threading.Event) -> Iterator[dict[str, Any]]:
    """The stacks as they change."""
    import httpx

    from cytomine_spawner.stack import model

    path = objects.path(model.KIND)
    while not stop.is_set():
        with contextlib.suppress(httpx.TransportError):
            listed = objects.http.get(path).json()
            yield from listed["items"]
            query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
            with objects.http.stream("GET", path, params=query, timeout=30) as answer:
                for line in answer.iter_lines():
                    if stop.is_set():
                        return
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]


def say(text: str) -> None:
    """Progress, in place on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif not any(c.isdigit() for c in text) or text.split()[0][-1:] == "0":
        print(text, file=sys.stderr, flush=True)


# -- the measurement --------------------------------------------------------------------------------------


def measure(folder: Path, count: int) -> dict[str, Any]:
    """All numbers of one number of stacks."""
    say(f"An API server for {count} stacks starts")
    bench = Bench(folder, count)
    try:
        bench.start()
        bench.rest()
        empty, began, used = bench.service.memory()[0], time.time(), bench.service.cpu()
        launched = time.monotonic()
        stacks = bench.launch_all()
        took = time.monotonic() - launched
        say("Waiting for the service to rest")
        bench.rest()
        resting, most = bench.service.memory()
        calls = bench.requests.since(began)
        own = bench.requests.creation(stacks)
        used = bench.service.cpu() - used
        say("A minute of silence")
        began = time.time()
        time.sleep(SILENCE_SECONDS)
        bench.requests.read()
        silence = bench.requests.since(began)
        say("The service starts again")
        bench.service.end()
        began, restarted = time.time(), time.monotonic()
        ready = bench.start()
        while bench.service.counted("Ready") < count or bench.service.looks() < count:
            if time.monotonic() - restarted > READY_SECONDS:
                raise SystemExit(f"Not all stacks were looked at after a restart. Read {bench.service.log}.")
            time.sleep(0.2)
        looked = time.monotonic() - restarted
        bench.rest()
        again = bench.requests.since(began)
        return {
            "stacks": count,
            "launches_seconds": took,
            "ready": [s["ready"] for s in stacks.values()],
            "own": own,
            "inside": bench.requests.inside(stacks),
            "cpu": used,
            "objects": bench.requests.objects(stacks),
            "calls": tally(calls),
            "silence": tally(silence),
            "memory": {
                "empty": empty,
                "resting": resting,
                "most": most,
                "restarted": bench.service.memory()[0],
            },
            "restart": {
                "ready": ready,
                "looked": looked,
                "calls": tally(again),
                "writes": tally([c for c in again if c.writes and c.resource != "events"]),
            },
            "load": Path("/proc/loadavg").read_text().split()[0],
        }
    finally:
        bench.close()


def tally(calls: list[Any]) -> dict[str, int]:
    """Calls by verb and resource."""
    counted = Counter(f"{c.verb} {c.resource}" for c in calls)
    return dict(sorted(counted.items(), key=lambda pair: -pair[1]))


def rows(found: dict[str, Any]) -> list[str]:
    """One column of the table."""
    count, calls = found["stacks"], found["calls"]
    silent = {k: n for k, n in found["silence"].items() if not k.startswith("watch ")}
    watches = sum(n for k, n in found["silence"].items() if k.startswith("watch "))
    memory, restart, mib = found["memory"], found["restart"], 2**20

    def both(values: list[float]) -> str:
        return f"{percentile(values, 0.5):.2f} / {percentile(values, 0.95):.2f} s"

    return [
        str(count),
        f"{count / found['launches_seconds']:.2f} / s",
        both(found["ready"]),
        both([own["first_to_last"] for own in found["own"].values()]),
        both([own["record_to_last"] for own in found["own"].values()]),
        both(found["inside"]),
        f"{found['cpu'] / count:.2f} s",
        f"{found['objects']:.0f}",
        f"{sum(calls.values()) / count:.1f}",
        f"{memory['empty'] / mib:.0f} / {memory['resting'] / mib:.0f} / {memory['most'] / mib:.0f} MiB",
        f"{sum(silent.values())} and {watches} watches renewed",
        f"{restart['looked']:.1f} s",
        f"{sum(restart['calls'].values())}, of them {sum(restart['writes'].values())} writes",
    ]


HEAD = [
    "stacks",
    "launches, 10 at once",
    "time to ready, p50 / p95",
    "the service's time, first to last object, p50 / p95",
    "record written to last object, p50 / p95",
    "one of these calls inside the API server, p50 / p95",
    "the service's processor time, by stack",
    "objects of a stack",
    "API calls for a start, by stack",
    "memory: no stack / all ready / most",
    "API calls in a minute of silence",
    "restart: until all stacks are looked at",
    "restart: API calls",
]


def main() -> None:
    """Measure and print."""
    in_test_environment([str(Path(__file__).resolve()), *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stacks", type=int, nargs="+", default=[10, 100], help="how many, one run for each")
    parser.add_argument("--log", type=Path, help="folder for the service's log, kept afterwards")
    args = parser.parse_args()
    numbers = []
    for count in args.stacks:
        with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as folder:
            try:
                numbers.append(measure(Path(folder), count))
            finally:
                if args.log:
                    args.log.mkdir(parents=True, exist_ok=True)
                    log = Path(folder) / "service" / "log"
                    if log.exists():
                        (args.log / f"service-{count}-{secrets.token_hex(2)}.log").write_text(log.read_text())
    say("")
    columns = [rows(found) for found in numbers]
    table(
        "The stack service on an API server with KWOK's nodes",
        HEAD[:1] + [c[0] for c in columns],
        [[name, *(c[i] for c in columns)] for i, name in enumerate(HEAD) if i],
    )
    print(f"\nRaw numbers: {keep('scale', numbers)}")


if __name__ == "__main__":
    main()
