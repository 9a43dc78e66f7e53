"""How long from nothing to a hub, and from a click to a notebook; how much memory each part takes.

python3 -m benchmarks.startup              the running demo: warm start, notebooks, memory
python3 -m benchmarks.startup --cold       also a start with an empty cache (compiles; long)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, spread, table
from dev import cache
from dev.cache import ROOT
from dev.kube import Kube


def demo(action: str, env: dict[str, str] | None = None) -> float:
    """Run ``./demo ACTION``; seconds."""
    start = time.monotonic()
    subprocess.run([ROOT / "demo", action], env={**os.environ, **(env or {})}, check=True)
    return time.monotonic() - start


def steps(home: Path) -> list[list[Any]]:
    """The steps of the last ``./demo`` with their seconds."""
    found: list[list[Any]] = json.loads((home / "log" / "demo-steps.json").read_text())
    return found


def cold() -> dict[str, Any]:
    """``./demo`` with an empty cache and an empty Go build cache; Debian's packages stay installed."""
    demo("stop")
    with tempfile.TemporaryDirectory(prefix="startup-", ignore_cleanup_errors=True) as folder:
        env = {"CYTOMINE_SPAWNER_CACHE": f"{folder}/cache", "GOCACHE": f"{folder}/go"}
        try:
            total = demo("up", env)
            return {"total": total, "steps": steps(Path(folder) / "cache")}
        finally:
            demo("reset", env)


def warm() -> dict[str, Any]:
    """``./demo`` after ``./demo stop``: all is built, the cluster is down."""
    demo("stop")
    total = demo("up")
    return {"total": total, "steps": steps(cache.home())}


def notebooks(n: int, port: int) -> list[float]:
    """Seconds from the request to a notebook that answers, ``n`` times, each started afresh."""
    from dev.demo.install import DEMO
    from tests.support.browserless import log_in, xsrf

    hub = DEMO.url(port)
    client = log_in(hub, "petra")
    api = f"{hub}/hub/api"
    head = {"Referer": f"{hub}/hub/home", **xsrf(client, hub)}
    name = client.get(f"{api}/user", headers=head).json()["name"]

    def server() -> dict[str, Any] | None:
        found: dict[str, Any] | None = (
            client.get(f"{api}/users/{name}", headers=head).json()["servers"].get("")
        )
        return found

    def stop() -> None:
        client.delete(f"{api}/users/{name}/server", headers=head)
        while server():
            time.sleep(0.1)

    if server():
        stop()
    times = []
    for number in range(n + 1):
        start = time.monotonic()
        client.post(f"{api}/users/{name}/server", json={}, headers=head).raise_for_status()
        while not (server() or {}).get("ready"):
            if time.monotonic() - start > 120:
                raise SystemExit(
                    "A notebook was not ready after 120 s. Read kubectl -n cytomine describe pods."
                )
            time.sleep(0.05)
        if number:  # the first one makes the user's volume and warms the page cache
            times.append(time.monotonic() - start)
        if number < n:
            stop()
        print(f"\rnotebook {number} of {n}", end="", flush=True)
    print("\r", end="")
    return times


def memory() -> list[tuple[str, float]]:
    """MiB of each part: the cluster's programs (resident), the demo's pods (working set)."""
    from dev import cluster

    rows = [(f"cluster: {name}", size / 2**20) for name, size in cluster.memories().items()]
    kube = Kube(cluster.kubeconfig(), str(cluster.bin() / "kubectl"))
    end = time.monotonic() + 60
    while True:
        pods = list(_pods(kube))
        # the kubelet counts a new pod after some seconds
        if all(size for _, size in pods) or time.monotonic() > end:
            return rows + [(f"pod: {name}", size / 2**20) for name, size in pods]
        time.sleep(1)


def _pods(kube: Kube) -> Iterator[tuple[str, int]]:
    """Name and working set (bytes) of each pod of the demo and of the cluster's own."""
    for node in (kube.get("nodes") or {"items": []})["items"]:
        path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
        for pod in json.loads(kube.kubectl("get", "--raw", path))["pods"]:
            if pod["podRef"]["namespace"] in ("cytomine", "cytomine-users", "kube-system"):
                yield pod["podRef"]["name"], pod.get("memory", {}).get("workingSetBytes", 0)


def main() -> None:
    """Measure and print."""
    in_test_environment([str(Path(__file__).resolve()), *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--notebooks", type=int, default=10, help="how many notebooks to start (default 10)")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    numbers: dict[str, Any] = {}
    if args.cold:
        numbers["cold"] = cold()
    numbers["warm"] = warm()
    numbers["notebook"] = notebooks(args.notebooks, args.port)
    numbers["memory"] = memory()
    rows: list[list[str]] = []
    for kind in ("cold", "warm"):
        if kind in numbers:
            rows += [[f"{kind}: {title}", f"{took:.1f} s"] for title, took in numbers[kind]["steps"]]
            rows.append([f"{kind}: ./demo in all (steps overlap)", f"{numbers[kind]['total']:.1f} s"])
    rows.append([f"notebook ready, n = {len(numbers['notebook'])}", f"{spread(numbers['notebook'])} s"])
    rows += [[name, f"{size:.0f} MiB"] for name, size in numbers["memory"]]
    rows.append(["memory in all", f"{sum(s for _, s in numbers['memory']):.0f} MiB"])
    table("Start-up (median, minimum to maximum)", ["what", "measured"], rows)
    print(f"\nRaw numbers: {keep('startup', numbers)}")


if __name__ == "__main__":
    main()
