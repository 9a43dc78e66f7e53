"""A real API server accepts what the stacks consist of, in a namespace that enforces restricted Pod Security."""

import copy
import json
from pathlib import Path

import pytest

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import StackSpec

DEMO = str(Path(__file__).parents[2] / "dev/demo/stacks.yaml")
EXTRAS = [extra.value for extra in model.Extra]
ENGINE = {
    "app_engine_namespace": "tasks",
    "app_engine_token_secret": "tasks-token",
    "app_engine_registry": "localhost:32000",
}
OWNER = "28f7bc3a2d32a4a4ae0f28f7bc3a2d32a4a4ae0f@lifescience-ri.eu"


@pytest.mark.parametrize("size", ["S", "M", "L"])
@pytest.mark.parametrize("values", ["cytomine", "demo"])
@pytest.mark.parametrize("state", ["Running", "Hibernated"])
def test_every_object_is_accepted(kubectl, values, size, state):
    files, extras = ([], EXTRAS) if values == "cytomine" else ([DEMO], ["cbir"])
    settings = StackSettings(
        values_files=files,
        allowed_components=EXTRAS,
        namespace=kubectl.namespace,
        tls_secret="wildcard",
        ingress_class="local",
        storage_classes={"default": "hostpath"},
        image_pull_secrets=["login"],
        node_selector={"a": "b"},
        tolerations=[{"key": "a", "operator": "Exists"}],
        **ENGINE,
    )
    members = {"users": ["bob", OWNER], "groups": ["cytomine:users"]}
    spec = StackSpec(
        owner=OWNER,
        server_name="My server",
        size=size,
        components=extras,
        members=members,
        desired_state=state,
    )
    stack = model.new_stack(kubectl.namespace, spec).model_copy(update={"uid": "a-b"})
    objects = [*render.render(stack, settings), render.secret(stack, {"a": "b"})]
    done = kubectl.apply(*objects, dry_run=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    assert len(done.stdout.splitlines()) == len(objects)
    # Pod Security judges pods, and workloads not at all
    pods = [pod(obj) for obj in objects if obj["kind"] in render.WORKLOADS]
    done = kubectl.apply(*pods, dry_run=True)
    assert done.returncode == 0, done.stderr


def pod(workload):
    template = copy.deepcopy(workload["spec"]["template"])
    # names are checked against priority classes and the like, which are not this test's matter
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": workload["metadata"]["name"]},
        "spec": template["spec"],
    }


def test_pod_security_is_enforced_here(kubectl):
    bad = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bad"},
        "spec": {"containers": [{"name": "bad", "image": "bad"}]},
    }
    done = kubectl.apply(bad, dry_run=True)
    assert done.returncode != 0
    assert "violates PodSecurity" in done.stderr


def test_a_stack_object_is_accepted_and_reads_well(kubectl):
    spec = StackSpec(
        owner=OWNER, components=EXTRAS, members={"users": ["bob"]}, idle_timeout=60, owner_groups=["g"]
    )
    stack = model.new_stack(kubectl.namespace, spec)
    assert kubectl.apply(stack.to_object()).returncode == 0
    status = {"phase": "Starting", "message": "Waiting for core.", "ready": "5/8", "slowest": "core"}
    patch = json.dumps({"status": status})
    kubectl("patch", "cytominestack", stack.name, "--subresource=status", "--type=merge", "-p", patch)
    head, row = kubectl("get", "cytominestacks").stdout.splitlines()
    assert head.split() == ["NAME", "SIZE", "PHASE", "READY", "WAITING", "FOR", "AGE", "MESSAGE"]
    assert row.split()[:5] == [stack.name, "S", "Starting", "5/8", "core"]
    assert row.rstrip().endswith("Waiting for core.")
    read = model.Stack.from_object(kubectl.get("cytominestack", stack.name))
    assert read.spec == spec
    assert read.status.phase is model.Phase.STARTING


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ('{"spec":{"owner":"eve"}}', "owner cannot change"),
        ('{"spec":{"serverName":"x"}}', "serverName cannot change"),
        ('{"spec":{"desiredState":"Off"}}', "Unsupported value"),
        ('{"spec":{"idleTimeout":-1}}', "greater than or equal to 0"),
        ('{"spec":{"components":["nope"]}}', "Unsupported value"),
        ('{"spec":{"retry":-1}}', "greater than or equal to 0"),
    ],
)
def test_a_wrong_change_is_refused_with_the_field(kubectl, patch, says):
    stack = model.new_stack(kubectl.namespace, StackSpec(owner="ada"))
    assert kubectl.apply(stack.to_object()).returncode == 0
    done = kubectl("patch", "cytominestack", stack.name, "--type=merge", "-p", patch, check=False)
    assert done.returncode != 0
    assert says in done.stderr
