"""A Cytomine stack beside a notebook, on real pods: started from the options, used, put to sleep, harmed, removed."""

from __future__ import annotations

import json

import pytest

from dev.demo import install
from tests.support.annotating import annotate, counted
from tests.support.browserless import browserless
from tests.support.lab import KINDS, Lab
from tests.support.person import Person, wait


@pytest.fixture(scope="module", autouse=True)
def worked(lab: Lab) -> None:
    if not lab.person.server():
        lab.begin(cytomine=True)
    lab.wait_ready()
    annotate(lab)


def test_a_start_with_cytomine_gives_a_notebook_at_once_and_a_stack_that_its_client_reaches(lab: Lab) -> None:
    table = lab.kubectl("get", "cytominestacks", lab.name)
    assert "Ready" in table, table
    counted(lab)


def test_no_secret_of_the_stack_is_in_the_notebook_pods_description(lab: Lab) -> None:
    import base64

    (pod,) = lab.person.pods()
    described = lab.kubectl("describe", "pod", pod["metadata"]["name"])
    keys = lab.kube.get("-n", lab.namespace, "secret", f"{lab.name}-connection")
    assert keys
    for name in ("private-key", "public-key"):
        assert base64.b64decode(keys["data"][name]).decode() not in described + json.dumps(pod)


def test_the_work_survives_a_killed_database(lab: Lab) -> None:
    before = lab.kube.get("-n", lab.namespace, "pod", f"{lab.name}-postgis-0")
    assert before
    lab.kubectl("delete", "pod", f"{lab.name}-postgis-0", "--grace-period=0", "--force")
    wait(
        lambda: (
            (
                lab.kube.get("-n", lab.namespace, "pod", f"{lab.name}-postgis-0")
                or {"metadata": before["metadata"]}
            )["metadata"]["uid"]
            != before["metadata"]["uid"]
        ),
        "another database pod",
    )
    lab.wait_ready()
    counted(lab)


def opening(lab: Lab) -> str:
    """Where a browser is sent that opens the stack's address, if the service answers there."""
    headers = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    with browserless() as client:
        answer = client.get(f"{lab.stack_url()}/project?id=1", headers=headers, follow_redirects=False)
    location = answer.headers.get("location", "")
    return location if "/services/cytomine/open/" in location else ""


def test_the_work_survives_hibernation_and_the_next_start_resumes(lab: Lab) -> None:
    old = lab.kube.get("-n", lab.namespace, "secret", f"{lab.name}-connection")
    lab.person.stop()
    lab.hibernate()
    assert lab.status().get("expiresAt"), "its owner is told how long it is kept"
    pods = lab.kube.get("-n", lab.namespace, "pods", "-l", f"app.kubernetes.io/instance={lab.name}")
    assert not (pods or {"items": []})["items"]
    bookmark = opening(lab)
    assert bookmark, "its address leads to a page that says that it sleeps"
    assert f"/open/{lab.name}" in bookmark
    lab.start(cytomine=True)
    lab.wait_ready()
    assert not opening(lab), "its address leads to itself again"
    counted(lab)
    new = lab.kube.get("-n", lab.namespace, "secret", f"{lab.name}-connection")
    assert old
    assert new
    assert old["data"]["private-key"] != new["data"]["private-key"], "each start gives new keys"


def test_a_part_that_somebody_changed_by_hand_is_put_right_and_the_notebook_goes_on(lab: Lab) -> None:
    lab.kubectl("set", "image", f"deploy/{lab.name}-pims", "pims=localhost/cytomine-spawner/no-such-image:1")
    lab.kubectl(
        "delete", "pods", "-l", f"app.kubernetes.io/instance={lab.name},app.kubernetes.io/component=pims"
    )
    wait(lambda: lab.is_ready(), "the service to put the image right again", 120)
    assert lab.person.ready()


def test_deleting_with_kept_data_leaves_exactly_the_volumes_and_a_new_stack_has_them(lab: Lab) -> None:
    volumes = {o for o in lab.left() if o.startswith("PersistentVolumeClaim/")}
    assert volumes
    name = lab.name
    lab.kubectl("patch", "cytominestack", name, "--type=merge", "-p", '{"spec":{"keepData":true}}')
    lab.kubectl("delete", "cytominestack", name, "--timeout=270s", timeout=290)
    wait(lambda: lab.left() == volumes, f"nothing but volumes: {lab.left() - volumes}")
    lab.person.stop()
    lab.start(cytomine=True)
    lab.wait_ready()
    assert lab.name == name
    counted(lab)


def test_deleting_leaves_nothing(lab: Lab) -> None:
    name = lab.name
    lab.kubectl("delete", "cytominestack", name, "--timeout=270s", timeout=290)
    wait(lambda: not lab.left(), f"nothing to be left, but {lab.left()}")
    labelled = lab.kube.get("-n", lab.namespace, KINDS, "-l", f"app.kubernetes.io/instance={name}")
    assert not (labelled or {"items": []})["items"]


def test_deleting_the_user_deletes_the_stack(shaken: install.Installed) -> None:
    gone = Lab(shaken, "nora")
    if gone.person.server():
        gone.person.stop()
    gone.start(cytomine=True)
    wait(lambda: gone.status().get("phase"), "the service to see the stack")
    gone.person.stop()
    admin = Person(shaken, "ada")
    answer = admin.client.delete(admin._url(f"users/{gone.person.name}"), headers=admin._headers())
    assert answer.status_code == 204, answer.text
    wait(lambda: not gone.left(), f"nothing to be left, but {gone.left()}", 120)
