"""What the gateway costs: tiles and uploads direct, through the gateway, and through the hub's proxy.

python3 -m benchmarks.gateway --user petra            the running demo; the user's stack must run, with its login
python3 -m benchmarks.gateway --user petra --upload 0 without the upload

Everything runs on this machine, the clients too: they share the processors with what they measure. The hub's proxy is
a pod of its own with the hub's image and limits, whose only target is the stack's core or image server. It and the
policy that lets it through are removed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.common import in_test_environment, keep, table
from dev.kube import Kube

CLIENTS = (1, 8, 64)
NAMESPACE = "cytomine"
BENCH = "gateway-benchmark"
PROXY = "through the hub's proxy"
DIRECT = "direct to the Service"
LOGIN = "through the gateway, as a browser"
KEYS = "through the gateway, as a notebook"
BLOCK = bytes(256 * 1024)


@dataclass
class Way:
    """One way to the same server.

    Attributes:
        name: for the table.
        host: address and port for tiles.
        upload: address, port and path for uploads.
        headers: what makes the request a known person's.
    """

    name: str
    host: tuple[str, int]
    upload: tuple[str, int, str]
    headers: dict[str, str]


@dataclass
class Load:
    """What came of one run.

    Attributes:
        seconds: each tile's.
        took: of the run.
        failed: answers other than 200, by status.
    """

    seconds: list[float] = field(default_factory=list)
    took: float = 0
    failed: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Tiles per second."""
        return len(self.seconds) / self.took

    @property
    def p95(self) -> float:
        """Milliseconds that 95 of 100 tiles took at most."""
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(len(found) * 0.95))] * 1000 if found else float("nan")


