"""The keys of notebooks: a real stand-in of Cytomine's core gives and checks them; hub and cluster are in memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from cytomine_spawner.access import credentials, keys
from cytomine_spawner.access.credentials import MANAGED_BY, Connection, signed_headers
from cytomine_spawner.access.keys import Connections
from cytomine_spawner.cluster.store import Conflict, StoreError, Unavailable
from cytomine_spawner.stack.model import (
    Desired,
    Members,
    Phase,
    Stack,
    connection_secret_name,
    former_connection_name,
    user_label,
)
from cytomine_spawner.stack.people import HubUser, Role
from dev.standin.local import Local
from tests.support.importing import Stack as Stand
from tests.support.secretstore import FakeSecrets
from tests.support.stacks import FakeStore, a_stack
from tests.support.standin import Issuer

pytest_plugins = ["tests.support.importstack"]

RUN = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
OWNERS, BOBS = connection_secret_name("cm-ada"), connection_secret_name("cm-ada", "bob")


class Core:
    """A running stand-in and the tokens that it takes."""

    def __init__(self, local: Local, issuer: Issuer) -> None:
        self.local, self.issuer = local, issuer

    def role(self, connection: Connection) -> dict[str, Any]:
        """What core says of the person of these keys."""
        url = f"{connection.host}/session/admin/info.json"
        return dict(requests.get(url, headers=signed_headers(connection), timeout=10).json())

    def accepts(self, connection: Connection) -> bool:
        url = f"{connection.host}/api/user/current.json"
        return requests.get(url, headers=signed_headers(connection), timeout=10).status_code == 200


@pytest.fixture(scope="module")
def core(stack: Stand) -> Core:
    return Core(stack.local, stack.issuer)


class World:
    """The service's keys over a real core; ``address`` and ``minted`` may be changed to break things."""

    def __init__(self, core: Core) -> None:
        self.core, self.address = core, core.local.url
        self.store, self.secrets = FakeStore(), FakeSecrets()
        self.members: dict[str, Role] = {}
        self.hub_fault: StoreError | None = None
        self.told: list[str] = []
        self.mint_faults = 0
        self.connections = Connections(
            self.store,
            self.secrets,  # type: ignore[arg-type]
            self,
            self,  # type: ignore[arg-type]
            notebook_namespace="notebooks",
            address=lambda _: self.address,
            changed=self.told.append,
        )

    async def user(self, name: str) -> HubUser:
        return HubUser(name, full_name=f"{name.title()} Someone")

    def mint(self, stack: str, username: str, name: str, email: str, role: str) -> str:
        if self.mint_faults:
            self.mint_faults -= 1
            raise RuntimeError("no key to sign with")
        return self.core.issuer.token(username, role, name=name)

    async def role(self, stack: Stack, user: str, *, fresh: bool = False) -> Role | None:
        if self.hub_fault:
            raise self.hub_fault
        return self.members.get(user) or (Role.USER if user in stack.spec.members.users else None)

    def secret(self, name: str = OWNERS) -> dict[str, str]:
        data = self.secrets.there[name]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def connection(self, name: str = OWNERS) -> Connection:
        data = self.secret(name)
        return Connection(data["host"], data["public-key"], data["private-key"], data["user"])

    async def until(self, condition: Callable[[], Any], seconds: float = 20) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < end, "it did not happen"
            await asyncio.sleep(0.02)

    async def connected(self, stack: Stack) -> None:
        end = asyncio.get_running_loop().time() + 20
        while sentence := await self.connections.connected(stack):
            assert asyncio.get_running_loop().time() < end, sentence
            await asyncio.sleep(0.02)


