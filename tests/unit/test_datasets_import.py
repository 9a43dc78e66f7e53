"""Datasets get into a stack whole and once, however often the import is cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from shapely import affinity, wkt
from shapely.geometry import shape

from cytomine_spawner.stacks import dataset_files, datasets
from cytomine_spawner.stacks.dataset_files import DatasetError, Interrupted
from cytomine_spawner.stacks.dataset_stack import Connection
from cytomine_spawner.stacks.datasets import Importer, Progress
from tests.support.importing import COUNT, HEIGHT, Stack, feature, make, whole

pytest_plugins = ["tests.support.importstack"]


def test_a_dataset_arrives_with_its_coordinates_and_terms(stack: Stack, tmp_path: Path) -> None:
    seen: list[Progress] = []
    (done,) = stack.run(make(tmp_path, "arrives"), say=seen.append)
    assert (done.images, done.annotations) == (2, COUNT)
    assert (seen[-1].done, seen[-1].total) == (4, 4)
    assert [s.done for s in seen] == sorted(s.done for s in seen)
    found = whole(stack, "arrives")
    wanted = json.loads(next(tmp_path.rglob("*.geojson")).read_text())["features"]
    stored = [
        (wkt.loads(a["location"]), [found["term_names"][t] for t in a["term"]]) for a in found["annotations"]
    ]
    for item in wanted:
        # Flipped independently of the code that is tested.
        flipped = affinity.translate(affinity.scale(shape(item["geometry"]), 1, -1, origin=(0, 0)), 0, HEIGHT)
        name = item["properties"].get("classification", {}).get("name")
        assert any(g.equals(flipped) and terms == ([name] if name else []) for g, terms in stored), item
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
    whole(stack, "cut")


def test_lists_longer_than_a_page_are_read_to_their_end(stack: Stack, tmp_path: Path) -> None:
    # Upstream's lists of terms come in pages of 20, those of annotations whole.
    points = [{"type": "Point", "coordinates": [10 + 3 * (n % 200), 20 + 9 * (n // 200)]} for n in range(230)]
    root = make(tmp_path, "long", [feature(p, f"term {n % 45}") for n, p in enumerate(points)])
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
    whole(stack, "lost")


def _giving_way(monkeypatch: pytest.MonkeyPatch, times: int, stored: bool = False) -> list[int]:
    """Answer the first annotations as core does when its database ended their transaction; how often it did."""
    done = [0]
    original = aiohttp.ClientSession.request

    class Answer:
        status = 400

        async def text(self) -> str:
            return json.dumps(
                {"errors": "…LockAcquisitionException: … ERROR: deadlock detected\n  Detail: …"}
            )

    @contextlib.asynccontextmanager
    async def request(self: aiohttp.ClientSession, method: str, url: str, **named: Any) -> Any:
        if method == "POST" and url.endswith("/api/annotation.json") and done[0] < times:
            done[0] += 1
            if stored:
                async with original(self, method, url, **named) as answer:
                    await answer.read()
            yield Answer()
            return
        async with original(self, method, url, **named) as answer:
            yield answer

    monkeypatch.setattr(aiohttp.ClientSession, "request", request)
    return done


@pytest.mark.parametrize("stored", [False, True])
def test_annotations_that_gave_way_to_someone_elses_change_come_all_the_same_and_once(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    name = f"gave-way-{stored}".lower()
    root = make(tmp_path, name)
    done = _giving_way(monkeypatch, 2, stored)
    stack.start(root, lambda _: None, (0.0, 0.0, 0.0))
    assert done == [2]
    whole(stack, name)


def test_changes_of_others_that_do_not_end_are_no_fault_of_the_dataset(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path, "crowded")
    with monkeypatch.context() as patched:
        _giving_way(patched, 1000)
        with pytest.raises(Interrupted, match=r"Others keep changing the same project.*goes on from here"):
            stack.start(root, lambda _: None, (0.0,))
    stack.run(root)
    whole(stack, "crowded")


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
    whole(stack, "away")


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
    whole(stack, "token")


def test_wrong_keys_and_unknown_names_are_said(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "keys")
    with pytest.raises(DatasetError, match="refused the keys"):
        stack.run(root, private_key="wrong")
    with pytest.raises(DatasetError, match=r"no dataset nothing in .* holds keys"):
        stack.run(root, "nothing")


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
