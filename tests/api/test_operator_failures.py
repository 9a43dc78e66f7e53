"""Each cause of a failure is named within 15 seconds after Kubernetes knows of it.

Statuses and events are written as the kubelet, the scheduler and the controllers write them.
"""

import base64
from datetime import datetime, timezone

import pytest

from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.common.redact import REMOVED
from cytomine_spawner.stack import model
from tests.support.stackservice import until

pytest_plugins = ["tests.support.stackserver"]

# After Kubernetes knows.
SECONDS = 15


def quota(objects, **hard):
    objects.create("ResourceQuota", {"metadata": {"name": "limits"}, "spec": {"hard": hard}})


def test_a_pod_that_fits_on_no_node_is_named_with_what_is_missing(service):
    huge = {"S": {"components": {"core": {"cpu": ["100m", "1"], "memory": ["300Gi", "300Gi"]}}}}
    objects = service(sizes=huge).objects
    stack = objects.wait_phase(objects.new_stack(), "Failed", SECONDS)
    assert stack.status.reason is model.Reason.UNSCHEDULABLE
    assert stack.status.slowest == "core"
    assert "Core fits on no node: it needs 300 GiB of memory, the emptiest node has" in stack.status.message
    assert "are missing" in stack.status.message
    assert stack.status.condition("Failed").status == "True"


def test_a_used_up_quota_is_named_and_the_stack_starts_when_there_is_room_again(service):
    running = service()
    objects = running.objects
    quota(
        objects,
        **{"requests.memory": "1Gi", "limits.memory": "100Gi", "requests.cpu": "8", "limits.cpu": "99"},
    )
    name = objects.new_stack()
    stack = objects.wait_phase(name, "Failed", SECONDS)
    assert stack.status.reason is model.Reason.QUOTA
    assert "quota is used up" in stack.status.message
    assert "of requests.memory=1Gi" in stack.status.message
    assert stack.status.condition("QuotaExceeded").status == "True"
    objects.delete("ResourceQuota", "limits")
    objects.change(name, retry=1)
    objects.wait_phase(name, "Ready", 120)


def test_an_object_that_the_quota_forbids_is_named(service):
    objects = service().objects
    quota(objects, persistentvolumeclaims="1")
    stack = objects.wait_phase(objects.new_stack(), "Failed", SECONDS)
    assert stack.status.reason is model.Reason.QUOTA
    assert "exceeded quota" in stack.status.message


def test_a_volume_whose_class_does_not_exist_is_named(service):
    objects = service(storage_classes={"default": "nowhere"}).objects
    stack = objects.wait_phase(objects.new_stack(), "Failed", SECONDS)
    assert stack.status.reason is model.Reason.VOLUME
    assert "disk" in stack.status.message
    assert "nowhere" in stack.status.message


# -- a pod's statuses, as its kubelet writes them -------------------------------------------------------------


def pods_of(objects, name, component):
    return objects.list("Pod", f"app.kubernetes.io/instance={name},app.kubernetes.io/component={component}")


def pod_of(objects, name, component):
    return pods_of(objects, name, component)[0]


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def set_container(objects, name, component, state, **more):
    pod = pod_of(objects, name, component)
    image = pod["spec"]["containers"][0]["image"]
    container = {
        "name": component, "image": image, "imageID": "", "ready": False, "started": False,
        "restartCount": 0, "state": state, **more,
    }  # fmt: skip
    # A kubelet clears the states that no longer hold.
    for key in ("waiting", "running", "terminated"):
        container["state"].setdefault(key, None)
    status = {
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now()}],
        "containerStatuses": [container],
    }
    objects.patch("Pod", pod["metadata"]["name"], {"status": status}, "status", how="strategic-merge")
    return pod


def warn(objects, pod, reason, message):
    """An event of the kubelet's about a pod."""
    meta = pod["metadata"]
    body = {
        "metadata": {"generateName": f"{meta['name']}."},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "name": meta["name"],
            "namespace": objects.namespace, "uid": meta["uid"],
        },
        "reason": reason, "message": message, "type": "Warning",
        "firstTimestamp": now(), "lastTimestamp": now(), "count": 1,
        "source": {"component": "kubelet", "host": "fake-0"},
    }  # fmt: skip
    objects.create("Event", body)


@pytest.fixture(scope="module")
def one(shared):
    """The name of one stack for several tests, each of which leaves it ready."""
    return shared.objects.new_stack("one")


@pytest.fixture
def ready(shared, one):
    """The one stack as it is when all of it serves."""
    shared.objects.wait_phase(one, "Ready")
    # The pod that was broken before is told to go before its successor is ready, and may go after that.
    until(lambda: len(pods_of(shared.objects, one, "core")) == 1, SECONDS, "one pod of core")
    return one


