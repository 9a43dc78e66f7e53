"""A dataset of the archive that somebody is granted and ticks: its slides are in Cytomine, with the pixels that the archive has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest

from dev.demo.install import Installed
from tests.cluster.test_datasets import check
from tests.real.room import room
from tests.support.lab import Lab
from tests.support.person import wait

# What the visas of Ivan grant, and what only others' do: dev/lslogin/users.json. The first one's slides are the mock skin.
GRANTED, OTHER = "sda://aa-Dataset-demo01-slides", "sda://aa-Dataset-demo02-biopsies"
X, Y, WIDTH, HEIGHT = 600, 900, 64, 48
PICTURES = f"""
import json
import shapely
from cytomine.models import Annotation, ImageInstanceCollection, ProjectCollection
from cytomine_spawner.notebook import connect, crop, region, safe, thumb
connect(progress=False)
project = next(p for p in ProjectCollection().fetch() if p.name == "mock-skin")
images = {{i.instanceFilename: i for i in ImageInstanceCollection({{"project": project.id}}).fetch()}}
thumbs = {{}}
for name, image in images.items():
    small = thumb(image, 256)
    thumbs[name] = [list(small.shape), float(small.std())]
slide = images["skin.svs"]
box = shapely.box({X}, slide.height - {Y} - {HEIGHT}, {X} + {WIDTH}, slide.height - {Y})
outline = Annotation(box.wkt, slide.id, [], project.id).save()
try:
    below = crop(outline.id)
finally:
    safe.delete_annotation(outline.id)
window = region(slide, {X}, {Y}, {WIDTH}, {HEIGHT}, format="png")
print(json.dumps({{"thumbs": thumbs, "crop": below.tolist(), "window": window.tolist()}}))
"""


def offered(hub: Installed) -> None:
    """Wait until Ivan's options have what his visas grant: a start is checked by what the archive said then."""
    lab = Lab(hub, "ivan")
    lab.remove()
    dataset = GRANTED.removeprefix("sda://")
    wait(
        lambda: dataset in lab.person.client.get(f"{hub.url}/hub/spawn").text, f"{dataset} among the options"
    )


@pytest.fixture(scope="module")
def ivan(hub: Installed, slides: Path) -> Iterator[Lab]:
    """Somebody whose new stack has the dataset, put in from the archive."""
    assert slides
    offered(hub)
    with room(hub), Lab.beside(hub, "ivan", ready=False, datasets=[GRANTED]) as lab:
        lab.wait_ready()
        lab.wait_imported(1200)
        yield lab


def test_a_dataset_that_is_not_granted_is_refused_by_its_name(hub: Installed, slides: Path) -> None:
    assert slides
    offered(hub)
    lab = Lab(hub, "ivan")
    answer = lab.person.start({"cytomine": {"size": "S", "datasets": [OTHER]}})
    assert answer.status_code == 400, answer.text
    assert "cytomine.datasets" in answer.text
    assert not lab.stacks()


def test_what_is_granted_and_ticked_is_in_cytomine_with_its_annotations(ivan: Lab) -> None:
    check(ivan, "mock-skin")
    assert ivan.status()["importedDatasets"] == [GRANTED]
    assert "sda://" not in ivan.importing()["message"], "people are told the dataset's own name"


def test_its_slides_show_themselves_and_have_the_files_own_pixels(ivan: Lab) -> None:
    found: dict[str, Any] = ivan.python(PICTURES)
    assert len(found["thumbs"]) == 4
    for name, (shape, deviation) in found["thumbs"].items():
        assert 200 < max(shape) <= 256, (name, shape)
        assert deviation > 0, f"{name} shows one colour"
    folder = ivan.hub.target.dataset
    assert folder
    (path,) = folder.glob("*/DATASET_mock-skin/IMAGES/*/skin.svs")
    with openslide.OpenSlide(path) as slide:
        own = np.asarray(slide.read_region((X, Y), 0, (WIDTH, HEIGHT)).convert("RGB")).astype(int)
    for way in ("window", "crop"):
        pixels = np.asarray(found[way])
        assert pixels.shape == own.shape, way
        # Another version of the JPEG decoder may round otherwise.
        assert np.abs(pixels - own).mean() < 1, way
