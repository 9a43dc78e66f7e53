"""A stack of Cytomine's own servers: put to sleep, harmed, worked on by several threads."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from cytomine_spawner.stack import components
from tests.support.lab import Lab
from tests.support.person import wait

COUNT = """
import json
from cytomine.models import AnnotationCollection, ImageInstanceCollection, ProjectCollection
from cytomine_spawner.notebook import connect, safe
connect(progress=False)
project = next(p for p in ProjectCollection().fetch() if p.name == "mock-skin")
images = safe.fetch_all(ImageInstanceCollection({"project": project.id}))
found = safe.fetch_all(AnnotationCollection(project=project.id))
print(json.dumps([len(images), len(found)]))
"""
TOGETHER = """
import json
from concurrent.futures import ThreadPoolExecutor
import geopandas, numpy, shapely
from cytomine.models import Annotation, ImageInstanceCollection, ProjectCollection
from cytomine_spawner.notebook import connect, crop, region, safe, thumb, preview, upload
connect(progress=False)
project = next(p for p in ProjectCollection().fetch() if p.name == "mock-skin")
image = next(i for i in ImageInstanceCollection({"project": project.id}).fetch() if i.instanceFilename == "skin.svs")
boxes = [shapely.box(100 + 20 * n, 900, 110 + 20 * n, 930) for n in range(40)]
table = geopandas.GeoDataFrame(geometry=boxes)
ids = upload(table, image, terms=["Epidermis"], origin="top-left", progress=False)
same = [int(numpy.abs(crop(i).astype(int) - region(image, 100 + 20 * n, 900, 10, 30, format='png').astype(int)).max()) for n, i in enumerate(ids[:5])]
with ThreadPoolExecutor(8) as pool:
    list(pool.map(safe.delete_annotation, ids))
gone = [i for i in ids if not Annotation().fetch(i)]
sizes = [list(thumb(image, 256).shape), list(preview(image, 256).shape)]
print(json.dumps({"differences": same, "gone": len(gone), "sizes": sizes}))
"""


def test_crops_are_exact_and_forty_annotations_go_by_eight_threads(analyst: Lab) -> None:
    found = analyst.python(TOGETHER)
    assert found["differences"] == [0] * 5
    assert found["gone"] == 40
    assert all(max(size) <= 256 for size in found["sizes"]), "pictures of a slide that brings a thumbnail"


def test_no_log_shows_a_secret(analyst: Lab) -> None:
    found = analyst.kube.get(
        "-n", analyst.namespace, "secrets", "-l", f"app.kubernetes.io/instance={analyst.name}"
    )
    assert found
    values = {
        base64.b64decode(value).decode()
        for secret in found["items"]
        if not secret["metadata"]["name"].endswith("-sessions")
        for key, value in secret["data"].items()
        if key not in ("user", "host", "stack-uid")
    }
    raw = analyst.kubectl("logs", f"deploy/{analyst.name}-pims", "-c", "pims")
    assert any(value in raw for value in values if len(value) > 7), "the image server prints its key"
    for component in components.BASE:
        answer: httpx.Response = analyst.request(
            "GET", f"api/stacks/{analyst.name}/components/{component}/logs?tail=2000"
        )
        if answer.status_code == 404:
            continue
        assert answer.status_code == 200, answer.text
        shown = [value for value in values if len(value) > 7 and value in answer.text]
        assert not shown, f"{component} shows {len(shown)} secrets"


def test_annotations_and_images_outlive_a_sleep_and_the_keys_change(analyst: Lab) -> None:
    before = analyst.python(COUNT)
    analyst.person.stop()
    analyst.hibernate()
    analyst.start(cytomine=True)
    wait(analyst.is_ready, lambda: f"the stack, which is {analyst.status()}", 300)
    assert analyst.python(COUNT) == before


def _serves(pod: dict[str, Any]) -> bool:
    found = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


@pytest.mark.parametrize("component", ["pims", "core", "repository", "mongo", "postgis", "web-ui", "gateway"])
def test_a_killed_part_comes_back_with_all_that_was_stored(analyst: Lab, component: str) -> None:
    before = analyst.python(COUNT)
    which = f"app.kubernetes.io/instance={analyst.name},app.kubernetes.io/component={component}"
    old = json.loads(analyst.kubectl("get", "pods", "-l", which, "-o", "json"))["items"]
    names = {pod["metadata"]["uid"] for pod in old}
    analyst.kubectl("delete", "pods", "-l", which, "--grace-period=0", "--force")

    def anew() -> bool:
        pods = json.loads(analyst.kubectl("get", "pods", "-l", which, "-o", "json"))["items"]
        # The stack's own word comes a moment later than the pod's.
        return bool(pods) and all(pod["metadata"]["uid"] not in names and _serves(pod) for pod in pods)

    wait(anew, f"another pod of {component}", 300)
    wait(analyst.is_ready, lambda: f"the stack, which is {analyst.status()}", 300)
    assert analyst.python(COUNT) == before
