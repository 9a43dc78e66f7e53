"""The chart rendered by Helm, and small judges of what came out."""

from __future__ import annotations

import ipaddress
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import cluster
from dev.console import Problem

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "cytomine-hub"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
# The least that can be installed with LS Login.
BASE = {
    "hub": {"publicUrl": "https://hub.example.org"},
    "lslogin": {"clientId": "client", "clientSecretName": "lslogin-client"},
}
# Helm built from source believes in an old Kubernetes unless told.
KUBERNETES = "1.34.0"
# The same as yaml.SafeLoader, but in C where PyYAML has that.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Object = dict[str, Any]


@lru_cache
def helm_path() -> str:
    """Helm from HELM, the PATH or the local cluster's programs; without one the test fails."""
    found = os.environ.get("HELM") or shutil.which("helm")
    if found:
        return found
    try:
        return str(cluster.bin() / "helm")
    except Problem as problem:
        pytest.fail(f"No helm found: set HELM or put helm on the PATH ({problem})")


def helm(
    *arguments: str, values: Mapping[str, Any] | None = None, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run Helm with values on its standard input; it never sees a cluster unless the environment names one."""
    command = [helm_path(), *arguments]
    if values is not None:
        command += ["--values", "-"]
    # It ends before its memory is worth a collection: that is a fifth of its time.
    env = {**os.environ, "KUBECONFIG": "/dev/null", "GOGC": "off", **kwargs.pop("env", {})}
    text = json.dumps(values) if values is not None else None
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=120, env=env, check=False
    )


def template(
    values: Mapping[str, Any] | None = None, *more: str, release: str = "hub", chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """``helm template`` with values and further arguments."""
    place = [release, str(chart), "--namespace", "cytomine", "--kube-version", KUBERNETES]
    return helm("template", *place, *more, values=values)


def render(values: Mapping[str, Any] | None = None, *more: str, release: str = "hub") -> list[Object]:
    """The objects that the chart makes of values; Helm must have no complaint."""
    # Each test gets objects of its own, which is cheaper than to read the YAML again.
    found: list[Object] = pickle.loads(
        _rendered(json.dumps(BASE if values is None else values), more, release)
    )
    return found


@cache
def _rendered(values: str, more: tuple[str, ...], release: str) -> bytes:
    # Most tests look at the same few renderings; that two are the same is a test of its own.
    done = template(json.loads(values), *more, release=release)
    assert done.returncode == 0, done.stderr
    return pickle.dumps([document for document in yaml.load_all(done.stdout, LOADER) if document])


def example(path: Path) -> list[Object]:
    """The objects of a documented values file."""
    return render({}, "--values", str(path))


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merged as Helm merges values."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            old = result.get(key)
            result[key] = (
                merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
            )
    return result


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
    return found[0]


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Each pod: what makes it, its labels, its spec."""
    for item in objects:
        if item["kind"] == "Pod":
            yield f"Pod/{item['metadata']['name']}", item["metadata"]["labels"], item["spec"]
        elif "template" in item.get("spec", {}):
            pod = item["spec"]["template"]
            yield f"{item['kind']}/{item['metadata']['name']}", pod["metadata"]["labels"], pod["spec"]


def hub_values(objects: list[Object], release: str = "hub") -> dict[str, Any]:
    """The values as the hub gets them."""
    text = find(objects, "Secret", f"{release}-hub-values")["stringData"]["values.json"]
    result: dict[str, Any] = json.loads(text)
    return result


class Network:
    """Answers who may talk to whom, by the rules of NetworkPolicy, from the rendered objects."""

    def __init__(self, objects: list[Object]) -> None:
        self.policies = [
            (o["metadata"]["namespace"], o["spec"]) for o in objects if o["kind"] == "NetworkPolicy"
        ]
        self.pods = {
            labels["app.kubernetes.io/component"]: (labels, spec) for _, labels, spec in pod_specs(objects)
        }
        release = next(iter(self.pods.values()))[0]["app.kubernetes.io/instance"]
        told = hub_values(objects, release)
        self.release, self.users = told["release"]["namespace"], told["users"]["namespace"]
        self._places = dict.fromkeys(self.pods, self.release)
        self.notebook = {
            "app.kubernetes.io/component": "singleuser-server",
            "cytomine-spawner.org/hub": release,
        }
        self.add("notebook", self.notebook, self.users)
        self.add("stranger", {"app": "stranger"}, self.release)

    def add(self, name: str, labels: dict[str, str], namespace: str) -> None:
        """A further pod, without containers."""
        self.pods[name], self._places[name] = (labels, {"containers": []}), namespace

    def allows(self, source: str, target: str, port: int) -> bool:
        """Whether a pod or address may open a connection to a port of a pod or address."""
        return self._side("egress", source, target, target, port) and self._side(
            "ingress", target, source, target, port
        )

    def _side(self, direction: str, subject: str, peer: str, target: str, port: int) -> bool:
        if subject not in self.pods:
            return True  # an address outside has no policies
        where = self._places[subject]
        mine = [
            p for namespace, p in self.policies
            if namespace == where and direction.capitalize() in p["policyTypes"]
            and self._selects(p["podSelector"], subject)
        ]  # fmt: skip
        if not mine:
            return True
        key = "from" if direction == "ingress" else "to"
        rules = [rule for policy in mine for rule in policy.get(direction) or []]
        return any(
            (not rule.get(key) or any(self._is(item, peer, where) for item in rule[key]))
            and (not rule.get("ports") or any(self._port(item, target, port) for item in rule["ports"]))
            for rule in rules
        )

    def _selects(self, selector: Object, name: str) -> bool:
        labels = self.pods[name][0]
        return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())

    def _is(self, peer: Object, name: str, where: str) -> bool:
        if "ipBlock" in peer:
            # Of pods only those outside count as addresses: network plugins differ on the cluster's own pods.
            if name in self.pods or name == "dns":
                return False
            address, block = ipaddress.ip_address(name), peer["ipBlock"]
            inside = address in ipaddress.ip_network(block["cidr"])
            return inside and not any(address in ipaddress.ip_network(x) for x in block.get("except", []))
        if "namespaceSelector" in peer:
            where = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            if where == "kube-system":
                return name == "dns" and peer["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
        if name not in self.pods:
            # Some controller, in a namespace that is none of ours.
            return name == "controller" and where not in (self.release, self.users)
        return self._places[name] == where and self._selects(peer.get("podSelector", {}), name)

    def _port(self, item: Object, target: str, port: int) -> bool:
        wanted = item["port"]
        if isinstance(wanted, str):
            ports = (
                [p for c in self.pods[target][1]["containers"] for p in c.get("ports", [])]
                if target in self.pods
                else []
            )
            return any(p["name"] == wanted and p["containerPort"] == port for p in ports)
        return bool(wanted == port)


def restricted_violations(spec: Object) -> list[str]:
    """What the Pod Security Standard "restricted" has against a pod."""
    wrong = []
    pod = spec.get("securityContext", {})
    if pod.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        wrong.append("seccompProfile")
    wrong += [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    kinds = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in spec.get("volumes", []):
        wrong += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - kinds]
    for container in spec["containers"] + spec.get("initContainers", []):
        security, name = container.get("securityContext", {}), container["name"]
        if security.get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{name}: allowPrivilegeEscalation")
        if security.get("privileged"):
            wrong.append(f"{name}: privileged")
        if not security.get("runAsNonRoot", pod.get("runAsNonRoot")):
            wrong.append(f"{name}: runAsNonRoot")
        if security.get("runAsUser", pod.get("runAsUser")) == 0:
            wrong.append(f"{name}: runAsUser 0")
        capabilities = security.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            wrong.append(f"{name}: capabilities")
        wrong += [f"{name}: hostPort" for port in container.get("ports", []) if port.get("hostPort")]
    return wrong
