"""The operator as a process against a real API server, with controllers and nodes that run nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cytomine_spawner.stacks import model, render
from cytomine_spawner.stacks.model import StackSpec
from cytomine_spawner.stacks.settings import StackSettings

pytest_plugins = ["tests.support.stackserver"]


@pytest.fixture
def kubectl(stack_kubectl):
    """Kubectl in a new namespace of a server that knows the stacks."""
    return stack_kubectl


ROOT = Path(__file__).parents[2]
KINDS = "pods,deployments,statefulsets,replicasets,persistentvolumeclaims,services,configmaps,secrets,ingresses,networkpolicies"
LABEL = "app.kubernetes.io/managed-by=cytomine-stacks"


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Service:
    """The command ``cytomine-stacks`` in a namespace; its settings are written as an administrator does."""

    def __init__(self, kubectl, folder, **settings):
        self.kubectl, self.folder, self.port = kubectl, folder, free_port()
        lines = [f"c.StackSettings.{k} = {v!r}" for k, v in settings.items()]
        lines += [
            f"c.StackSettings.namespace = {kubectl.namespace!r}",
            "c.StacksApp.pages = False",
            f"c.StacksApp.probe_port = {self.port}",
            "c.StacksApp.probe_address = '127.0.0.1'",
        ]
        self.config = folder / "config.py"
        self.config.write_text("\n".join(lines))
        self.process = None
        self.log = (folder / "log").open("a")

    def start(self):
        env = {**os.environ, "KUBECONFIG": str(self.kubectl.kubeconfig), "PYTHONPATH": str(ROOT)}
        if self.log.closed:
            self.log = (self.folder / "log").open("a")
        command = [sys.executable, "-m", "cytomine_spawner.stacks.app", f"--config={self.config}"]
        self.process = subprocess.Popen(command, env=env, stdout=self.log, stderr=self.log, cwd=self.folder)
        until(self.ready, 30, "the service to be ready")
        return self

    def ready(self):
        assert self.process.poll() is None, self.text()
        try:
            return self.fetch("/readyz") == "ok\n"
        except OSError:
            return False

    def fetch(self, path):
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def text(self):
        return (self.folder / "log").read_text()

    def end(self, sign=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sign)
            self.process.wait(40)
        self.log.close()


def until(check, seconds, what):
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.fixture
def service(kubectl, tmp_path):
    """Starts services with given settings; all are ended."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            folder = tmp_path / f"s{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            running = Service(kubectl, folder, **settings)
            stack.callback(running.end)
            return running.start()

        yield start


def create(kubectl, owner="ada", **spec):
    stack = model.new_stack(kubectl.namespace, StackSpec(owner=owner, **spec))
    done = kubectl("create", "-f", "-", stdin=json.dumps(stack.to_object()))
    assert done.returncode == 0
    return stack.name


def read(kubectl, name):
    return model.Stack.from_object(kubectl.get("cytominestack", name))


def wait_phase(kubectl, name, phase, seconds=60):
    def look():
        stack = read(kubectl, name)
        return stack if stack.status.phase is model.Phase(phase) else None

    try:
        return until(look, seconds, f"{name} to be {phase}")
    except AssertionError:
        stack = kubectl.get("cytominestack", name)
        raise AssertionError(f"{name} is not {phase}: {json.dumps(stack.get('status'), indent=1)}") from None


def patch(kubectl, name, spec):
    kubectl("patch", "cytominestack", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def ours(kubectl, kinds=KINDS):
    items = kubectl.get(kinds, "-l", LABEL)["items"]
    return {(i["kind"], i["metadata"]["name"]): i for i in items}


def written_out(there):
    """Whether Kubernetes' own controllers have no more to write to the workloads' status."""
    for (kind, _), item in there.items():
        if kind not in ("Deployment", "StatefulSet", "ReplicaSet"):
            continue
        status, wanted = item.get("status", {}), item["spec"]["replicas"]
        reasons = [c.get("reason") for c in status.get("conditions", []) if c["type"] == "Progressing"]
        if (
            status.get("observedGeneration") != item["metadata"]["generation"]
            or status.get("availableReplicas", 0) != wanted
            or (kind == "Deployment" and reasons != ["NewReplicaSetAvailable"])
        ):
            return False
    return True


def gone(kubectl, name):
    return kubectl("get", "cytominestack", name, check=False).returncode != 0


def delete(kubectl, name):
    kubectl("delete", "cytominestack", name, "--wait=false")
    until(lambda: gone(kubectl, name), 90, f"{name} to be gone")


def test_a_stack_starts_sleeps_wakes_and_leaves_nothing(kubectl, service):
    running = service()
    name = create(kubectl, components=["cbir"])
    stack = wait_phase(kubectl, name, "Ready")
    expected = render.render(stack, StackSettings(namespace=kubectl.namespace))
    there = ours(kubectl)
    assert {(o["kind"], o["metadata"]["name"]) for o in expected} <= set(there)
    assert ("Secret", f"{name}-secrets") in there
    assert stack.status.ready == f"{len(stack.status.components)}/{len(stack.status.components)}"
    assert stack.status.message == "Ready."
    assert stack.status.slowest is None
    assert stack.status.ready_at >= stack.status.started_at
    assert all(c.ready_seconds is not None for c in stack.status.components)
    assert stack.status.condition("Ready").status == "True"
    assert stack.status.hibernates_at is not None
    assert stack.status.url == f"https://{name}.stacks.example.org"
    for (kind, _), obj in there.items():
        if kind not in ("PersistentVolumeClaim", "Pod", "ReplicaSet"):
            assert [o["uid"] for o in obj["metadata"]["ownerReferences"]] == [stack.uid]
        if kind == "PersistentVolumeClaim":
            assert "ownerReferences" not in obj["metadata"]
    secret = there["Secret", f"{name}-secrets"]["data"]
    uids = {key: obj["metadata"]["uid"] for key, obj in there.items() if key[0] == "PersistentVolumeClaim"}

    patch(kubectl, name, {"desiredState": "Hibernated"})
    stack = wait_phase(kubectl, name, "Hibernated")
    assert stack.status.hibernated_by == "Owner"
    assert stack.status.expires_at - stack.status.hibernated_at == timedelta(days=90)
    asleep = ours(kubectl)
    assert not [key for key in asleep if key[0] == "Pod"]
    assert {o["spec"]["replicas"] for k, o in asleep.items() if k[0] in render.WORKLOADS} == {0}

    patch(kubectl, name, {"desiredState": "Running"})
    stack = wait_phase(kubectl, name, "Ready")
    assert stack.status.hibernated_at is None
    assert stack.status.expires_at is None
    awake = ours(kubectl)
    assert awake["Secret", f"{name}-secrets"]["data"] == secret
    assert {k: o["metadata"]["uid"] for k, o in awake.items() if k[0] == "PersistentVolumeClaim"} == uids

    delete(kubectl, name)
    until(lambda: not ours(kubectl), 30, "all children to be gone")
    events = {
        e["reason"] for e in kubectl.get("events")["items"] if e["involvedObject"]["kind"] == "CytomineStack"
    }
    assert {"Starting", "Ready", "Hibernated", "Resuming"} <= events
    text = running.fetch("/metrics")
    assert 'cytomine_stack_component_ready_seconds_count{component="core"} 2.0' in text
    assert 'cytomine_stacks{phase="Ready"} 0.0' in text
    assert "Traceback" not in running.text()


def test_with_keep_data_exactly_the_volumes_stay_and_are_taken_up_again(kubectl, service):
    service()
    name = create(kubectl)
    wait_phase(kubectl, name, "Ready")
    volumes = {k: o["metadata"]["uid"] for k, o in ours(kubectl).items() if k[0] == "PersistentVolumeClaim"}
    assert len(volumes) == 3
    patch(kubectl, name, {"keepData": True})
    delete(kubectl, name)
    until(lambda: set(ours(kubectl)) == set(volumes), 30, "only the volumes to be left")
    assert {k: o["metadata"]["uid"] for k, o in ours(kubectl).items()} == volumes
    assert all(
        "cytomine-spawner.org/kept-since" in o["metadata"]["annotations"] for o in ours(kubectl).values()
    )
    assert create(kubectl) == name
    wait_phase(kubectl, name, "Ready")
    found = ours(kubectl, "persistentvolumeclaims")
    assert {k: o["metadata"]["uid"] for k, o in found.items()} == volumes
    assert not any("cytomine-spawner.org/kept-since" in o["metadata"]["annotations"] for o in found.values())
    delete(kubectl, name)
    until(lambda: not ours(kubectl), 30, "the volumes to be gone, too")


def test_a_stack_made_anew_at_once_waits_for_the_former_to_be_gone(kubectl, service):
    service()
    name = create(kubectl)
    wait_phase(kubectl, name, "Ready")
    first = {k: o["metadata"]["uid"] for k, o in ours(kubectl).items()}
    delete(kubectl, name)
    create(kubectl)
    wait_phase(kubectl, name, "Ready")
    second = {k: o["metadata"]["uid"] for k, o in ours(kubectl).items()}
    assert not set(first.values()) & set(second.values())


def test_killed_in_the_middle_of_a_start_it_goes_on_without_duplicates(kubectl, service, tmp_path):
    running = service()
    names = [create(kubectl, owner=f"user{i}") for i in range(3)]
    until(lambda: len(ours(kubectl, "services")) > 3, 30, "the first objects")
    running.end(signal.SIGKILL)
    secrets = {k: o["data"] for k, o in ours(kubectl, "secrets").items()}
    running.start()
    for name in names:
        wait_phase(kubectl, name, "Ready", 90)
    there = ours(kubectl)
    for key, data in secrets.items():
        assert there[key]["data"] == data
    for name in names:
        pods = [n for kind, n in there if kind == "Pod" and n.startswith(f"{name}-")]
        assert len(pods) == len(read(kubectl, name).status.components)

    # and a restart at rest sends nothing; a stack is Ready before the controllers have counted that
    there = until(
        lambda: found if written_out(found := ours(kubectl)) else None, 30, "the controllers to rest"
    )
    versions = {k: o["metadata"]["resourceVersion"] for k, o in there.items() if k[0] != "Pod"}
    running.end()
    running.start()
    patch(kubectl, names[0], {"displayName": "still there"})
    until(lambda: read(kubectl, names[0]).status.observed_generation == 2, 30, "the change to be seen")
    assert {
        k: o["metadata"]["resourceVersion"] for k, o in ours(kubectl).items() if k[0] != "Pod"
    } == versions


def test_what_others_remove_or_change_is_set_right(kubectl, service):
    service()
    name = create(kubectl)
    wait_phase(kubectl, name, "Ready")
    kubectl("delete", "networkpolicy", f"{name}-core")
    until(lambda: ("NetworkPolicy", f"{name}-core") in ours(kubectl), 20, "the policy to be back")
    kubectl("delete", "deployment", f"{name}-web-ui")
    until(lambda: ("Deployment", f"{name}-web-ui") in ours(kubectl), 20, "the workload to be back")
    wait_phase(kubectl, name, "Ready")
    kubectl("delete", "pod", f"{name}-postgis-0", "--wait=false")
    wait_phase(kubectl, name, "Ready")


def test_size_and_components_change_while_it_runs(kubectl, service):
    service()
    name = create(kubectl, components=["cbir"])
    wait_phase(kubectl, name, "Ready")
    patch(kubectl, name, {"size": "M", "components": []})
    until(
        lambda: ("Deployment", f"{name}-cbir") not in ours(kubectl, "deployments"), 30, "cbir to be removed"
    )
    memory = "{.spec.template.spec.containers[0].resources.requests.memory}"
    until(
        lambda: kubectl("get", "deployment", f"{name}-core", "-o", f"jsonpath={memory}").stdout == "2Gi",
        30,
        "core to be larger",
    )
    stack = wait_phase(kubectl, name, "Ready")
    assert "cbir" not in [c.name for c in stack.status.components]


def quota(kubectl, **hard):
    kubectl("create", "quota", "limits", "--hard=" + ",".join(f"{k}={v}" for k, v in hard.items()))


def test_a_pod_that_fits_on_no_node_is_named_with_what_is_missing_and_starts_when_there_is_room(
    kubectl, service
):
    huge = {"S": {"components": {"core": {"cpu": ["100m", "1"], "memory": ["300Gi", "300Gi"]}}}}
    service(sizes=huge)
    began = time.monotonic()
    name = create(kubectl)
    stack = wait_phase(kubectl, name, "Failed", 15)
    assert time.monotonic() - began < 15
    assert stack.status.reason is model.Reason.UNSCHEDULABLE
    assert stack.status.slowest == "core"
    assert "Core fits on no node: it needs 300 GiB of memory, the emptiest node has" in stack.status.message
    assert "are missing" in stack.status.message
    assert stack.status.condition("Failed").status == "True"


def test_a_used_up_quota_is_named_and_the_stack_starts_when_there_is_room_again(kubectl, service):
    quota(
        kubectl,
        **{"requests.memory": "1Gi", "limits.memory": "100Gi", "requests.cpu": "8", "limits.cpu": "99"},
    )
    service()
    name = create(kubectl)
    stack = wait_phase(kubectl, name, "Failed", 20)
    assert stack.status.reason is model.Reason.QUOTA
    assert "quota is used up" in stack.status.message
    assert "of requests.memory=1Gi" in stack.status.message
    assert stack.status.condition("QuotaExceeded").status == "True"
    kubectl("delete", "quota", "limits")
    patch(kubectl, name, {"retry": 1})
    wait_phase(kubectl, name, "Ready", 120)


def test_a_volume_that_is_never_made_is_named(kubectl, service):
    service(storage_classes={"default": "nowhere"})
    name = create(kubectl)
    stack = wait_phase(kubectl, name, "Failed", 40)
    assert stack.status.reason is model.Reason.VOLUME
    assert "disk" in stack.status.message


def container_status(kubectl, name, component, state, **more):
    pods = kubectl.get(
        "pods", "-l", f"app.kubernetes.io/instance={name},app.kubernetes.io/component={component}"
    )
    pod = pods["items"][0]
    image = pod["spec"]["containers"][0]["image"]
    status = {
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {
                "name": component, "image": image, "imageID": "", "ready": False, "started": False,
                "restartCount": 0, "state": state, **more,
            }
        ],
    }  # fmt: skip
    kubectl(
        "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=strategic",
        "-p", json.dumps({"status": status}),
    )  # fmt: skip


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
            {"waiting": {"reason": "CrashLoopBackOff"}},
            {"restartCount": 2, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            "OutOfMemory",
            "Core was ended because it needs more memory than it may have",
        ),
        (
            {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            {"restartCount": 1, "lastState": {"terminated": {"exitCode": 143, "reason": "Error"}}},
            "ProbeFailing",
            "Core did not answer its health check in time and is started anew (once). Look at its log.",
        ),
    ],
)
def test_a_broken_container_shows_its_sentence_at_once(kubectl, service, state, more, reason, sentence):
    service()
    name = create(kubectl)
    wait_phase(kubectl, name, "Ready")
    container_status(kubectl, name, "core", state, **more)
    stack = wait_phase(kubectl, name, "Degraded", 10)
    core = next(c for c in stack.status.components if c.name == "core")
    assert core.state is model.State.FAILED
    assert core.reason.value == stack.status.reason.value == reason
    assert sentence in core.message
    assert stack.status.slowest == "core"
    patch(kubectl, name, {"retry": 1})
    stack = wait_phase(kubectl, name, "Ready")
    assert stack.status.observed_retry == 1