@pytest.fixture
async def world(core: Core, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(keys, "BACKOFF_SECONDS", (0.05,))
    monkeypatch.setattr(keys, "RECHECK_SECONDS", 0.1)
    made = World(core)
    running = asyncio.create_task(made.connections.run())
    yield made
    assert not running.done(), "the task ended by itself"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def running(start: datetime = RUN, **changes: Any) -> Stack:
    return a_stack("ada", started_at=start, **changes)


# -- the owner --------------------------------------------------------------------------------------------


async def test_a_stack_that_serves_gets_its_owners_keys_and_they_work(world: World) -> None:
    stack = running()
    assert "being fetched" in await world.connections.connected(stack)
    world.store.view.put(stack)
    await world.connected(stack)
    assert world.told == ["cm-ada"]
    secret = world.secret()
    assert set(secret) == {"host", "public-key", "private-key", "user"}
    assert (secret["user"], secret["host"]) == ("ada", world.core.local.url)
    assert world.core.accepts(world.connection())
    assert world.core.role(world.connection())["admin"] is True


async def test_the_secret_belongs_to_the_stack_and_is_none_that_the_operator_would_take_away(
    world: World,
) -> None:
    stack = running()
    await world.connections.provide(stack, "ada")
    meta = world.secrets.there[OWNERS]["metadata"]
    assert meta["ownerReferences"][0]["uid"] == stack.uid
    assert meta["labels"]["app.kubernetes.io/managed-by"] == MANAGED_BY != "cytomine-stacks"


async def test_a_stack_is_connected_as_soon_as_core_and_gateway_serve_whatever_the_others_do(
    world: World,
) -> None:
    stack = running(phase=Phase.STARTING)
    parts = [
        c.replace(state="Ready") if c.name in ("core", "gateway") else c for c in stack.status.components
    ]
    stack = stack.replace(status=stack.status.replace(components=tuple(parts)))
    world.store.view.put(stack)
    await world.connected(stack)


async def test_nobody_gets_the_first_ontology_of_a_stack_which_members_of_its_project_cannot_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, asked = world.connections._core, []

    async def ask(request: Any) -> Any:
        answer = await type(core)._ask(core, request)
        if "/api/ontology" in request.url and request.method != "GET":
            asked.append((request.method, request.url.rpartition("/")[2], answer.code))
            asked.append(json.loads(answer.body)["data"]["id"])
        return answer

    monkeypatch.setattr(core, "_ask", ask)
    await world.connections.provide(running(), "ada")
    (made, number, gone, same) = asked
    assert made == ("POST", "ontology.json", 200)
    assert gone == ("DELETE", f"{number}.json", 200)
    assert same == number
    await world.connections.provide(running(), "ada", renew=True)
    assert len(asked) == 4, "once in a stack's life"


async def test_a_service_that_ends_between_making_and_deleting_it_leaves_no_ontology_for_anybody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, made = world.connections._core, []

    async def ask(request: Any, *, cut: bool) -> Any:
        if cut and request.method == "DELETE":
            raise RuntimeError("the service ends here")
        answer = await type(core)._ask(core, request)
        if "/api/ontology" in request.url and request.method == "POST":
            made.append(json.loads(answer.body)["data"]["id"])
        return answer

    monkeypatch.setattr(core, "_ask", partial(ask, cut=True))
    with pytest.raises(RuntimeError):
        await world.connections.provide(running(), "ada")
    monkeypatch.setattr(core, "_ask", partial(ask, cut=False))
    connection = await world.connections.provide(running(), "ada")
    url = f"{connection.host}/api/ontology.json"
    left = (await asyncio.to_thread(requests.get, url, headers=signed_headers(connection), timeout=10)).json()
    assert len(made) == 1
    assert made[0] not in [one["id"] for one in left["collection"]]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.HIBERNATED, None])
async def test_no_keys_are_asked_of_a_stack_that_does_not_serve(world: World, phase: Phase | None) -> None:
    with pytest.raises(Conflict, match="does not serve yet"):
        await world.connections.provide(running(phase=phase), "ada")
    assert world.secrets.there == {}


async def test_each_start_of_a_stack_gives_new_keys_and_ends_the_old_ones(world: World) -> None:
    world.store.view.put(running())
    await world.connected(running())
    old = world.connection()
    again = running(RUN + timedelta(hours=3))
    world.store.view.put(again)
    await world.connected(again)
    assert world.core.accepts(world.connection())
    assert not world.core.accepts(old)


