"""kubectl on an API server of the tests' own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
