"""A Cytomine stack beside a notebook, on real pods: started from the options, used, put to sleep, harmed, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev.demo import install
from tests.support.lab import KINDS, Lab
from tests.support.person import Person, wait

ROWS = 1000


@pytest.fixture(scope="module")
def lab(hub: install.Installed) -> Iterator[Lab]:
    with Lab.beside(hub, "petra", ready=False) as lab:
        yield lab


ANNOTATE = f"""
import json, os, numpy, tempfile
from PIL import Image
from cytomine_spawner.notebook import connect
conn = connect(progress=False)
from cytomine.models import *
ontology = Ontology("tissue").save()
project = Project("survival", ontology.id).save()
terms = [Term(name, ontology.id, colour).save() for name, colour in (("tumour", "#ff0000"), ("stroma", "#00ff00"))]
storage = [s for s in StorageCollection().fetch() ][0]
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "slide.png")
    Image.fromarray(numpy.random.default_rng(1).integers(0, 255, (600, 800, 3), dtype="uint8")).save(path)
    conn.upload_image(path, storage.id, id_project=project.id, sync=True)
image = ImageInstanceCollection().fetch_with_filter("project", project.id)[0]
many = AnnotationCollection()
for n in range({ROWS}):
    x, y = 5 + n % 40 * 19, 5 + n // 40 * 23
    many.append(Annotation(
        location=f"POLYGON (({{x}} {{y}}, {{x + 9}} {{y}}, {{x + 9}} {{y + 7}}, {{x}} {{y}}))",
        id_image=image.id, id_project=project.id, id_terms=[terms[n % 2].id],
    ))
many.save(chunk=100, n_workers=4)
print(json.dumps({{"project": project.id, "image": image.id}}))
"""

COUNT = """
import json
from cytomine_spawner.notebook import connect
conn = connect(progress=False, timeout=120)
from cytomine.models import *
found = AnnotationCollection(project={project}, showWKT=True, showTerm=True).fetch()
print(json.dumps({{
    "annotations": len(found), "terms": sorted({{len(a.term) for a in found}}),
    "wkt": sum(a.location.startswith("POLYGON") for a in found),
    "crop": found[0].cropURL if hasattr(found[0], "cropURL") else "",
}}))
"""


def counted(lab: Lab) -> dict[str, Any]:
    found = lab.python(COUNT.format(project=lab.work["project"]))
    assert found["annotations"] == found["wkt"] == ROWS
    assert found["terms"] == [1]
    return dict(found)


def test_a_start_with_cytomine_gives_a_notebook_at_once_and_a_stack_that_its_client_reaches(lab: Lab) -> None:
    lab.wait_ready()
    table = lab.kubectl("get", "cytominestacks")
    assert "Ready" in table, table
    lab.work = lab.python(ANNOTATE)
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


def test_the_work_survives_hibernation_and_the_next_start_resumes(lab: Lab) -> None:
    old = lab.kube.get("-n", lab.namespace, "secret", f"{lab.name}-connection")
    lab.person.stop()
    lab.ask("PATCH", f"api/stacks/{lab.name}", {"desiredState": "Hibernated"})
    wait(lambda: lab.status().get("phase") == "Hibernated", "the stack to sleep", 90)
    assert lab.status().get("expiresAt"), "its owner is told how long it is kept"
    pods = lab.kube.get("-n", lab.namespace, "pods", "-l", f"app.kubernetes.io/instance={lab.name}")
    assert not (pods or {"items": []})["items"]
    lab.start(cytomine=True)
    lab.wait_ready()
    counted(lab)
    new = lab.kube.get("-n", lab.namespace, "secret", f"{lab.name}-connection")
    assert old
    assert new
    assert old["data"]["private-key"] != new["data"]["private-key"], "each start gives new keys"


def test_hub_and_service_may_restart_in_the_middle_of_a_start(lab: Lab) -> None:
    lab.person.stop()
    lab.ask("PATCH", f"api/stacks/{lab.name}", {"desiredState": "Hibernated"})
    wait(lambda: lab.status().get("phase") == "Hibernated", "the stack to sleep", 90)
    lab.start(cytomine=True)
    wait(lambda: lab.status().get("phase") == "Starting", "the stack to start")
    for part in ("hub", "stacks"):
        selector = f"app.kubernetes.io/name=cytomine-hub,app.kubernetes.io/component={part}"
        lab.kubectl("delete", "pods", "-l", selector, "--wait=false")
    wait(lab.is_ready, f"the stack, which is {lab.status()}", 180)
    wait(lambda: lab.person.get("user").status_code == 200, "the hub to know the session")
    assert len(lab.stacks()) == 1
    assert lab.person.ready()
    counted(lab)


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
    lab.kubectl("delete", "cytominestack", name, "--timeout=90s", timeout=100)
    wait(lambda: lab.left() == volumes, f"nothing but volumes: {lab.left() - volumes}")
    lab.person.stop()
    lab.start(cytomine=True)
    lab.wait_ready()
    assert lab.name == name
    counted(lab)


def test_deleting_leaves_nothing(lab: Lab) -> None:
    name = lab.name
    lab.kubectl("delete", "cytominestack", name, "--timeout=90s", timeout=100)
    wait(lambda: not lab.left(), f"nothing to be left, but {lab.left()}")
    labelled = lab.kube.get("-n", lab.namespace, KINDS, "-l", f"app.kubernetes.io/instance={name}")
    assert not (labelled or {"items": []})["items"]


def test_deleting_the_user_deletes_the_stack(hub: install.Installed) -> None:
    ivan = Lab(hub, "ivan")
    if ivan.person.server():
        ivan.person.stop()
    ivan.start(cytomine=True)
    wait(lambda: ivan.status().get("phase"), "the service to see the stack")
    ivan.person.stop()
    admin = Person(hub, "ada")
    answer = admin.client.delete(admin._url(f"users/{ivan.person.name}"), headers=admin._headers())
    assert answer.status_code == 204, answer.text
    wait(lambda: not ivan.left(), f"nothing to be left, but {ivan.left()}", 120)
