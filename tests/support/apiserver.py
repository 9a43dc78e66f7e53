"""kubectl on an API server of the tests' own."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from dev import cluster
from dev.cache import ROOT
from dev.wait import until

CRDS = ROOT / "helm/cytomine-hub/crds"


def define_stacks(kubectl: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Make the chart's resource definitions known to an API server, and wait until it serves them."""
    kubectl("apply", "-f", str(CRDS))
    wait = ("wait", "--for=condition=Established", "--timeout=5s", "-f", str(CRDS))
    # A definition of this very moment has no conditions yet, and kubectl's own waiting ends at that.
    until(
        lambda: kubectl(*wait, check=False).returncode == 0, "the stacks' definition", 30, cure="Look at it"
    )


# What tests see the work of. Each further one reads all that is written, and writes, too.
CONTROLLERS = (
    "deployment-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
    "statefulset-controller",
)


def start_with_stacks(folder: Path) -> None:
    """An API server with controllers and three nodes that run nothing, that knows the stacks."""
    define_stacks(Kubectl(cluster.api_up(folder, nodes=3, controllers=CONTROLLERS)))


def new_namespace(http: httpx.Client, kind: str, **labels: str) -> str:
    """Make a namespace that takes only pods of the restricted Pod Security Standard.

    Args:
        http: of the API server, with an administrator's login.
        kind: how its name begins; no other process of the tests makes the same name.
        labels: of Pod Security beside ``enforce``.
    """
    name = f"{kind}-{secrets.token_hex(4)}"
    labels = {f"pod-security.kubernetes.io/{k}": v for k, v in {"enforce": "restricted", **labels}.items()}
    body = {"metadata": {"name": name, "labels": labels}}
    http.post("/api/v1/namespaces", json=body).raise_for_status()
    # A controller makes it some time later, and pods are refused until then.
    account = {"metadata": {"name": "default"}}
    answer = http.post(f"/api/v1/namespaces/{name}/serviceaccounts", json=account)
    assert answer.status_code in (201, 409), answer.text
    return name


class Kubectl:
    """kubectl on one API server, in one namespace where that is given."""

    def __init__(self, kubeconfig: Path, namespace: str = "") -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        scope = [f"--namespace={namespace}"] if namespace else []
        self.command = [
            str(cluster.bin() / "kubectl"),
            f"--kubeconfig={kubeconfig}",
            "--request-timeout=30s",
            *scope,
        ]

    def __call__(self, *args: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; a failure is the test's unless ``check`` is false."""
        done = subprocess.run(
            [*self.command, *args], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def get(self, *args: str) -> dict[str, Any]:
        """``kubectl get`` as Python objects."""
        found: dict[str, Any] = json.loads(self("get", *args, "-o", "json").stdout)
        return found

    def apply(self, *objects: dict[str, Any], dry_run: bool = False) -> subprocess.CompletedProcess[str]:
        """Server-side apply of objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        extra = ["--dry-run=server"] if dry_run else []
        return self("apply", "--server-side", *extra, "-f", "-", stdin=text, check=False)
