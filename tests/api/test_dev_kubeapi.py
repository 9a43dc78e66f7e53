"""Looks at a cluster without kubectl: what they find is what kubectl finds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev import cluster, kubeapi
from dev.console import Problem
from dev.kube import Kube
from dev.wait import until


@pytest.fixture
def counted(server: Path, tmp_path: Path) -> tuple[Kube, Path]:
    """A cluster, and a file with a line for each start of kubectl."""
    program, calls = tmp_path / "kubectl", tmp_path / "calls"
    program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {cluster.bin() / "kubectl"} "$@"\n')
    program.chmod(0o755)
    return Kube(server, str(program)), calls


def by_kubectl(server: Path, *args: str) -> Any:
    command = [
        cluster.bin() / "kubectl",
        f"--kubeconfig={server}",
        "get",
        *args,
        "-o",
        "json",
        "--ignore-not-found",
    ]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return json.loads(out) if out.strip() else None


def names(found: Any) -> Any:
    if found is None or "items" not in found:
        return found and (found["apiVersion"], found["kind"], found["metadata"]["name"])
    return sorted((i["apiVersion"], i["kind"], i["metadata"]["name"]) for i in found["items"])


@pytest.mark.parametrize(
    "args",
    [
        ("nodes",),
        ("no",),
        ("-n", "NS", "configmaps,secrets,deploy"),
        ("-n", "NS", "cm", "-l", "of=this"),
        ("configmap", "one", "-n", "NS"),
        ("-n", "NS", "configmap", "none"),
        ("-n", "NS", "cytominestacks"),
        ("-n", "NS", "configmaps", "--field-selector", "metadata.name=two"),
        ("crd", "cytominestacks.cytomine-spawner.org"),
        ("-n", "no-such-namespace", "pods"),
    ],
)
def test_a_look_finds_what_kubectl_finds_and_starts_it_only_to_read_the_file(
    server: Path, kubectl: Any, namespace: str, counted: tuple[Kube, Path], args: tuple[str, ...]
) -> None:
    kube, calls = counted
    kubectl("create", "configmap", "one", "--from-literal=a=b")
    kubectl("label", "configmap", "one", "of=this")
    kubectl("create", "configmap", "two")
    told = tuple(namespace if word == "NS" else word for word in args)
    until(lambda: served(kube, told), "what was just defined to be served", 30, cure="Look at the API server")
    assert (names(kube.get(*told)) or []) == (names(by_kubectl(server, *told)) or [])
    (call,) = calls.read_text().splitlines()
    assert "config view" in call


def served(kube: Kube, told: tuple[str, ...]) -> bool:
    api = kubeapi.of(kube.kubeconfig, kube.kubectl_path)
    assert api
    try:
        api.get(kubeapi.Asked.read(told))
    except kubeapi.Unknown:
        return False
    return True


@pytest.mark.parametrize(
    "args", [("pods", "--sort-by=.metadata.name"), ("configmaps",), ("cm/one", "-n", "NS")]
)
def test_what_only_kubectl_knows_is_asked_of_kubectl(
    kubectl: Any, namespace: str, counted: tuple[Kube, Path], args: tuple[str, ...]
) -> None:
    kube, calls = counted
    kubectl("create", "configmap", "one")
    kube.get(*(namespace if word == "NS" else word for word in args))
    assert calls.read_text().splitlines()[-1].startswith("get ")


def test_a_kind_that_nobody_knows_is_a_sentence(counted: tuple[Kube, Path]) -> None:
    with pytest.raises(Problem, match="doesn't have a resource type"):
        counted[0].get("-n", "default", "nonsenses")


def test_a_file_of_another_cluster_is_read_anew(
    server: Path, tmp_path: Path, counted: tuple[Kube, Path]
) -> None:
    file = tmp_path / "kubeconfig"
    by = subprocess.run(
        [cluster.bin() / "kubectl", f"--kubeconfig={server}", "config", "view", "--raw", "--flatten"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    file.write_text(by.stdout)
    kube = Kube(file, counted[0].kubectl_path)
    assert names(kube.get("nodes"))
    # An API server that is not there.
    file.write_text(by.stdout.replace(by.stdout.split("server: ")[1].split("\n")[0], "https://127.0.0.1:9"))
    with pytest.raises(Problem, match="kubectl get nodes failed"):
        kube.get("nodes")
