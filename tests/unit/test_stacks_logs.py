"""Logs of components, read from a server that answers as the API server and its kubelets do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from kubernetes_asyncio import client

from cytomine_spawner.stacks import kubestore
from cytomine_spawner.stacks.kubestore import LINE_LENGTH, KubeStore
from cytomine_spawner.stacks.store import LogQuery, LogSource, NotFound, Unavailable
from tests.support.stacks import a_stack

STACK = a_stack("ada")
SOURCE = LogSource("cm-ada-core-0", "core", "running")


def pod(name: str, created: str, statuses: Iterable[Any] = (), inits: Iterable[Any] = ()) -> dict[str, Any]:
    def status(container: str, state: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
        usual = {"image": "x", "imageID": "", "ready": False}
        return {**usual, "name": container, "restartCount": restarts, "state": state}

    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {
            "containers": [{"name": "helper"}, {"name": "core"}],
            "initContainers": [{"name": "wait"}],
        },
        "status": {
            "containerStatuses": [status(*s) for s in statuses],
            "initContainerStatuses": [status(*s) for s in inits],
        },
    }


@dataclass
class Cluster:
    """What the server answers, and what it was asked."""

    pods: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    status: int = 200
    hold: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class World:
    cluster: Cluster
    store: KubeStore


@pytest.fixture
async def world() -> AsyncIterator[World]:
    cluster = Cluster()

    class Pods(tornado.web.RequestHandler):
        def get(self) -> None:
            cluster.asked.append({k: self.get_argument(k) for k in self.request.arguments})
            self.finish({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": cluster.pods})

    class Log(tornado.web.RequestHandler):
        async def get(self, name: str) -> None:
            cluster.asked.append({"pod": name, **{k: self.get_argument(k) for k in self.request.arguments}})
            self.set_status(cluster.status)
            for chunk in cluster.chunks:
                self.write(chunk)
                await self.flush()
                await asyncio.sleep(0.01)
            if cluster.hold:
                await cluster.left.wait()

        def on_connection_close(self) -> None:
            cluster.left.set()

    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server = tornado.httpserver.HTTPServer(
        tornado.web.Application(
            [
                ("/api/v1/namespaces/cytomine/pods", Pods),
                ("/api/v1/namespaces/cytomine/pods/([^/]+)/log", Log),
            ]
        )
    )
    server.add_sockets(sockets)
    configuration = client.Configuration()
    configuration.host = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with client.ApiClient(configuration) as api:
        yield World(cluster, KubeStore(api, "cytomine"))
    cluster.left.set()
    server.stop()
    await server.close_all_connections()


async def read(world: World, query: LogQuery | None = None) -> list[str]:
    return [line async for line in world.store.logs(query or LogQuery(SOURCE))]


RUNNING = {"running": {"startedAt": "2026-11-24T08:00:00Z"}}
CRASHED = {"waiting": {"reason": "CrashLoopBackOff"}}
PULLING = {"waiting": {"reason": "ContainerCreating"}}
FAILED = {"terminated": {"reason": "Error", "exitCode": 1}}
DONE = {"terminated": {"reason": "Completed", "exitCode": 0}}


async def test_the_components_own_container_of_the_newest_pod_comes_first(world: World) -> None:
    world.cluster.pods = [
        pod("old", "2026-11-24T07:00:00Z", [("core", RUNNING), ("helper", RUNNING)], [("wait", DONE)]),
        pod("new", "2026-11-24T08:00:00Z", [("core", CRASHED, 3), ("helper", RUNNING)], [("wait", DONE)]),
    ]
    sources = await world.store.log_sources(STACK, "core")
    assert [(s.pod, s.container) for s in sources[:3]] == [
        ("new", "core"),
        ("new", "helper"),
        ("new", "wait"),
    ]
    assert sources[0] == LogSource("new", "core", "CrashLoopBackOff", 3, started=True, previous=True)
    assert world.cluster.asked[0]["labelSelector"] == (
        "app.kubernetes.io/instance=cm-ada,app.kubernetes.io/component=core"
    )


async def test_before_the_start_what_fails_to_prepare_it_comes_first(world: World) -> None:
    world.cluster.pods = [pod("p", "2026-11-24T08:00:00Z", [("core", PULLING)], [("wait", FAILED)])]
    sources = await world.store.log_sources(STACK, "core")
    assert [(s.container, s.state, s.started) for s in sources] == [
        ("wait", "Error", True),
        ("core", "ContainerCreating", False),
        ("helper", "waiting", False),
    ]


async def test_lines_come_whole_however_the_bytes_come(world: World) -> None:
    data = "erste Zeile: größer\n\nzweite\r\nthird, without an end".encode()
    world.cluster.chunks = [data[i : i + 1] for i in range(len(data))]
    assert await read(world) == ["erste Zeile: größer", "", "zweite", "third, without an end"]
    asked = world.cluster.asked[0]
    assert (asked["pod"], asked["container"], asked["tailLines"]) == ("cm-ada-core-0", "core", "200")
    assert int(asked["limitBytes"]) <= 1024 * 1024


async def test_what_is_not_utf8_does_not_end_the_log(world: World) -> None:
    world.cluster.chunks = [b"a\xff\xfeb\nnext\n"]
    assert await read(world) == ["a\ufffd\ufffdb", "next"]


async def test_a_line_without_end_is_cut_and_the_next_one_is_whole(world: World) -> None:
    world.cluster.chunks = [*[b"x" * LINE_LENGTH] * 5, b"tail\nnext\n"]
    lines = await read(world)
    assert lines[-1] == "next"
    assert len(lines) == 2
    assert len(lines[0]) < LINE_LENGTH + 20
    assert lines[0].endswith("(cut)")


async def test_the_run_before_can_be_asked_for(world: World) -> None:
    await read(world, LogQuery(SOURCE, tail=7, previous=True))
    assert world.cluster.asked[0]["previous"].lower() == "true"
    assert world.cluster.asked[0]["tailLines"] == "7"


async def test_a_container_that_has_not_started_is_said_in_kubernetes_words(world: World) -> None:
    world.cluster.status = 400
    world.cluster.chunks = [
        b'{"kind": "Status", "message": "container core is waiting to start: ErrImagePull"}'
    ]
    with pytest.raises(NotFound, match="waiting to start: ErrImagePull"):
        await read(world)


async def test_a_follower_gets_lines_at_once_and_frees_the_connection_when_it_leaves(world: World) -> None:
    world.cluster.chunks, world.cluster.hold = [b"first\n"], True
    lines = world.store.logs(LogQuery(SOURCE, follow=True))
    assert await asyncio.wait_for(anext(lines), 5) == "first"
    assert "limitBytes" not in world.cluster.asked[0]
    await lines.aclose()
    await asyncio.wait_for(world.cluster.left.wait(), 5)


async def test_a_server_that_says_nothing_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubestore, "CALL_SECONDS", 0.1)
    world.cluster.hold = True
    with pytest.raises(Unavailable):
        await read(world)


async def test_a_server_that_is_gone_is_unavailable() -> None:
    configuration = client.Configuration()
    configuration.host = "http://127.0.0.1:9"
    async with client.ApiClient(configuration) as api:
        with pytest.raises(Unavailable, match="does not answer"):
            await KubeStore(api, "cytomine").log_sources(STACK, "core")
