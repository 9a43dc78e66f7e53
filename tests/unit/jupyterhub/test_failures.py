"""The sentences for a pod that does not start, from what Kubernetes reports."""

from __future__ import annotations

import json

import pytest

from cytomine_spawner.common.redact import REMOVED
from cytomine_spawner.hub.failures import NotebookFailed, denied, diagnose


def pod(container=None, conditions=(), **status):
    if container is not None:
        entry = {"name": "notebook", "image": "example/lab:1", "ready": False, **container}
        status["containerStatuses"] = [entry]
    return {"status": {"phase": "Pending", "conditions": list(conditions), **status}}


def waiting(reason, message=""):
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def unschedulable(message):
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


@pytest.mark.parametrize(
    "healthy",
    [
        None,
        {},
        {"status": {}},
        pod(),
        pod(waiting("ContainerCreating")),
        pod({"state": {"running": {"startedAt": "now"}}}, phase="Running"),
        pod({"state": {"terminated": {"exitCode": 0}}}),
        pod(conditions=[{"type": "PodScheduled", "status": "True"}]),
        pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
    ],
)
def test_a_pod_on_its_way_is_no_trouble(healthy):
    assert diagnose(healthy) is None


def test_an_image_that_cannot_be_pulled():
    trouble = diagnose(pod(waiting("ImagePullBackOff", 'Back-off pulling image "example/lab:1": not found')))
    assert trouble.reason == "image"
    assert not trouble.final
    for word in ("example/lab:1", "cannot be pulled", "not found", "Choose another image"):
        assert word in trouble.sentence


def test_an_image_name_that_no_registry_can_have_is_final():
    assert diagnose(pod(waiting("InvalidImageName", "couldn't parse image name"))).final


def test_no_node_has_room_says_what_was_asked_and_what_is_missing():
    trouble = diagnose(
        pod(conditions=[unschedulable("0/3 nodes are available: 3 Insufficient memory.")]),
        "4 GiB of memory",
    )
    assert trouble.reason == "unschedulable"
    for word in ("4 GiB of memory", "3 Insufficient memory", "smaller size"):
        assert word in trouble.sentence


def test_a_volume_that_is_not_bound():
    message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    assert diagnose(pod(conditions=[unschedulable(message)])).reason == "volume"


def test_a_container_that_cannot_be_created():
    trouble = diagnose(pod(waiting("CreateContainerConfigError", 'secret "x" not found')))
    assert trouble.reason == "config"
    assert 'secret "x" not found' in trouble.sentence


def test_a_crash_tells_its_exit_code_and_last_words():
    crash = {"exitCode": 1, "reason": "Error", "message": "x" * 1000 + "ModuleNotFoundError: jupyterhub\n"}
    for container in (
        {"state": {"terminated": crash}},
        {**waiting("CrashLoopBackOff", "back-off 10s"), "lastState": {"terminated": crash}},
    ):
        trouble = diagnose(pod(container))
        assert (trouble.reason, trouble.final) == ("crash", True)
        assert "exit code 1" in trouble.sentence
        assert "ModuleNotFoundError: jupyterhub" in trouble.sentence
        assert len(trouble.sentence) < 600


def test_last_words_hold_nothing_that_looks_like_a_credential():
    long = f"JUPYTERHUB_API_TOKEN={'a1' * 400} was refused at https://ada:hunter2@hub/?token=abc&b=1"
    trouble = diagnose(pod({"state": {"terminated": {"exitCode": 1, "message": long}}}))
    # The name of the long one is before the last words that there is room for.
    assert "a1a1" not in trouble.sentence
    assert (
        f"JUPYTERHUB_API_TOKEN={REMOVED} was refused at https://ada:{REMOVED}@hub/?token={REMOVED}&b=1"
        in trouble.sentence
    )


def test_out_of_memory_at_start():
    trouble = diagnose(pod({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}))
    assert "ran out of memory" in trouble.sentence
    assert "larger size" in trouble.sentence


def test_a_failing_init_container_is_named():
    status = {"name": "init-home", "image": "i", "state": {"terminated": {"exitCode": 2}}}
    trouble = diagnose(pod(initContainerStatuses=[status]))
    assert "init-home" in trouble.sentence


def test_an_evicted_pod():
    trouble = diagnose({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}})
    assert (trouble.reason, trouble.final) == ("evicted", True)
    assert "low on disk." in trouble.sentence


def body(message):
    return json.dumps({"kind": "Status", "message": message})


def test_a_quota_says_asked_used_and_limit():
    trouble = denied(
        403,
        body(
            'pods "jupyter-ada" is forbidden: exceeded quota: team, requested: requests.memory=4294967296, '
            "used: requests.memory=14Gi, limited: requests.memory=16Gi"
        ),
    )
    assert trouble.reason == "quota"
    for word in (
        "team",
        "requests.memory=4Gi",
        "requests.memory=14Gi of requests.memory=16Gi",
        "the notebook",
    ):
        assert word in trouble.sentence


def test_a_refused_volume_is_called_so():
    message = 'persistentvolumeclaims "claim-ada" is forbidden: exceeded quota: q, requested: a, used: b, limited: c'
    assert "home volume" in denied(403, body(message)).sentence


def test_pod_security():
    trouble = denied(403, body('pods "a" is forbidden: violates PodSecurity "restricted:latest": privileged'))
    assert trouble.reason == "policy"


@pytest.mark.parametrize("answer", [None, "", "<html>", "[]", b"{}", "null"])
def test_an_unreadable_refusal_is_still_one_sentence(answer):
    assert denied(403, answer).sentence.startswith("The cluster refuses the notebook")


@pytest.mark.parametrize("status", [401, 404, 409, 429, 500, 503])
def test_what_may_pass_is_no_refusal(status):
    assert denied(status, body("later")) is None


def test_the_exception_carries_its_sentence_where_jupyterhub_looks_for_it():
    error = NotebookFailed("No room: 100% full.", reason="unschedulable")
    assert error.status_code == 503
    assert error.reason == "unschedulable"
    assert str(error) == error.jupyterhub_message == "No room: 100% full."
    assert error.log_message.replace("%%", "%") == "No room: 100% full."
