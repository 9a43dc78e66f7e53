"""What the cluster says, in its own shapes, and the sentence that a person reads."""

from datetime import datetime, timedelta, timezone
from functools import partial

import pytest

from cytomine_spawner.blueprint import lifecycle, quota, secretdata
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.cluster.errors import error_of, log_error
from cytomine_spawner.common.redact import REMOVED, Redactor, by_looks
from cytomine_spawner.operator import capacity, observe
from cytomine_spawner.operator.diagnose import diagnose
from cytomine_spawner.operator.observe import Family, Warnings
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import Phase, Reason, StackSpec, StackStatus, State

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
NAMES = ("postgis", "mongo", "repository", "pims", "core", "web-ui", "gateway")


def at(seconds):
    return model.format_time(NOW + timedelta(seconds=seconds))


def meta(component, suffix=""):
    labels = {"app.kubernetes.io/component": component, "app.kubernetes.io/instance": "cm-ada"}
    return {"name": f"cm-ada-{component}{suffix}", "uid": f"uid-{component}", "labels": labels}


def pod(
    component, *, created=-30, node="n1", ready=None, phase="Running", conditions=(), containers=(), inits=()
):
    conditions = list(conditions)
    if ready is not None:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": at(ready)})
        containers = containers or [status(component, ready=True, started=True)]
    return {
        "metadata": {**meta(component, "-x"), "creationTimestamp": at(created)},
        "spec": {"nodeName": node, "containers": [{"name": component, "image": f"cytomine/{component}:1"}]},
        "status": {
            "phase": phase, "conditions": conditions,
            "containerStatuses": list(containers), "initContainerStatuses": list(inits),
        },
    }  # fmt: skip


def status(name, *, ready=False, started=False, restarts=0, state=None, last=None):
    return {
        "name": name, "ready": ready, "started": started, "restartCount": restarts,
        "state": state or {"running": {"startedAt": at(-20)}}, "lastState": {"terminated": last} if last else {},
    }  # fmt: skip


class World:
    """A stack whose components all serve, but for what a test changes."""

    def __init__(self, *names):
        self.names, self.family, self.warnings = names or NAMES, Family(), Warnings()
        for name in self.names:
            kind = "StatefulSet" if name in ("postgis", "mongo") else "Deployment"
            self.workload(name, kind)
            self.put(pod(name, ready=-5))

    def workload(self, name, kind="Deployment", **status):
        child = observe.child(kind, {"metadata": meta(name), "spec": {"replicas": 1}, "status": status})
        self.family.children[kind, child.name] = child

    def claim(self, component, phase):
        obj = {"metadata": meta(component), "status": {"phase": phase}}
        self.family.children["PersistentVolumeClaim", f"cm-ada-{component}"] = observe.child(
            "PersistentVolumeClaim", obj
        )

    def put(self, obj):
        found = observe.pod(obj)
        self.family.pods[found.name] = found

    def without_pod(self, component):
        del self.family.pods[f"cm-ada-{component}-x"]

    def warn(self, kind, name, reason, text):
        self.warnings.add(
            observe.warning(
                {
                    "metadata": {"name": "e"},
                    "involvedObject": {"kind": kind, "name": name},
                    "reason": reason,
                    "message": text,
                    "lastTimestamp": at(-1),
                }
            )
        )

    def look(self, now=NOW, **more):
        return diagnose("cm-ada", self.names, self.family, self.warnings, now, **more)


def part(diagnosis, name):
    return next(f.status for f in diagnosis.findings if f.status.name == name)


def test_a_stack_whose_components_all_serve_is_ready():
    found = World().look()
    assert (found.phase, found.message, found.ready, found.slowest) == (Phase.READY, "Ready.", "7/7", None)
    assert {f.status.state for f in found.findings} == {State.READY}


def broken(component, container, **more):
    world = World()
    world.put(pod(component, containers=[container], **more))
    return world