async def test_within_one_start_the_keys_stay_also_for_a_service_that_was_restarted(
    core: Core, world: World
) -> None:
    first = await world.connections.provide(running(), "ada")
    other = World(core)
    other.secrets = world.secrets
    other.connections._kube = world.secrets  # type: ignore[assignment]
    assert await other.connections.provide(running(), "ada") == first
    assert await world.connections.provide(running(), "ada", renew=True) != first
    assert not world.core.accepts(first)


async def test_keys_that_core_no_longer_takes_are_replaced(world: World) -> None:
    first = await world.connections.provide(running(), "ada")
    # Somebody rotated them behind the service's back.
    head = {"Authorization": f"Bearer {world.core.issuer.token('ada', 'ADMIN')}"}
    async with httpx.AsyncClient() as client:
        url = f"{world.core.local.url}/api/user/current/keys"
        assert (await client.post(url, headers=head)).status_code == 200
    second = await world.connections.provide(running(), "ada")
    assert second != first
    assert world.core.accepts(second)


async def test_keys_of_a_former_stack_of_the_same_name_are_not_taken_over(world: World) -> None:
    first = await world.connections.provide(running(uid="one"), "ada")
    second = await world.connections.provide(running(uid="two"), "ada")
    assert first != second
    assert world.secrets.there[OWNERS]["metadata"]["ownerReferences"][0]["uid"] == "two"


async def test_many_who_ask_at_once_get_the_same_keys(world: World) -> None:
    asked = [world.connections.provide(running(), "ada") for _ in range(8)]
    assert len(set(await asyncio.gather(*asked))) == 1


async def test_what_fails_is_tried_again_until_it_works_and_is_said_meanwhile(world: World) -> None:
    right, world.address = world.address, "http://127.0.0.1:9"
    stack = running()
    world.store.view.put(stack)
    await world.until(lambda: world.told)
    assert await world.connections.connected(stack) == "Cytomine does not answer at its gateway."
    world.address = right
    world.mint_faults = 2
    await world.connected(stack)


async def test_a_slow_core_is_asked_again_until_it_answers_and_that_is_said_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(credentials, "CORE_SECONDS", 0.5)
    local, stack = world.core.local, running()
    with contextlib.ExitStack() as faults:
        for path in ("/api/user/current/keys", "/api/user/current.json"):
            faults.enter_context(
                local.failing("core", "slow", path=path, times=2, until=str(tmp_path / "no"))
            )
        world.store.view.put(stack)
        await world.until(lambda: world.told)
        assert await world.connections.connected(stack) == "Cytomine does not answer at its gateway."
        await world.connected(stack)
        assert local.faults("core") == []
    assert world.core.accepts(world.connection())


async def test_a_core_that_does_not_know_the_identity_is_said_so(world: World) -> None:
    def mint(*_: Any) -> str:
        return "a.b.c"

    world.mint = mint  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable, match=r"does not accept the service's token \(401\)"):
        await world.connections.provide(running(), "ada")


async def test_a_cluster_that_keeps_no_secrets_is_said_so(world: World) -> None:
    world.secrets.refuses = 403
    with pytest.raises(Unavailable, match="The cluster does not keep the keys: secrets is forbidden"):
        await world.connections.provide(running(), "ada")


async def test_no_private_key_and_no_token_is_logged_or_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = await world.connections.provide(running(), "ada")
    world.address = "http://127.0.0.1:9"
    with pytest.raises(Unavailable) as caught:
        await world.connections.provide(running(), "ada", renew=True)
    text = caplog.text + repr(connection) + str(caught.value)
    assert connection.private_key not in text
    assert "eyJ" not in text  # how each token begins


# -- members ----------------------------------------------------------------------------------------------


def shared(start: datetime = RUN, *users: str, **changes: Any) -> Stack:
    return running(start, members=Members(users=users), **changes)


async def test_a_member_gets_keys_of_her_own_and_is_no_administrator(world: World) -> None:
    stack = shared(RUN, "bob")
    connection = await world.connections.provide(stack, "bob")
    assert world.secret(BOBS)["user"] == "bob"
    said = world.core.role(connection)
    assert (said["admin"], said["user"]) == (False, True)


