"""An installation of before is moved by the documented script: no volume is lost, and the stacks are what they were."""

from __future__ import annotations

import os
import subprocess

import pytest

from dev import cluster
from tests.support.apiserver import Kubectl, new_namespace
from tests.support.chart import ROOT
from tests.support.examples import THOROUGH
from tests.support.stackservice import Objects, Service, until

SCRIPT = ROOT / "helm" / "move-users.sh"
pytest_plugins = ["tests.support.stackserver"]


@pytest.fixture
def target(api, kubectl):
    """The namespace for the users."""
    return Kubectl(kubectl.kubeconfig, new_namespace(api.http, "people"))


@pytest.fixture
def move(kubectl, target, tmp_path):
    """Runs the script, or lets it end where it first comes to a line."""

    def run(*, cut: str = "") -> subprocess.CompletedProcess[str]:
        text = SCRIPT.read_text()
        if cut:
            assert text.count(f"{cut}\n") == 1, cut
            text = text.replace(f"{cut}\n", f"exit 7\n{cut}\n")
        (tmp_path / "script").write_text(text)
        path = f"{cluster.bin()}:{os.environ['PATH']}"
        env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "PATH": path}
        command = [
            "sh",
            str(tmp_path / "script"),
            kubectl.namespace,
            target.namespace,
            "hub",
            str(tmp_path / "moved"),
        ]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)

    return run


def deployment(part):
    """As the chart makes it: the service is another process here."""
    labels = {
        "app.kubernetes.io/name": "cytomine-hub",
        "app.kubernetes.io/instance": "hub",
        "app.kubernetes.io/component": part,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"hub-{part}", "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": secure({"name": "c", "image": "i"})},
        },
    }


def secure(container, **more):
    """A pod of restricted Pod Security."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{**container, "securityContext": security}],
        **more,
    }


OURS = {"cytomine-spawner.org/hub": "hub"}


def home(name, **labels):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "labels": {**OURS, **labels},
            "annotations": {"hub.jupyter.org/username": "ada"},
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def notebook(claim):
    volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "jupyter-ada", "labels": OURS},
        "spec": secure({"name": "notebook", "image": "i"}, volumes=volumes),
    }


def volumes(kubectl):
    """The volume of each claim that has one, and what happens to it when the claim goes."""
    policies = {
        v["metadata"]["name"]: v["spec"]["persistentVolumeReclaimPolicy"]
        for v in Kubectl(kubectl.kubeconfig).get("pv")["items"]
    }
    return {
        c["metadata"]["name"]: (c["spec"]["volumeName"], policies[c["spec"]["volumeName"]])
        for c in kubectl.get("pvc")["items"]
        if c["status"]["phase"] == "Bound"
    }


# Where the script is cut off the first time; each takes a minute, so a usual run tries one.
CUTS = {
    "between two claims": 'kubectl apply --server-side --force-conflicts -f "$file"',
    "whole": "",
    "before the stacks": "# The stacks, asleep: who opens one wakes it up.",
}


# Sixty calls of kubectl, which take seconds each where the machine does something else.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cut", list(CUTS)[: None if THOROUGH else 1])
def test_homes_and_stacks_come_to_the_other_namespace_on_the_same_volumes_also_when_cut(
    kubectl, target, move, service, tmp_path, cut
):
    old = service()
    name = old.objects.new_stack("ada", members={"users": ["bob"]}, size="M", display_name="Work")
    old.objects.wait_phase(name, "Ready")
    assert (
        kubectl.apply(
            home("claim-ada"), notebook("claim-ada"), deployment("hub"), deployment("stacks")
        ).returncode
        == 0
    )
    until(lambda: "claim-ada" in volumes(kubectl), 60, "the home to have a volume")
    # Of another hub, or nobody's: stays.
    other = {"metadata": {"name": "other", "labels": {"cytomine-spawner.org/hub": "two"}}}
    assert kubectl.apply({**home("other"), **other}).returncode == 0
    before, spec = volumes(kubectl), old.objects.stack(name).spec
    assert len(before) == 4

    if CUTS[cut]:
        assert move(cut=CUTS[cut]).returncode == 7
    done = move()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert volumes(target) == before
    assert [c["metadata"]["name"] for c in kubectl.get("pvc")["items"]] == ["other"]
    claim = target.get("pvc", "claim-ada")["metadata"]
    assert (claim["labels"], claim["annotations"]["hub.jupyter.org/username"]) == (OURS, "ada")
    assert kubectl.get("pods,cytominestacks")["items"] == []
    old.end()

    new = Service(tmp_path / "new", kubectl.kubeconfig, target.namespace, forked=True)
    try:
        new.start()
        asleep = new.objects.wait_phase(name, "Hibernated")
        assert asleep.spec == spec.replace(desired_state="Hibernated")
        assert volumes(target) == before, "the volumes are the stack's"
        new.objects.change(name, desiredState="Running")
        new.objects.wait_phase(name, "Ready")
        assert volumes(target) == before
        kept = [c["metadata"].get("annotations", {}) for c in target.get("pvc")["items"]]
        assert not [k for k in kept if "cytomine-spawner.org/kept-since" in k]
    finally:
        new.close()
    # Once more changes nothing.
    done = move()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert volumes(target) == before
    assert Objects(kubectl.kubeconfig, target.namespace).stack(name).spec.desired_state.value == "Running"
