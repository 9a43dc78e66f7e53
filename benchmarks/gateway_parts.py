"""The gateway's benchmark: the person, the slide, and pods to compare with. All pods end with the measurement."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from dev.kube import Kube

# The demo's: of the stacks, and of the hub.
NAMESPACE = "cytomine-users"
HUB_NAMESPACE = "cytomine"
BENCH = "gateway-benchmark"
PROJECT = "Benchmark of the gateway"
# A tile's way through nginx, whatever it is asked for.
STATIC = """
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  keepalive_requests 10000000;
  server { listen 8080; default_type image/jpeg; root /etc/static; location / { rewrite ^ /tile break; } }
}
"""


def addresses(kube: Kube, stack: str) -> dict[str, tuple[str, int]]:
    """Address and port of the stack's Services as this node reaches them."""
    found = {}
    for part, port in (("core", "http"), ("pims", "http"), ("gateway", "public"), ("gateway", "internal")):
        service = kube.get("service", f"{stack}-{part}", "-n", NAMESPACE)
        if not service:
            raise SystemExit(f"The stack {stack} does not run: start it at the hub, then run this again.")
        number = next(p["port"] for p in service["spec"]["ports"] if p["name"] == port)
        found[part if part != "gateway" else port] = (service["spec"]["clusterIP"], number)
    return found


class Person:
    """A test user of the demo with a running stack: the session and the keys."""

    def __init__(self, user: str, port: int) -> None:
        from cytomine_spawner.stack import model
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
        """The headers of a new session in the stack's own page; it is good for four minutes."""
        host = urlsplit(self.url).hostname or ""

        def mine() -> list[Any]:
            return [c for c in self.client.cookies.jar if c.domain.removesuffix(".local") == host]

        for cookie in mine():
            self.client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)
        self.client.get(f"{self.url}/")
        value = "; ".join(f"{c.name}={c.value}" for c in mine())
        return {"Host": urlsplit(self.url).netloc, "Origin": self.url, "Cookie": value}


def signed(keys: tuple[str, str], method: str, content: str = "") -> dict[str, str]:
    """The headers of a signed request."""
    from cytomine_spawner.common import signing

    known = signing.signed(*keys, method=method, content_type=content)
    return {**known, "Content-Type": content} if content else known


def slide(address: tuple[str, int], keys: tuple[str, str]) -> tuple[list[str], int]:
    """The dataset's large slide in a project, put there once: the paths of its largest tiles, and the storage."""
    import cytomine
    from cytomine import models

    from dev import dataset
    from dev.console import Console

    connection = cytomine.Cytomine(
        f"http://{address[0]}:{address[1]}", *keys, use_cache=False, configure_logging=False
    )
    connection.open_admin_session()
    mine = connection.current_user.id
    storage = next(s.id for s in models.StorageCollection().fetch() if s.userId == mine)
    project = next((p for p in models.ProjectCollection().fetch() if p.name == PROJECT), None)
    if not project:
        ontology = models.Ontology(f"{PROJECT} {time.time():.0f}").save()
        project = models.Project(PROJECT, ontology.id).save()
        (file,) = dataset.build(Console()).rglob("skin-large.tif")
        connection.upload_image(str(file), storage, project.id, sync=True)
    image = models.ImageInstanceCollection().fetch_with_filter("project", project.id)[0]
    base = f"/api/sliceinstance/{image.reference_slice().id}/normalized-tile/zoom/{image.zoom}"
    across, down = image.width // image.tileSize, image.height // image.tileSize
    return [f"{base}/tx/{x}/ty/{y}.jpg" for x in range(across) for y in range(down)], storage


class Meter(threading.Thread):
    """Follows the gateway's containers as the kubelet counts them, about every ten seconds.

    Attributes:
        memory: the most MiB of anonymous memory, by container; the page cache is not counted.
        cpu: seconds at the first and the last reading, by container.
        readings: how many the kubelet took.
    """

    def __init__(self, kube: Kube, stack: str) -> None:
        super().__init__(daemon=True)
        self.kube, self.stack = kube, stack
        self.memory: dict[str, float] = {}
        self.cpu: dict[str, tuple[float, float]] = {}
        self.times: set[str] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        """Read until ``ended`` is set, and once more."""
        while not self.ended.wait(4):
            self.read()
        self.read()

    def read(self) -> None:
        """One reading."""
        for node in (self.kube.get("nodes") or {"items": []})["items"]:
            path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
            for pod in json.loads(self.kube.kubectl("get", "--raw", path))["pods"]:
                if pod["podRef"]["name"].startswith(f"{self.stack}-gateway-"):
                    for container in pod.get("containers", []):
                        self._take(container)

    def _take(self, container: dict[str, Any]) -> None:
        name, memory = container["name"], container.get("memory", {})
        cpu = container.get("cpu", {}).get("usageCoreNanoSeconds", 0) / 1e9
        self.times.add(str(memory.get("time")))
        self.memory[name] = max(self.memory.get(name, 0), memory.get("rssBytes", 0) / 2**20)
        self.cpu[name] = (self.cpu.get(name, (cpu, 0))[0], cpu)