async def test_a_removed_members_keys_end_and_her_secret_goes(world: World) -> None:
    world.store.view.put(shared(RUN, "bob", "eve"))
    bobs = await world.connections.provide(shared(RUN, "bob", "eve"), "bob")
    eves = await world.connections.provide(shared(RUN, "bob", "eve"), "eve")
    world.store.view.put(shared(RUN, "eve", generation=2))
    await world.until(lambda: BOBS not in world.secrets.there)
    assert not world.core.accepts(bobs)
    assert world.core.accepts(eves)


async def test_a_member_by_group_or_share_who_is_none_any_more_loses_the_keys_though_no_stack_changed(
    world: World,
) -> None:
    world.members["bob"] = Role.GROUP
    stack = running()
    world.store.view.put(stack)
    bobs = await world.connections.provide(stack, "bob")
    del world.members["bob"]
    await world.until(lambda: BOBS not in world.secrets.there)
    assert not world.core.accepts(bobs)


async def test_the_notebooks_of_a_member_by_group_or_share_get_a_way_through_the_network_and_lose_it(
    world: World,
) -> None:
    world.members["bob@lifescience-ri.eu"] = Role.SHARE
    stack = shared(RUN, "eve")
    world.store.view.put(stack)
    for user in ("ada", "eve"):  # whom the stack's own policy knows
        await world.connections.provide(stack, user)
    assert world.secrets.policies == {}
    await world.connections.provide(stack, "bob@lifescience-ri.eu")
    ((name, policy),) = world.secrets.policies.items()
    assert policy["metadata"]["ownerReferences"][0]["uid"] == stack.uid
    assert policy["metadata"]["labels"]["app.kubernetes.io/managed-by"] != "cytomine-stacks"
    spec = policy["spec"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "cm-ada"
    ((rule,), (peer,)) = (spec["ingress"], spec["ingress"][0]["from"])
    assert rule["ports"] == [{"port": "internal"}]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "notebooks"}
    assert peer["podSelector"]["matchLabels"] == {
        "hub.jupyter.org/username": user_label("bob@lifescience-ri.eu"),
        "app.kubernetes.io/component": "singleuser-server",
    }
    world.address = "http://127.0.0.1:9"  # core cannot be asked, and the way closes all the same
    world.members.clear()
    await world.until(lambda: name not in world.secrets.policies)


