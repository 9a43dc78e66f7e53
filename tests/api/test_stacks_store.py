"""The page's store against a real API server: its view, its changes, and what it does when the server is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes_asyncio import client, config

from cytomine_spawner.cluster.stacks import KubeStore
from cytomine_spawner.cluster.store import Conflict, Denied, Invalid, NotFound, Unavailable
from cytomine_spawner.stack import notices
from cytomine_spawner.stack.model import KIND, Desired, Stack, StackSpec, new_stack
from cytomine_spawner.stack.notices import Notice
from cytomine_spawner.web import operations
from tests.api.conftest import Api, service_account
from tests.support.stackservice import Objects

FINALIZER = "tests.cytomine-spawner.org/hold"


class Relay:
    """A way to the API server that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.server: asyncio.Server | None = None
        self.port = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self.target)
        ends = {writer, up_writer}
        self.writers |= ends

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))
        self.writers -= ends


class Watched:
    """A store that watches, and the way to its server."""

    def __init__(self, store: KubeStore, relay: Relay) -> None:
        self.store, self.relay = store, relay

    async def until(self, true: Callable[[], Any], seconds: float = 20) -> None:
        with self.store.view.subscribe() as subscription:
            ends = asyncio.get_running_loop().time() + seconds
            while not true():
                left = ends - asyncio.get_running_loop().time()
                assert left > 0, "it did not come true"
                await subscription.wait(left)


@pytest.fixture
async def watched(api: Api, objects: Objects, tmp_path: Path) -> AsyncIterator[Watched]:
    configuration = client.Configuration()
    await config.load_kube_config(str(api.kubeconfig), client_configuration=configuration)
    server = urlsplit(configuration.host)
    relay = Relay(server.hostname or "", server.port or 443)
    await relay.open()
    configuration.host = f"https://127.0.0.1:{relay.port}"
    async with client.ApiClient(configuration) as api_client:
        store = KubeStore(api_client, objects.namespace)
        task = asyncio.create_task(store.run())
        watched = Watched(store, relay)
        await watched.until(lambda: store.view.connected)
        yield watched
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await relay.cut()


def create(objects: Objects, owner: str, **spec: Any) -> Stack:
    stack = new_stack(objects.namespace, StackSpec(owner=owner, **spec))
    objects.create(KIND, stack.to_object())
    return stack


def spec(objects: Objects, name: str) -> dict[str, Any]:
    found = objects.get(KIND, name)
    assert found
    return dict(found["spec"])


async def test_the_view_follows_what_happens_in_the_cluster(watched: Watched, objects: Objects) -> None:
    view = watched.store.view
    ada = create(objects, "ada")
    await watched.until(lambda: view.get(ada.name))
    status = {"status": {"phase": "Starting", "message": "Core is late.", "slowest": "core"}}
    objects.patch(KIND, ada.name, status, "status")
    await watched.until(lambda: view.get(ada.name).status.message == "Core is late.")
    objects.delete(KIND, ada.name)
    await watched.until(lambda: view.get(ada.name) is None)


async def test_a_change_is_in_the_cluster_and_at_once_in_the_view(watched: Watched, objects: Objects) -> None:
    ada = create(objects, "ada", idle_timeout=60)
    store = watched.store
    await operations.hibernate(store, ada.name)
    assert store.view.get(ada.name).spec.desired_state is Desired.HIBERNATED
    assert spec(objects, ada.name)["desiredState"] == "Hibernated"
    patch = operations.StackPatch.model_validate({"idleTimeout": None, "displayName": "Lung"})
    await operations.edit(store, ada.name, patch)
    assert "idleTimeout" not in spec(objects, ada.name)
    assert spec(objects, ada.name)["displayName"] == "Lung"
    assert spec(objects, ada.name)["desiredState"] == "Hibernated"


async def test_what_an_administrator_does_is_noted_with_the_change_and_not_without(
    watched: Watched, objects: Objects
) -> None:
    ada = create(objects, "ada")
    store = watched.store
    at = datetime.now(timezone.utc)

    def acts() -> list[str]:
        return [act.what for act in notices.of(objects.stack(ada.name))]

    await operations.hibernate(store, ada.name, Notice(at, "root", "hibernated it"))
    await operations.hibernate(store, ada.name, Notice(at, "root", "hibernated it again"))
    assert acts() == ["hibernated it"]
    invite = Notice(at, "root", "let themselves in as a member")
    await operations.add_member(store, ada.name, "users", "root", notice=invite)
    await operations.resume(store, ada.name)
    assert acts() == ["hibernated it", "let themselves in as a member"]
    assert [act.what for act in notices.of(store.view.get(ada.name))] == acts()