@pytest.mark.parametrize(
    ("state", "more", "reason", "sentence"),
    [
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x": not found'}},
            {},
            "ImagePullFailed",
            "Core cannot start: its image cytomine/core:ba695c809 cannot be fetched (not found).",
        ),
        (
            {"waiting": {"reason": "CrashLoopBackOff"}},
            {
                "restartCount": 3,
                "lastState": {
                    "terminated": {"exitCode": 1, "reason": "Error", "message": "a\nno database here\n"}
                },
            },
            "CrashLoop",
            "Core ends at once with code 1 and is started anew (3 times). Its last words: no database here.",
        ),
        (
            {"terminated": {"exitCode": 1, "reason": "Error", "message": "no licence\n"}},
            {},
            "CrashLoop",
            "Core ends at once with code 1. Its last words: no licence.",
        ),
        (
            {"waiting": {"reason": "CrashLoopBackOff"}},
            {"restartCount": 2, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            "OutOfMemory",
            "Core was ended because it needs more memory than it may have",
        ),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}},
            {},
            "ConfigInvalid",
            'Core cannot start: secret "x" not found.',
        ),
        (
            {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            {"restartCount": 1, "lastState": {"terminated": {"exitCode": 143, "reason": "Error"}}},
            "ProbeFailing",
            "Core did not answer its health check in time and is started anew (once). Look at its log.",
        ),
    ],
)
def test_a_broken_container_shows_its_sentence(shared, ready, state, more, reason, sentence):
    objects, name = shared.objects, ready
    tries = objects.stack(name).spec.retry
    set_container(objects, name, "core", dict(state), **more)
    stack = objects.wait_phase(name, "Degraded", SECONDS)
    core = next(c for c in stack.status.components if c.name == "core")
    assert core.state is model.State.FAILED
    assert core.reason.value == stack.status.reason.value == reason
    assert sentence in core.message
    assert stack.status.slowest == "core"
    objects.change(name, retry=tries + 1)
    stack = objects.wait_phase(name, "Ready")
    assert stack.status.observed_retry == tries + 1


def test_the_last_words_of_a_container_hold_no_secret_of_its_stack(shared, ready):
    objects, name = shared.objects, ready
    tries = objects.stack(name).spec.retry
    secret = objects.get("Secret", f"{name}-secrets")
    key = base64.b64decode(secret["data"]["meilisearch-key"]).decode()
    said = {"exitCode": 1, "reason": "Error", "message": f"cannot start with {key} and password='abc'\n"}
    set_container(objects, name, "core", {"terminated": said})
    stack = objects.wait_phase(name, "Degraded", SECONDS)
    assert f"Its last words: cannot start with {REMOVED} and password='{REMOVED}'." in stack.status.message
    objects.change(name, retry=tries + 1)
    objects.wait_phase(name, "Ready")
    told = [event["message"] for event in objects.list("Event")]
    assert not [text for text in [*told, str(objects.stack(name))] if key in text]


def test_a_program_that_lives_but_never_answers_is_named_when_its_time_is_over(service):
    running = service()
    objects = running.objects
    name = objects.new_stack()
    objects.wait_phase(name, "Ready")
    pod = set_container(objects, name, "core", {"running": {"startedAt": now()}})
    warn(objects, pod, "Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503")
    stack = objects.wait_phase(name, "Degraded", SECONDS)
    assert stack.status.reason is None, "its time is not over yet"
    running.move_clock(StackSettings().probe_grace)
    until(
        lambda: objects.stack(name).status.reason is model.Reason.PROBE,
        SECONDS,
        "the health check to be named",
    )
    stack = objects.stack(name)
    assert stack.status.slowest == "core"
    assert "503" in stack.status.message


def test_a_volume_that_cannot_be_attached_is_named(service):
    running = service()
    objects = running.objects
    name = objects.new_stack()
    objects.wait_phase(name, "Ready")
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    pod = set_container(objects, name, "postgis", waiting)
    status = {"conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]}
    objects.patch("Pod", pod["metadata"]["name"], {"status": status}, "status", how="strategic-merge")
    warn(objects, pod, "FailedAttachVolume", "Multi-Attach error for volume pv-1")
    running.move_clock(10)
    until(lambda: objects.stack(name).status.reason is model.Reason.MOUNT, SECONDS, "the volume to be named")
    assert "Multi-Attach error" in objects.stack(name).status.message


def test_a_pod_that_its_node_ended_is_replaced_and_the_stack_serves_again(shared, ready):
    objects, name = shared.objects, ready
    pod = pod_of(objects, name, "core")["metadata"]["name"]
    objects.patch("Pod", pod, {"status": {"phase": "Failed", "reason": "Evicted"}}, "status")

    def another():
        return [p for p in pods_of(objects, name, "core") if p["metadata"]["name"] != pod]

    until(another, SECONDS, "another pod")
    objects.wait_phase(name, "Ready")
