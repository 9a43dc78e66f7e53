"""How fast a notebook reads a large slide and stores many annotations: the client alone against this package.

python3 -m benchmarks.notebook                         a slide of 17,760 x 17,802 px, 10,000 annotations (long)
python3 -m benchmarks.notebook --part 8 --annotations 2000     an eighth of the slide, fewer annotations
python3 -m benchmarks.notebook --slide FILE            another slide

It starts a stack of stand-ins on this machine (dev/standin); each row runs in a process of its own, whose largest
memory is shown. Storing is measured twice. As it is, the stand-in is bound by the processor: it has nothing to wait for, so
what can be gained is what bulks save of its work, times the processors. A real Cytomine makes a crop for each annotation,
which takes 60 to 130 ms there; for the second table the crops are held back so long (--crop-seconds) without using the
processor. That is a server with processors to spare; where a real one has none to spare it is nearer to the first table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, table
from dev.cache import ROOT

TILE = 256
READERS = (
    "client, 256 px",
    "client, 1024 px",
    "tiles, 1024 px, jpg",
    "tiles, 2048 px, jpg",
    "tiles, 2048 px, png",
    "lazy, jpg",
    "tiles, 2048 px, level 2",
)
WRITERS = ("client, one by one", "client, in bulk", "upload")
CUT = ("client, in bulk, cut twice", "upload, cut twice")


def _connect(job: dict[str, Any]) -> Any:
    import logging

    import cytomine

    logging.disable(logging.ERROR)  # the client logs every request
    return cytomine.Cytomine.connect(job["url"], *job["keys"])


def read(job: dict[str, Any]) -> dict[str, Any]:
    """Read a part of the slide in one of the ways; the mean colour shows that all read the same."""
    import dask.array  # noqa: F401 - not the reading's time
    import numpy as np
    from cytomine.models import ImageInstance
    from PIL import Image

    from cytomine_spawner.notebook import lazy, levels, tiles

    image = ImageInstance().fetch(job["image"])
    width, height = int(image.width), int(image.height) // job["part"]
    total, count = np.zeros(3), 0
    way = job["way"]
    start = time.monotonic()
    if way.startswith("client"):
        side = int(way.split()[1])
        with tempfile.TemporaryDirectory() as folder:
            for y in range(0, height, side):
                for x in range(0, width, side):
                    path = f"{folder}/tile.jpg"
                    w, h = min(side, width - x), min(side, height - y)
                    if not image.window(x, y, w, h, dest_pattern=path, override=True):
                        raise SystemExit(f"no window at {x},{y}")
                    pixels = np.asarray(Image.open(path))
                    total += pixels.sum(axis=(0, 1))
                    count += pixels.shape[0] * pixels.shape[1]
    elif way.startswith("tiles"):
        level = 2 if way.endswith("2") else 0
        at = levels(image)[level]
        area = (0, 0, at.width, height // at.scale)
        shape = "png" if way.endswith("png") else "jpg"
        size = int(way.split()[1])
        for tile in tiles(image, size, level=level, area=area, format=shape, progress=False):
            total += tile.pixels.sum(axis=(0, 1))
            count += tile.pixels.shape[0] * tile.pixels.shape[1]
    else:
        array = lazy(image, format="jpg")[:height]
        total = array.sum(axis=(0, 1), dtype=float).compute(num_workers=8)
        count = array.shape[0] * array.shape[1]
    seconds = time.monotonic() - start
    return {"seconds": seconds, "mean": [round(v / count, 1) for v in total], "pixels": count}


def write(job: dict[str, Any]) -> dict[str, Any]:
    """Store annotations in one of the ways."""
    import shapely
    from cytomine import models

    from cytomine_spawner.notebook import upload
    from cytomine_spawner.notebook.annotations import frame

    image = models.ImageInstance().fetch(job["image"])
    number, per_row = job["annotations"], int(image.width) // 40
    shapes = [
        shapely.Point(20 + n % per_row * 40, 20 + n // per_row * 40).buffer(15, quad_segs=4)
        for n in range(number)
    ]
    way, failures = job["way"], 0
    start = time.monotonic()
    if way == "client, one by one":
        for shape in shapes:
            made = models.Annotation(shape.wkt, image.id, [], image.project).save()
            failures += made is False
    elif way.startswith("client"):
        batch = models.AnnotationCollection()
        batch.extend([models.Annotation(s.wkt, image.id, [], image.project) for s in shapes])
        try:
            batch.save()
        except Exception as error:
            failures = len(getattr(error, "failed", None) or []) or number
    else:
        upload(frame([{"geometry": s} for s in shapes]), image, existing="add", progress=False)
    seconds = time.monotonic() - start
    found = models.AnnotationCollection(image=image.id, showWKT=True).fetch()
    locations = [a.location for a in found]
    distinct = len(set(locations))
    return {
        "seconds": seconds,
        "failures": failures,
        "lost": number - distinct,
        "doubled": len(locations) - distinct,
    }


def child(job: dict[str, Any]) -> None:
    """One row: its result as JSON on standard output."""
    client = _connect(job)
    requests = [0]
    send = client._session.send
    client._session.send = lambda *a, **k: requests.__setitem__(0, requests[0] + 1) or send(*a, **k)
    found = {**(read if job["kind"] == "read" else write)(job), "requests": requests[0]}
    found["memory"] = _peak_mib()
    print(json.dumps(found))


def _peak_mib() -> float:
    # The kernel's other counter, ru_maxrss, begins with what the parent had.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run one row in a process of its own."""
    print(f"{job['way']} …", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.notebook", "--child", json.dumps(job)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{job['way']} failed.")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