async def _read(reader: asyncio.StreamReader) -> int:
    """One answer to its end; its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
    return status


async def tiles(way: Way, paths: list[str], clients: int, seconds: float) -> Load:
    """Ask for tiles with so many clients at once, each on a connection that it keeps."""
    load, end = Load(), time.monotonic() + seconds
    lines = [f"{k}: {v}" for k, v in {"Host": f"{way.host[0]}:{way.host[1]}", **way.headers}.items()]
    tail = "\r\n".join(["", *lines, "", ""])

    async def client() -> None:
        while time.monotonic() < end:
            reader, writer = await asyncio.open_connection(*way.host, limit=2**22)
            with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
                await connection(reader, writer)  # until the time is over, or the server closes it

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while time.monotonic() < end:
            start = time.perf_counter()
            writer.write(f"GET {random.choice(paths)} HTTP/1.1{tail}".encode())
            status = await asyncio.wait_for(_read(reader), 60)
            if status == 200:
                load.seconds.append(time.perf_counter() - start)
            else:
                load.failed[status] = load.failed.get(status, 0) + 1

    start = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    load.took = time.monotonic() - start
    return load


async def upload(way: Way, storage: int, size: int) -> float:
    """Send a file of so many bytes; megabytes per second until the answer."""
    host, port, path = way.upload
    edge = b"benchmark"
    name = b'Content-Disposition: form-data; name="files[]"; filename="benchmark.bin"'
    head = b"--" + edge + b"\r\n" + name + b"\r\nContent-Type: application/octet-stream\r\n\r\n"
    foot = b"\r\n--" + edge + b"--\r\n"
    whole = len(head) + size + len(foot)
    headers = {"Host": f"{host}:{port}", **way.headers, "Content-Length": str(whole), "Connection": "close"}
    first = f"POST {path}?idStorage={storage}&storage={storage} HTTP/1.1\r\n"
    first += "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
    reader, writer = await asyncio.open_connection(host, port)
    start = time.monotonic()
    with contextlib.closing(writer):
        writer.write(first.encode() + head)
        left = size
        while left:
            writer.write(BLOCK[: min(left, len(BLOCK))])
            left -= min(left, len(BLOCK))
            await writer.drain()
        writer.write(foot)
        await writer.drain()
        answer = await asyncio.wait_for(reader.readline(), 3600)
    status = int(answer.split(b" ", 2)[1])
    if status >= 300:
        raise SystemExit(f"The upload {way.name} was answered with {status}.")
    return size / 1e6 / (time.monotonic() - start)


class Meter(threading.Thread):
    """Follows the gateway's containers as the kubelet counts them, about every ten seconds."""

    def __init__(self, kube: Kube, stack: str) -> None:
        super().__init__(daemon=True)
        self.kube, self.stack = kube, stack
        self.memory: dict[str, float] = {}
        self.cpu: dict[str, tuple[float, float]] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Read until ``ended`` is set."""
        while True:
            self.read()
            if self.ended.wait(2):
                return

    def read(self) -> None:
        """One reading."""
        for node in (self.kube.get("nodes") or {"items": []})["items"]:
            path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
            for pod in json.loads(self.kube.kubectl("get", "--raw", path))["pods"]:
                if not pod["podRef"]["name"].startswith(f"{self.stack}-gateway-"):
                    continue
                for container in pod.get("containers", []):
                    name = container["name"]
                    memory = container.get("memory", {}).get("workingSetBytes", 0) / 2**20
                    cpu = container.get("cpu", {}).get("usageCoreNanoSeconds", 0) / 1e9
                    self.memory[name] = max(self.memory.get(name, 0), memory)
                    self.cpu[name] = (self.cpu.get(name, (cpu, 0))[0], cpu)


@contextlib.contextmanager
def hub_proxy(kube: Kube, stack: str, services: dict[str, tuple[str, int]]) -> Iterator[dict[str, str]]:
    """Two pods of the hub's proxy, one before core and one before the image server; their addresses."""
    deployments = kube.get("deployments", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=proxy")
    if not deployments or not deployments["items"]:
        raise SystemExit(f"There is no deployment of the hub's proxy in the namespace {NAMESPACE}.")
    found = deployments["items"][0]["spec"]["template"]["spec"]["containers"][0]
    allowed = {f"{part}-{BENCH}": services[part][1] for part in ("core", "pims")}
    objects: list[dict[str, Any]] = []
    for part, (address, port) in services.items():
        if f"{part}-{BENCH}" not in allowed:
            continue
        name = f"{part}-{BENCH}"
        command = ["configurable-http-proxy", "--ip=0.0.0.0", "--port=9000", "--api-ip=127.0.0.1"]
        container = {
            "name": "proxy",
            "image": found["image"],
            "imagePullPolicy": found.get("imagePullPolicy", "IfNotPresent"),
            "command": [*command, f"--default-target=http://{address}:{port}"],
            "resources": found.get("resources", {}),
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": BENCH}}
        user = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
        pod = {"containers": [container], "securityContext": user, "restartPolicy": "Never"}
        objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod})
        selector = {"matchLabels": {"app.kubernetes.io/instance": stack, "app.kubernetes.io/component": part}}
        rule = {"from": [{"podSelector": {"matchLabels": {"app": BENCH}}}], "ports": [{"port": port}]}
        spec = {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [rule]}
        kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        objects.append({**kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
    try:
        kube.apply(objects)
        for name in allowed:
            kube.kubectl(
                "-n", NAMESPACE, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s", timeout=120
            )
        yield {
            name.removesuffix(f"-{BENCH}"): (kube.get("pod", name, "-n", NAMESPACE) or {})["status"]["podIP"]
            for name in allowed
        }
    finally:
        for name in allowed:
            kube.kubectl(
                "-n", NAMESPACE, "delete", f"pod/{name}", f"networkpolicy/{name}", "--ignore-not-found"
            )


def addresses(kube: Kube, stack: str) -> dict[str, tuple[str, int]]:
    """Address and port of the stack's Services as this node reaches them."""
    found = {}
    for part, port in (("core", "http"), ("pims", "http"), ("gateway", "public"), ("gateway", "internal")):
        service = kube.get("service", f"{stack}-{part}", "-n", NAMESPACE)
        if not service:
            raise SystemExit(f"The stack {stack} does not run: start it at the hub, then run this again.")
        number = next(p["port"] for p in service["spec"]["ports"] if p["name"] == port)
        key = part if part != "gateway" else port
        found[key] = (service["spec"]["clusterIP"], number)
    return found


class Person:
    """A test user of the demo with a running stack: the session and the keys."""

    def __init__(self, user: str, port: int) -> None:
        from cytomine_spawner.stacks import model
        from dev.demo.install import DEMO
        from tests.support.browserless import log_in, xsrf

        hub = DEMO.url(port)
        self.client = log_in(hub, user)
        head = {"Referer": f"{hub}/hub/home", **xsrf(self.client, hub)}
        self.name = self.client.get(f"{hub}/hub/api/user", headers=head).json()["name"]
        self.stack = model.stack_name(self.name)
        self.url = DEMO.stack_url(port).replace("{stack}", self.stack)

    def keys(self) -> tuple[str, str]:
        """The public and the private key."""
        self.client.get(f"{self.url}/")
        answer = self.client.get(f"{self.url}/api/user/current/keys", headers={"Accept": "application/json"})
        if answer.status_code != 200:
            raise SystemExit(
                f"{self.url} does not know {self.name} ({answer.status_code}): is the stack's login on?"
            )
        return answer.json()["primaryKey"], answer.json()["secondaryKey"]

    def session(self) -> dict[str, str]:
        """The headers of a fresh session in the stack's own page."""
        self.client.get(f"{self.url}/")
        host = urlsplit(self.url).hostname or ""
        mine = [c for c in self.client.cookies.jar if c.domain.lstrip(".") == host]
        value = "; ".join(f"{c.name}={c.value}" for c in mine)
        return {"Host": urlsplit(self.url).netloc, "Origin": self.url, "Cookie": value}


def signed(keys: tuple[str, str], method: str, content: str = "") -> dict[str, str]:
    """The headers of a signed request."""
    from email.utils import formatdate

    from dev.standin.signing import signature

    date = formatdate()
    known = {"Authorization": f"CYTOMINE {keys[0]}:{signature(keys[1], method, content, date)}", "Date": date}
    return {**known, "Content-Type": content} if content else known


def slide(address: tuple[str, int], keys: tuple[str, str]) -> tuple[list[str], int]:
    """A project with one slide, made by the Python client: the paths of its tiles, and the storage."""
    import cytomine
    from cytomine import models
    from PIL import Image

    connection = cytomine.Cytomine(f"http://{address[0]}:{address[1]}", *keys, use_cache=False)
    connection.open_admin_session()
    name = f"benchmark {time.strftime('%Y-%m-%d %H:%M:%S')}"
    ontology = models.Ontology(name).save()
    project = models.Project(name, ontology.id).save()
    mine = connection.current_user.id
    storage = next(s.id for s in models.StorageCollection().fetch() if s.userId == mine)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noise.png"
        Image.effect_noise((2048, 2048), 90).convert("RGB").save(file)
        uploaded = connection.upload_image(str(file), storage, project.id, sync=True)
    image = models.ImageInstance().fetch(uploaded.images[0]["imageInstances"][0]["id"])
    base = f"/api/sliceinstance/{image.reference_slice().id}/normalized-tile/zoom/{image.zoom}"
    side = 2048 // image.tileSize
    return [f"{base}/tx/{x}/ty/{y}.jpg" for x in range(side) for y in range(side)], storage


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All ways, one after the other, so that none disturbs another."""
    from dev import cluster

    kube = Kube(cluster.kubeconfig(), str(cluster.bin() / "kubectl"))
    person = Person(args.user, args.port)
    services = addresses(kube, person.stack)
    keys = person.keys()
    paths, storage = slide(services["internal"], keys)
    meter = Meter(kube, person.stack)
    meter.read()
    idle = dict(meter.memory)
    meter.start()
    rows: list[dict[str, Any]] = []
    uploads: dict[str, float] = {}
    kind = "multipart/form-data; boundary=benchmark"
    with hub_proxy(kube, person.stack, services) as pods:

        def ways() -> list[Way]:
            core, pims = services["core"], services["pims"]
            return [
                Way(DIRECT, core, (*pims, "/ims/upload"), {}),
                Way(KEYS, services["internal"], (*services["internal"], "/upload"), {}),
                Way(LOGIN, services["public"], (*services["public"], "/upload"), person.session()),
                Way(PROXY, (pods["core"], 9000), (pods["pims"], 9000, "/ims/upload"), {}),
            ]

        for clients in CLIENTS:
            for way in ways():
                way.headers |= {} if way.name == LOGIN else signed(keys, "GET")
                print(f"\r{clients} clients {way.name:40}", end="", flush=True)
                load = asyncio.run(tiles(way, paths, clients, args.seconds))
                row = {"way": way.name, "clients": clients, "rate": load.rate, "p95": load.p95}
                rows.append({**row, "tiles": len(load.seconds), "failed": load.failed})
        for way in ways() if args.upload else []:
            way.headers |= signed(keys, "POST", kind)
            print(f"\rupload of {args.upload} MB {way.name:40}", end="", flush=True)
            uploads[way.name] = asyncio.run(upload(way, storage, args.upload * 10**6))
    print("\r" + " " * 70 + "\r", end="")
    meter.ended.set()
    meter.join()
    used = {name: end - start for name, (start, end) in meter.cpu.items()}
    return {"tiles": rows, "uploads": uploads, "idle": idle, "memory": meter.memory, "cpu": used}


def main() -> None:
    """Measure and print."""
    in_test_environment([str(Path(__file__).resolve()), *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--user", default="petra", help="test user whose stack runs (default petra)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each run (default 10)")
    parser.add_argument(
        "--upload", type=int, default=2000, help="megabytes of the upload (default 2000; 0: none)"
    )
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    numbers = measure(args)
    rate = {(r["way"], r["clients"]): r["rate"] for r in numbers["tiles"]}
    rows = [
        [
            f"tiles, {r['clients']} clients, {r['way']}",
            f"{r['rate']:.0f} /s",
            f"{r['p95']:.0f} ms",
            f"{r['rate'] / rate[DIRECT, r['clients']]:.0%}",
            ", ".join(f"{n} times {status}" for status, n in r["failed"].items()) or "none",
        ]
        for r in numbers["tiles"]
    ]
    for name, speed in numbers["uploads"].items():
        rows.append(
            [f"upload, {name}", f"{speed:.0f} MB/s", "", f"{speed / numbers['uploads'][DIRECT]:.0%}", "none"]
        )
    for name, most in numbers["memory"].items():
        words = f"{numbers['idle'].get(name, 0):.0f} MiB before, {most:.0f} MiB at most, {numbers['cpu'][name]:.1f} s of CPU"
        rows.append([f"container {name}", words, "", "", ""])
    table("The gateway", ["what", "measured", "p95", "of direct", "failed"], rows)
    print(
        f"\nGateway at 8 clients: {rate[LOGIN, 8] / rate[DIRECT, 8]:.0%} of direct (wanted 60 % or more),",
        end=" ",
    )
    print(f"{rate[LOGIN, 8] / rate[PROXY, 8]:.1f} times the hub's proxy (wanted 3 or more)")
    print(f"\nRaw numbers: {keep('gateway', numbers)}")


if __name__ == "__main__":
    main()