FAILURES = {
    "image": (
        lambda: broken("core", status("core", state={"waiting": {"reason": "ErrImagePull", "message": 'rpc error: code = NotFound desc = failed to pull and unpack image "x": not found'}})),
        Reason.IMAGE_PULL,
        "Core cannot start: its image cytomine/core:1 cannot be fetched (not found).",
    ),
    "login": (
        lambda: broken("core", status("core", state={"waiting": {"reason": "ImagePullBackOff", "message": "401 Unauthorized"}})),
        Reason.IMAGE_PULL,
        "(the registry refuses the login)",
    ),
    "never": (
        lambda: broken("core", status("core", state={"waiting": {"reason": "ErrImageNeverPull", "message": 'Container image "x" is not present with pull policy of Never'}})),
        Reason.IMAGE_PULL,
        "it is not on the node and may not be fetched",
    ),
    "config": (
        lambda: broken("pims", status("pims", state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}})),
        Reason.CONFIG,
        'Image server cannot start: secret "x" not found.',
    ),
    "crash": (
        lambda: broken("core", status("core", restarts=3, state={"waiting": {"reason": "CrashLoopBackOff"}}, last={"exitCode": 1, "reason": "Error", "message": "first\nlast words\n\n"})),
        Reason.CRASH_LOOP,
        "Core ends at once with code 1 and is started anew (3 times). Its last words: last words.",
    ),
    "crash of a first container": (
        lambda: broken("pims", status("pims", state={"waiting": {"reason": "PodInitializing"}}), phase="Pending", inits=[status("folders", restarts=1, state={"waiting": {"reason": "CrashLoopBackOff"}}, last={"exitCode": 2, "reason": "Error", "message": "mkdir: no space"})]),
        Reason.CRASH_LOOP,
        "Its last words: mkdir: no space.",
    ),
    "memory": (
        lambda: broken("core", status("core", restarts=1, last={"exitCode": 137, "reason": "OOMKilled"})),
        Reason.OUT_OF_MEMORY,
        "Core was ended because it needs more memory than it may have and is started anew (once). Choose a larger size",
    ),
    "probe": (
        lambda: broken("core", status("core", restarts=2, last={"exitCode": 143, "reason": "Error"})),
        Reason.PROBE,
        "Core did not answer its health check in time and is started anew (twice). Look at its log.",
    ),
    "evicted": (
        lambda: broken("core", status("core"), phase="Failed"),
        Reason.EVICTED,
        "Core was ended by its node",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason", "sentence"), FAILURES.values(), ids=FAILURES)
def test_a_failure_has_a_reason_and_a_sentence(make, reason, sentence):
    world = make()
    found = world.look()
    assert found.phase is Phase.FAILED
    assert found.reason is reason
    assert sentence in found.message
    assert part(found, found.slowest).state is State.FAILED
    # a stack that served before is degraded, not failed
    assert world.look(was_ready=True).phase is Phase.DEGRADED


KEY = "0b6f1c9e-5a0d-4f8e-9a53-6a0c2d1f7e44"
CRASHED = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"cytomine_private_key: {KEY}", f"cytomine_private_key: {REMOVED}"),
        (f"redis://ada:{KEY}@cache refuses", f"redis://ada:{REMOVED}@cache refuses"),
        # The name is before what is remembered of a long line.
        (f"password='{'x' * 900}{KEY}{'y' * 200}' is wrong", f"password='{REMOVED}' is wrong"),
        ("token expired", "token expired"),
    ],
)
def test_last_words_hold_nothing_that_looks_like_a_credential(said, shown):
    last = {"exitCode": 1, "reason": "Error", "message": f"first\n{said}\n"}
    world = broken("core", status("core", restarts=3, state=CRASHED, last=last))
    assert part(world.look(), "core").message.endswith(f"Its last words: {shown}.")


