"""The import of datasets into stacks: the operator against a real API server, with nodes that run nothing.

A Job whose pod finds a node is done at once; one that asks for more than there is waits until a test ends it.
"""

import signal

import pytest

from cytomine_spawner.stack import model
from tests.support.stackservice import until

pytest_plugins = ["tests.support.stackserver"]

SECONDS = 20
OFFERED = {
    "datasets": [{"name": "colon", "title": "Colon biopsies"}, {"name": "skin"}],
    "dataset_volume": {"persistentVolumeClaim": {"claimName": "datasets", "readOnly": True}},
}
WAITING = {"requests": {"memory": "900Gi"}, "limits": {"memory": "900Gi"}}


@pytest.fixture
def importing(service, kubectl):
    """Starts a service that offers datasets, in a namespace that has a volume for them."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    done = kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "datasets"},
            "spec": claim,
        }
    )
    assert done.returncode == 0, done.stderr
    return lambda **settings: service(**{**OFFERED, **settings})


def condition(objects, name):
    return objects.stack(name).status.condition(model.DATASETS_IMPORTED)


def wait_reason(objects, name, reason):
    def look():
        found = condition(objects, name)
        return found if found and found.reason == reason else None

    try:
        return until(look, SECONDS, f"the import to be {reason}")
    except AssertionError:
        raise AssertionError(f"the import is not {reason}: {condition(objects, name)}") from None


def jobs(objects, name):
    return [item for (kind, _), item in objects.family(name, "Job").items() if kind == "Job"]


def a_job(objects, name, *, but=()):
    """The one Job of a stack, when it is another than those of these uids."""

    def look():
        found = jobs(objects, name)
        return found[0] if len(found) == 1 and found[0]["metadata"]["uid"] not in but else None

    return until(look, SECONDS, "one Job")


def command(job):
    return job["spec"]["template"]["spec"]["containers"][0]["command"]


def end_pods(objects, name, until_, *, code=1, message="", job=""):
    """Each of the import's pods, or of one Job's, ends as its kubelet would say, until something is so; how many."""
    seen = set()

    def look():
        for pod in objects.list(
            "Pod", f"app.kubernetes.io/instance={name},app.kubernetes.io/component=datasets"
        ):
            if not pod["metadata"]["name"].startswith(job):
                continue
            if pod["metadata"]["uid"] in seen or pod["status"]["phase"] != "Pending":
                continue
            ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
            # Long ago: the job controller waits before the next try by the time of the former one's end.
            ended["finishedAt"] = "2026-01-01T00:00:00Z"
            status = {"name": "datasets", "ready": False, "restartCount": 0, "image": "i", "imageID": ""}
            change = {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [{**status, "state": {"terminated": ended}}],
            }
            objects.patch("Pod", pod["metadata"]["name"], {"status": change}, "status")
            seen.add(pod["metadata"]["uid"])
        return until_()

    until(look, 90, "the import to go on")
    return len(seen)


def fail(objects, name, message, code=1):
    """The import's pods end with a failure until it is given up; how many there were."""
    over = lambda: condition(objects, name).reason == "Failed"  # noqa: E731
    return end_pods(objects, name, over, code=code, message=message)


def look_anew(running, name):
    """The service is killed, and a new one has looked at the stack."""
    running.end(signal.SIGKILL)
    running.start()
    looks = running.looks()
    running.objects.patch(
        model.KIND, name, {"metadata": {"annotations": {model.ANNOTATION_ACTIVITY: "2026-01-01T00:00:00Z"}}}
    )
    until(lambda: running.looks() > looks, SECONDS, "a look")


def test_ticked_datasets_are_imported_once_the_stack_serves_and_never_again(importing):
    running = importing()
    objects = running.objects
    name = objects.new_stack(datasets=["colon", "skin"])
    found = wait_reason(objects, name, "Imported")
    assert found.message == "Colon biopsies and skin are in Cytomine."
    stack = objects.wait_phase(name, "Ready")
    assert stack.status.imported_datasets == ("colon", "skin")
    until(lambda: not jobs(objects, name), SECONDS, "the Job to be gone")
    assert ("NetworkPolicy", f"{name}-datasets") not in objects.family(name)

    def made():
        events = [e for e in objects.list("Event") if e["involvedObject"]["kind"] == "Job"]
        return {e["involvedObject"]["uid"] for e in events if e["reason"] == "SuccessfulCreate"}

    until(lambda: len(made()) == 2, SECONDS, "a Job for each dataset")
    told = {e["reason"] for e in objects.list("Event") if e["involvedObject"]["kind"] == model.KIND}
    assert "DatasetsImported" in told
    running.end(signal.SIGKILL)
    running.start()
    objects.change(name, desiredState="Hibernated")
    objects.wait_phase(name, "Hibernated")
    objects.change(name, desiredState="Running")
    objects.wait_phase(name, "Ready")
    assert condition(objects, name).reason == "Imported"
    assert len(made()) == 2
    objects.change(name, datasets=["colon"])
    until(lambda: condition(objects, name).message == "Colon biopsies is in Cytomine.", SECONDS, "the change")
    assert len(made()) == 2
    assert "Traceback" not in running.text()


