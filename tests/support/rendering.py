"""The objects of a stack, with all that it may have, and what is looked for in them."""

from pathlib import Path

import pytest

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import StackSpec

DEMO = Path(__file__).parents[2] / "dev/demo/stacks.yaml"


ALL_EXTRAS = [extra.value for extra in model.Extra]


ENGINE = {
    "app_engine_namespace": "tasks",
    "app_engine_token_secret": "tasks-token",
    "app_engine_registry": "localhost:32000",
}


def everything(**changes):
    """Settings that allow all components."""
    return StackSettings(allowed_components=ALL_EXTRAS, namespace="ns", **ENGINE, **changes)


def demo(**changes):
    """The demo's settings."""
    return StackSettings(allowed_components=["cbir"], namespace="ns", values_files=[str(DEMO)], **changes)


def stack(uid="uid-1", **spec):
    """Ada's stack."""
    new = model.new_stack("ns", StackSpec(**{"owner": "ada", **spec}))
    return new.model_copy(update={"uid": uid})


def objects(settings=None, **spec):
    """All objects of her stack."""
    return render.render(stack(**spec), settings or everything())


def find(objs, kind, component):
    """The object of a kind and a component."""
    return next(o for o in objs if o["kind"] == kind and o["metadata"]["name"] == f"cm-ada-{component}")


def pods(objs):
    """What the pods are made from."""
    return [o["spec"]["template"]["spec"] for o in objs if o["kind"] in render.WORKLOADS]


def containers(objs):
    """All containers, those that prepare among them."""
    return [c for pod in pods(objs) for c in [*pod.get("initContainers", []), *pod["containers"]]]


def env(objs, component, kind="Deployment"):
    """The environment of a component's first container: values, or the keys of the Secret."""
    found = find(objs, kind, component)["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return {
        e["name"]: e.get("value", e.get("valueFrom", {}).get("secretKeyRef", {}).get("key")) for e in found
    }


VALUE_SETS = pytest.mark.parametrize(
    ("make", "extras"), [(everything, ALL_EXTRAS), (demo, ["cbir"])], ids=["cytomine", "demo"]
)
