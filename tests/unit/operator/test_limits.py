"""The administrator's limits: how long a stack may be idle and how long it may run, whatever its owner wants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.blueprint import lifecycle
from cytomine_spawner.blueprint.lifecycle import Limits
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.operator.clock import Clock
from cytomine_spawner.operator.reconcile import Reconciler
from cytomine_spawner.stack import notices
from cytomine_spawner.stack.model import LIMITED, Desired, Phase, Stack, StackSpec
from cytomine_spawner.stack.notices import Notice
from tests.support.stacks import PREFIX, Service, a_stack, serving

NOW = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
HOUR, DAY = 3600, 86_400
ADA = f"{PREFIX}api/stacks/cm-ada"


def stack(idle: int | None = None, **changes: Any) -> Stack:
    return a_stack("ada", started_at=NOW, ready_at=NOW, last_activity=None, idle_timeout=idle, **changes)


# -- when a stack goes to sleep ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "usual", "most", "after"),
    [
        (None, 4 * HOUR, 0, 4 * HOUR),
        (0, 4 * HOUR, 0, None),
        (0, 4 * HOUR, 8 * HOUR, 8 * HOUR),
        (9 * HOUR, 4 * HOUR, 8 * HOUR, 8 * HOUR),
        (HOUR, 4 * HOUR, 8 * HOUR, HOUR),
        (None, 0, 8 * HOUR, 8 * HOUR),
        (None, 9 * HOUR, 8 * HOUR, 8 * HOUR),
        (None, 4 * HOUR, 8 * HOUR, 4 * HOUR),
    ],
)
def test_no_stack_is_idle_for_longer_than_is_allowed(
    own: int | None, usual: int, most: int, after: int | None
) -> None:
    settings = StackSettings(idle_timeout=usual, max_idle_timeout=most)
    found = lifecycle.deadlines(stack(own), settings).hibernates
    assert found == (after and NOW + timedelta(seconds=after))


@given(
    own=st.none() | st.integers(0, 31_536_000),
    usual=st.integers(0, 31_536_000),
    most=st.integers(1, 31_536_000),
)
def test_with_a_limit_each_stack_has_an_idle_time_within_it(own: int | None, usual: int, most: int) -> None:
    spec = StackSpec(owner="ada", idle_timeout=own)
    assert 0 < Limits(idle=most).idle_of(spec, usual) <= most


def test_a_life_ends_though_the_stack_is_used_and_begins_anew_at_each_start() -> None:
    settings = StackSettings(max_life=7 * DAY, idle_timeout=0)
    used = stack(annotations={"cytomine-spawner.org/last-activity": "2026-12-24T08:00:00Z"})
    assert lifecycle.deadlines(used, settings).ends == NOW + timedelta(days=7)
    later = NOW + timedelta(days=9)
    assert lifecycle.deadlines(a_stack("ada", started_at=later), settings).ends == later + timedelta(days=7)
    asleep = stack(desired_state=Desired.HIBERNATED, phase=Phase.HIBERNATED)
    assert lifecycle.deadlines(asleep, settings).ends is None
    assert lifecycle.deadlines(stack(), StackSettings()).ends is None


class World:
    """A reconciler without a cluster, and what it did."""

    def __init__(self, **settings: int) -> None:
        self.settings = StackSettings(**settings)
        self.patched: list[Any] = []
        self.deleted: list[Any] = []
        self.events: list[tuple[str, str]] = []
        self.notebook = True
        made: Any = Reconciler
        self.reconciler = made(self, self, self.settings, {}, self.tell, lambda _: None, Clock())

    def tell(self, stack: Stack, kind: str, reason: str, text: str) -> None:
        self.events.append((reason, text))

    async def list(self, kind: str, **_: Any) -> tuple[list[Any], str]:
        return ([{"status": {"phase": "Running"}}] if self.notebook else []), "1"

    async def patch(self, kind: str, name: str, body: Any, subresource: str = "") -> None:
        self.patched.append(body)

    async def delete(self, kind: str, name: str, **_: Any) -> None:
        self.deleted.append(name)

    async def due(self, stack: Stack, after: timedelta) -> str:
        """Why the stack is sent to sleep at that time."""
        from cytomine_spawner.operator.reconcile import _Memory

        return str((await self.reconciler._deadlines(stack, _Memory(), NOW + after))[1])


async def test_at_the_end_of_its_life_a_stack_sleeps_and_loses_nothing() -> None:
    world = World(max_life=7 * DAY, idle_timeout=0)
    assert await world.due(stack(), timedelta(days=6)) == ""
    assert world.patched == []
    # The owner's notebook runs, and keeps a stack from being idle, but not from this.
    assert await world.due(stack(), timedelta(days=7)) == "Life"
    assert world.patched == [{"status": {"hibernatedBy": "Life"}}, {"spec": {"desiredState": "Hibernated"}}]
    assert world.deleted == []
    assert world.events[0][0] == "Life"


async def test_a_notebook_that_runs_still_keeps_its_stack_from_being_idle() -> None:
    world = World(max_idle_timeout=HOUR)
    assert await world.due(stack(0), timedelta(hours=2)) == ""
    world.notebook = False
    assert await world.due(stack(0), timedelta(hours=2)) == "Idle"


def test_the_resource_definition_knows_why_a_stack_sleeps() -> None:
    from pathlib import Path

    import yaml

    folder = Path(__file__).parents[3] / "helm/cytomine-hub/crds"
    crd = yaml.safe_load((folder / "cytominestacks.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert schema["hibernatedBy"]["enum"] == ["Owner", "Idle", "Life"]


# -- what people are told ---------------------------------------------------------------------------------


def test_an_owner_reads_what_the_limits_change_and_only_then() -> None:
    settings = StackSettings(max_idle_timeout=8 * HOUR, max_life=7 * DAY)
    ends = lifecycle.deadlines(stack(0), settings).ends
    (told,) = lifecycle.limited(stack(0), settings, ends, NOW)
    assert told.type == LIMITED
    assert "hibernates after 8 hours without use" in told.message
    assert "its own setting: never" in told.message
    assert "1 Dec 2026, 08:00 UTC at the latest" in told.message
    assert lifecycle.limited(stack(HOUR), StackSettings(max_idle_timeout=8 * HOUR), None, NOW) == ()
    asleep = stack(0, desired_state=Desired.HIBERNATED)
    assert lifecycle.limited(asleep, settings, None, NOW) == ()


def test_the_sentence_keeps_its_time_while_it_stays() -> None:
    settings = StackSettings(max_idle_timeout=HOUR)
    first = lifecycle.limited(stack(0), settings, None, NOW)
    again = stack(0, conditions=first)
    (second,) = lifecycle.limited(again, settings, None, NOW + timedelta(hours=1))
    assert (second,) == first, "a status that changes with each look is written with each look"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(DAY, "1 day"), (36 * HOUR, "36 hours"), (5400, "90 minutes"), (61, "61 seconds"), (1, "1 second")],
)
def test_lengths_are_said_exactly(seconds: int, text: str) -> None:
    assert lifecycle.length(seconds) == text


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with serving(limits=Limits(idle=8 * HOUR)) as service:
        yield service


@pytest.mark.parametrize("seconds", [0, 8 * HOUR + 1, 31_536_000])
def test_the_api_refuses_more_than_is_allowed_and_names_the_field(running: Service, seconds: int) -> None:
    running.clear()
    running.put(a_stack("ada"))
    for program in (running.program("ada"), running.program("root", admin=True)):
        answer = program.patch(ADA, json={"idleTimeout": seconds})
        assert answer.status_code == 400
        (fault,) = answer.json()["errors"]
        assert fault["field"] == "idleTimeout"
        assert "8 hours" in fault["message"]
        assert ("0 for never" in fault["message"]) is (seconds == 0)
    assert running.store.view.get("cm-ada").spec.idle_timeout is None


@pytest.mark.parametrize("seconds", [1, 8 * HOUR, None])
def test_the_api_takes_what_is_allowed(running: Service, seconds: int | None) -> None:
    running.clear()
    running.put(a_stack("ada", idle_timeout=7))
    answer = running.program("ada").patch(ADA, json={"idleTimeout": seconds})
    assert answer.status_code == 200, answer.text
    assert answer.json()["idleTimeout"] == seconds


def test_a_card_says_what_the_limits_change(running: Service) -> None:
    running.clear()
    limits = StackSettings(max_idle_timeout=8 * HOUR)
    running.put(stack(0, conditions=lifecycle.limited(stack(0), limits, None, NOW)))
    assert "more is not allowed here" in running.browser("ada").get(PREFIX).text
    assert "more is not allowed here" in running.program("ada").get(ADA).json()["limits"]


# -- what administrators did ------------------------------------------------------------------------------


def test_what_an_administrator_did_becomes_an_event_once() -> None:
    from cytomine_spawner.operator.reconcile import _Memory

    world, memory = World(), _Memory()
    acts = [Notice(NOW + timedelta(microseconds=n), "root", f"invited the user m{n}") for n in range(30)]

    def looked(known: Stack, act: Notice | None = None) -> Stack:
        if act:
            known = known.replace(annotations=notices.added(known, act))
        world.reconciler._pass_on(known, memory)
        return known

    known = looked(stack().replace(annotations=notices.added(stack(), acts[0])))
    assert world.events == [], "what was done before this process began was told then"
    for act in acts[1:]:
        known = looked(known, act)
        looked(known)
    assert world.events == [("Administered", str(act)) for act in acts[1:]]
