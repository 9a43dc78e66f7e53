"""The local cluster keeps the promises that the project's own tests build upon."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from dev import cluster
from dev.cache import ROOT
from dev.cluster import cleanup, node, parts
from dev.cluster.programs import NO_DEBUG_INFO
from dev.console import Console
from dev.demo import install

foreign = os.environ.get("KUBECONFIG", "") not in ("", str(cluster.kubeconfig()))
pytestmark = [
    pytest.mark.skipif(
        foreign,
        reason="KUBECONFIG names a cluster that is not the local one: these tests are about the local one",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="the local cluster needs root"),
]

SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def until(what: str, holds: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.1)


class Space:
    """A namespace of the test's own and what it holds."""

    def __init__(self, programs: cluster.Programs, name: str) -> None:
        self.programs, self.name = programs, name

    def kubectl(self, *args: str, stdin: object = None, ok: bool = True) -> str:
        command = [
            self.programs.bin / "kubectl",
            "--kubeconfig",
            cluster.kubeconfig(),
            "-n",
            self.name,
            *args,
        ]
        text = None if stdin is None else json.dumps(stdin)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=240)
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout if ok else done.stderr

    def apply(self, *things: dict) -> None:
        self.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": list(things)})

    def pod(self, name: str, claim: str = "", wait: bool = True, **spec: object) -> None:
        container = {
            "name": "main",
            "image": self.programs.images["testserver"],
            "args": ["serve"],
            "env": [{"name": "NAME", "value": name}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "96Mi"}},
            "securityContext": SAFE,
        }
        pod: dict = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
        if claim:
            pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
            container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": pod,
            }
        )
        if wait:
            self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s")

    def service(self, name: str) -> None:
        spec = {"selector": {"app": name}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})

    def ingress(self, name: str, host: str, paths: dict[str, str], port: dict | None = None) -> None:
        rules = [
            {
                "path": path,
                "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": port or {"number": 80}}},
            }
            for path, service in paths.items()
        ]
        spec = {"rules": [{"host": host, "http": {"paths": rules}}]}
        self.apply(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {"name": name},
                "spec": spec,
            }
        )

    def run(self, pod: str, *args: str) -> subprocess.CompletedProcess[str]:
        """The test program in a pod, whatever it returns."""
        head = [self.programs.bin / "kubectl", "--kubeconfig", cluster.kubeconfig(), "-n", self.name]
        return subprocess.run(
            [*head, "exec", pod, "--", "/testserver", *args], capture_output=True, text=True, timeout=60
        )


@pytest.fixture(scope="module")
def programs() -> Iterator[cluster.Programs]:
    console = Console()
    programs = cluster.build(console)
    cluster.up(console, cluster.ingress_port())
    cluster.import_images(console, [programs.archive("testserver")])
    yield programs
    left = Space(programs, "default")
    mine = ("-l", f"{install.TEST_LABEL}={install.TEST_WORD}", "-o", "name")
    until("the tests' namespaces are gone", lambda: "test-dev-" not in left.kubectl("get", "ns", *mine), 120)


@pytest.fixture
def space(programs: cluster.Programs) -> Iterator[Space]:
    space = Space(programs, f"test-dev-{secrets.token_hex(4)}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **install.TEST_LABELS}
    space.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name, "labels": labels}})
    yield space
    space.kubectl("delete", "namespace", space.name, "--wait=false")


def ask(
    host: str, path: str = "/", method: str = "GET", body: object = None, headers: dict | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.ingress_port(), timeout=60)
    try:
        connection.request(method, path, body, {"Host": host, **(headers or {})})  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_pod_runs_and_answers_logs_exec_and_port_forward(space: Space) -> None:
    space.pod("web")
    assert "listening on :8080" in space.kubectl("logs", "web")
    assert json.loads(space.run("web", "get", "http://localhost:8080/x").stdout)["path"] == "/x"
    command = [
        space.programs.bin / "kubectl",
        "--kubeconfig",
        cluster.kubeconfig(),
        "-n",
        space.name,
        "port-forward",
        "pod/web",
        ":8080",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout
        port = int(re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())[1])  # type: ignore[index]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/forwarded")
        assert json.loads(connection.getresponse().read())["path"] == "/forwarded"
        connection.close()
        forward.terminate()


def test_a_service_is_found_by_its_name_and_reached(space: Space) -> None:
    space.pod("web")
    space.service("web")
    space.pod("client")
    assert space.run("client", "lookup", f"web.{space.name}.svc.cluster.local").stdout.startswith("10.96.")
    until("the service answers", lambda: '"name":"web"' in space.run("client", "get", "http://web/").stdout)


