"""The life of stacks: the operator as a process against a real API server, with nodes that run nothing."""

import base64
import json
import signal
import time
from datetime import datetime, timedelta, timezone

from cytomine_spawner import app
from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.operator import operator
from cytomine_spawner.stack import model, notices
from cytomine_spawner.stack.notices import Notice
from tests.support.stackservice import until

pytest_plugins = ["tests.support.stackserver"]


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


def uids(family, *kinds):
    return {key: item["metadata"]["uid"] for key, item in family.items() if not kinds or key[0] in kinds}


def versions(family):
    return {k: o["metadata"]["resourceVersion"] for k, o in family.items() if k[0] != "Pod"}


def test_a_stack_starts_sleeps_wakes_and_leaves_nothing_and_no_secret_in_the_log(shared, owner):
    objects = shared.objects
    measured = 'cytomine_stack_component_ready_seconds_count{component="core"}'
    before = shared.metric(measured)
    name = objects.new_stack(owner, components=["cbir"])
    stack = objects.wait_phase(name, "Ready")
    expected = render.render(stack, StackSettings(namespace=objects.namespace))
    there = objects.family(name)
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
    volumes = uids(there, "PersistentVolumeClaim")

    objects.change(name, desiredState="Hibernated")
    stack = objects.wait_phase(name, "Hibernated")
    assert stack.status.hibernated_by == "Owner"
    assert stack.status.expires_at - stack.status.hibernated_at == timedelta(days=90)
    asleep = objects.family(name)
    assert not [key for key in asleep if key[0] == "Pod"]
    assert {o["spec"]["replicas"] for k, o in asleep.items() if k[0] in render.WORKLOADS} == {0}

    objects.change(name, desiredState="Running")
    stack = objects.wait_phase(name, "Ready")
    assert stack.status.hibernated_at is None
    assert stack.status.expires_at is None
    awake = objects.family(name)
    assert awake["Secret", f"{name}-secrets"]["data"] == secret
    assert uids(awake, "PersistentVolumeClaim") == volumes

    values = [base64.b64decode(value).decode() for value in secret.values()]
    said = json.dumps(objects.get(model.KIND, name))
    objects.remove(name)
    until(lambda: not objects.family(name), 30, "all children to be gone")
    events = {
        e["reason"]
        for e in objects.list("Event")
        if e["involvedObject"]["kind"] == model.KIND and e["involvedObject"]["name"] == name
    }
    assert {"Starting", "Ready", "Hibernated", "Resuming"} <= events
    assert shared.metric(measured) == before + 2
    ready = [s for s in objects.list(model.KIND) if (s.get("status") or {}).get("phase") == "Ready"]
    until(lambda: shared.counted("Ready") == len(ready), 5, "the metric to follow")
    assert "Traceback" not in shared.text()
    assert not [v for v in values if len(v) >= 12 and v in shared.text() + said]


def test_with_keep_data_exactly_the_volumes_stay_and_are_taken_up_again(shared, owner):
    objects = shared.objects
    name = objects.new_stack(owner)
    objects.wait_phase(name, "Ready")
    volumes = uids(objects.family(name), "PersistentVolumeClaim")
    assert len(volumes) == 3
    objects.change(name, keepData=True)
    objects.remove(name)
    until(lambda: set(objects.family(name)) == set(volumes), 30, "only the volumes to be left")
    left = objects.family(name)
    assert uids(left) == volumes
    assert all("cytomine-spawner.org/kept-since" in o["metadata"]["annotations"] for o in left.values())
    assert objects.new_stack(owner) == name
    objects.wait_phase(name, "Ready")
    found = objects.family(name, "PersistentVolumeClaim")
    assert uids(found) == volumes
    assert not any("cytomine-spawner.org/kept-since" in o["metadata"]["annotations"] for o in found.values())
    objects.remove(name)
    until(lambda: not objects.family(name), 30, "the volumes to be gone, too")


def test_a_stack_made_anew_at_once_waits_for_the_former_to_be_gone(shared, owner):
    objects = shared.objects
    name = objects.new_stack(owner)
    objects.wait_phase(name, "Ready")
    first = uids(objects.family(name))
    objects.remove(name)
    objects.new_stack(owner)
    objects.wait_phase(name, "Ready")
    assert not set(first.values()) & set(uids(objects.family(name)).values())


