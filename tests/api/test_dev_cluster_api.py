"""The API server for tests plays nodes and pods, counts requests and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dev import cluster
from dev.cluster.parts import Parts

WORKLOAD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "app"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "app"}},
        "template": {
            "metadata": {"labels": {"app": "app"}},
            "spec": {
                "containers": [{"name": "main", "image": "example/none:1"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            },
        },
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def kubectl(config: Path, *args: str, stdin: object = None) -> str:
    command = [cluster.bin() / "kubectl", "--kubeconfig", config, *args]
    text = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Of a server with all that can be had."""
    folder = tmp_path_factory.mktemp("dev-cluster") / "one"
    cluster.api_up(folder, nodes=2, controllers=True, audit=folder.parent / "audit.log")
    yield folder
    cluster.api_down(folder)


def test_played_nodes_run_bind_and_delete_what_the_controllers_make(folder: Path) -> None:
    config = folder / "kubeconfig"
    kubectl(
        config, "apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": [WORKLOAD, CLAIM]}
    )
    kubectl(config, "rollout", "status", "deploy/app", "--timeout=60s")
    assert kubectl(config, "get", "pvc", "data", "-o", "jsonpath={.status.phase}") == "Bound"
    kubectl(config, "delete", "deploy/app", "pvc/data", "--timeout=60s")
    kubectl(config, "wait", "--for=delete", "pod", "-l", "app=app", "--timeout=60s")
    requests = [json.loads(line) for line in (folder.parent / "audit.log").read_text().splitlines()]
    created = [r for r in requests if r["verb"] == "create" and r["objectRef"]["resource"] == "deployments"]
    # kubectl's apply is one request to create
    assert [r["objectRef"]["name"] for r in created] == ["app"]
    assert not any("requestObject" in r for r in requests), "bodies do not belong in this log"


def test_two_run_at_once_and_end_without_a_trace(folder: Path) -> None:
    other = folder.with_name("two")
    folders = [folder, other]
    try:
        configs = [folder / "kubeconfig", cluster.api_up(other)]
        for n, config in enumerate(configs):
            kubectl(config, "create", "namespace", f"only-{n}")
        assert "only-1" not in kubectl(configs[0], "get", "namespaces", "-o", "name")
        started = [_running(f) for f in folders]
        assert [len(parts) for parts in started] == [6, 2]
    finally:
        for f in folders:
            cluster.api_down(f)
    assert not any(part.alive() for parts in started for part in parts)


def _running(folder: Path):
    parts = Parts(folder / "parts", folder / "log")
    return [part for name in parts.names() if (part := parts.get(name)) and part.alive()]
