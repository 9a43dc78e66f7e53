"""What CytomineSpawner adds to a start: against plain KubeSpawner, and a stack against ``helm install`` of the same objects.

python3 -m benchmarks.spawn                 starts on an API server of its own with KWOK's nodes, 30 of each kind
python3 -m benchmarks.spawn --stacks 5      also on the running demo: a stack until ready, and the same by Helm
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, spread, table
from dev import cluster
from dev.console import Console

KINDS = ["KubeSpawner", "CytomineSpawner", "CytomineSpawner with a stack"]


@contextlib.contextmanager
def counted() -> Any:
    """Counts the calls to the API server by verb, watches apart."""
    from kubernetes_asyncio.client import ApiClient

    calls: Counter[str] = Counter()
    whole = ApiClient.request

    async def request(self: Any, method: str, url: str, query_params: Any = None, **kwargs: Any) -> Any:
        watch = "watch" in url or any(k == "watch" for k, _ in query_params or [])
        calls["WATCH" if watch else method] += 1
        return await whole(self, method, url, query_params=query_params, **kwargs)

    ApiClient.request = request
    try:
        yield calls
    finally:
        ApiClient.request = whole


@contextlib.asynccontextmanager
async def reflectors(kubeconfig: Path) -> AsyncIterator[None]:
    """KubeSpawner's shared watches over one API server."""
    import kubespawner.spawner
    from kubernetes_asyncio import config

    from cytomine_spawner import CytomineSpawner

    await config.load_kube_config(config_file=str(kubeconfig))

    async def known(**_: Any) -> None:
        return None

    kubespawner.spawner.load_config = known
    try:
        yield
    finally:
        await CytomineSpawner._stop_all_reflectors()


async def starts(kubeconfig: Path, namespace: str, rounds: int) -> dict[str, Any]:
    """Seconds, calls and objects of each kind of start, the kinds taking turns."""
    from kubespawner import KubeSpawner

    from cytomine_spawner import CytomineSpawner
    from tests.support.kube import make_spawner

    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    calls: dict[str, list[int]] = {kind: [] for kind in KINDS}
    async with reflectors(kubeconfig):
        # Of the process: imports, and the list that fills the reflectors.
        for number in range(-1, rounds):
            for kind in KINDS:
                plain = kind == KINDS[0]
                settings: dict[str, Any] = {
                    "namespace": namespace,
                    "start_timeout": 120,
                    "storage_pvc_ensure": True,
                    "storage_capacity": "1Gi",
                    "automount_service_account_token": False,
                }
                if plain:
                    settings |= {"image": "example/lab:1", "uid": 1000, "allow_privilege_escalation": False}
                else:
                    settings["cytomine_enabled"] = True
                user = f"{kind.lower().replace(' ', '-')}-{number + 1}"
                spawner = make_spawner(KubeSpawner if plain else CytomineSpawner, user=user, **settings)
                if not plain:
                    options = {"image": "standard", "size": "small", "cytomine": kind == KINDS[2]}
                    await spawner._run_apply_user_options(options)
                with counted() as counter:
                    begin = time.perf_counter()
                    await asyncio.wait_for(spawner.start(), 120)
                    took = time.perf_counter() - begin
                    if kind == KINDS[2]:  # what goes on beside the start belongs to it
                        await spawner_settled(spawner)
                if number >= 0:
                    seconds[kind].append(took)
                    calls[kind].append(sum(n for verb, n in counter.items() if verb != "WATCH"))
                await spawner.stop(now=True)
                print(f"\r{number + 1}/{rounds} {kind:<30}", end="", flush=True)
    print()
    return {"seconds": seconds, "calls": calls}


async def spawner_settled(spawner: Any) -> None:
    """Wait until the object that stands for the stack is written."""
    from kubernetes_asyncio import client

    from cytomine_spawner.stack import model

    async with client.ApiClient() as api:
        custom = client.CustomObjectsApi(api)
        for _ in range(400):
            with contextlib.suppress(client.ApiException):
                await custom.get_namespaced_custom_object(
                    model.GROUP, model.VERSION, spawner.namespace, model.PLURAL, spawner.stack_name
                )
                return
            await asyncio.sleep(0.05)
    raise RuntimeError("the stack's object was never written")


def own_server(rounds: int) -> dict[str, Any]:
    """All starts on an API server of the benchmark's own."""
    from tests.support.apiserver import Kubectl, define_stacks

    with tempfile.TemporaryDirectory(prefix="spawn-") as folder:
        try:
            kubectl = Kubectl(cluster.api_up(Path(folder), nodes=3, controllers=True))
            define_stacks(kubectl)
            kubectl("create", "namespace", "bench")
            return asyncio.run(starts(kubectl.kubeconfig, "bench", rounds))
        finally:
            cluster.api_down(Path(folder))


