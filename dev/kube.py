"""kubectl and helm against one cluster, for the development commands."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from dev import kubeapi, proc
from dev.console import Problem


@dataclass(frozen=True)
class Kube:
    """A cluster as the command line sees it.

    Attributes:
        kubeconfig: the file that says where the cluster is and who we are.
        kubectl_path: the kubectl program.
        helm_path: the helm program.
    """

    kubeconfig: Path
    kubectl_path: str = "kubectl"
    helm_path: str = "helm"

    @property
    def env(self) -> dict[str, str]:
        """Environment in which any Kubernetes client finds this cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *args: str, what: str = "", stdin: str | None = None, timeout: float = 60) -> str:
        """Run kubectl and return its output; raises Problem when it fails."""
        return proc.run(
            [self.kubectl_path, *args],
            what or f"kubectl {args[0]}",
            log="kubectl",
            timeout=timeout,
            env=self.env,
            stdin=stdin,
        )

    def helm(self, *args: str, what: str = "", timeout: float = 300) -> str:
        """Run helm and return its output; raises Problem when it fails."""
        return proc.run(
            [self.helm_path, *args], what or f"helm {args[0]}", log="helm", timeout=timeout, env=self.env
        )

    def get(self, *args: str) -> dict[str, Any] | None:
        """``kubectl get ARGS -o json``, or None where there is no such object."""
        try:
            if api := kubeapi.of(self.kubeconfig, self.kubectl_path):
                return api.get(kubeapi.Asked.read(args))
        except (kubeapi.Unknown, OSError, HTTPException):
            pass  # kubectl says it better
        out = subprocess.run(
            [self.kubectl_path, "get", *args, "-o", "json", "--ignore-not-found"],
            env={**proc.os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if out.returncode:
            raise Problem(
                f"kubectl get {' '.join(args)} failed: {out.stderr.strip()[-300:]}",
                "Check that the cluster answers (kubectl get nodes)",
            )
        found: dict[str, Any] | None = json.loads(out.stdout) if out.stdout.strip() else None
        return found

    def apply(self, objects: list[dict[str, Any]], manager: str = "cytomine-demo") -> None:
        """Server-side apply: the same call makes, mends and keeps the objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl(
            "apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "-f", "-",
            stdin=text, what="applying the demo's objects",
        )  # fmt: skip