def test_last_words_hold_no_value_of_the_stacks_secrets_nor_a_half_of_one():
    redact = partial(Redactor([KEY]), torn_start=True, torn_end=True)
    last = {"exitCode": 1, "reason": "Error", "message": f"{KEY[9:]} then {KEY} {'z' * 220} {KEY}"}
    world = broken("core", status("core", restarts=3, state=CRASHED, last=last))
    message = part(world.look(redact=redact), "core").message
    assert f"{REMOVED} then {REMOVED} zzz" in message
    assert KEY[9:] not in message


def test_what_the_api_server_refuses_shows_no_credential():
    said = 'Invalid value: "password=hunter22hunter22": env must be'
    for text in (
        KubeError(422, "Invalid", said).message,
        str(KubeError(422, "Invalid", said)),
        str(error_of(422, said)),
        str(error_of(403, said)),
        str(error_of(500, said)),
        str(log_error(404, said)),
    ):
        assert "hunter22" not in text
        assert REMOVED in text


def test_what_a_probe_saw_holds_no_secret():
    world = World()
    world.put(pod("core", containers=[status("core", state={"running": {"startedAt": at(-400)}})]))
    world.warn("Pod", "cm-ada-core-x", "Unhealthy", f"Startup probe failed: {KEY} at ?token=abc")
    for redact, shown in ((Redactor([KEY]), REMOVED), (by_looks, KEY)):
        message = part(world.look(redact=redact), "core").message
        assert f"({shown} at ?token={REMOVED})" in message


def test_no_node_fits():
    world = World()
    text = "0/2 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint {a: b}. preemption: none"
    condition = {"type": "PodScheduled", "status": "False", "message": text, "lastTransitionTime": at(-10)}
    world.put(pod("core", node="", phase="Pending", conditions=[condition]))
    found = world.look()
    assert found.reason is Reason.UNSCHEDULABLE
    assert "Core fits on no node: no node has enough memory." in found.message
    assert "3 GiB are missing" in world.look(missing={"core": "3 GiB are missing"}).message
    # a moment of searching is no failure, and is looked at again
    early = world.look(NOW - timedelta(seconds=9))
    assert early.phase is Phase.STARTING
    assert early.again == NOW - timedelta(seconds=7)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_quota_that_is_used_up(kind):
    name = "core" if kind == "Deployment" else "postgis"
    text = (
        'pods "x" is forbidden: exceeded quota: limits, requested: requests.memory=1Gi, '
        "used: requests.memory=3Gi, limited: requests.memory=4Gi"
    )
    world = World()
    world.without_pod(name)
    if kind == "Deployment":
        world.workload(name, conditions=[{"type": "ReplicaFailure", "status": "True", "message": text}])
    else:
        world.warn(kind, f"cm-ada-{name}", "FailedCreate", text)
    found = world.look()
    assert found.reason is Reason.QUOTA
    assert (
        "it needs requests.memory=1Gi, in use are requests.memory=3Gi of requests.memory=4Gi" in found.message
    )


def test_a_pod_that_security_forbids():
    world = World()
    world.without_pod("core")
    text = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'
    world.workload("core", conditions=[{"type": "ReplicaFailure", "status": "True", "message": text}])
    assert world.look().reason is Reason.FORBIDDEN


def test_a_volume_that_does_not_come():
    world = World()
    text = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
    condition = {"type": "PodScheduled", "status": "False", "message": text, "lastTransitionTime": at(-30)}
    world.put(pod("postgis", node="", phase="Pending", conditions=[condition]))
    world.claim("postgis", "Pending")
    found = world.look()
    assert found.reason is Reason.VOLUME
    assert "its disk cm-ada-postgis is not made" in found.message
    world.warn("PersistentVolumeClaim", "cm-ada-postgis", "ProvisioningFailed", 'storageclass "x" not found')
    assert (
        'Its disk cannot be made: storageclass "x" not found.'
        in world.look(NOW - timedelta(seconds=29)).message
    )
    early = World()
    early.put(pod("postgis", node="", phase="Pending", created=-1, conditions=[condition]))
    early.claim("postgis", "Pending")
    assert early.look().phase is Phase.STARTING
    assert early.look().again == NOW + timedelta(seconds=19)
    world.claim("postgis", "Lost")
    assert "is lost" in world.look().message