def test_of_ten_at_once_all_start_without_duplicates_though_it_is_killed_and_then_nothing_is_asked(service):
    running = service(max_stacks_per_user=0)
    objects = running.objects
    names = [objects.new_stack(f"user{i}") for i in range(10)]
    until(lambda: len(objects.family("", "Service")) > 3, 30, "the first objects")
    running.end(signal.SIGKILL)
    secrets = {k: o["data"] for k, o in objects.family("", "Secret").items()}
    assert secrets
    running.start()
    for name in names:
        objects.wait_phase(name, "Ready", 150)
    there = objects.family()
    for key, data in secrets.items():
        assert there[key]["data"] == data
    for name in names:
        pods = [n for kind, n in there if kind == "Pod" and n.startswith(f"{name}-")]
        assert len(pods) == len(objects.stack(name).status.components)

    # and a restart at rest sends nothing; a stack is Ready before the controllers have counted that
    there = until(
        lambda: found if written_out(found := objects.family()) else None, 30, "the controllers to rest"
    )
    before = versions(there)
    running.end()
    running.start()
    objects.change(names[0], displayName="still there")
    until(lambda: objects.stack(names[0]).status.observed_generation == 2, 30, "the change to be seen")
    until(lambda: running.looks() >= len(names), 10, "all stacks to be looked at")
    assert versions(objects.family()) == before

    # at rest: the watches run on, and nothing else is sent, however long; the one change is seen after all of that
    def asked_in_minutes():
        before = running.metric("cytomine_stack_api_calls")
        change = objects.stack(names[0]).generation + 1
        running.move_clock(300)
        objects.change(names[0], displayName=f"change {change}")
        until(
            lambda: objects.stack(names[0]).status.observed_generation == change, 20, "the change to be seen"
        )
        return running.metric("cytomine_stack_api_calls") - before

    # The last word of the controllers may be heard in the first of them. One call writes what was seen of the change.
    until(lambda: asked_in_minutes() == 1, 20, "minutes without a call but for the change")
    assert asked_in_minutes() == 1
    assert "Traceback" not in running.text()


def test_told_to_end_it_ends_at_once_and_in_order(service):
    running = service(forked=False)
    running.objects.wait_phase(running.objects.new_stack(), "Ready")
    began = time.monotonic()
    running.end()
    # Not because its patience with itself, twice as long, was at an end.
    assert time.monotonic() - began < app.SHUTDOWN_SECONDS / 2
    assert running.process.returncode == 0
    assert "Traceback" not in running.text()


def test_it_ends_at_once_also_when_it_has_run_for_long(service):
    running = service()
    calls = running.metric("cytomine_stack_api_calls")
    running.move_clock(operator.SWEEP_DELAY_SECONDS)
    until(lambda: running.metric("cytomine_stack_api_calls") > calls, 10, "it to look for orphans")
    began = time.monotonic()
    running.end()
    # It took five seconds more once, for a sweep that nobody cut short.
    assert time.monotonic() - began < 4.5
    assert running.process.returncode == 0


def test_size_and_components_change_while_it_runs(shared, owner):
    objects = shared.objects
    name = objects.new_stack(owner, components=["cbir"])
    objects.wait_phase(name, "Ready")
    objects.change(name, size="M", components=[])
    until(lambda: objects.get("Deployment", f"{name}-cbir") is None, 30, "cbir to be removed")

    def memory():
        pod = objects.get("Deployment", f"{name}-core")["spec"]["template"]["spec"]
        return pod["containers"][0]["resources"]["requests"]["memory"]

    until(lambda: memory() == "2Gi", 30, "core to be larger")
    stack = objects.wait_phase(name, "Ready")
    assert "cbir" not in [c.name for c in stack.status.components]


def notebook(name, owner):
    """As much of a notebook's pod as a restricted namespace takes."""
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    labels = {
        "app.kubernetes.io/component": "singleuser-server",
        "hub.jupyter.org/username": owner,
        "hub.jupyter.org/servername": "",
    }
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "notebook", "image": "x", "securityContext": closed}],
        },
    }


def test_an_unused_stack_goes_to_sleep_and_a_used_one_does_not(service):
    running = service()
    objects = running.objects
    idle, used, booked = (objects.new_stack(o) for o in ("idle", "used", "booked"))
    objects.create("Pod", notebook("jupyter-booked", "booked"))
    later = (datetime.now(timezone.utc) + timedelta(hours=10)).isoformat()
    objects.patch(model.KIND, used, {"metadata": {"annotations": {model.ANNOTATION_ACTIVITY: later}}})
    for name in (idle, used, booked):
        objects.wait_phase(name, "Ready")
    limit = StackSettings().idle_timeout
    running.move_clock(limit - 120)
    objects.change(idle, displayName="not yet")
    objects.wait_phase(idle, "Ready")
    running.move_clock(240)
    stack = objects.wait_phase(idle, "Hibernated")
    assert stack.status.hibernated_by == "Idle"
    assert stack.spec.desired_state is model.Desired.HIBERNATED
    for name in (used, booked):
        assert objects.stack(name).status.phase is model.Phase.READY
    objects.delete("Pod", "jupyter-booked")
    until(lambda: objects.get("Pod", "jupyter-booked") is None, 30, "the notebook to be gone")
    running.move_clock(limit)
    objects.wait_phase(booked, "Hibernated", 60)
    assert objects.stack(used).status.phase is model.Phase.READY