def test_network_policies_block_and_allow(space: Space) -> None:
    for name in ("web", "friend", "stranger"):
        space.pod(name, wait=False)
    space.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s")
    address = space.kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}") + ":8080"
    assert space.run("stranger", "dial", address).returncode == 0, "open before there is a policy"
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "http"}]}
        ],
    }
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web"},
        "spec": spec,
    }
    space.apply(policy)
    until("the stranger is kept out", lambda: space.run("stranger", "dial", address).returncode == 1, 30)
    assert space.run("friend", "dial", address).returncode == 0
    space.apply(
        {
            **policy,
            "metadata": {"name": "no-way-out"},
            "spec": {"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"]},
        }
    )
    until("the friend is kept in", lambda: space.run("friend", "dial", address).returncode == 1, 30)
    space.kubectl("delete", "networkpolicy", "--all")
    until("all is open again", lambda: space.run("stranger", "dial", address).returncode == 0, 30)


def claim(name: str) -> dict:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def test_a_volume_outlives_its_pod_and_goes_with_its_claim(space: Space) -> None:
    host = f"{space.name}.localhost"
    space.apply(claim("data"))
    space.service("web")
    space.ingress("web", host, {"/": "web"})
    space.pod("web", claim="data")
    until("the ingress knows the pod", lambda: ask(host)[0] == 200)
    assert ask(host, "/file?name=a", "PUT", b"kept")[0] == 200
    volume = space.kubectl("get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}")
    space.kubectl("delete", "pod", "web", "--timeout=180s")
    space.pod("web", claim="data")
    until("the ingress knows the new pod", lambda: ask(host)[0] == 200)
    assert ask(host, "/file?name=a") == (200, "kept")
    folder = cluster.state() / "pv" / volume
    assert (folder / "a").read_bytes() == b"kept"
    space.kubectl("delete", "pod/web", "pvc/data", "--timeout=180s")
    until("the volume's folder is removed", lambda: not folder.exists())


def test_the_ingress_routes_by_host_path_and_wildcard(space: Space) -> None:
    base = f"{space.name}.localhost"
    for name in ("one", "two"):
        space.pod(name, wait=False)
        space.service(name)
    space.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s")
    space.ingress("paths", base, {"/": "one", "/two": "two"}, {"name": "web"})
    space.ingress("wild", f"*.{base}", {"/": "two"})
    until("the ingress is known", lambda: ask(f"x.{base}")[0] == 200)

    def name(host: str, path: str) -> str:
        return json.loads(ask(host, path)[1])["name"]

    assert [name(base, p) for p in ("/", "/twofold", "/two", "/two/x")] == ["one", "one", "two", "two"]
    assert name(f"any.{base}:8000", "/") == "two"
    assert ask(f"a.b.{base}")[0] == 404
    headers = json.loads(ask(base, headers={"X-Forwarded-For": "1.2.3.4", "X-Forwarded-User": "root"})[1])[
        "headers"
    ]
    assert headers["X-Forwarded-For"] == ["127.0.0.1"]
    assert headers["X-Forwarded-Host"] == [base]
    assert "X-Forwarded-User" not in headers
    until(
        "the Ingress's status names the address",
        lambda: (
            space.kubectl("get", "ingress", "paths", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
            == "127.0.0.1"
        ),
    )
    space.kubectl("delete", "pod", "one", "--timeout=180s")
    until(
        "the missing pod is told",
        lambda: ask(base) == (503, f"The Service {space.name}/one:web has no ready endpoint yet.\n"),
    )


def test_the_ingress_streams_a_large_upload_with_flat_memory(space: Space) -> None:
    host = f"{space.name}.localhost"
    space.pod("web")
    space.service("web")
    space.ingress("web", host, {"/": "web"})
    until("the ingress knows the pod", lambda: ask(host)[0] == 200)
    pid = node._parts().get("ingress").pid  # type: ignore[union-attr]
    before, seen, size = parts.memory(pid), [], 200 << 20
    digest, block = hashlib.sha256(), os.urandom(1 << 20)

    def body() -> Iterator[bytes]:
        for _ in range(size >> 20):
            digest.update(block)
            seen.append(parts.memory(pid))
            yield block

    status, text = ask(host, "/upload", "POST", body(), {"Content-Length": str(size)})
    assert (status, text) == (200, f"{size} {digest.hexdigest()}\n")
    assert max(seen) - before < 24 << 20, "the ingress holds the body in memory"


async def test_the_ingress_passes_websockets(space: Space) -> None:
    host = f"ws.{space.name}.localhost"
    space.pod("web")
    space.service("web")
    space.ingress("web", host, {"/": "web"})
    until("the ingress knows the pod", lambda: ask(host)[0] == 200)
    request = HTTPRequest(
        f"ws://127.0.0.1:{cluster.ingress_port()}/ws", headers={"Host": host}, connect_timeout=10
    )
    connection = await websocket_connect(request)
    for message in ("hello", "x" * 100_000):
        await connection.write_message(message)
        assert await connection.read_message() == f"web: {message}"
    connection.close()


def test_nothing_leaves_the_machine(space: Space) -> None:
    space.pod("client")

    def refused() -> int:
        rules = subprocess.run(
            ["nft", "list", "table", "inet", "kubeguard"], capture_output=True, text=True, check=True
        ).stdout
        return sum(int(n) for n in re.findall(r"counter packets (\d+)", rules))

    before = refused()
    # an address of RFC 5737: nobody's, and outside of the cluster
    assert space.run("client", "dial", "203.0.113.1:80").returncode == 1
    assert refused() > before, "the guard saw nothing"


def test_limits_quota_and_pod_security_are_enforced(space: Space) -> None:
    space.pod("web")
    uid = space.kubectl("get", "pod", "web", "-o", "jsonpath={.metadata.uid}")
    limits = [
        int(f.read_text())
        for pattern in ("memory.limit_in_bytes", "memory.max")
        # No look into all folders: those of other pods vanish meanwhile.
        for top in cleanup.cgroups()
        for f in top.glob(f"kubepods/*/pod{uid}/{pattern}")
    ]
    assert limits == [96 << 20]
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "1"}},
    }
    space.apply(quota)
    until(
        "the quota counts the pod",
        lambda: '"pods":"1"' in space.kubectl("get", "quota", "q", "-o", "jsonpath={.status.used}"),
    )
    image = space.programs.images["testserver"]
    assert "exceeded quota" in space.kubectl(
        "run", "more", f"--image={image}", f"--overrides={_overrides()}", ok=False
    )
    space.kubectl("delete", "quota", "q")
    assert "violates PodSecurity" in space.kubectl(
        "run", "root", f"--image={image}", "--privileged", ok=False
    )


