"""The stack service as a process of its own on an API server, and that server's objects as others see them."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from cytomine_spawner.cluster.client import RESOURCES
from cytomine_spawner.stack import model
from dev import kubeapi
from tests.support.hub import free_port
from tests.support.movedclock import Hand
from tests.support.prefork import MODULE, Forked, ForkedService

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
LABEL = f"app.kubernetes.io/managed-by={model.MANAGED_BY}"
# What a stack consists of, with what Kubernetes makes of it.
FAMILY = (
    "Pod",
    "Deployment",
    "StatefulSet",
    "ReplicaSet",
    "Job",
    "PersistentVolumeClaim",
    "Service",
    "ConfigMap",
    "Secret",
    "Ingress",
    "NetworkPolicy",
)
T = TypeVar("T")


def until(check: Callable[[], T], seconds: float, what: str) -> T:
    """Wait until a check outside of this process gives something true."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if found := check():
            return found
        now = time.monotonic()
        assert now < deadline, f"waited {seconds} s for {what}"
        # What takes long asks for much: asked all the time it would slow down what it waits for.
        time.sleep(min(0.5, max(0.05, 3 * (now - began))))


def server_of(kubeconfig: Path) -> str:
    """The API server's address."""
    return str(yaml.safe_load(Path(kubeconfig).read_text())["clusters"][0]["cluster"]["server"])