class Server:
    """A stack of stand-ins with a slide in a project."""

    def __init__(self, local: Any, issuer: Any, slide: Path) -> None:
        import requests

        head = {"Authorization": f"Bearer {issuer.token('alice', 'ADMIN')}"}
        answer = requests.get(f"{local.url}/api/user/current/keys", headers=head, timeout=10).json()
        self.local, self.slide = local, slide
        self.job = {"url": local.url, "keys": [answer["primaryKey"], answer["secondaryKey"]]}
        self.client = _connect(self.job)

    def image(self, name: str) -> int:
        """The slide in a new project: an empty one for each row."""
        from cytomine import models

        project = models.Project(name, models.Ontology(name).save().id).save()
        mine = self.client.current_user.id
        storage = next(s.id for s in models.StorageCollection().fetch() if s.userId == mine)
        uploaded = self.client.upload_image(str(self.slide), storage, project.id, sync=True)
        return int(uploaded.images[0]["imageInstances"][0].id)


@contextmanager
def stack(slide: Path, crop_seconds: float = 0.0) -> Iterator[Server]:
    """A new stack, until the block ends.

    Args:
        slide: the file of its images.
        crop_seconds: for so long each crop of an annotation is held back; 0 leaves the image server alone.
    """
    from dev.standin.local import Local
    from tests.support.cutting import Way
    from tests.support.standin import Issuer

    def hold(_: str, path: str) -> str:
        if path.endswith("/annotation"):
            time.sleep(crop_seconds)
        return ""

    issuer = Issuer()
    with tempfile.TemporaryDirectory(prefix="notebook-benchmark-") as folder:
        local = Local(Path(folder), issuer.issuer, issuer.jwks)
        if crop_seconds:
            slow = Way(local.pims)
            slow.lose, local.pims = hold, slow.url
        with local.running():
            yield Server(local, issuer, slide)
        if crop_seconds:
            slow.close()
    issuer.close()


def reading(server: Server, part: int) -> dict[str, Any]:
    """All ways of reading."""
    image = server.image("read")
    job = {**server.job, "kind": "read", "image": image, "part": part}
    # Once before, so that nobody pays for the server's first look at the file.
    measure({**job, "way": "tiles, 2048 px, level 2", "part": 50})
    return {way: measure({**job, "way": way}) for way in READERS}