def test_a_stack_that_is_used_sleeps_at_the_end_of_its_life_and_can_be_resumed(service):
    day = 24 * 3600
    running = service(max_life=7 * day, max_idle_timeout=30 * day)
    objects = running.objects
    name = objects.new_stack("ada", idle_timeout=0)
    later = (datetime.now(timezone.utc) + timedelta(days=20)).isoformat()
    objects.patch(model.KIND, name, {"metadata": {"annotations": {model.ANNOTATION_ACTIVITY: later}}})
    ready = objects.wait_phase(name, "Ready")
    told = ready.status.condition(model.LIMITED)
    assert "stacks run for 7 days at most" in told.message
    assert "more is not allowed here (its own setting: never)" in told.message
    volumes = set(objects.family(name, "PersistentVolumeClaim"))
    running.move_clock(7 * day + 60)
    asleep = objects.wait_phase(name, "Hibernated", 60)
    assert asleep.status.hibernated_by == "Life"
    assert asleep.status.condition(model.LIMITED) is None
    assert set(objects.family(name, "PersistentVolumeClaim")) == volumes
    objects.change(name, desiredState="Running")
    objects.wait_phase(name, "Ready", 60)


def test_what_an_administrator_does_becomes_an_event_on_the_stack(service):
    objects = service().objects
    name = objects.new_stack("ada")
    stack = objects.wait_phase(name, "Ready")
    act = Notice(datetime.now(timezone.utc), "root", "invited the user petra")
    objects.patch(model.KIND, name, {"metadata": {"annotations": notices.added(stack, act)}})

    def told():
        found = [e for e in objects.list("Event") if e["reason"] == "Administered"]
        return [(e["involvedObject"]["name"], e["message"]) for e in found]

    until(told, 30, "the event")
    assert told() == [(name, "root, an administrator of the hub, invited the user petra.")]


def test_a_sleeping_stack_is_deleted_after_its_retention(service):
    # A time for which Kubernetes' clock may stay behind: of a deletion's age it is asked, too.
    running = service(retention=300)
    objects = running.objects
    name = objects.new_stack(desired_state="Hibernated")
    expires = objects.wait_phase(name, "Hibernated").status.expires_at
    left = (expires - datetime.now(timezone.utc)).total_seconds()
    running.move_clock(left - 60)
    objects.change(name, displayName="still there")
    objects.wait_phase(name, "Hibernated")
    running.move_clock(120)
    until(lambda: objects.get(model.KIND, name) is None, 60, "it to be deleted")
    until(lambda: not objects.family(name), 30, "all of it to be gone")


def test_limits_hold_and_the_next_one_starts_when_there_is_room(service):
    running = service(max_stacks_per_user=1, max_stacks=2)
    objects = running.objects
    first = objects.new_stack()
    objects.wait_phase(first, "Ready")
    second = objects.new_stack(server_name="two")
    stack = objects.wait_phase(second, "Pending")
    assert stack.status.reason is model.Reason.QUOTA
    assert stack.status.condition("QuotaExceeded").status == "True"
    assert f"You may run one stack at a time and {first} already runs." in stack.status.message
    assert not objects.family(second)
    objects.wait_phase(objects.new_stack("bob"), "Ready")
    third = objects.new_stack("cid")
    assert "All 2 stacks" in objects.wait_phase(third, "Pending").status.message
    running.end()
    running.start()
    # the limits hold over a restart
    objects.change(third, displayName="x")
    until(lambda: objects.stack(third).status.observed_generation == 2, 20, "the change to be seen")
    assert objects.stack(third).status.phase is model.Phase.PENDING
    objects.change(first, desiredState="Hibernated")
    waiting = (second, third)
    until(
        lambda: model.Phase.READY in [objects.stack(name).status.phase for name in waiting],
        90,
        "one that waited to start",
    )


def test_a_stacks_address_leads_to_it_before_it_is_called_ready_and_only_while_it_serves(service):
    objects = service(entrance=True).objects
    name = objects.new_stack()
    address = ("Ingress", f"{name}-gateway")
    objects.wait_phase(name, "Ready")
    made = objects.family(name)[address]["metadata"]["creationTimestamp"]
    stack = objects.stack(name)
    assert made >= stack.status.started_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    objects.change(name, desiredState="Hibernated")
    objects.wait_phase(name, "Hibernated")
    assert address not in objects.family(name)
    # Of one that never becomes ready there is none either.
    objects.change(name, components=["app-engine"], desiredState="Running")
    objects.wait_phase(name, "Failed")
    assert address not in objects.family(name)
    objects.change(name, components=[])
    objects.wait_phase(name, "Ready")
    assert address in objects.family(name)
