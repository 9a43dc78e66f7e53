"""Work in a stack that must not get lost: a slide with many annotations."""

from __future__ import annotations

from typing import Any

from tests.support.lab import Lab

ROWS = 1000

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


def annotate(lab: Lab) -> None:
    """Annotate a slide in the stack, unless it was done before."""
    lab.work = lab.work or lab.python(ANNOTATE)


def counted(lab: Lab) -> dict[str, Any]:
    """What the stack holds of it: all."""
    found = lab.python(COUNT.format(project=lab.work["project"]))
    assert found["annotations"] == found["wkt"] == ROWS
    assert found["terms"] == [1]
    return dict(found)