def writing(server: Server, number: int, one_by_one: int, ways: Sequence[str]) -> dict[str, Any]:
    """Ways of storing; the first is the client's, one by one."""
    from tests.support.cutting import Way

    rows: dict[str, dict[str, Any]] = {}
    # The slowest way half before and half after the others: the machine may be busier at one end.
    for turn, way in enumerate([*ways, ways[0]]):
        count = one_by_one // 2 if way == ways[0] else number
        image = server.image(f"{way}, {turn}")
        job = {**server.job, "kind": "write", "way": way, "annotations": count, "image": image}
        if way in CUT:
            through = Way(server.local.url)
            through.lose_first(2, "POST", "/annotation.json", "answer")
            found = measure({**job, "url": through.url})
            through.close()
        else:
            found = measure(job)
        found["annotations"] = count
        before = rows.get(way, {"memory": 0})
        largest = max(found["memory"], before["memory"])
        rows[way] = {k: v + before.get(k, 0) for k, v in found.items()} | {"memory": largest}
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help="a slide's file (default: the mock dataset's large one)")
    parser.add_argument("--part", type=int, default=1, help="read only the upper 1/PART of the slide")
    parser.add_argument("--annotations", type=int, default=10_000)
    parser.add_argument("--one-by-one", type=int, default=1000, help="annotations that are stored singly")
    parser.add_argument("--crop-seconds", type=float, default=0.1, help="of the second table of storing")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    in_test_environment([str(Path(__file__).resolve()), *sys.argv[1:]])
    from dev import dataset
    from dev.console import Console
    from dev.standin.local import ensure_postgis

    console = Console()
    ensure_postgis(console)
    slide = args.slide or next(dataset.build(console).rglob("skin-large.tif"))
    with stack(slide) as server:
        numbers = {
            "reading": reading(server, args.part),
            "writing": writing(server, args.annotations, args.one_by_one, (*WRITERS, *CUT)),
        }
    with stack(slide, args.crop_seconds) as server:
        numbers["waiting"] = writing(server, args.annotations // 5, args.one_by_one // 5, WRITERS)
    show(numbers, args.part, args.crop_seconds)
    print(f"\nRaw numbers: {keep('notebook', numbers)}")


def show(numbers: dict[str, Any], part: int, crop_seconds: float) -> None:
    """Print the tables."""
    naive = numbers["reading"]["client, 256 px"]["seconds"]
    table(
        "Reading a large slide" if part == 1 else f"Reading the upper 1/{part} of a large slide",
        ["way", "s", "times the client", "requests", "megapixels", "largest memory, MiB", "mean colour"],
        [
            [
                way,
                f"{r['seconds']:.1f}",
                f"{naive / r['seconds']:.1f}",
                str(r["requests"]),
                f"{r['pixels'] / 1e6:.0f}",
                f"{r['memory']:.0f}",
                " ".join(map(str, r["mean"])),
            ]
            for way, r in numbers["reading"].items()
        ],
    )
    _stored("Storing annotations", numbers["writing"])
    _stored(
        f"Storing annotations where each crop takes {crop_seconds:g} s more of waiting", numbers["waiting"]
    )


def _stored(title: str, rows: dict[str, Any]) -> None:
    first = rows["client, one by one"]
    each = first["seconds"] / first["annotations"]
    table(
        title,
        [
            "way",
            "annotations",
            "s",
            "times one by one",
            "requests",
            "told as failed",
            "lost",
            "doubled",
            "MiB",
        ],
        [
            [
                way,
                str(r["annotations"]),
                f"{r['seconds']:.1f}",
                f"{each * r['annotations'] / r['seconds']:.1f}",
                str(r["requests"]),
                str(r["failures"]),
                str(r["lost"]),
                str(r["doubled"]),
                f"{r['memory']:.0f}",
            ]
            for way, r in rows.items()
        ],
    )


if __name__ == "__main__":
    main()