class Objects:
    """The objects of one namespace, over HTTP: a kubectl for each look would take most of the time.

    Args:
        kubeconfig: with a token, or with a client's certificate in it.
        namespace: of all objects.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig, self.namespace = Path(kubeconfig), namespace
        content = yaml.safe_load(self.kubeconfig.read_text())
        target, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        trust, headers = kubeapi.login(self._authority(target), user)
        self.http = httpx.Client(base_url=target["server"], verify=trust, headers=headers, timeout=30)

    def _authority(self, target: dict[str, Any]) -> str:
        if "certificate-authority-data" in target:
            return base64.b64decode(target["certificate-authority-data"]).decode()
        return (self.kubeconfig.parent / target["certificate-authority"]).read_text()

    def path(self, kind: str, name: str = "") -> str:
        """An object's address, or its kind's."""
        more = {
            "ReplicaSet": ("apis/apps/v1", "replicasets"),
            "ResourceQuota": ("api/v1", "resourcequotas"),
        }
        prefix, plural = {**RESOURCES, **more}[kind]
        return f"/{prefix}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        answer = self.http.get(self.path(kind, name))
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def list(self, kind: str, labels: str = "") -> list[dict[str, Any]]:
        """All objects of a kind."""
        answer = self.http.get(self.path(kind), params={"labelSelector": labels} if labels else {})
        answer.raise_for_status()
        return [{**item, "kind": kind} for item in answer.json()["items"]]

    def create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        answer = self.http.post(self.path(kind), json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def patch(
        self, kind: str, name: str, body: dict[str, Any], subresource: str = "", how: str = "merge"
    ) -> None:
        """Patch an object or a part of it, as somebody else than the service."""
        path = self.path(kind, name) + (f"/{subresource}" if subresource else "")
        headers = {"Content-Type": f"application/{how}-patch+json"}
        query = {"fieldManager": "somebody"}
        answer = self.http.patch(path, content=json.dumps(body), headers=headers, params=query)
        assert answer.status_code == 200, answer.text

    def delete(self, kind: str, name: str, **options: Any) -> None:
        """Ask for an object's deletion."""
        body = {"propagationPolicy": "Background", **options}
        answer = self.http.request("DELETE", self.path(kind, name), json=body)
        assert answer.status_code in (200, 202), answer.text

    def everything(self, labels: str) -> list[dict[str, Any]]:
        """All objects with these labels, over all kinds that the API server knows."""
        groups = ["/api/v1"]
        groups += [
            f"/apis/{group['preferredVersion']['groupVersion']}"
            for group in self.http.get("/apis").raise_for_status().json()["groups"]
        ]
        found = []
        for group in groups:
            for resource in self.http.get(group).raise_for_status().json()["resources"]:
                if not resource["namespaced"] or "list" not in resource["verbs"] or "/" in resource["name"]:
                    continue
                path = f"{group}/namespaces/{self.namespace}/{resource['name']}"
                answer = self.http.get(path, params={"labelSelector": labels}).raise_for_status()
                found += [{**item, "kind": resource["kind"]} for item in answer.json().get("items", [])]
        return found

    # -- stacks -------------------------------------------------------------------------------------------

    def new_stack(self, owner: str = "ada", **spec: Any) -> str:
        """Create a stack; its name."""
        stack = model.new_stack(self.namespace, model.StackSpec(owner=owner, **spec))
        self.create(model.KIND, stack.to_object())
        return stack.name

    def stack(self, name: str) -> model.Stack:
        """A stack that is there."""
        found = self.get(model.KIND, name)
        assert found, f"the stack {name} is gone"
        return model.Stack.from_object(found)

    def change(self, name: str, **spec: Any) -> None:
        """Change a stack's spec; keys as in the object."""
        self.patch(model.KIND, name, {"spec": spec})

    def wait_phase(self, name: str, phase: str, seconds: float = 60) -> model.Stack:
        """Wait for a stack to be in a phase, as its present spec asks."""

        last: model.Stack | None = None
        for last in self.follow(name, seconds):
            assert last, f"the stack {name} is gone"
            if last.status.observed_generation == last.generation and last.status.phase is model.Phase(phase):
                return last
        status = json.dumps((self.get(model.KIND, name) or {}).get("status"), indent=1)
        raise AssertionError(f"{name} is not {phase} after {seconds} s: {status}")

    def follow(self, name: str, seconds: float) -> Iterator[model.Stack | None]:
        """A stack as it is and after each change, for a time; None once it is gone."""
        deadline = time.monotonic() + seconds
        path, only = self.path(model.KIND), {"fieldSelector": f"metadata.name={name}"}
        while (left := deadline - time.monotonic()) > 0:
            listed = self.http.get(path, params=only).raise_for_status().json()
            yield next((model.Stack.from_object(item) for item in listed["items"]), None)
            since = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
            with (
                suppress(httpx.TimeoutException),
                self.http.stream(
                    "GET", path, params={**only, **since}, timeout=httpx.Timeout(10, read=left)
                ) as answer,
            ):
                for line in answer.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break  # its version is too old: from the beginning
                    yield None if event["type"] == "DELETED" else model.Stack.from_object(event["object"])
                    if time.monotonic() > deadline:
                        return

    def family(self, name: str = "", *kinds: str) -> dict[tuple[str, str], dict[str, Any]]:
        """All objects of a stack, or of all stacks, by kind and name."""
        labels = LABEL + (f",app.kubernetes.io/instance={name}" if name else "")
        return {
            (kind, item["metadata"]["name"]): item
            for kind in kinds or FAMILY
            for item in self.list(kind, labels)
        }

    def remove(self, name: str) -> None:
        """Delete a stack and wait until it is gone."""
        self.delete(model.KIND, name)
        assert any(stack is None for stack in self.follow(name, 90)), f"{name} is still there"