def test_an_unused_stack_goes_to_sleep_and_a_used_one_does_not(kubectl, service):
    service()
    idle, used, booked = (create(kubectl, owner=o, idle_timeout=4) for o in ("idle", "used", "booked"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "jupyter-booked",
            "labels": {
                "app.kubernetes.io/component": "singleuser-server",
                "hub.jupyter.org/username": "booked",
                "hub.jupyter.org/servername": "",
            },
        },
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "notebook",
                    "image": "x",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    assert kubectl.apply(pod).returncode == 0

    def touch():
        later = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
        kubectl("annotate", "cytominestack", used, f"{model.ANNOTATION_ACTIVITY}={later}", "--overwrite")

    touch()
    stack = wait_phase(kubectl, idle, "Hibernated", 90)
    assert stack.status.hibernated_by == "Idle"
    assert stack.spec.desired_state is model.Desired.HIBERNATED
    for name in (used, booked):
        assert read(kubectl, name).status.phase is model.Phase.READY
    kubectl("delete", "pod", "jupyter-booked", "--wait=false")
    wait_phase(kubectl, booked, "Hibernated", 60)
    assert read(kubectl, used).status.phase is model.Phase.READY


def test_a_sleeping_stack_is_deleted_after_its_retention(kubectl, service):
    service(retention=3)
    name = create(kubectl, desired_state="Hibernated")
    until(lambda: gone(kubectl, name), 60, "it to be deleted")
    until(lambda: not ours(kubectl), 30, "all of it to be gone")


def test_limits_hold_and_the_next_one_starts_when_there_is_room(kubectl, service):
    running = service(max_stacks_per_user=1, max_stacks=2)
    first = create(kubectl)
    wait_phase(kubectl, first, "Ready")
    second = create(kubectl, server_name="two")
    stack = wait_phase(kubectl, second, "Pending")
    assert stack.status.reason is model.Reason.QUOTA
    assert stack.status.condition("QuotaExceeded").status == "True"
    assert f"You may run one stack at a time and {first} already runs." in stack.status.message
    assert not [key for key in ours(kubectl) if key[1].startswith(second)]
    other = create(kubectl, owner="bob")
    wait_phase(kubectl, other, "Ready")
    third = create(kubectl, owner="cid")
    assert "All 2 stacks" in wait_phase(kubectl, third, "Pending").status.message
    running.end()
    running.start()
    # the limits hold over a restart
    patch(kubectl, third, {"displayName": "x"})
    until(lambda: read(kubectl, third).status.observed_generation == 2, 20, "the change to be seen")
    assert read(kubectl, third).status.phase is model.Phase.PENDING
    patch(kubectl, first, {"desiredState": "Hibernated"})
    until(
        lambda: model.Phase.READY in (read(kubectl, second).status.phase, read(kubectl, third).status.phase),
        90,
        "one that waited to start",
    )


def test_what_is_not_offered_is_said_on_the_stack(kubectl, service):
    service()
    name = create(kubectl, components=["app-engine"])
    stack = wait_phase(kubectl, name, "Failed")
    assert stack.status.reason is model.Reason.CONFIG
    assert "The component app-engine is not offered here." in stack.status.message
    patch(kubectl, name, {"components": []})
    wait_phase(kubectl, name, "Ready")


def test_ten_at_once_all_start_and_then_nothing_is_asked_any_more(kubectl, service):
    running = service()
    names = [create(kubectl, owner=f"user{i}") for i in range(10)]
    for name in names:
        wait_phase(kubectl, name, "Ready", 150)

    def calls():
        return next(
            line
            for line in running.fetch("/metrics").splitlines()
            if line.startswith("cytomine_stack_api_calls ")
        )

    # at rest: the watches run on, and nothing else is sent
    quiet = calls()
    until(lambda: quiet == calls(), 5, "the last looks to end")
    time_at_rest = time.monotonic() + 10
    before = calls()
    until(lambda: time.monotonic() > time_at_rest, 15, "ten seconds to pass")
    assert calls() == before
    assert "Traceback" not in running.text()
