"""Datasets get into a stack whole and once, however often the import is cut; what went wrong is one sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from PIL import Image
from shapely import affinity, wkt
from shapely.geometry import shape

from cytomine_spawner.stacks import dataset_files, datasets
from cytomine_spawner.stacks.dataset_files import DatasetError
from cytomine_spawner.stacks.dataset_stack import Connection
from cytomine_spawner.stacks.datasets import Importer, Progress
from dev.standin.local import Local
from tests.support.standin import Issuer

WIDTH, HEIGHT, COUNT = 640, 360, 64


def _feature(geometry: dict[str, Any], name: str) -> dict[str, Any]:
    properties = {"classification": {"name": name, "color": [255, 0, 0]}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _square(x: float, y: float, side: float) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def make(root: Path, name: str, features: list[dict[str, Any]] | None = None) -> Path:
    """A dataset of two images, the first with annotations: squares, one at each corner among them, and others."""
    folder = root / f"uuid-{name}" / f"DATASET_{name}"
    for number in (1, 2):
        path = folder / "IMAGES" / f"IMAGE_{number}" / f"{name}-{number}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (WIDTH, HEIGHT), (250, 240, 245)).save(path)
    if features is None:
        features = [
            _feature(_square(x, y, 10), "corner")
            for x, y in ((0, 0), (WIDTH - 10, 0), (WIDTH - 10, HEIGHT - 10), (0, HEIGHT - 10))
        ]
        features += [
            _feature(_square(40 + 14 * (n % 30), 40 + 14 * (n // 30), 12), "cell") for n in range(COUNT - 7)
        ]
        features.append(_feature({"type": "Point", "coordinates": [300.5, 200.25]}, "mark"))
        features.append(_feature({"type": "LineString", "coordinates": [[10, 300], [90, 320]]}, "mark"))
        hole = [[520, 220], [540, 220], [540, 240], [520, 220]]
        holed = _square(500, 200, 100)
        holed["coordinates"].append(hole)
        features.append({"type": "Feature", "geometry": holed, "properties": {}})
    (folder / "ANNOTATIONS").mkdir()
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (folder / "ANNOTATIONS" / f"{name}-1-all.geojson").write_text(text)
    return root


class Stack:
    """A running stack with its owner's keys."""

    def __init__(self, local: Local, issuer: Issuer) -> None:
        self.local, self.head = local, {"Authorization": f"Bearer {issuer.token('alice', 'ADMIN')}"}
        self.keys = self.get("/api/user/current/keys")

    def get(self, path: str) -> Any:
        answer = requests.get(self.local.url + path, headers=self.head, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def run(
        self, root: Path, *names: str, say: Callable[[Progress], None] = lambda _: None, **changes: Any
    ) -> Any:
        keys = {"public_key": self.keys["primaryKey"], "private_key": self.keys["secondaryKey"], **changes}
        return asyncio.run(
            datasets.import_datasets(self.local.url, root=root, names=names, progress=say, **keys)
        )

    def start(self, root: Path, say: Callable[[Progress], None], pauses: tuple[float, ...]) -> None:
        """An import with pauses of its own."""

        async def run() -> None:
            async with aiohttp.ClientSession() as session:
                keys = (self.keys["primaryKey"], self.keys["secondaryKey"])
                connection = Connection(self.local.url, *keys, session)
                await Importer(connection, say, pauses).run(dataset_files.find(root))

        asyncio.run(run())

    def listed(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """What the connection lists."""

        async def run() -> list[dict[str, Any]]:
            async with aiohttp.ClientSession() as session:
                keys = (self.keys["primaryKey"], self.keys["secondaryKey"])
                return await Connection(self.local.url, *keys, session).listed(path, **query)

        return asyncio.run(run())

    def inside(self, name: str) -> dict[str, Any]:
        """What the stack holds of a dataset."""
        projects = [p for p in self.get("/api/project.json?max=0")["collection"] if p["name"] == name]
        if not projects:
            return {"projects": 0}
        number, ontology = projects[0]["id"], projects[0]["ontology"]
        images = self.get(f"/api/project/{number}/imageinstance.json?max=0")["collection"]
        query = f"project={number}&max=0&showWKT=true&showTerm=true&showMeta=true"
        terms = self.get(f"/api/ontology/{ontology}/term.json?size=100")["collection"]
        found = self.get("/api/ontology.json?size=100")["collection"]
        return {
            "projects": len(projects),
            "ontologies": len([o for o in found if o["name"] == name]),
            "images": sorted(i["instanceFilename"] for i in images),
            "terms": sorted(t["name"] for t in terms),
            "term_names": {t["id"]: t["name"] for t in terms},
            "annotations": self.get(f"/api/annotation.json?{query}")["collection"],
        }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    issuer = Issuer()
    try:
        with Local(tmp_path_factory.mktemp("stack"), issuer.issuer, issuer.jwks).running() as local:
            yield Stack(local, issuer)
    finally:
        issuer.close()


def _whole(stack: Stack, name: str) -> dict[str, Any]:
    found = stack.inside(name)
    assert (found["projects"], found["ontologies"]) == (1, 1)
    assert found["images"] == [f"{name}-1.png", f"{name}-2.png"]
    assert found["terms"] == ["cell", "corner", "mark"]
    assert len(found["annotations"]) == COUNT
    return found


def test_a_dataset_arrives_with_its_coordinates_and_terms(stack: Stack, tmp_path: Path) -> None:
    seen: list[Progress] = []
    (done,) = stack.run(make(tmp_path, "arrives"), say=seen.append)
    assert (done.images, done.annotations) == (2, COUNT)
    assert (seen[-1].done, seen[-1].total) == (4, 4)
    assert [s.done for s in seen] == sorted(s.done for s in seen)
    found = _whole(stack, "arrives")
    wanted = json.loads(next(tmp_path.rglob("*.geojson")).read_text())["features"]
    stored = [
        (wkt.loads(a["location"]), [found["term_names"][t] for t in a["term"]]) for a in found["annotations"]
    ]
    for feature in wanted:
        # Flipped independently of the code that is tested.
        flipped = affinity.translate(
            affinity.scale(shape(feature["geometry"]), 1, -1, origin=(0, 0)), 0, HEIGHT
        )
        name = feature["properties"].get("classification", {}).get("name")
        assert any(g.equals(flipped) and terms == ([name] if name else []) for g, terms in stored), feature
    corners = [g for g, terms in stored if terms == ["corner"]]
    assert sorted(g.bounds[:2] for g in corners) == [(0, 0), (0, 350), (630, 0), (630, 350)]


def test_a_second_import_changes_nothing_and_leaves_own_work_alone(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "second")
    (first,) = stack.run(root)
    before = {a["id"] for a in stack.inside("second")["annotations"]}
    image = stack.get(f"/api/project/{first.project}/imageinstance.json?max=0")["collection"][-1]["id"]
    own = {"location": "POINT(5 5)", "image": image, "project": first.project}
    requests.post(
        f"{stack.local.url}/api/annotation.json", json=own, headers=stack.head, timeout=30
    ).raise_for_status()
    (again,) = stack.run(root)
    assert again == first
    after = {a["id"] for a in stack.inside("second")["annotations"]}
    assert before < after
    assert len(after - before) == 1


def test_an_import_that_is_cut_twice_is_finished_by_the_third(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "cut")

    class Cut(Exception):
        pass

    def during(what: str, fraction: float) -> Callable[[Progress], None]:
        def say(now: Progress) -> None:
            if now.what.startswith(what) and now.fraction >= fraction:
                raise Cut

        return say

    # Between two chunks of annotations, and before the second image.
    for say in (during("annotating", 0.3), during("uploading cut-2", 0)):
        with pytest.raises(Cut):
            stack.run(root, say=say)
    assert 0 < len(stack.inside("cut")["annotations"]) <= COUNT
    stack.run(root)
    _whole(stack, "cut")


def test_lists_longer_than_a_page_are_read_to_their_end(stack: Stack, tmp_path: Path) -> None:
    # Upstream's lists of terms come in pages of 20, those of annotations whole.
    points = [{"type": "Point", "coordinates": [10 + 3 * (n % 200), 20 + 9 * (n // 200)]} for n in range(230)]
    root = make(tmp_path, "long", [_feature(p, f"term {n % 45}") for n, p in enumerate(points)])
    for _ in range(2):
        stack.run(root)
        found = stack.inside("long")
        assert (len(found["annotations"]), len(found["terms"])) == (230, 45)
        project = found["annotations"][0]["project"]
        assert len(stack.listed("/api/annotation.json", project=project)) == 230


def test_a_lost_answer_doubles_nothing(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each kind of change is carried out, but its answer gets lost once.
    root, lost = make(tmp_path, "lost"), set()
    original = Connection.call

    async def call(self: Connection, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        answer = await original(self, method, path, *arguments, **named)
        if method == "POST" and path not in lost:
            lost.add(path)
            raise datasets.Unreachable("the connection was cut")
        return answer

    monkeypatch.setattr(Connection, "call", call)
    stack.start(root, lambda _: None, (0.0, 0.0, 0.0))
    assert lost >= {
        "/upload",
        "/api/project.json",
        "/api/ontology.json",
        "/api/term.json",
        "/api/annotation.json",
    }
    _whole(stack, "lost")


def test_a_stack_that_goes_away_is_said_and_the_next_run_goes_on(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "away")

    def say(now: Progress) -> None:
        if now.what.startswith("annotating") and now.fraction > 0.3 and "core" in stack.local.processes:
            stack.local.processes["core"].kill()
            stack.local.processes.pop("core").wait(20)

    try:
        with pytest.raises(DatasetError, match=r"does not answer any more.*goes on from here"):
            stack.start(root, say, (0.1,))
    finally:
        stack.local.launch("core")
        stack.local.wait("core")
    stack.run(root)
    _whole(stack, "away")


def test_a_bearer_token_is_enough(stack: Stack, tmp_path: Path) -> None:
    found = dataset_files.find(make(tmp_path, "token"))

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            token = stack.head["Authorization"].removeprefix("Bearer ")
            connection = await Connection.with_token(stack.local.url, token, session)
            await Importer(connection).run(found)
            with pytest.raises(DatasetError, match="refused the token"):
                await Connection.with_token(stack.local.url, "no.good.token", session)

    asyncio.run(run())
    _whole(stack, "token")


def test_geometries_that_cytomine_drops_are_named(stack: Stack, tmp_path: Path) -> None:
    outside = _feature(_square(5000, 5000, 10), "cell")
    root = make(tmp_path, "outside", [_feature(_square(10, 10, 10), "cell"), outside])
    with pytest.raises(DatasetError, match=r"outside-1-all\.geojson"):
        stack.run(root)


def test_a_file_that_is_no_image_is_named(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "noimage")
    next(root.rglob("noimage-1.png")).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"did not take noimage-1\.png"):
        stack.run(root)


def test_wrong_keys_and_unknown_names_are_said(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "keys")
    with pytest.raises(DatasetError, match="refused the keys"):
        stack.run(root, private_key="wrong")
    with pytest.raises(DatasetError, match=r"no dataset nothing in .* holds keys"):
        stack.run(root, "nothing")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "ANNOTATIONS/x-1-all.geojson").write_text("{"), "is no GeoJSON"),
        (lambda f: (f / "ANNOTATIONS/x-1-all.geojson").write_text('{"features":[{}]}'), "has no geometry"),
        (lambda f: (f / "IMAGES/IMAGE_1/more.png").write_bytes(b""), "several files"),
        (lambda f: next((f / "IMAGES/IMAGE_1").iterdir()).unlink(), "is empty"),
        (lambda f: (f / "METADATA").mkdir() or (f / "METADATA/dataset.xml").write_text("<"), "not valid XML"),
        (
            lambda f: (
                (f / "METADATA").mkdir()
                or (f / "METADATA/annotation.xml").write_text(
                    '<S><ANNOTATION><IMAGE_REF alias="IMAGE_1"/><FILE filename="../../../x"/></ANNOTATION></S>'
                )
            ),
            "is missing",
        ),
    ],
)
def test_a_faulty_dataset_is_named_with_its_fault(
    tmp_path: Path, spoil: Callable[[Path], Any], says: str
) -> None:
    folder = next(make(tmp_path, "x").glob("*/DATASET_x"))
    spoil(folder)

    def read() -> None:
        for image in dataset_files.read(folder).images:
            for path in image.annotations:
                dataset_files.shapes(path)

    with pytest.raises(DatasetError, match=says) as caught:
        read()
    assert str(folder) in str(caught.value)


def test_no_dataset_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder"):
        dataset_files.find(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no dataset"):
        dataset_files.find(tmp_path)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [3.25, 4.5]},
        {"type": "LineString", "coordinates": [[0, 0], [10, 0], [10, 30]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [8, 0], [8, 4], [0, 0]]]},
        {
            "type": "Polygon",
            "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]], [[1, 1], [3, 1], [3, 4], [1, 1]]],
        },
        {
            "type": "MultiPolygon",
            "coordinates": [[[[0, 0], [4, 0], [4, 4], [0, 0]]], [[[10, 10], [10, 13], [13, 13], [10, 10]]]],
        },
    ],
)
def test_wkt_and_centre_are_those_that_shapely_finds(geometry: dict[str, Any]) -> None:
    item = dataset_files.Shape(geometry, "", "#000000")
    flipped = affinity.translate(affinity.scale(shape(geometry), 1, -1, origin=(0, 0)), 0, 100)
    assert wkt.loads(item.wkt(100)).equals(flipped)
    assert item.centroid == pytest.approx((shape(geometry).centroid.x, shape(geometry).centroid.y))
