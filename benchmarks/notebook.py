"""How fast a notebook reads a large slide and stores many annotations: the client alone against this package.

python3 -m benchmarks.notebook                         a slide of 17,760 x 17,802 px, 10,000 annotations (long)
python3 -m benchmarks.notebook --only reading          without the annotations
python3 -m benchmarks.notebook --part 6 --annotations 2000     a sixth of the slide, fewer annotations
python3 -m benchmarks.notebook --slide FILE            another slide

It starts a stack of stand-ins on this machine (dev/standin); each measurement runs in a process of its own, whose largest
memory is shown. The ways that are compared take turns, and each turn begins with another one; a ratio is that of one turn,
and of the turns the median, the least and the most are told. What is not compared is measured once. The client's loop is
so slow that it reads a sixth of what the others read, and stores fewer annotations; its time is counted per megapixel and
per annotation. (The slide is one picture, mirrored in six rows: its upper sixth is as hard to read as the rest.)

``tiles``, ``lazy`` and ``upload`` run with their defaults where nothing else is said.

Storing is measured twice. As it is, the stand-in is bound by the processor: it has nothing to wait for, so
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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, spread, table
from dev.cache import ROOT

# The loops of the client, to which the others are compared, and then what is compared.
READERS = ("client, 256 px", "tiles", "lazy")
WRITERS = ("client, one by one", "upload", "upload, cut twice")
# Measured once: how they read, and how they store.
MORE_READERS: dict[str, dict[str, Any]] = {
    "client, 1024 px": {},
    "tiles, 256 px": {"size": 256},
    "tiles, png": {"format": "png"},
    "lazy, png": {"format": "png"},
    "tiles, level 2": {"level": 2},
}
MORE_WRITERS = ("client, in bulk", "client, in bulk, cut twice")
WAITING = ("client, in bulk", "upload")
WANTED, WANTED_MIB = 5, 512
# All measurements of each way.
Rows = dict[str, list[dict[str, Any]]]


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

    def rows(pixels: Any) -> Any:
        return pixels.reshape(len(pixels), -1).sum(axis=0, dtype=np.uint32).reshape(-1, 3).sum(axis=0)

    image = ImageInstance().fetch(job["image"])
    width, height = int(image.width), int(image.height) // job["part"]
    total, count = np.zeros(3), 0
    way, how = job["way"], MORE_READERS.get(job["way"], {})
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
                    total += rows(pixels)
                    count += pixels.shape[0] * pixels.shape[1]
    elif way.startswith("tiles"):
        at = levels(image)[how.get("level", 0)]
        for tile in tiles(image, area=(0, 0, at.width, height // at.scale), progress=False, **how):
            total += rows(tile.pixels)
            count += tile.pixels.shape[0] * tile.pixels.shape[1]
    else:
        array = lazy(image, **how)[:height]
        total += array.sum(axis=0, dtype=np.uint32).compute(num_workers=8).sum(axis=0)
        count = array.shape[0] * array.shape[1]
    seconds = time.monotonic() - start
    mean = [round(v / count, 1) for v in total]
    return {"seconds": seconds, "mean": mean, "pixels": count, "amount": width * height / 1e6}


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
    threading.excepthook = lambda _: None  # the client's threads end aloud where the connection is cut
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
        "amount": number,
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


def take_turns(ways: Sequence[str], turns: int, measured: Callable[[str, int], dict[str, Any]]) -> Rows:
    """Measure all ways once a turn, beginning with another one each time."""
    rows: Rows = {way: [] for way in ways}
    for turn in range(turns):
        at = turn % len(ways)
        for way in [*ways[at:], *ways[:at]]:
            rows[way].append(measured(way, turn))
    return rows


def reading(server: Server, part: int, turns: int) -> Rows:
    """All ways of reading."""
    job = {**server.job, "kind": "read", "image": server.image("read")}
    # Once before, so that nobody pays for the server's first look at the file.
    measure({**job, "way": "tiles, level 2", "part": 50})

    def one(way: str, _: int = 0) -> dict[str, Any]:
        return measure({**job, "way": way, "part": part * (6 if way.startswith("client") else 1)})

    return take_turns(READERS, turns, one) | {way: [one(way)] for way in MORE_READERS}


def writing(
    server: Server, number: int, one_by_one: int, turns: int, ways: Sequence[str], more: Sequence[str] = ()
) -> Rows:
    """Ways of storing; the first is the client's, one by one."""
    from tests.support.cutting import Way

    def one(way: str, turn: int = 0, number: int = number) -> dict[str, Any]:
        count = one_by_one if way == WRITERS[0] else number
        # An empty image for each.
        image = server.image(f"{way}, {turn}")
        job = {**server.job, "kind": "write", "way": way, "annotations": count, "image": image}
        if not way.endswith("cut twice"):
            return measure(job)
        through = Way(server.local.url)
        through.lose_first(2, "POST", "/annotation.json", "answer")
        found = measure({**job, "url": through.url})
        through.close()
        if through.lost != 2 and way in WRITERS:
            raise SystemExit(f"{way}: the connection was cut {through.lost} times.")
        return found

    return take_turns(ways, turns, one) | {way: [one(way, number=number // 10)] for way in more}


def ratios(rows: Rows, way: str) -> list[float]:
    """How many times as fast as the client's loop a way is, turn by turn, or all turns' for what was measured once."""
    rate = {name: [r["amount"] / r["seconds"] for r in found] for name, found in rows.items()}
    naive = next(iter(rate.values()))
    if len(rate[way]) == len(naive):
        return [a / b for a, b in zip(rate[way], naive, strict=True)]
    return [rate[way][0] / b for b in naive]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["reading", "storing"], help="only this")
    parser.add_argument("--slide", type=Path, help="a slide's file (default: the mock dataset's large one)")
    parser.add_argument("--part", type=int, default=1, help="read only the upper 1/PART of the slide")
    parser.add_argument("--annotations", type=int, default=10_000)
    parser.add_argument("--one-by-one", type=int, default=200, help="annotations that are stored singly")
    parser.add_argument("--turns", type=int, default=3, help="how often what is compared is measured")
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
    numbers: dict[str, Rows] = {}
    with stack(slide) as server:
        if args.only != "storing":
            numbers["reading"] = reading(server, args.part, args.turns)
        if args.only != "reading":
            numbers["writing"] = writing(
                server, args.annotations, args.one_by_one, args.turns, WRITERS, MORE_WRITERS
            )
    if args.only != "reading":
        few = args.annotations // 10, args.one_by_one // 5
        with stack(slide, args.crop_seconds) as server:
            numbers["waiting"] = writing(server, *few, 1, (WRITERS[0], *WAITING))
    show(numbers, args.part, args.crop_seconds)
    print(f"\nRaw numbers: {keep('notebook', numbers)}")


def show(numbers: dict[str, Rows], part: int, crop_seconds: float) -> None:
    """Print the tables, and what is wanted and what was reached."""
    closing = []
    if rows := numbers.get("reading"):
        _read(rows, part)
        closing.append(f"Reading: {_reached(rows, READERS[1:])} the client's loop (wanted {WANTED} or more);")
        most = max(r["memory"] for way, found in rows.items() if way[:6] != "client" for r in found)
        closing[-1] += f" {most:.0f} MiB at most (wanted {WANTED_MIB} or less)"
    if rows := numbers.get("writing"):
        _stored("Storing annotations", rows)
        closing.append(f"Storing: {_reached(rows, WRITERS[1:])} one by one (wanted {WANTED} or more);")
        lost, doubled = (sum(r[n] for w in WRITERS[1:] for r in rows[w]) for n in ("lost", "doubled"))
        closing[-1] += f" {lost} lost, {doubled} doubled (wanted none)"
    if rows := numbers.get("waiting"):
        _stored(f"Storing annotations where each crop takes {crop_seconds:g} s more of waiting", rows)
    print("\n" + "\n".join(closing))


def _reached(rows: Rows, ways: Sequence[str]) -> str:
    return ", ".join(f"{way} {spread(ratios(rows, way), '.1f')}" for way in ways) + " times"


def _read(rows: Rows, part: int) -> None:
    table(
        "Reading a large slide" if part == 1 else f"Reading the upper 1/{part} of a large slide",
        [
            "way",
            "s",
            "times the client",
            "requests",
            "megapixels",
            "ms a megapixel",
            "MiB at most",
            "mean colour",
        ],
        [
            [
                way,
                spread([r["seconds"] for r in found], ".1f"),
                spread(ratios(rows, way), ".1f"),
                str(found[0]["requests"]),
                f"{found[0]['pixels'] / 1e6:.0f}",
                spread([r["seconds"] * 1e9 / r["pixels"] for r in found], ".0f"),
                f"{max(r['memory'] for r in found):.0f}",
                " ".join(map(str, found[0]["mean"])),
            ]
            for way, found in rows.items()
        ],
    )


def _stored(title: str, rows: Rows) -> None:
    def total(found: list[dict[str, Any]], name: str) -> str:
        return str(sum(r[name] for r in found))

    head = ["way", "annotations", "s", "times one by one", "ms each", "requests", "told as failed"]
    table(
        title,
        [*head, "lost", "doubled", "MiB at most"],
        [
            [
                way,
                str(found[0]["amount"]),
                spread([r["seconds"] for r in found], ".1f"),
                spread(ratios(rows, way), ".1f"),
                spread([r["seconds"] * 1000 / r["amount"] for r in found], ".1f"),
                str(found[0]["requests"]),
                *(total(found, name) for name in ("failures", "lost", "doubled")),
                f"{max(r['memory'] for r in found):.0f}",
            ]
            for way, found in rows.items()
        ],
    )


if __name__ == "__main__":
    main()
