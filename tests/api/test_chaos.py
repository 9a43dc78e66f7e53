"""What the chaos benchmark looks for, it finds: orphans, duplicates, lost rows."""

from collections import Counter

from benchmarks.chaos import Life, duplicates, orphans
from benchmarks.chaos_places import DryPlace
from tests.support.stackservice import until

pytest_plugins = ["tests.support.stackserver"]


def labels(stack, component="x"):
    return {
        "app.kubernetes.io/managed-by": "cytomine-stacks",
        "app.kubernetes.io/instance": stack,
        "app.kubernetes.io/component": component,
    }


def claim(name, **annotations):
    return {
        "metadata": {"name": name, "labels": labels("cm-nobody"), "annotations": annotations},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def test_orphans_of_every_kind_are_found_and_kept_volumes_are_none(shared):
    objects = shared.objects
    objects.create(
        "PersistentVolumeClaim", claim("kept", **{"cytomine-spawner.org/kept-since": "2026-01-01T00:00:00Z"})
    )
    objects.create("PersistentVolumeClaim", claim("left"))
    assert "PersistentVolumeClaim left" in orphans(objects)
    assert "PersistentVolumeClaim kept" not in orphans(objects)
    path = f"/apis/discovery.k8s.io/v1/namespaces/{objects.namespace}/endpointslices"
    slice_ = {
        "metadata": {"name": "left", "labels": labels("cm-nobody")},
        "addressType": "IPv4",
        "endpoints": [],
    }
    objects.http.post(path, json=slice_).raise_for_status()
    assert "EndpointSlice left" in orphans(objects)


def test_a_second_pod_of_a_component_is_found(shared, owner):
    objects = shared.objects
    name = objects.new_stack(owner)
    objects.wait_phase(name, "Ready")
    until(lambda: not duplicates(objects, name), 10, "one pod of each component")
    pod = objects.list("Pod", f"app.kubernetes.io/instance={name},app.kubernetes.io/component=core")[0]
    spec = {k: v for k, v in pod["spec"].items() if k != "nodeName"}
    objects.create(
        "Pod", {"metadata": {"name": f"{name}-second", "labels": labels(name, "core")}, "spec": spec}
    )
    assert duplicates(objects, name) == [f"{name} core: 2 pods, 1 workloads"]


def test_rows_that_are_gone_are_found(shared):
    life = Life(DryPlace(shared, None), 7, Counter())
    assert life.ready()
    life.write()
    life.check()
    assert not life.lost
    # Deleted with its data behind the owner's back.
    shared.objects.remove(life.name)
    assert life.ready()
    life.check()
    assert life.lost == [f"{life.name}: rows [1, 2, 3]"]
