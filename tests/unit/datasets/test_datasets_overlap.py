"""The next image is on its way while annotations are stored, and nothing is lost or doubled, whatever cuts the two."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cytomine_spawner.datasets import files
from cytomine_spawner.datasets import importer as datasets
from cytomine_spawner.datasets.client import Connection, Refused
from cytomine_spawner.datasets.errors import DatasetError, Interrupted
from cytomine_spawner.datasets.importer import Importer, Progress
from cytomine_spawner.datasets.progress import Pace
from cytomine_spawner.datasets.turns import LateForm, Turn
from tests.support.importing import Stack, feature, picture, square

pytest_plugins = ["tests.support.importstack"]

EACH = 24  # more than a chunk


def several(root: Path, name: str, images: int = 3, each: int = EACH) -> Path:
    """A dataset of images that have annotations, all of them."""
    folder = root / f"uuid-{name}" / f"DATASET_{name}"
    (folder / "ANNOTATIONS").mkdir(parents=True)
    for number in range(1, images + 1):
        picture(folder / "IMAGES" / f"IMAGE_{number}" / f"{name}-{number}.png")
        shapes = [feature(square(5 + 20 * n, 10 * number, 10), "cell") for n in range(each)]
        text = json.dumps({"type": "FeatureCollection", "features": shapes})
        (folder / "ANNOTATIONS" / f"{name}-{number}-all.geojson").write_text(text)
    return root


def complete(stack: Stack, name: str, images: int = 3, each: int = EACH) -> None:
    """The dataset is in once, and each image has its annotations."""
    found = stack.inside(name)
    assert (found["projects"], found["ontologies"]) == (1, 1)
    assert found["images"] == [f"{name}-{n}.png" for n in range(1, images + 1)]
    assert found["terms"] == ["cell"]
    counts: dict[int, int] = {}
    for item in found["annotations"]:
        counts[item["image"]] = counts.get(item["image"], 0) + 1
    assert list(counts.values()) == [each] * images


@dataclass
class Watched:
    """What an import does, as it happens.

    Attributes:
        events: in their order: ``upload 2`` when all of an image but its last line is sent, ``import 2`` and ``imported 2``
            when the image server has the whole and when it has answered, ``store`` and ``stored`` for annotations.
        before_store: awaited while core stores annotations.
        before_take: awaited when all of an image but its last line is sent.
    """

    events: list[str] = field(default_factory=list)
    before_store: Callable[[], Any] = lambda: asyncio.sleep(0)
    before_take: Callable[[], Any] = lambda: asyncio.sleep(0)
    sent: int = 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched()
    call, take = Connection.call, Turn.take

    async def watched_call(self: Connection, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        if (method, path) == ("POST", "/upload"):
            try:
                return await call(self, method, path, *arguments, **named)
            finally:
                made.events.append(f"imported {made.sent}")
        if (method, path) == ("POST", "/api/annotation.json"):
            made.events.append("store")
            await made.before_store()
            try:
                return await call(self, method, path, *arguments, **named)
            finally:
                made.events.append("stored")
        return await call(self, method, path, *arguments, **named)

    async def watched_take(self: Turn) -> None:
        made.sent += 1
        made.events.append(f"upload {made.sent}")
        await made.before_take()
        await take(self)
        made.events.append(f"import {made.sent}")

    monkeypatch.setattr(Connection, "call", watched_call)
    monkeypatch.setattr(Turn, "take", watched_take)
    return made


async def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not done():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.01)


def test_the_next_image_is_sent_while_annotations_are_stored_and_entered_when_they_are(
    stack: Stack, tmp_path: Path, watched: Watched
) -> None:
    root = several(tmp_path, "overlap")

    async def before_store() -> None:
        # Held until all of the next image but its last line is sent; if that waited for the annotations it never were.
        chunks = watched.events.count("stored")
        await until(lambda: watched.sent >= min(3, 2 + chunks // 2))

    async def before_take() -> None:
        # The first image is there; the next one's end comes while annotations of the first are being stored.
        await until(lambda: watched.sent == 1 or "store" in watched.events)

    watched.before_store, watched.before_take = before_store, before_take
    seen: list[Progress] = []
    (done,) = stack.run(root, say=seen.append)
    assert (done.images, done.annotations) == (3, 3 * EACH)
    complete(stack, "overlap")
    events = watched.events
    assert events.index("upload 2") < events.index("stored") < events.index("import 2")
    # While the image server enters an image nothing asks it for pictures of annotations, nor the other way round.
    busy = {"import": 0, "store": 0}
    ends = {"imported": "import", "stored": "store"}
    for event in (e.split()[0] for e in events):
        if event in ends:
            busy[ends[event]] -= 1
        elif event in busy:
            busy[event] += 1
        assert not (busy["import"] and busy["store"]), events
    assert max(len(s.lanes) for s in seen) == 2


def test_an_image_server_whose_one_worker_answers_nobody_while_it_imports_holds_up_nothing_for_ever(
    stack: Stack, tmp_path: Path
) -> None:
    root = several(tmp_path, "blocked")
    with stack.local.failing("pims", "blocked"), stack.local.failing("core", "alone"):
        (done,) = stack.run(root)
    assert done.annotations == 3 * EACH
    complete(stack, "blocked")


class Killed(Exception):
    """The importer was killed."""


@pytest.mark.parametrize("every", [1, 3])
def test_an_import_that_is_killed_after_every_few_changes_comes_whole_and_once(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    name = f"killed-{every}"
    root = several(tmp_path, name, images=2)
    call, changes, dead = Connection.call, 0, False

    async def mortal(self: Connection, method: str, *arguments: Any, **named: Any) -> Any:
        nonlocal changes, dead
        if dead:
            raise Killed
        if method == "GET":
            return await call(self, method, *arguments, **named)
        answer = await call(self, method, *arguments, **named)
        changes += 1
        # Cytomine did it, and nobody hears of it.
        if changes % every == 0:
            dead = True
            raise Killed
        return answer

    runs = 0
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "call", mortal)
        while True:
            dead, runs = False, runs + 1
            assert runs < 40
            try:
                stack.run(root)
            except Killed:
                continue
            break
    assert runs > 3
    complete(stack, name, images=2)
    assert stack.run(root)[0].pace.annotations == 0


def test_what_a_killed_import_had_asked_for_and_comes_late_is_there_once(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = several(tmp_path, "late-after-kill", images=1)
    released, call = tmp_path / "released", Connection.call
    path = "/api/annotation.json"

    async def first() -> None:
        async with aiohttp.ClientSession() as session:
            keys = (stack.keys["primaryKey"], stack.keys["secondaryKey"])
            importer = Importer(Connection(stack.local.url, *keys, session))
            running = asyncio.create_task(importer.run(files.find(root)))
            # Core has the request, and takes its time.
            while await asyncio.to_thread(stack.local.faults, "core"):
                assert not running.done()
                await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    late: list[int] = []

    async def second(self: Connection, method: str, where: str, *arguments: Any, **named: Any) -> Any:
        if (method, where) == ("POST", path) and not late:
            # This run has looked, and found nothing. Now what the first had asked for is done.
            released.touch()
            project = next(
                p for p in await self.listed("/api/project.json") if p["name"] == "late-after-kill"
            )

            async def there() -> int:
                return len(await self.listed(path, project=project["id"]))

            while not late:
                late.extend([1] * await there())
        return await call(self, method, where, *arguments, **named)

    with stack.local.failing("core", "slow", method="POST", path=path, until=str(released)):
        asyncio.run(first())
        monkeypatch.setattr(Connection, "call", second)
        stack.run(root)
    assert late
    complete(stack, "late-after-kill", images=1)


def test_what_is_refused_of_one_image_holds_up_no_other(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, call = several(tmp_path, "refused"), Connection.call

    async def refusing(self: Connection, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        if path == "/api/attachedfile.json" and named["filename"] == "refused-1-all.geojson":
            raise Refused(404, "the image is gone")
        return await call(self, method, path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "call", refusing)
        with pytest.raises(
            DatasetError, match=r"refuses a part of refused-1-all.geojson \(404: the image is gone\)"
        ) as caught:
            stack.run(root)
        assert not isinstance(caught.value, Interrupted)
    complete(stack, "refused")


def test_the_annotations_of_what_is_there_come_in_although_the_next_image_cannot_be_sent(
    stack: Stack, tmp_path: Path
) -> None:
    root = several(tmp_path, "next-fails")
    with (
        stack.local.failing("pims", "killed", method="POST", path="upload$", times=0, skip=1),
        pytest.raises(Interrupted, match=r"does not answer any more.*goes on from here"),
    ):
        stack.start(root, lambda _: None, (0.0,))
    found = stack.inside("next-fails")
    assert found["images"] == ["next-fails-1.png"]
    assert len(found["annotations"]) == EACH
    stack.run(root)
    complete(stack, "next-fails")


def test_a_gateway_that_waited_too_long_for_the_rest_of_an_image_is_asked_again(
    stack: Stack, tmp_path: Path
) -> None:
    root = several(tmp_path, "too-late", images=1)
    with stack.local.failing("gateway", "status", path="^/upload$", status=408):
        stack.start(root, lambda _: None, (0.0,))
    complete(stack, "too-late", images=1)


@pytest.mark.parametrize("ended", [False, True])
def test_a_turn_is_given_back_also_when_its_request_fails_before_it_comes(ended: bool) -> None:
    async def run() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        turn = Turn(lock)
        taking = asyncio.create_task(turn.take())
        await asyncio.sleep(0)
        if ended:
            turn.give_back()
        lock.release()
        await taking
        assert lock.locked() is not ended
        turn.give_back()
        turn.give_back()
        assert not lock.locked()

    asyncio.run(run())


def test_a_form_whose_end_waits_is_the_same_form() -> None:
    class Kept:
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        async def write(self, chunk: bytes) -> None:
            self.parts.append(bytes(chunk))

        async def drain(self) -> None:
            pass

    async def written(form: aiohttp.MultipartWriter) -> tuple[list[bytes], int | None]:
        part = form.append(b"content")
        part.set_content_disposition("form-data", name="files[]", filename="a.png")
        kept, size = Kept(), form.size
        await form.write(kept)  # type: ignore[arg-type]
        return kept.parts, size

    async def run() -> None:
        held: list[bytes] = []

        async def note() -> None:
            held.append(b"|")

        plain, size = await written(aiohttp.MultipartWriter("form-data", boundary="b"))
        late, late_size = await written(LateForm(note, "b"))
        assert b"".join(plain) == b"".join(late)
        assert size == late_size == len(b"".join(late))
        assert late[-1] == b"--b--\r\n"
        assert held

    asyncio.run(run())


class Ticks:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_says_what_an_image_and_an_annotation_took() -> None:
    clock = Ticks()
    pace = Pace(clock=clock)
    assert str(pace) == ""
    for _ in range(2):
        pace.uploaded(1.5)
        with pace.stored(20):
            clock.now += 1.6
    with contextlib.suppress(OSError), pace.stored(20):
        clock.now += 30
        raise OSError("cut")
    pace.seconds = clock.now
    assert str(pace) == "sent 2 images at 1.5 s each and 40 annotations at 80 ms each (12.5 a second) in 33 s"


def test_the_program_says_how_far_it_is_in_images_and_annotations_and_how_fast_it_was(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = several(tmp_path / "root", "said", images=2)
    keys = stack.connection(tmp_path / "keys")
    command = [f"--connection={keys}", f"--root={root}"]
    assert datasets.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"2 of 2 images and {2 * EACH} annotations are in, said is imported" in lines
    assert any("images and 20 annotations are in, annotating said-1.png from" in line for line in lines)
    assert "; sent 2 images at " in lines[-1]
    assert f" s each and {2 * EACH} annotations at " in lines[-1]
    assert datasets.main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"2 images, {2 * EACH} annotations")