async def test_changes_at_the_same_time_lose_nothing(watched: Watched, objects: Objects) -> None:
    ada = create(objects, "ada")
    status = {"status": {"phase": "Failed"}}
    objects.patch(KIND, ada.name, status, "status")
    tries = await asyncio.gather(
        *(operations.retry(watched.store, ada.name) for _ in range(3)), return_exceptions=True
    )
    # One try is on its way; the others were told so, and none raised the counter twice.
    assert spec(objects, ada.name)["retry"] == 1
    assert sum(isinstance(t, Stack) for t in tries) == 1
    assert all(isinstance(t, (Stack, Conflict)) for t in tries)


@pytest.mark.parametrize("keep", [True, False])
async def test_deleting_notes_first_whether_the_data_stay(
    watched: Watched, objects: Objects, keep: bool
) -> None:
    ada = create(objects, "ada", keep_data=not keep)
    objects.patch(KIND, ada.name, {"metadata": {"finalizers": [FINALIZER]}})
    view = watched.store.view
    await watched.until(lambda: view.get(ada.name))
    uid = view.get(ada.name).uid
    for _ in range(2):  # again is no error
        await watched.store.delete(ada.name, keep_data=keep, uid=uid)
    found = objects.get(KIND, ada.name)
    assert found["metadata"]["deletionTimestamp"]
    assert found["spec"].get("keepData", False) is keep
    await watched.until(lambda: view.get(ada.name).deleting)
    with pytest.raises(Conflict, match="too late"):
        await watched.store.delete(ada.name, keep_data=not keep, uid=uid)
    objects.patch(KIND, ada.name, {"metadata": {"finalizers": None}})
    await watched.until(lambda: view.get(ada.name) is None)


async def test_a_stack_made_anew_is_not_deleted_for_the_old_one(watched: Watched, objects: Objects) -> None:
    ada = create(objects, "ada")
    with pytest.raises(Conflict, match="anew"):
        await watched.store.delete(ada.name, keep_data=False, uid="00000000-0000-0000-0000-000000000000")
    assert "deletionTimestamp" not in objects.get(KIND, ada.name)["metadata"]


async def test_what_is_not_there_is_not_found(watched: Watched) -> None:
    with pytest.raises(NotFound):
        await operations.resume(watched.store, "cm-nobody")


async def test_what_the_api_server_refuses_is_said_with_its_words(watched: Watched, objects: Objects) -> None:
    ada = create(objects, "ada")
    with pytest.raises(Invalid, match="owner"):
        await watched.store.patch(ada.name, lambda _: {"owner": "eve"})


async def test_a_lost_server_is_noticed_and_what_happened_meanwhile_is_made_up_for(
    watched: Watched, objects: Objects
) -> None:
    view = watched.store.view
    ada, bob = create(objects, "ada"), create(objects, "bob")
    await watched.until(lambda: view.get(ada.name) and view.get(bob.name))
    cursor = view.cursor
    await watched.relay.cut()
    await watched.until(lambda: not view.connected)
    assert view.as_of is not None
    assert view.get(ada.name) is not None, "the last view is gone"
    with pytest.raises(Unavailable):
        await operations.hibernate(watched.store, ada.name)
    objects.delete(KIND, bob.name)
    carl = create(objects, "carl")
    await watched.relay.open()
    await watched.until(lambda: view.connected, 60)
    changes = view.since(cursor)
    assert not changes.reset
    assert [s.name for s in changes.changed] == [carl.name]
    assert [s.name for s in changes.removed] == [bob.name]


async def test_a_watch_that_breaks_is_taken_up_without_a_word(watched: Watched, objects: Objects) -> None:
    told = []

    async def listen() -> None:
        with watched.store.view.subscribe() as subscription:
            while True:
                await subscription.wait(60)
                told.append(watched.store.view.connected)

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await watched.relay.cut()
    await watched.relay.open()
    ada = create(objects, "ada")
    await watched.until(lambda: watched.store.view.get(ada.name))
    listener.cancel()
    assert False not in told


async def test_while_nothing_happens_the_store_asks_nothing(
    watched: Watched, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    store = watched.store
    original = store._objects.list_namespaced_custom_object

    async def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return await original(*args, **kwargs)

    store._objects.list_namespaced_custom_object = counted
    loop = asyncio.get_running_loop()
    usual = loop.time
    with store.view.subscribe() as subscription:
        waiting = asyncio.create_task(subscription.wait(300))
        await asyncio.sleep(0)
        # Whatever would be done in these minutes is done at once; the watch itself may be silent for longer.
        monkeypatch.setattr(loop, "time", lambda: usual() + 400)
        assert not await waiting, "something changed"
    assert calls == []
    ada = create(objects, "ada")
    await watched.until(lambda: store.view.get(ada.name))
    assert calls == [], "it asked again to learn what the watch should have told"


async def test_an_account_without_the_right_is_told_which(api: Api, objects: Objects) -> None:
    token = service_account(api, objects.namespace, "poor")
    configuration = client.Configuration()
    await config.load_kube_config(str(api.kubeconfig), client_configuration=configuration)
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
    async with client.ApiClient(configuration) as poor:
        with pytest.raises(Denied, match="cytominestacks"):
            await operations.resume(KubeStore(poor, objects.namespace), "cm-ada")