def _pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": BENCH}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**spec, "restartPolicy": "Never"}}


def _own(container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"containers": [container], "securityContext": user, "volumes": volumes}


def _config(name: str, data: dict[str, str], binary: dict[str, str]) -> dict[str, Any]:
    meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": BENCH}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data, "binaryData": binary}


class Pods:
    """Makes pods and tells their addresses; see :func:`pods`."""

    def __init__(self, kube: Kube, stack: str) -> None:
        self.kube, self.stack = kube, stack
        self.gateway = (kube.get("deployment", f"{stack}-gateway", "-n", NAMESPACE) or {})["spec"][
            "template"
        ]["spec"]

    def _address(self, name: str, objects: list[dict[str, Any]]) -> str:
        self.kube.apply(objects)
        wait = ("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s")
        self.kube.kubectl("-n", NAMESPACE, *wait, timeout=120)
        address: str = (self.kube.get("pod", name, "-n", NAMESPACE) or {})["status"]["podIP"]
        return address

    def static(self, tile: bytes) -> str:
        """An nginx that answers with one tile whatever it is asked."""
        name = f"static-{BENCH}"
        container = {
            "name": "nginx",
            "image": next(c["image"] for c in self.gateway["containers"] if c["name"] == "gateway"),
            "command": ["nginx", "-e", "/dev/stderr", "-c", "/etc/static/nginx.conf", "-g", "daemon off;"],
            "volumeMounts": [{"name": "config", "mountPath": "/etc/static"}],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        }
        files = _config(name, {"nginx.conf": STATIC}, {"tile": base64.b64encode(tile).decode()})
        volumes = [{"name": "config", "configMap": {"name": name}}]
        return self._address(name, [files, _pod(name, _own(container, volumes))])

    def copy(self, backend: str) -> tuple[str, int]:
        """The stack's gateway once more, with its configuration, login and limits, before another server.

        Returns:
            The address, and the port for browsers.
        """
        name = f"copy-{BENCH}"
        found = (self.kube.get("configmap", f"{self.stack}-gateway", "-n", NAMESPACE) or {})["data"]
        server = rf"server {re.escape(self.stack)}-(core|pims|web-ui):\d+\b"
        files = _config(name, {k: re.sub(server, f"server {backend}:8080", v) for k, v in found.items()}, {})
        spec = json.loads(json.dumps(self.gateway))
        next(v for v in spec["volumes"] if v["name"] == "config")["configMap"]["name"] = name
        ports = [port for container in spec["containers"] for port in container["ports"]]
        public = next(port["containerPort"] for port in ports if port["name"] == "public")
        return self._address(name, [files, _pod(name, spec)]), public

    def hub_proxy(self, part: str, address: str, port: int) -> str:
        """The hub's proxy once more, with its image and limits, which passes all to one server and checks nobody."""
        name = f"proxy-{part}-{BENCH}"
        found = self.kube.get("deployments", "-n", HUB_NAMESPACE, "-l", "app.kubernetes.io/component=proxy")
        if not found or not found["items"]:
            raise SystemExit(f"There is no deployment of the hub's proxy in the namespace {HUB_NAMESPACE}.")
        theirs = found["items"][0]["spec"]["template"]["spec"]["containers"][0]
        command = ["configurable-http-proxy", "--ip=0.0.0.0", "--port=9000", "--api-ip=127.0.0.1"]
        command += [
            "--log-level=warn",
            "--keep-alive-timeout=75000",
            f"--default-target=http://{address}:{port}",
        ]
        container = {"name": "proxy", "image": theirs["image"], "command": command}
        container |= {"resources": theirs.get("resources", {})}
        container["readinessProbe"] = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
        selector = {"app.kubernetes.io/instance": self.stack, "app.kubernetes.io/component": part}
        rule = {"from": [{"podSelector": {"matchLabels": {"app": BENCH}}}], "ports": [{"port": port}]}
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": BENCH}},
            "spec": {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"], "ingress": [rule]},
        }
        return self._address(name, [policy, _pod(name, _own(container, []))])


@contextlib.contextmanager
def pods(kube: Kube, stack: str) -> Iterator[Pods]:
    """Pods to compare with, which end with the block."""
    try:
        yield Pods(kube, stack)
    finally:
        kinds = "pods,configmaps,networkpolicies"
        kube.kubectl("-n", NAMESPACE, "delete", kinds, "-l", f"app={BENCH}", "--now", timeout=120)