def test_no_job_is_there_before_the_stack_serves_and_its_name_tells_a_try(importing):
    objects = importing(dataset_resources=WAITING).objects
    name = objects.new_stack(datasets=["colon"])
    job = a_job(objects, name)
    stack = objects.wait_phase(name, "Ready")
    assert model.parse_time(job["metadata"]["creationTimestamp"]) >= stack.status.ready_at
    assert job["metadata"]["name"].startswith(f"{name}-datasets-")
    assert job["metadata"]["ownerReferences"][0]["uid"] == stack.uid
    assert wait_reason(objects, name, "Importing").status == "False"
    until(lambda: "fits on no node" in condition(objects, name).message, SECONDS, "the cause to be said")
    assert command(job)[-1] == "colon"
    objects.change(name, datasets=["skin", "colon"])
    other = a_job(objects, name, but={job["metadata"]["uid"]})
    assert command(other)[-1] == "skin"


def test_a_failure_is_said_and_can_be_tried_again_without_a_new_start(importing):
    running = importing(dataset_resources=WAITING)
    objects = running.objects
    name = objects.new_stack(datasets=["colon"])
    first = a_job(objects, name)
    before = objects.wait_phase(name, "Ready")
    assert (
        fail(objects, name, "1 of 4 steps done\nCytomine did not take a.svs (413). Free some space.\n") == 3
    )
    found = condition(objects, name)
    assert found.message == (
        "Colon biopsies could not be imported. Cytomine did not take a.svs (413). Free some space."
    )
    stack = objects.wait_phase(name, "Ready")
    assert stack.status.imported_datasets == ()
    objects.change(name, retry=1)
    a_job(objects, name, but={first["metadata"]["uid"]})
    wait_reason(objects, name, "Importing")
    after = objects.wait_phase(name, "Ready")
    assert after.status.started_at == before.status.started_at, "the notebooks' keys are still good"
    told = {e["reason"] for e in objects.list("Event") if e["involvedObject"]["kind"] == model.KIND}
    assert "DatasetsFailed" in told


def test_a_broken_dataset_holds_up_no_other_and_comes_in_once_it_is_mended(importing):
    running = importing(dataset_resources=WAITING)
    objects = running.objects
    name = objects.new_stack(datasets=["colon", "skin", "lung"])
    first = a_job(objects, name)
    words = "/datasets/1/DATASET_colon/ANNOTATIONS/a.geojson is no GeoJSON. Mend the dataset and try again.\n"

    def next_turn():
        return any(command(job)[-1] == "skin" for job in jobs(objects, name))

    job = first["metadata"]["name"]
    ended = end_pods(objects, name, next_turn, code=65, message=words, job=job)
    assert ended == 1, "no other try mends it"
    told = f"Colon biopsies could not be imported. {words.strip()}"
    until(lambda: told in condition(objects, name).message, SECONDS, "the failure to be told")
    assert condition(objects, name).reason == "Importing"
    in_status = objects.stack(name).status
    assert [f.name for f in in_status.failed_datasets] == ["colon"]
    end_pods(objects, name, lambda: condition(objects, name).reason == "Failed", code=0)
    found = condition(objects, name)
    assert found.message == (
        f"{told} The dataset lung is not offered here. Choose others in the options or ask an administrator. "
        "skin is in Cytomine."
    )
    assert objects.wait_phase(name, "Ready").status.imported_datasets == ("skin",)
    # Its Job stays for its log and no other comes, also when the service starts anew.
    look_anew(running, name)
    assert a_job(objects, name)["metadata"]["uid"] == first["metadata"]["uid"]
    assert condition(objects, name).message == found.message
    objects.change(name, retry=1, datasets=["colon", "skin"])
    again = a_job(objects, name, but={first["metadata"]["uid"]})
    assert command(again)[-1] == "colon"
    end_pods(objects, name, lambda: condition(objects, name).reason == "Imported", code=0)
    assert condition(objects, name).message == "Colon biopsies and skin are in Cytomine."
    until(lambda: not jobs(objects, name), SECONDS, "the Jobs to be gone")
    assert not objects.stack(name).status.failed_datasets
    assert "Traceback" not in running.text()


def test_a_restart_of_the_service_leaves_an_import_alone_and_sleep_ends_it(importing):
    running = importing(dataset_resources=WAITING)
    objects = running.objects
    name = objects.new_stack(datasets=["colon"])
    job = a_job(objects, name)["metadata"]
    wait_reason(objects, name, "Importing")
    look_anew(running, name)
    assert a_job(objects, name)["metadata"]["uid"] == job["uid"]
    objects.change(name, desiredState="Hibernated")
    objects.wait_phase(name, "Hibernated")
    assert not jobs(objects, name)
    assert wait_reason(objects, name, "Waiting").message == "Colon biopsies is imported at the next start."
    objects.change(name, desiredState="Running")
    a_job(objects, name, but={job["uid"]})
    objects.remove(name)
    until(lambda: not objects.family(name), 30, "nothing to be left")


def test_a_dataset_that_is_not_offered_is_named_and_the_others_come_in(importing):
    objects = importing().objects
    name = objects.new_stack(datasets=["lung", "colon"])
    found = wait_reason(objects, name, "NotOffered")
    assert found.message.startswith("The dataset lung is not offered here.")
    assert found.message.endswith("Colon biopsies is in Cytomine.")
    assert objects.wait_phase(name, "Ready").status.imported_datasets == ("colon",)
    until(lambda: not jobs(objects, name), SECONDS, "the Job to be gone")


def test_an_import_that_the_cluster_refuses_is_said_and_the_stack_serves(importing):
    objects = importing().objects
    objects.create("ResourceQuota", {"metadata": {"name": "no"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    name = objects.new_stack(datasets=["colon"])
    found = wait_reason(objects, name, "Failed")
    assert "exceeded quota" in found.message
    objects.wait_phase(name, "Ready")