def stacks(rounds: int, port: int) -> dict[str, Any]:
    """On the running demo, seconds until ready: a stack by the service, and its objects by Helm, taking turns."""
    from dev.demo import install

    target = install.prepare(Console(), port)
    hub = install.install(Console(), target, install.DEMO)
    ours: list[float] = []
    helm: list[float] = []
    for number in range(rounds):
        ours.append(by_service(hub, f"bench-{number}"))
        helm.append(by_helm(hub, f"bench-helm-{number}"))
        print(f"stack {number + 1}/{rounds}: service {ours[-1]:.1f} s, helm {helm[-1]:.1f} s")
    return {"service": ours, "helm": helm}


def by_service(hub: Any, owner: str) -> float:
    """A stack from its object until it is ready."""
    from cytomine_spawner.stack.model import StackSpec, new_stack
    from dev.wait import until

    kube, namespace = hub.target.kube, hub.place.users
    stack = new_stack(namespace, StackSpec(owner=owner))
    begin = time.monotonic()
    kube.apply([stack.to_object()], manager="benchmark")
    try:
        until(
            lambda: ((kube.get("-n", namespace, "cytominestack", stack.name) or {}).get("status") or {}).get("phase")
            == "Ready",
            "the stack", 300, cure="Read kubectl describe cytominestack",
        )  # fmt: skip
        return time.monotonic() - begin
    finally:
        kube.kubectl("-n", namespace, "delete", "cytominestack", stack.name, "--timeout=90s", timeout=100)


def by_helm(hub: Any, owner: str) -> float:
    """The very same objects, with a Secret made beforehand, by ``helm install --wait``."""
    import yaml

    from cytomine_spawner.blueprint import render, secretdata
    from cytomine_spawner.blueprint.settings import StackSettings
    from cytomine_spawner.stack.model import StackSpec, new_stack

    kube, namespace = hub.target.kube, hub.place.users
    found = kube.get("-n", hub.place.namespace, "secret", f"{hub.place.release}-stacks-settings")

    with tempfile.TemporaryDirectory(prefix="spawn-helm-") as text:
        folder = Path(text)
        for name, data in found["data"].items():
            (folder / name).write_bytes(base64.b64decode(data))
        config = json.loads((folder / "settings.json").read_text())["StackSettings"]
        config["values_files"] = [str(folder / Path(f).name) for f in config["values_files"]]
        settings = StackSettings(**config)
        stack = new_stack(namespace, StackSpec(owner=owner))
        objects = [
            render.secret(stack, secretdata.generate()),
            *render.render(stack, settings),
        ]
        chart = folder / "chart"
        (chart / "templates").mkdir(parents=True)
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: bench\nversion: 0.0.1\n")
        # Helm must not take nginx's and the shell's braces for its own.
        body = yaml.safe_dump_all(objects).replace("{{", '{{ "{{" }}')
        (chart / "templates/all.yaml").write_text(body)
        begin = time.monotonic()
        try:
            kube.helm("install", owner, str(chart), "-n", namespace, "--wait", "--timeout", "5m", timeout=320)
            return time.monotonic() - begin
        finally:
            kube.helm("uninstall", owner, "-n", namespace, "--wait", timeout=120)
            kube.kubectl("-n", namespace, "delete", "pvc", "-l", f"app.kubernetes.io/instance={stack.name}")


def main() -> int:
    """Measure, print the tables, keep the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=30, help="starts of each kind (default 30)")
    parser.add_argument("--stacks", type=int, default=0, help="stacks on the running demo (default none)")
    parser.add_argument("--port", type=int, default=int(os.environ.get("CYTOMINE_DEMO_PORT", "8000")))
    options = parser.parse_args()
    in_test_environment(["-m", "benchmarks.spawn", *sys.argv[1:]])
    numbers: dict[str, Any] = {}
    if options.n:
        numbers["starts"] = own_server(options.n)
        seconds, calls = numbers["starts"]["seconds"], numbers["starts"]["calls"]
        base = statistics.median(seconds[KINDS[0]])
        rows = [
            [
                kind,
                spread(seconds[kind]),
                f"{1000 * (statistics.median(seconds[kind]) - base):+.0f}",
                f"{statistics.median(calls[kind]):g}",
            ]
            for kind in KINDS
        ]
        table(
            f"A start on an API server with KWOK's nodes, n = {options.n} each, taking turns",
            ["", "s: median (min to max)", "ms more, median", "API calls"],
            rows,
        )
    if options.stacks:
        numbers["stacks"] = stacks(options.stacks, options.port)
        rows = [
            ["the stack service", spread(numbers["stacks"]["service"])],
            ["helm install", spread(numbers["stacks"]["helm"])],
        ]
        table(
            f"A stack of stand-ins until ready, n = {options.stacks} each, taking turns",
            ["", "s: median (min to max)"],
            rows,
        )
    print(f"\nRaw numbers: {keep('spawn', numbers)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
