"""What lasts at gateways: whose right ended does not go on, whoever cannot be asked about does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado.web import Application, RequestHandler

from cytomine_spawner.access import lasting
from cytomine_spawner.access.lasting import Gateways, Lasting, Watchman
from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.cluster.store import Unavailable
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import Phase, Stack
from tests.support.stacks import FakeStore, a_stack

BROWSER = Lasting(since=1, side="public", session="s1", user="mia")
SIGNED = Lasting(since=1, side="internal", key="8f5c")
NAMED = Lasting(since=1, side="internal", user="mia")
STRANGE = [Lasting(since=1, side="public"), Lasting(since=1, side="internal"), Lasting(since=1, side="")]


class World:
    """Gateways and rights in memory."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.there: dict[str, list[Lasting] | Exception] = {}
        self.may: dict[str, bool | Exception] = {"s1": True, "8f5c": True, "mia": True}
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.rounds = 0

    async def lasting(self, stack: Stack) -> list[Lasting]:
        found = self.there.get(stack.name, [])
        if isinstance(found, Exception):
            raise found
        return found

    async def end(self, stack: Stack) -> None:
        self.ended.append(stack.name)

    async def _right(self, stack: Stack, name: str) -> bool:
        self.asked.append(name)
        found = self.may.get(name, False)
        if isinstance(found, Exception):
            raise found
        return found

    session = user = key = _right

    async def go_round(self, *stacks: Stack) -> None:
        """One round."""
        for stack in stacks:
            self.store.view.put(stack)
        begun = asyncio.Event()
        rounds = 0

        async def pause() -> None:
            nonlocal rounds
            rounds += 1
            if rounds > 1:
                begun.set()
                await asyncio.Event().wait()

        made: Any = Watchman
        task = asyncio.create_task(made(self.store, self, self, pause).run())
        await asyncio.wait_for(begun.wait(), 10)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("one", [BROWSER, SIGNED, NAMED])
async def test_whoever_may_goes_on_and_whoever_may_not_does_not(one: Lasting) -> None:
    world = World()
    world.there["cm-ada"] = [one]
    await world.go_round(a_stack("ada"))
    assert world.ended == []
    world.may[world.asked[0]] = False
    await world.go_round(a_stack("ada"))
    assert world.ended == ["cm-ada"]


@pytest.mark.parametrize("one", STRANGE)
async def test_who_is_not_known_does_not_go_on(one: Lasting) -> None:
    world = World()
    world.there["cm-ada"] = [BROWSER, one]
    await world.go_round(a_stack("ada"))
    assert world.ended == ["cm-ada"]


@pytest.mark.parametrize("fault", [Unavailable("The hub does not answer."), KubeError(0, "", "silent")])
async def test_nobody_is_cut_off_because_the_hub_or_the_cluster_is_silent(fault: Exception) -> None:
    world = World()
    world.may["s1"] = fault
    world.there["cm-ada"] = [BROWSER]
    await world.go_round(a_stack("ada"))
    assert world.ended == []


async def test_a_gateway_that_does_not_answer_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.may["s1"] = False
    world.there = {"cm-ada": OSError("no route"), "cm-bob": [BROWSER], "cm-eve": RuntimeError("a mistake")}
    await world.go_round(*(a_stack(name) for name in ("ada", "bob", "eve")))
    assert world.ended == ["cm-bob"]
    assert "does not tell what lasts: no route" in caplog.text


async def test_only_stacks_that_serve_are_asked_and_each_person_once() -> None:
    world = World()
    same = [BROWSER.model_copy(update={"since": n}) for n in range(5)]
    world.there = {"cm-ada": same, "cm-bob": AssertionError("it sleeps")}
    await world.go_round(a_stack("ada"), a_stack("bob", phase=Phase.HIBERNATED))
    assert world.asked == ["s1"]


async def test_the_gateways_own_answers_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        {"lasting": [{"since": 5, "side": "public", "session": "s1", "user": "mia", "key": "", "new": 1}]},
        {"lasting": [{"since": "x"}]},
        [],
    ]
    posted: list[str] = []

    class Gateway(RequestHandler):
        def get(self) -> None:
            self.finish(json.dumps(answers.pop(0)))

        def post(self) -> None:
            posted.append(self.request.path)
            self.set_status(202)

    server = Application([(r"/lasting(?:/end)?", Gateway)]).listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    monkeypatch.setattr(lasting, "PORT", port)
    monkeypatch.setattr(model, "internal_url", lambda *_: "http://127.0.0.1")
    gateways = Gateways()
    assert await gateways.lasting(a_stack("ada")) == [
        Lasting(since=5, side="public", session="s1", user="mia")
    ]
    for _ in range(2):
        with pytest.raises(OSError, match="The answer is none"):
            await gateways.lasting(a_stack("ada"))
    await gateways.end(a_stack("ada"))
    assert posted == ["/lasting/end"]
    server.stop()
    with pytest.raises(OSError):  # noqa: PT011 - whichever
        await gateways.lasting(a_stack("ada"))