class Service:
    """The command ``cytomine-stacks``; its settings are written as an administrator does.

    Args:
        folder: for its files.
        kubeconfig: of the API server.
        namespace: of the stacks.
        token: of the service's account; the kubeconfig's own login if empty.
        server: another way to the API server than the kubeconfig's.
        pages: whether it serves the page and the REST API, too; there is no hub behind them.
        forked: whether it is forked from a process that has imported it already, and has a clock that can be moved.
        settings: of the stacks.
    """

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path,
        namespace: str,
        *,
        token: str = "",
        server: str = "",
        pages: bool = False,
        forked: bool = False,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "log"
        self.objects = Objects(kubeconfig, namespace)
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self._hand = Hand(folder / "clock") if forked else None
        port, self.probe_port = free_port(), free_port()
        lines = [
            f"c.StackSettings.namespace = {namespace!r}",
            f"c.StacksApp.pages = {pages}",
            f"c.StacksApp.port = {port}",
            f"c.StacksApp.probe_port = {self.probe_port}",
            "c.StacksApp.address = '127.0.0.1'",
            "c.StacksApp.probe_address = '127.0.0.1'",
            *(f"c.StackSettings.{key} = {value!r}" for key, value in settings.items()),
        ]
        (folder / "config.py").write_text("\n".join(lines))
        content = yaml.safe_load(Path(kubeconfig).read_text())
        target = content["clusters"][0]["cluster"]
        if "certificate-authority" in target:
            target["certificate-authority"] = str(Path(kubeconfig).parent / target["certificate-authority"])
        if server:
            target["server"] = server
        if token:
            content["users"][0]["user"] = {"token": token}
        own = folder / "kubeconfig"
        own.touch(mode=0o600)
        own.write_text(yaml.safe_dump(content))
        self._env = {
            **os.environ,
            "KUBECONFIG": str(own),
            "PYTHONPATH": str(ROOT),
            # The hub is not asked: nobody opens a page here.
            "JUPYTERHUB_API_TOKEN": secrets.token_hex(16),
            "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",
            "JUPYTERHUB_CLIENT_ID": "service-cytomine",
            "JUPYTERHUB_SERVICE_PREFIX": "/services/cytomine/",
            "JUPYTERHUB_SERVICE_NAME": "cytomine",
            "JUPYTERHUB_BASE_URL": "/",
        }

    def start(self) -> Service:
        """Start it; ready when this returns."""
        arguments = [f"--config={self.folder}/config.py"]
        if self._hand:
            self.process = ForkedService(arguments, self._env, self.folder, self.log, self._hand.file)
        else:
            command = [sys.executable, "-m", MODULE, *arguments]
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    command, env=self._env, stdout=log, stderr=log, cwd=self.folder
                )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The stack service did not start. It said: {self.text()[-2000:]}")
            time.sleep(0.02)
        return self

    def move_clock(self, seconds: float) -> None:
        """Have that much time pass for the service; Kubernetes' clock stays."""
        assert self._hand
        assert self.process
        self._hand.move(seconds, self.process.pid, self._until_alive)

    def _until_alive(self, check: Callable[[], T], seconds: float, what: str) -> T:
        def alive() -> T:
            assert self.process
            assert self.process.poll() is None, (
                f"The service ended before {what}. It said: {self.text()[-2000:]}"
            )
            return check()

        return until(alive, seconds, what)

    def end(self, sign: int = signal.SIGTERM) -> None:
        """End it and wait."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(sign)
            self.process.wait(60)

    def close(self) -> None:
        """End it for good."""
        self.end()
        self.objects.http.close()

    def text(self) -> str:
        """What it has said."""
        return self.log.read_text()

    def fetch(self, path: str) -> str:
        """An answer of the probe port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.probe_port}{path}", timeout=20) as answer:
            return str(answer.read().decode())

    def _ready(self) -> bool:
        try:
            return self.fetch("/readyz") == "ok\n"
        except OSError:
            return False

    def metric(self, line: str) -> float:
        """A number of /metrics; 0 where it does not exist."""
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.fetch("/metrics"), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def counted(self, phase: str) -> int:
        """How many stacks the service knows in a phase."""
        return int(self.metric(f'cytomine_stacks{{phase="{phase}"}}'))

    def looks(self) -> int:
        """How often the service looked at a stack since its start."""
        return int(self.metric("cytomine_stack_reconcile_seconds_count"))

    def cpu(self) -> float:
        """Seconds of a processor that it used since its start."""
        assert self.process
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[int, int]:
        """Resident memory in bytes: now, and the most since the start."""
        assert self.process
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (int(re.search(rf"{key}:\s+(\d+)", text)[1]) for key in ("VmRSS", "VmHWM"))  # type: ignore[index]
        return now * 1024, most * 1024