async def test_a_silent_hub_takes_nobodys_keys(world: World) -> None:
    world.members["bob"] = Role.SHARE
    stack = running()
    world.store.view.put(stack)
    bobs = await world.connections.provide(stack, "bob")
    asked = []

    async def silent(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise Unavailable("The hub does not answer at the moment.")

    world.role = silent  # type: ignore[method-assign,assignment]
    world.members.clear()
    await world.until(lambda: len(asked) > 2)
    assert world.core.accepts(bobs)


async def test_a_member_removed_while_the_stack_sleeps_loses_the_secret_at_once_and_the_keys_at_the_start(
    world: World,
) -> None:
    world.store.view.put(shared(RUN, "bob"))
    bobs = await world.connections.provide(shared(RUN, "bob"), "bob")
    asleep = {"phase": Phase.HIBERNATED, "desired_state": Desired.HIBERNATED}
    world.store.view.put(shared(RUN, "bob", **asleep, generation=2))
    world.store.view.put(shared(RUN, **asleep, generation=3))
    await world.until(lambda: set(world.secret(BOBS)) == {"user"})
    assert world.core.accepts(bobs)  # the stand-in does not sleep
    world.store.view.put(shared(RUN + timedelta(hours=1), generation=4))
    await world.until(lambda: BOBS not in world.secrets.there)
    assert not world.core.accepts(bobs)


async def test_a_member_removed_while_the_service_was_down_loses_the_keys_when_it_is_back(
    core: Core, world: World
) -> None:
    bobs = await world.connections.provide(shared(RUN, "bob"), "bob")
    other = World(core)
    other.connections._kube = world.secrets  # type: ignore[assignment]
    other.store.view.put(shared())
    task = asyncio.create_task(other.connections.run())
    await world.until(lambda: BOBS not in world.secrets.there)
    task.cancel()
    assert not world.core.accepts(bobs)


def as_before(world: World, user: str) -> str:
    """Give what belongs to a member the names of an earlier version; returns them."""
    old, new = former_connection_name("cm-ada", user), connection_secret_name("cm-ada", user)
    for place in (world.secrets.there, world.secrets.policies):
        if item := place.pop(new, None):
            item["metadata"]["name"] = old
            place[old] = item
    return old


async def test_keys_under_the_names_of_an_earlier_version_stay_good_under_the_present_ones(
    core: Core, world: World
) -> None:
    world.members["eve"] = Role.SHARE
    bobs = await world.connections.provide(shared(RUN, "bob"), "bob")
    eves = await world.connections.provide(shared(RUN, "bob"), "eve")
    before = {as_before(world, user) for user in ("bob", "eve")}
    assert before == set(world.secrets.there)
    other = World(core)
    other.members = world.members
    other.secrets = other.connections._kube = world.secrets  # type: ignore[assignment]
    # One is asked for before the service has looked at the stack, the other is found by its look.
    assert await other.connections.provide(shared(RUN, "bob"), "bob") == bobs
    other.store.view.put(shared(RUN, "bob"))
    task = asyncio.create_task(other.connections.run())
    await world.until(lambda: not before & {*world.secrets.there, *world.secrets.policies})
    await world.until(lambda: connection_secret_name("cm-ada", "eve") in world.secrets.policies)
    task.cancel()
    assert world.connection(BOBS) == bobs
    assert world.connection(connection_secret_name("cm-ada", "eve")) == eves
    assert core.accepts(bobs)
    assert core.accepts(eves)


async def test_what_only_has_the_former_name_of_a_members_keys_is_left_alone(world: World) -> None:
    # The stack of the user ada-connection keeps its passwords under this name.
    other = {"kind": "Secret", "metadata": {"name": "cm-ada-connection-secrets", "labels": {}}, "data": {}}
    await world.secrets.apply(other)
    world.store.view.put(shared(RUN, "secrets"))
    await world.connections.provide(shared(RUN, "secrets"), "secrets")
    world.store.view.put(shared(RUN, generation=2))
    await world.until(lambda: connection_secret_name("cm-ada", "secrets") not in world.secrets.there)
    assert world.secrets.there["cm-ada-connection-secrets"] == other


async def test_members_keys_are_renewed_at_a_resume_too(world: World) -> None:
    world.store.view.put(shared(RUN, "bob"))
    bobs = await world.connections.provide(shared(RUN, "bob"), "bob")
    later = shared(RUN + timedelta(hours=1), "bob")
    world.store.view.put(later)
    await world.until(lambda: world.secret(BOBS)["private-key"] != bobs.private_key)
    assert not world.core.accepts(bobs)
    assert world.core.accepts(world.connection(BOBS))


async def test_whose_a_key_is_is_known_while_it_is_good(world: World) -> None:
    world.store.view.put(shared(RUN, "bob"))
    adas = await world.connections.provide(shared(RUN, "bob"), "ada")
    bobs = await world.connections.provide(shared(RUN, "bob"), "bob")
    whose = world.connections.user_of
    assert await whose(shared(), adas.public_key) == "ada"
    assert await whose(shared(), bobs.public_key) == "bob"
    assert await whose(shared(), adas.private_key) is None
    assert await whose(shared(uid="another"), adas.public_key) is None
    await world.connections.withdraw(shared(), "bob")
    assert await whose(shared(), bobs.public_key) is None


async def test_a_token_says_when_it_ends(world: World) -> None:
    token, ends = await world.connections.token(running(), "ada", Role.OWNER)
    assert ends > datetime.now(timezone.utc).timestamp()
    async with httpx.AsyncClient() as client:
        head = {"Authorization": f"Bearer {token}"}
        answer = await client.get(f"{world.address}/api/user/current.json", headers=head)
    assert answer.json()["username"] == "ada"


async def test_the_service_ends_at_once_even_when_something_changes_at_that_moment(core: Core) -> None:
    for _ in range(20):
        world = World(core)
        task = asyncio.create_task(world.connections.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.store.view.put(running(phase=Phase.STARTING))
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done
