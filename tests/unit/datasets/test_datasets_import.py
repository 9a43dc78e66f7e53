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

from cytomine_spawner.datasets import annotations as dataset_annotations
from cytomine_spawner.datasets import files, importer
from cytomine_spawner.datasets.client import Connection
from cytomine_spawner.datasets.errors import DatasetError, Interrupted
from cytomine_spawner.datasets.importer import Importer, Progress
from cytomine_spawner.datasets.marks import Marks
from tests.support.importing import COUNT, HEIGHT, Stack, feature, make, picture, square, whole

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


def test_what_an_import_brought_is_marked_also_where_it_was_cut_and_nothing_else_is(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path, "marked")
    end = Marks.end

    class Cut(Exception):
        pass

    async def cut(self: Marks, project: int, name: str, image: int = 0) -> None:
        # The image is there, and nobody could say of it that it was sent.
        raise Cut

    monkeypatch.setattr(Marks, "end", cut)
    with pytest.raises(Cut):
        stack.run(root)
    monkeypatch.setattr(Marks, "end", end)
    (project,) = [
        p["id"] for p in stack.get("/api/project.json?max=0")["collection"] if p["name"] == "marked"
    ]
    # The owner has put one there that the dataset has as well.
    theirs = next(root.rglob("marked-2.png"))
    stack.upload(theirs, project)
    stack.run(root)

    def marks(kind: str, number: int) -> list[str]:
        found = stack.get(f"/api/domain/{kind}/{number}/property.json?max=0")["collection"]
        return [one["value"] for one in found if one["key"] == "@dataset-import"]

    images = stack.get(f"/api/project/{project}/imageinstance.json?max=0")["collection"]
    found = {one["instanceFilename"]: marks(dataset_annotations.IMAGE, one["id"]) for one in images}
    assert found == {"marked-1.png": [], "marked-2.png": []}
    (sent,) = [one["id"] for one in images if one["instanceFilename"] == "marked-1.png"]
    # Every member may write on images, and only its managers on a project.
    assert sorted(marks("be.cytomine.domain.project.Project", project)) == [f"brought {sent}", "made"]


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
            raise importer.Unreachable("the connection was cut")
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
    found = files.find(make(tmp_path, "token"))

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


