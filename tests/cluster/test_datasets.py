"""Datasets that are ticked in the options are put into the stack, once."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.lab import Lab
from tests.support.person import wait

FOUND = """
import json
from cytomine_spawner.notebook import connect
conn = connect(progress=False, timeout=120)
from cytomine.models import *
found = {}
for project in ProjectCollection().fetch():
    images = ImageInstanceCollection().fetch_with_filter("project", project.id)
    annotations = AnnotationCollection(project=project.id, showTerm=True).fetch()
    names = {t.id: t.name for t in TermCollection().fetch_with_filter("project", project.id)}
    counts = {}
    for annotation in annotations:
        for term in annotation.term:
            counts[names[term]] = counts.get(names[term], 0) + 1
    found[project.name] = {
        "images": sorted([i.instanceFilename, i.width, i.height] for i in images), "terms": counts,
    }
print(json.dumps(found))
"""
SIZES = {"skin.svs": [2220, 2967], "skin-large.tif": [17760, 17802], "cells.ome.tif": [2048, 1536]}


def truth(folder: Path, dataset: str) -> dict[str, int]:
    """How many annotations of each term the dataset's own files have."""
    counts: dict[str, int] = {}
    for path in folder.glob(f"*/DATASET_{dataset}/ANNOTATIONS/*.geojson"):
        for feature in json.loads(path.read_text())["features"]:
            name = feature["properties"]["classification"]["name"]
            counts[name] = counts.get(name, 0) + 1
    return counts


def check(lab: Lab, *datasets: str) -> None:
    """The stack holds exactly these datasets, as their files have them."""
    found = lab.python(FOUND)
    assert set(found) == set(datasets)
    folder = lab.hub.target.dataset
    assert folder
    for name in datasets:
        assert found[name]["terms"] == truth(folder, name)
    if "mock-skin" in datasets:
        images = {name: size for name, *size in found["mock-skin"]["images"]}
        assert len(images) == 4
        assert SIZES.items() <= images.items()
        assert found["mock-skin"]["terms"]["Nucleus"] > 100
    if "mock-landmarks" in datasets:
        assert len(found["mock-landmarks"]["images"]) == 16


def test_ticked_datasets_are_in_the_stack_with_project_images_terms_and_annotations(analyst: Lab) -> None:
    check(analyst, "mock-skin", "mock-landmarks")
    assert analyst.importing()["message"] == "Mock skin and Mock landmarks are in Cytomine."
    wait(lambda: not analyst.jobs(), "the Job to be gone")
    row = analyst.kubectl("get", "cytominestacks", "-o", "wide")
    assert re.search(r"\bImported\b", row), row


def test_the_next_start_imports_nothing_again(analyst: Lab) -> None:
    analyst.person.stop()
    analyst.hibernate()
    analyst.start(cytomine={"size": "S", "datasets": ["mock-skin", "mock-landmarks"]})
    analyst.wait_ready()
    assert analyst.importing()["reason"] == "Imported"
    assert not analyst.jobs()
    check(analyst, "mock-skin", "mock-landmarks")


def test_a_dataset_that_the_volume_lacks_is_named_with_its_cure_and_the_others_stay(analyst: Lab) -> None:
    wanted = '{"spec":{"datasets":["mock-absent","mock-skin","mock-landmarks"]}}'
    analyst.kubectl("patch", "cytominestack", analyst.name, "--type=merge", "-p", wanted)
    wait(lambda: analyst.importing()["reason"] == "Failed", "the import to have failed")
    said = analyst.importing()["message"]
    assert said.startswith(
        "Mock absent could not be imported. There is no dataset mock-absent in /datasets"
    ), said
    assert said.endswith("and try again. Mock skin and Mock landmarks are in Cytomine."), said
    # What no other try can mend is not tried again.
    (job,) = analyst.jobs()
    assert (job["status"]["failed"], job["status"]["conditions"][-1]["reason"]) == (1, "PodFailurePolicy")
    # The card offers another try, for when it is mended.
    card = analyst.ask("GET", f"api/stacks/{analyst.name}")
    assert (card["datasets"]["message"], "retry" in card["actions"]) == (said, True)
    analyst.ask("POST", f"api/stacks/{analyst.name}/retry")
    wait(
        lambda: [j["metadata"]["uid"] for j in analyst.jobs()] not in ([], [job["metadata"]["uid"]]),
        "another try",
    )
    wait(lambda: analyst.importing()["reason"] == "Failed", "the second try to have failed")
    kept = '{"spec":{"datasets":["mock-skin","mock-landmarks"]}}'
    analyst.kubectl("patch", "cytominestack", analyst.name, "--type=merge", "-p", kept)
    wait(lambda: analyst.importing()["reason"] == "Imported", "the others to be all there is")
    check(analyst, "mock-skin", "mock-landmarks")
