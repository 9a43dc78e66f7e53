"""What the keys leave in a real cluster: Secrets and ways that the stack owns, changed and taken back by the one who wrote them."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from kubernetes_asyncio import client, config

from cytomine_spawner.access.activity import Activity
from cytomine_spawner.access.keys import Connections
from cytomine_spawner.cluster.client import Kube
from cytomine_spawner.cluster.stacks import KubeStore
from cytomine_spawner.operator.children import LABEL
from cytomine_spawner.stack.model import (
    KIND,
    ComponentStatus,
    Members,
    Phase,
    Stack,
    StackSpec,
    StackStatus,
    State,
    connection_secret_name,
    new_stack,
)
from cytomine_spawner.stack.people import HubUser, Role
from cytomine_spawner.web import operations
from tests.api.conftest import Api
from tests.support.stackservice import Objects

RUN = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)


class Core(tornado.web.RequestHandler):
    """As much of Cytomine's core as gives new keys to each who asks, and makes ontologies."""

    numbers = itertools.count(1)

    def get(self) -> None:
        self.post()

    def post(self) -> None:
        number = next(self.numbers)
        keys = {"primaryKey": f"public-{number}", "secondaryKey": f"private-{number}"}
        self.finish({**keys, "data": {"id": number}, "collection": []})

    def delete(self) -> None:
        self.finish({})


class World:
    """The service's keys and activity over a real API server."""

    def __init__(self, objects: Objects, store: KubeStore, kube: Kube, core: str) -> None:
        self.objects, self.store, self.kube = objects, store, kube
        self.roles = {"ada": Role.OWNER, "bob": Role.USER, "eve": Role.SHARE}
        self.connections = Connections(store, kube, self, self, address=lambda _: core)  # type: ignore[arg-type]

    def mint(self, *_: Any) -> str:
        return "token"

    async def user(self, name: str) -> HubUser:
        return HubUser(name)

    async def role(self, stack: Stack, name: str, *, fresh: bool = False) -> Role | None:
        if name == "bob" and name not in stack.spec.members.users:
            return None
        return self.roles.get(name)

    async def active(self, *_: Any) -> bool:
        return True

    def serve(self, started: datetime = RUN) -> None:
        """Write the status that the operator writes of a stack that serves."""
        parts = tuple(ComponentStatus(name=n, state=State.READY) for n in ("core", "gateway"))
        status = StackStatus(phase=Phase.READY, components=parts, started_at=started)
        self.objects.patch(KIND, "cm-ada", {"status": status.to_dict()}, "status")

    def secret(self, name: str) -> dict[str, str]:
        found = self.objects.get("Secret", name)
        assert found
        data = found["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def names(self, kind: str) -> list[str]:
        found = [o["metadata"]["name"] for o in self.objects.list(kind)]
        # Members' objects have a prefix of their own, so that no other stack's can be called the same.
        return [name for name in found if name.startswith(("cm-ada", "cmk-ada"))]

    async def until(self, true: Callable[[], Any]) -> None:
        end = asyncio.get_running_loop().time() + 30
        while not await asyncio.to_thread(true):
            assert asyncio.get_running_loop().time() < end, "it did not come true"
            await asyncio.sleep(0.02)


@pytest.fixture
async def world(api: Api, objects: Objects) -> AsyncIterator[World]:
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    rules = [
        (r"/api/user/current/keys", Core),
        (r"/api/user/current\.json", Core),
        (r"/api/ontology.*", Core),
    ]
    server = tornado.httpserver.HTTPServer(tornado.web.Application(rules))  # type: ignore[arg-type]
    server.add_sockets(sockets)
    spec = StackSpec(owner="ada", members=Members(users=("bob",)))
    stack = new_stack(objects.namespace, spec).to_object()
    objects.create(KIND, stack)
    configuration = client.Configuration()
    await config.load_kube_config(str(api.kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as api_client:
        store = KubeStore(api_client, objects.namespace)
        core = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        made = World(objects, store, Kube(api_client, objects.namespace), core)
        tasks = [asyncio.create_task(store.run()), asyncio.create_task(made.connections.run())]
        await made.until(lambda: store.view.get("cm-ada"))
        yield made
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.stop()
        await server.close_all_connections()


def stack_of(world: World) -> Stack:
    stack = world.store.view.get("cm-ada")
    assert stack
    return stack


async def connected(world: World) -> None:
    end = asyncio.get_running_loop().time() + 30
    while sentence := await world.connections.connected(stack_of(world)):
        assert asyncio.get_running_loop().time() < end, sentence
        await asyncio.sleep(0.02)


async def test_keys_are_kept_renewed_and_withdrawn_as_objects_of_the_stack(world: World) -> None:
    await asyncio.to_thread(world.serve)
    await connected(world)
    first = world.secret("cm-ada-connection")
    assert set(first) == {"host", "public-key", "private-key", "user"}
    uid = stack_of(world).uid
    kept = world.objects.get("Secret", "cm-ada-connection")
    assert kept
    assert [owner["uid"] for owner in kept["metadata"]["ownerReferences"]] == [uid]
    await world.connections.provide(stack_of(world), "bob")
    await world.connections.provide(stack_of(world), "eve")
    assert world.names("NetworkPolicy") == [connection_secret_name("cm-ada", "eve")]
    # The operator, which removes what is not of its plan, sees none of it.
    for kind in ("Secret", "NetworkPolicy"):
        assert (await world.kube.list(kind, labels=LABEL))[0] == []

    await asyncio.to_thread(world.serve, RUN + timedelta(hours=1))
    await world.until(lambda: world.secret("cm-ada-connection")["private-key"] != first["private-key"])
    bobs = world.secret(connection_secret_name("cm-ada", "bob"))
    assert bobs["user"] == "bob"

    await operations.remove_member(world.store, "cm-ada", "users", "bob")
    await world.until(lambda: connection_secret_name("cm-ada", "bob") not in world.names("Secret"))
    await operations.hibernate(world.store, "cm-ada")
    del world.roles["eve"]
    await operations.add_member(world.store, "cm-ada", "users", "zoe")
    await world.until(lambda: set(world.secret(connection_secret_name("cm-ada", "eve"))) == {"user"})
    assert world.names("NetworkPolicy") == []


async def test_the_use_of_a_stack_is_noted_on_the_object(world: World) -> None:
    await asyncio.to_thread(world.serve)
    used = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(minutes=3)
    await world.until(lambda: stack_of(world).status.components)

    async def ask(_: Stack) -> datetime:
        return used

    activity = Activity(world.store, world.kube, world, ask=ask)  # type: ignore[arg-type]
    activity.seen("cm-ada", "ada")
    await world.until(lambda: stack_of(world).activity == used)


async def test_the_members_of_a_stack_change_as_the_resource_definition_allows(world: World) -> None:
    await operations.add_member(world.store, "cm-ada", "groups", "lab")
    await operations.add_member(world.store, "cm-ada", "users", "28f7a1@lifescience-ri.eu")
    changed = await operations.remove_member(world.store, "cm-ada", "users", "bob")
    assert changed.spec.members == Members(users=("28f7a1@lifescience-ri.eu",), groups=("lab",))
    emptied = await operations.remove_member(world.store, "cm-ada", "groups", "lab")
    assert emptied.spec.members.groups == ()