def _overrides() -> str:
    container = {"name": "more", "image": "localhost/none:1", "securityContext": SAFE}
    return json.dumps({"spec": {"containers": [container]}})


def test_pods_and_volumes_survive_a_cluster_that_was_cut_off(space: Space) -> None:
    pods = json.loads(space.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    others = {n for p in pods if not (n := p["metadata"]["namespace"]).startswith("test-dev-")} - {
        "kube-system"
    }
    if others:
        pytest.skip(
            f"pods of {', '.join(sorted(others))} run on this cluster: cutting it off would disturb them"
        )
    host = f"{space.name}.localhost"
    space.apply(claim("data"))
    space.service("web")
    space.ingress("web", host, {"/": "web"})
    space.pod("web", claim="data")
    until("the ingress knows the pod", lambda: ask(host)[0] == 200)
    assert ask(host, "/file?name=a", "PUT", b"kept")[0] == 200
    for name in ("kubelet", "etcd", "containerd", "kube-apiserver"):
        os.kill(node._parts().get(name).pid, signal.SIGKILL)  # type: ignore[union-attr]
    until("the cluster is seen to be down", lambda: not cluster.healthy())
    # and a start that is cut off in the middle, too
    command = [sys.executable, "-m", "dev.cluster", "up", "--port", str(cluster.ingress_port())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as start:
        until("the start is half done", lambda: node._parts().alive("kube-controller-manager"))
        start.kill()
    cluster.up(Console(), cluster.ingress_port())
    space.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=180s")
    until("the ingress knows the pod", lambda: ask(host)[0] == 200)
    assert ask(host, "/file?name=a") == (200, "kept")


def test_a_running_cluster_is_found_at_once(programs: cluster.Programs) -> None:
    began = time.monotonic()
    cluster.up(Console(), cluster.ingress_port())
    assert time.monotonic() - began < 2


def test_the_parts_written_in_go_pass_their_own_tests() -> None:
    cluster.build(Console())
    # with the switches of the build, so that what it compiled is not compiled again
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    command = ["go", "test", "-trimpath", *NO_DEBUG_INFO, "-vet=off", "./ingress", "./netpol"]
    done = subprocess.run(
        command, cwd=ROOT / "dev/cluster/tools", env=env, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == 2