def _uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The uploads from now on, by path."""
    done: list[str] = []
    original = Connection.call

    async def call(self: Connection, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        if method == "POST" and path in ("/upload", "/api/annotation.json"):
            done.append(path)
        return await original(self, method, path, *arguments, **named)

    monkeypatch.setattr(Connection, "call", call)
    return done


def test_shapes_over_the_border_are_cut_and_known_again(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Cutting moves the middle of the last two far, which is why nothing may be known by it.
    shapes = [square(100, 100, 20), square(600, 300, 200), square(620, 100, 24)]
    root = make(tmp_path, "overhang", [feature(s, "Tumor") for s in shapes])
    (first,) = stack.run(root)
    found = stack.inside("overhang")["annotations"]
    cut = sorted(wkt.loads(a["location"]).bounds for a in found)
    assert cut == [(100, 240, 120, 260), (600, 0, 640, 60), (620, 236, 640, 260)]
    assert (first.annotations, first.left_out) == (3, ())
    # As if the last call of the import had been lost: nothing says that the file is in.
    for image in stack.get(f"/api/project/{first.project}/imageinstance.json?max=0")["collection"]:
        place = f"/api/domain/{dataset_annotations.IMAGE}/{image['id']}/attachedfile.json"
        for file in stack.get(place)["collection"]:
            stack.delete(f"/api/attachedfile/{file['id']}.json")
    sent = _uploads(monkeypatch)
    assert stack.run(root) == [first]
    assert sent == []
    assert {a["id"] for a in stack.inside("overhang")["annotations"]} == {a["id"] for a in found}


def test_what_somebody_moved_while_the_import_was_cut_is_known_again(stack: Stack, tmp_path: Path) -> None:
    root = make(tmp_path, "moved", [feature(square(10 + 20 * n, 10, 10), "cell") for n in range(30)])

    class Cut(Exception):
        pass

    def say(now: Progress) -> None:
        if now.what.startswith("annotating") and now.fraction > 0.5:
            raise Cut

    with pytest.raises(Cut):
        stack.run(root, say=say)
    one = stack.inside("moved")["annotations"][0]
    stack.put(f"/api/annotation/{one['id']}.json", {**one, "location": "POLYGON((5 5, 95 5, 95 95, 5 5))"})
    stack.run(root)
    found = stack.inside("moved")["annotations"]
    assert len(found) == 30
    assert sum(1 for a in found if wkt.loads(a["location"]).bounds == (5, 5, 95, 95)) == 1


@pytest.mark.parametrize("folders", [False, True])
def test_images_with_any_name_come_once_and_under_their_names(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: bool
) -> None:
    names = [
        "H47 HSIL.png",
        "AGAR15+IgG.png",
        "50%_tumor.png",
        "Größe.png",
        "a&b=c.png",
        "a#b;c,d.png",
        "a\"\\'.png",
    ]
    dataset = f"names-{folders}".lower()
    folder = tmp_path / "uuid" / f"DATASET_{dataset}"
    for number, name in enumerate(names):
        picture(folder / "IMAGES" / (f"I{number}" if folders else "IMAGE_1") / name)
    (folder / "ANNOTATIONS").mkdir()
    for name in names:
        text = json.dumps(feature(square(10, 10, 10), name))
        (folder / "ANNOTATIONS" / f"{name}.geojson").write_text(text)
    (first,) = stack.run(tmp_path)
    found = stack.inside(dataset)
    assert found["images"] == sorted(names)
    # Each with its own annotation.
    images = stack.get(f"/api/project/{first.project}/imageinstance.json?max=0")["collection"]
    of = {a["image"]: found["term_names"][a["term"][0]] for a in found["annotations"]}
    assert {i["instanceFilename"]: of[i["id"]] for i in images} == {n: n for n in names}
    sent = _uploads(monkeypatch)
    assert stack.run(tmp_path) == [first]
    assert sent == []


def test_the_same_name_in_two_folders_is_two_images_with_their_own_annotations(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "uuid" / "DATASET_twice"
    for case in ("CASE_1", "CASE_2"):
        picture(folder / "IMAGES" / case / "HE.png")
        path = folder / "ANNOTATIONS" / case / "HE.geojson"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(feature(square(10, 10, 10), case)))
    (first,) = stack.run(tmp_path)
    found = stack.inside("twice")
    assert found["images"] == ["CASE_1-HE.png", "CASE_2-HE.png"]
    images = stack.get(f"/api/project/{first.project}/imageinstance.json?max=0")["collection"]
    of = {a["image"]: found["term_names"][a["term"][0]] for a in found["annotations"]}
    assert {i["instanceFilename"]: of[i["id"]] for i in images} == {
        f"{c}-HE.png": c for c in ("CASE_1", "CASE_2")
    }
    sent = _uploads(monkeypatch)
    assert stack.run(tmp_path) == [first]
    assert sent == []


def test_an_upload_whose_answer_was_lost_before_it_got_its_name_gets_it(stack: Stack, tmp_path: Path) -> None:
    picture(tmp_path / "uuid" / "DATASET_unnamed" / "IMAGES" / "I" / "a b.png")

    class Cut(Exception):
        pass

    original = Connection.call

    async def call(self: Connection, method: str, *arguments: Any, **named: Any) -> Any:
        if method == "PUT":
            raise Cut
        return await original(self, method, *arguments, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Connection, "call", call)
        with pytest.raises(Cut):
            stack.run(tmp_path)
    assert len(stack.inside("unnamed")["images"]) == 1
    stack.run(tmp_path)
    assert stack.inside("unnamed")["images"] == ["a b.png"]


def test_what_was_stored_by_a_request_whose_answer_was_late_is_there_once(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first answer is lost and its request goes on: what it stores is not there when the next try looks.
    root = make(tmp_path, "late")
    original, late = Connection.call, []

    async def call(self: Connection, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        if (method, path) == ("POST", "/api/annotation.json") and not late:
            late.append((arguments, named))
            raise importer.Unreachable("the connection was cut")
        if late and late[0] and (method, path) == ("POST", "/api/annotation.json"):
            (more, also), late[0] = late[0], None
            await original(self, method, path, *more, **also)
        return await original(self, method, path, *arguments, **named)

    monkeypatch.setattr(Connection, "call", call)
    stack.start(root, lambda _: None, (0.0, 0.0, 0.0))
    assert late == [None]
    whole(stack, "late")


def test_an_import_of_an_earlier_version_is_not_done_again(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That version gave annotations no keys, and a file that is attached is in.
    root = make(tmp_path, "earlier")
    original = dataset_annotations._body

    def body(*arguments: Any) -> dict[str, Any]:
        return {k: v for k, v in original(*arguments).items() if k != "properties"}

    with monkeypatch.context() as patched:
        patched.setattr(dataset_annotations, "_body", body)
        with pytest.raises(DatasetError, match="does not show them"):
            stack.run(root)
    found = stack.inside("earlier")
    (image,) = {a["image"] for a in found["annotations"]}
    file = next(root.rglob("*.geojson"))
    stack.attach(file, dataset_annotations.IMAGE, image)
    before = len(found["annotations"])
    (done,) = stack.run(root)
    assert len(stack.inside("earlier")["annotations"]) == before
    assert done.annotations == COUNT


def test_colours_of_terms_are_those_of_the_file_and_terms_of_others_stay(
    stack: Stack, tmp_path: Path
) -> None:
    classes = [
        {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
        {"name": "old", "colorRGB": -3670016},
        "text",
    ]
    features = [
        {"type": "Feature", "geometry": square(10 + 20 * n, 10, 10), "properties": {"classification": c}}
        for n, c in enumerate(classes)
    ]
    (done,) = stack.run(make(tmp_path, "colours", features))
    project = stack.get(f"/api/project/{done.project}.json")
    terms = stack.get(f"/api/ontology/{project['ontology']}/term.json?size=100")["collection"]
    colours = {t["name"]: t["color"] for t in terms}
    assert set(colours) == {"Tumor: Positive", "old", "text"}
    assert colours["Tumor: Positive"] == colours["old"] == "#c80000"
