"""What others remove, change or leave behind is set right, and only that is sent."""

import json
import signal
import threading

import pytest

from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.operator import apply, operator
from cytomine_spawner.stack import model
from tests.support.stackservice import until

pytest_plugins = ["tests.support.stackserver"]


@pytest.fixture(scope="module")
def steady(shared):
    """The name of one stack for several tests, after which it is as before."""
    return shared.objects.new_stack("steady")


def test_what_others_remove_is_there_again_at_once(shared, steady):
    objects, name = shared.objects, steady
    objects.wait_phase(name, "Ready")
    for kind, part in (
        ("NetworkPolicy", "core"), ("Deployment", "web-ui"), ("Service", "pims"), ("ConfigMap", "gateway"),
    ):  # fmt: skip
        old = objects.get(kind, f"{name}-{part}")["metadata"]["uid"]
        objects.delete(kind, f"{name}-{part}")

        def back(kind=kind, part=part, old=old):
            found = objects.get(kind, f"{name}-{part}")
            return found is not None and found["metadata"]["uid"] != old

        until(back, 15, f"the {kind} {part} to be back")
    objects.wait_phase(name, "Ready")
    objects.delete("Pod", f"{name}-postgis-0")
    objects.wait_phase(name, "Ready")


def test_what_others_change_is_set_back_at_once(shared, steady):
    objects, name = shared.objects, steady
    objects.wait_phase(name, "Ready")

    def image():
        return objects.get("Deployment", f"{name}-core")["spec"]["template"]["spec"]["containers"][0]["image"]

    before = image()
    containers = [{"name": "core", "image": "stranger/core:1"}]
    change = {"spec": {"template": {"spec": {"containers": containers}}}}
    objects.patch("Deployment", f"{name}-core", change, how="strategic-merge")
    until(lambda: image() == before, 10, "the image to be set back")

    objects.patch("StatefulSet", f"{name}-postgis", {"spec": {"replicas": 0}})
    until(lambda: objects.get("StatefulSet", f"{name}-postgis")["spec"]["replicas"] == 1, 10, "the replicas")

    policy = objects.get("NetworkPolicy", f"{name}-core")["spec"]
    objects.patch("NetworkPolicy", f"{name}-core", {"spec": {"ingress": [{}]}})
    until(lambda: objects.get("NetworkPolicy", f"{name}-core")["spec"] == policy, 10, "the policy")

    config = objects.get("ConfigMap", f"{name}-gateway")["data"]
    key = next(iter(config))
    objects.patch("ConfigMap", f"{name}-gateway", {"data": {key: "stranger"}})
    until(lambda: objects.get("ConfigMap", f"{name}-gateway")["data"] == config, 10, "the configuration")
    objects.wait_phase(name, "Ready")


def test_who_changes_again_and_again_is_not_answered_each_time(service):
    running = service()
    objects = running.objects
    name = objects.new_stack()
    objects.wait_phase(name, "Ready")
    deployment = ("Deployment", f"{name}-web-ui")

    def replicas():
        return objects.get(*deployment)["spec"]["replicas"]

    objects.patch(*deployment, {"spec": {"replicas": 3}})
    until(lambda: replicas() == 1, 10, "the first correction")
    calls = running.metric("cytomine_stack_api_calls")
    objects.patch(*deployment, {"spec": {"replicas": 3}})
    # Another object is set right in that time.
    ours = objects.get("Service", f"{name}-pims")["spec"]["ports"]
    objects.patch("Service", f"{name}-pims", {"spec": {"ports": [{**ours[0], "targetPort": 1}]}})
    until(lambda: objects.get("Service", f"{name}-pims")["spec"]["ports"] == ours, 10, "the service")
    assert replicas() == 3
    assert running.metric("cytomine_stack_api_calls") - calls < 20
    running.move_clock(apply.CORRECTION_SECONDS)
    until(lambda: replicas() == 1, 20, "the second correction")


def test_what_was_changed_while_the_service_was_away_is_set_back(service):
    running = service()
    objects = running.objects
    name = objects.new_stack()
    objects.wait_phase(name, "Ready")
    policy = objects.get("NetworkPolicy", f"{name}-core")
    running.end()
    objects.patch("NetworkPolicy", f"{name}-core", {"spec": {"ingress": [{}]}})
    objects.delete("Service", f"{name}-core")
    running.start()
    until(lambda: objects.get("NetworkPolicy", f"{name}-core")["spec"] == policy["spec"], 15, "the policy")
    until(lambda: objects.get("Service", f"{name}-core"), 15, "the service to be back")


def test_children_without_a_stack_are_removed_and_their_volumes_after_their_time(service):
    running = service()
    objects = running.objects
    name, other = objects.new_stack(), objects.new_stack("bob")
    objects.wait_phase(name, "Ready")
    objects.wait_phase(other, "Ready")
    running.end(signal.SIGKILL)
    # By force, and without Kubernetes' own collector: nothing that belongs to the stack goes with it.
    for key, item in objects.family(name).items():
        if item["metadata"].get("ownerReferences") and key[0] not in ("Pod", "ReplicaSet"):
            objects.patch(*key, {"metadata": {"ownerReferences": None}})
    objects.patch(model.KIND, name, {"metadata": {"finalizers": None}})
    objects.delete(model.KIND, name)
    until(lambda: objects.get(model.KIND, name) is None, 10, "the stack to be gone")
    assert objects.family(name)
    running.start()
    running.move_clock(operator.SWEEP_DELAY_SECONDS)
    until(lambda: not set(objects.family(name)) - _volumes(objects, name), 100, "all but the volumes to go")
    marks = [v["metadata"].get("annotations", {}) for v in objects.family(name).values()]
    assert all("cytomine-spawner.org/orphaned-since" in m for m in marks)
    assert objects.stack(other).status.phase is model.Phase.READY
    running.move_clock(StackSettings().orphan_volume_grace - 120)
    running.move_clock(operator.SWEEP_DELAY_SECONDS)
    assert len(_volumes(objects, name)) == 3
    # the grace is over
    running.move_clock(240)
    running.move_clock(operator.SWEEP_DELAY_SECONDS)
    until(lambda: not objects.family(name), 100, "the volumes to go, too")
    assert objects.family(other)


def _volumes(objects, name):
    return set(objects.family(name, "PersistentVolumeClaim"))


def test_a_cut_connection_is_taken_up_again_and_nothing_is_missed(service, cutter):
    running = service(through=cutter)
    objects = running.objects
    name = objects.new_stack()
    objects.wait_phase(name, "Ready")
    cutter.cut()
    objects.change(name, desiredState="Hibernated")
    other = objects.new_stack("bob", desired_state="Hibernated")
    threading.Timer(3, cutter.mend).start()
    objects.wait_phase(name, "Hibernated", 40)
    objects.wait_phase(other, "Hibernated", 40)
    objects.remove(name)
    until(lambda: not objects.family(name), 30, "all children to be gone")
    assert "Traceback" not in running.text(), json.dumps(running.text()[-3000:])