def test_a_volume_that_cannot_be_attached():
    world = World()
    waiting = status("pims", state={"waiting": {"reason": "ContainerCreating"}})
    world.put(pod("pims", phase="Pending", containers=[waiting]))
    world.warn(
        "Pod", "cm-ada-pims-x", "FailedMount", 'MountVolume.SetUp failed for volume "images": timed out'
    )
    assert world.look().reason is Reason.MOUNT


@pytest.mark.parametrize(
    "text",
    [
        'failed to fetch PVC from API server: persistentvolumeclaims "cm-ada-postgis" is forbidden: User '
        "\"system:node:n1\" cannot get resource: no relationship found between node 'n1' and this object",
        'MountVolume.SetUp failed for volume "login": failed to sync secret cache: timed out waiting for the condition',
    ],
)
def test_a_kubelet_that_is_a_moment_behind_is_no_failure(text):
    world = World()
    waiting = status("pims", state={"waiting": {"reason": "ContainerCreating"}})
    world.put(pod("pims", phase="Pending", containers=[waiting]))
    world.warn("Pod", "cm-ada-pims-x", "FailedMount", text)
    early = world.look()
    assert early.phase is Phase.STARTING
    assert early.again
    assert world.look(early.again).reason is Reason.MOUNT


def test_a_kubelet_whose_cache_is_behind_with_a_secret_is_no_failure():
    said = "failed to sync secret cache: timed out waiting for the condition"
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": said}}
    world = broken("core", status("core", state=waiting), phase="Pending")
    early = world.look()
    assert (early.phase, early.message) == (Phase.STARTING, "Core is being set up on its node.")
    assert early.again
    assert world.look(early.again).reason is Reason.CONFIG
    # A container that is made anew in a pod of yesterday.
    unready = [{"type": "Ready", "status": "False", "lastTransitionTime": at(-5)}]
    world = broken("core", status("core", state=waiting), created=-9999, conditions=unready)
    assert world.look().phase is Phase.STARTING


def test_a_program_that_hangs_is_named_after_some_time_with_what_the_probe_saw():
    world = broken("core", status("core", state={"running": {"startedAt": at(-100)}}))
    text = (
        'Startup probe failed: Get "http://10.0.0.1:8080/server/ping": dial tcp: connect: connection refused'
    )
    world.warn("Pod", "cm-ada-core-x", "Unhealthy", text)
    early = world.look()
    assert early.phase is Phase.STARTING
    assert early.message == "Core is starting."
    assert early.again == NOW + timedelta(seconds=140)
    late = world.look(early.again)
    assert late.reason is Reason.PROBE
    assert "for 4 minutes" in late.message
    assert "connection refused" in late.message


