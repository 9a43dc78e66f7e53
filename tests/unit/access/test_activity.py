"""What counts as use of a stack, who is told of it, and that a forgotten tab counts for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web

from cytomine_spawner.access import activity
from cytomine_spawner.access.activity import Activity, Gateways
from cytomine_spawner.cluster.store import Unavailable
from cytomine_spawner.stack.model import ANNOTATION_ACTIVITY, Desired, Phase, Stack, format_time
from tests.support.secretstore import FakeSecrets
from tests.support.stacks import FakeStore, a_stack

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


class World:
    """A stack whose gateway, clock and hub are the test's."""

    def __init__(self) -> None:
        self.time = NOON
        self.store, self.kube = FakeStore(), FakeSecrets()
        self.last: datetime | None = None
        self.gateway_answers = True
        self.asked = 0
        self.told: list[tuple[str, str, datetime]] = []
        self.hub_answers = True
        self.activity = Activity(
            self.store,
            self.kube,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            ask=self.ask,
            clock=lambda: self.time,
        )

    async def ask(self, stack: Stack) -> datetime | None:
        self.asked += 1
        if not self.gateway_answers:
            raise OSError("connection refused")
        return self.last

    async def active(self, stack: Stack, when: datetime) -> bool:
        if not self.hub_answers:
            raise Unavailable("The hub does not answer.")
        self.told.append((stack.spec.owner, stack.spec.server_name, when))
        return True

    async def refresh(self, after: float = 0) -> None:
        """A browser refreshes a token some seconds later; waits for what that causes."""
        self.time += timedelta(seconds=after)
        self.activity.seen("cm-ada", "ada")
        await self.settled()

    async def settled(self) -> None:
        await asyncio.gather(*self.activity._jobs.values())

    @property
    def noted(self) -> list[str]:
        return [body["metadata"]["annotations"][ANNOTATION_ACTIVITY] for _, _, body in self.kube.patched]


@pytest.fixture
def world() -> World:
    made = World()
    made.store.view.put(a_stack("ada"))
    return made


async def until(condition: Callable[[], Any]) -> None:
    end = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def test_work_in_the_browser_is_noted_on_the_stack_and_told_to_the_hub(world: World) -> None:
    world.last = NOON - timedelta(seconds=20)
    await world.refresh()
    assert world.noted == [format_time(world.last)]
    assert world.told == [("ada", "", world.last)]


async def test_a_forgotten_tab_that_refreshes_for_hours_keeps_nothing_alive(world: World) -> None:
    world.last = NOON
    for _ in range(60):
        await world.refresh(after=240)
    assert world.noted == [format_time(NOON)]
    assert len(world.told) == 1
    assert world.asked == 60


async def test_a_tab_of_a_gateway_that_has_seen_no_real_request_counts_for_nothing(world: World) -> None:
    await world.refresh()
    assert (world.noted, world.told) == ([], [])


async def test_it_is_written_at_most_once_a_minute_however_many_refresh(world: World) -> None:
    for _ in range(60):
        world.last = world.time
        await world.refresh(after=10)
    assert 9 <= len(world.noted) <= 10
    assert world.asked == len(world.noted)


async def test_the_silent_gateway_of_somebody_who_refreshes_gets_the_benefit_of_the_doubt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.gateway_answers = False
    await world.refresh()
    await world.refresh(after=240)
    assert world.noted == [format_time(NOON), format_time(NOON + timedelta(seconds=240))]
    assert caplog.text.count("does not tell when it was used") == 1


async def test_a_gateway_whose_clock_is_ahead_keeps_nothing_awake(world: World) -> None:
    world.last = NOON + timedelta(days=3)
    await world.refresh()
    assert world.noted == [format_time(NOON)]


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": Phase.HIBERNATED, "desired_state": Desired.HIBERNATED},
        {"phase": Phase.STARTING},
        {"deleting": True},
    ],
)
async def test_a_stack_that_does_not_serve_is_not_asked(world: World, changes: dict[str, Any]) -> None:
    world.store.view.put(a_stack("ada", **changes))
    await world.refresh()
    assert world.asked == 0


async def test_a_stack_that_is_not_there_is_no_error(world: World) -> None:
    world.activity.seen("cm-nobody", "eve")
    await world.settled()
    assert world.asked == 0


async def test_what_the_cluster_or_the_hub_does_not_take_is_tried_again_with_the_next_sign(
    world: World,
) -> None:
    world.last = NOON
    world.kube.refuses = 503
    await world.refresh()
    assert world.told == []
    world.kube.refuses = 0
    await world.refresh(after=100)
    assert world.noted == [format_time(NOON)]
    world.hub_answers = False
    world.last = NOON + timedelta(seconds=190)
    await world.refresh(after=100)
    assert len(world.noted) == 2


async def test_scripts_that_refresh_no_token_are_seen_before_the_stack_would_fall_asleep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "BEFORE_SECONDS", 0.2)
    world.activity._clock = lambda: datetime.now(timezone.utc)  # timers follow the real one
    now = datetime.now(timezone.utc)
    world.last = now - timedelta(seconds=5)
    running = asyncio.create_task(world.activity.run())
    try:
        due = now + timedelta(seconds=0.5)
        world.store.view.put(a_stack("ada", hibernates_at=due, last_activity=now - timedelta(hours=4)))
        await until(lambda: world.noted)
        assert world.asked == 1
        assert datetime.now(timezone.utc) < due
        world.last = None
        # A deadline that moved away is not asked for.
        world.store.view.put(a_stack("ada", hibernates_at=now + timedelta(seconds=1)))
        world.store.view.put(a_stack("ada", hibernates_at=now + timedelta(hours=4)))
        await until(lambda: world.activity._timers["cm-ada"][0] == now + timedelta(hours=4))
        world.store.view.remove("cm-ada")
        await until(lambda: not world.activity._timers)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# -- the gateway's word -----------------------------------------------------------------------------------


class Told(tornado.web.RequestHandler):
    """A gateway that says what it is told to."""

    text, status = "", 200

    def get(self) -> None:
        self.set_status(Told.status)
        self.finish(Told.text)


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[type[Told]]:
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/activity", Told)]))
    server.add_sockets(sockets)
    monkeypatch.setattr(activity, "PORT", sockets[0].getsockname()[1])
    monkeypatch.setattr(activity.model, "internal_url", lambda *_: "http://127.0.0.1")
    Told.status = 200
    yield Told
    server.stop()
    await server.close_all_connections()


async def test_the_gateways_answer_is_read(gateway: type[Told]) -> None:
    gateway.text = '{"last": 1795521600.5}'
    assert await Gateways()(a_stack()) == datetime.fromtimestamp(1795521600.5, timezone.utc)
    for none in ('{"last": 0}', '{"last": null}'):
        gateway.text = none
        assert await Gateways()(a_stack()) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"last": "soon"}', '{"last": -5}', '{"last": 1e400}', '{"last": 1e300}', "null"]
)
async def test_a_gateway_that_answers_nonsense_counts_as_silent(gateway: type[Told], text: str) -> None:
    gateway.text = text
    with pytest.raises(OSError, match="Error"):
        await Gateways()(a_stack())


async def test_a_gateway_without_that_answer_counts_as_silent(gateway: type[Told]) -> None:
    gateway.status = 404
    with pytest.raises(OSError, match="404"):
        await Gateways()(a_stack())