def test_a_component_that_was_restarted_long_ago_and_is_busy_is_not_called_broken():
    old = {"exitCode": 143, "reason": "Error"}
    world = broken("core", status("core", started=True, restarts=1, last=old, state={"running": {"startedAt": at(-9999)}}), conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": at(-5)}])  # fmt: skip
    found = world.look(was_ready=True)
    assert found.phase is Phase.DEGRADED
    assert found.reason is None
    assert found.message == "Core is busy and does not answer."


def test_who_waits_is_not_blamed_but_the_one_waited_for():
    world = World()
    wait = [status("wait-for-neighbours")]
    idle = [status("core", state={"waiting": {"reason": "PodInitializing"}})]
    world.put(pod("core", phase="Pending", containers=idle, inits=wait))
    world.put(pod("repository", containers=[status("repository")]))
    found = world.look()
    assert found.slowest == "repository"
    assert part(found, "core").message == "Core waits for repository."
    assert found.message == "Repository is starting. 5 of 7 components serve."
    world.put(pod("repository", ready=-1))
    assert part(world.look(), "core").message == "Core is about to start."


def test_a_migration_that_takes_minutes_is_waited_for_and_no_failure():
    world = World()
    idle = [status("core", state={"waiting": {"reason": "PodInitializing"}})]
    world.put(pod("core", phase="Pending", containers=idle, inits=[status("wait-for-neighbours")]))
    world.put(pod("repository", containers=[status("repository")]))
    world.warn("Pod", "cm-ada-repository-x", "Unhealthy", "Startup probe failed: connection refused")
    found = world.look(NOW + timedelta(seconds=210))
    assert (found.phase, found.reason) == (Phase.STARTING, None)
    assert found.message == "Repository is starting. 5 of 7 components serve."
    assert part(found, "repository").state is State.STARTING
    assert (part(found, "core").state, part(found, "core").message) == (
        State.WAITING,
        "Core waits for repository.",
    )


def test_fetching_an_image_is_told_from_waiting_for_a_volume():
    world = World()
    creating = [status("core", state={"waiting": {"reason": "ContainerCreating"}})]
    world.put(pod("core", phase="Pending", containers=creating))
    assert part(world.look(), "core").state is State.WAITING
    sandbox = [{"type": "PodReadyToStartContainers", "status": "True"}]
    world.put(pod("core", phase="Pending", containers=creating, conditions=sandbox))
    assert part(world.look(), "core").state is State.PULLING


def test_a_missing_extra_does_not_fail_the_stack():
    world = World(*NAMES, "sam")
    world.put(pod("sam", containers=[status("sam", state={"waiting": {"reason": "ImagePullBackOff"}})]))
    found = world.look()
    assert found.phase is Phase.DEGRADED
    assert found.slowest == "sam"


def test_going_to_sleep_and_sleeping():
    world = World()
    assert world.look(running=False).phase is Phase.HIBERNATING
    world.family.pods.clear()
    found = world.look(running=False)
    assert found.phase is Phase.HIBERNATED
    assert {f.status.state for f in found.findings} == {State.STOPPED}


def test_the_newest_pod_counts():
    world = World()
    old = pod(
        "core", created=-100, containers=[status("core", state={"waiting": {"reason": "ErrImagePull"}})]
    )
    old["metadata"].update(name="cm-ada-core-old", deletionTimestamp=at(-1))
    world.put(old)
    assert world.look().phase is Phase.READY


def test_how_much_is_missing_is_reckoned_on_the_emptiest_ready_node():
    def node(name, memory, ready="True", **spec):
        conditions = [{"type": "Ready", "status": ready}]
        return {"metadata": {"name": name}, "spec": spec, "status": {"allocatable": {"cpu": "4", "memory": memory}, "conditions": conditions}}  # fmt: skip

    def used(name, memory, phase="Running"):
        requests = {"cpu": "500m", "memory": memory}
        return {"spec": {"nodeName": name, "containers": [{"resources": {"requests": requests}}]}, "status": {"phase": phase}}  # fmt: skip

    nodes = [
        node("a", "8Gi"),
        node("b", "4Gi"),
        node("c", "99Gi", ready="False"),
        node("d", "99Gi", unschedulable=True),
    ]
    pods = [used("a", "5Gi"), used("a", "9Gi", "Succeeded"), used("b", "2Gi")]
    text = capacity.missing({"cpu": "1", "memory": "4Gi"}, nodes, pods)
    assert text == "it needs 4 GiB of memory, the emptiest node has 3 GiB left, so 1 GiB are missing"
    assert capacity.missing({"cpu": "1", "memory": "1Gi"}, nodes, pods) == ""
    assert "processor cores" in capacity.missing({"cpu": "8", "memory": "1Gi"}, nodes, pods)
    assert capacity.missing({"cpu": "1"}, [], []) == "no node is ready"


def running(owner, *, phase=Phase.READY, **spec):
    new = model.new_stack("ns", StackSpec(owner=owner, **spec))
    return new.model_copy(update={"status": StackStatus(phase=phase)})


def test_limits_by_user_group_and_in_all():
    settings = StackSettings(max_stacks=3, max_stacks_per_user=1, max_stacks_per_group={"lab": 2, "*": 9})
    stacks = [
        running("a", owner_groups=("lab",)),
        running("b", owner_groups=("lab",)),
        running("c", phase=Phase.HIBERNATED),
    ]
    counted = quota.holding(stacks)
    assert [s.spec.owner for s in counted] == ["a", "b"]
    ask = lambda **spec: quota.refusal(StackSpec(**spec), "new", counted, settings)  # noqa: E731
    assert ask(owner="d") == ""
    assert "You may run one stack at a time" in ask(owner="a")
    assert "The group lab may run 2 stacks" in ask(owner="d", owner_groups=("lab",))
    assert quota.left(StackSpec(owner="d"), "new", counted, settings) == 1
    assert quota.left(StackSpec(owner="d", owner_groups=("lab",)), "new", counted, settings) == 0
    counted.append(running("e"))
    assert "All 3 stacks" in ask(owner="d")
    assert quota.refusal(StackSpec(owner="a"), stacks[0].name, counted[:2], settings) == ""
    free = StackSettings(max_stacks_per_user=0)
    assert quota.refusal(StackSpec(owner="a"), "new", counted, free) == ""
    assert quota.left(StackSpec(owner="a"), "new", counted, free) is None


def test_deadlines_of_use_and_of_sleep():
    settings = StackSettings(idle_timeout=3600, retention=86400)
    stack = running("a").model_copy(update={"status": StackStatus(phase=Phase.READY, started_at=NOW)})
    hour = timedelta(hours=1)
    assert lifecycle.deadlines(stack, settings).hibernates == NOW + hour
    assert lifecycle.deadlines(stack, settings, seen=NOW + hour).hibernates == NOW + 2 * hour
    noted = stack.model_copy(
        update={"annotations": {model.ANNOTATION_ACTIVITY: model.format_time(NOW + 2 * hour)}}
    )
    assert lifecycle.deadlines(noted, settings).hibernates == NOW + 3 * hour
    old = stack.model_copy(update={"annotations": {model.ANNOTATION_ACTIVITY: "2001-01-01T00:00:00Z"}})
    assert lifecycle.deadlines(old, settings).hibernates == NOW + hour
    never = stack.model_copy(update={"spec": stack.spec.replace(idle_timeout=0)})
    assert lifecycle.deadlines(never, settings).hibernates is None
    starting = stack.model_copy(update={"status": StackStatus(phase=Phase.STARTING, started_at=NOW)})
    assert lifecycle.deadlines(starting, settings).hibernates is None
    asleep = running("a", desired_state="Hibernated").model_copy(
        update={"status": StackStatus(phase=Phase.HIBERNATED, hibernated_at=NOW)}
    )
    assert lifecycle.deadlines(asleep, settings).expires == NOW + timedelta(days=1)
    assert lifecycle.deadlines(asleep, StackSettings(retention=0)).expires is None


def test_every_secret_that_a_manifest_names_is_made_and_each_time_a_new_one():
    import json

    from cytomine_spawner.blueprint import render

    names = set(model.Extra)
    settings = StackSettings(
        allowed_components=[n.value for n in names],
        app_engine_namespace="t", app_engine_token_secret="t", app_engine_registry="r",
    )  # fmt: skip
    stack = model.new_stack("ns", StackSpec(owner="ada", components=tuple(names)))
    found = set()

    def walk(node):
        if isinstance(node, dict):
            if node.get("secretName") == "cm-ada-secrets":
                found.update(item["key"] for item in node["items"])
            if node.get("name") == "cm-ada-secrets":
                found.add(node["key"])
            [walk(v) for v in node.values()]
        elif isinstance(node, list):
            [walk(v) for v in node]

    walk(json.loads(json.dumps(render.render(stack, settings))))
    first, second = secretdata.generate(), secretdata.generate()
    assert found == set(first)
    assert not set(first.values()) & set(second.values())
