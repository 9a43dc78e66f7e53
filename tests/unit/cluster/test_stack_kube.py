"""The operator's watches: nothing is missed, nothing is asked without need, whatever becomes of the connection."""

import asyncio
import contextlib
import json

import pytest
from aiohttp import web
from kubernetes_asyncio import client

from cytomine_spawner.cluster import client as kube_module
from cytomine_spawner.cluster.client import Kube
from cytomine_spawner.operator import observe
from cytomine_spawner.operator.children import Children


def service(name, version, **meta):
    labels = {"app.kubernetes.io/instance": "cm-ada", "app.kubernetes.io/managed-by": "cytomine-stacks"}
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": str(version), "labels": labels, **meta}
    }


class Server:
    """An API server of Services that does with each watch what a test says."""

    def __init__(self):
        self.items = [service("a", 5), service("b", 6), service("c", 7)]
        self.lists, self.watches = [], []
        self.watch = None
        self.page = 500

    async def answer(self, request):
        if "watch" in request.query:
            self.watches.append(request.query["resourceVersion"])
            response = web.StreamResponse()
            await response.prepare(request)

            async def send(kind, obj):
                await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

            await self.watch(len(self.watches), send)
            return response
        self.lists.append(dict(request.query))
        at = int(request.query.get("continue", 0))
        more = {"continue": str(at + self.page)} if at + self.page < len(self.items) else {}
        return web.json_response(
            {"metadata": {"resourceVersion": "10", **more}, "items": self.items[at : at + self.page]}
        )


@pytest.fixture
async def server(unused_tcp_port):
    server = Server()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ns/services", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{unused_tcp_port}")
    api = client.ApiClient(configuration)
    server.kube = Kube(api, "ns", timeout=5)
    yield server
    await api.close()
    await runner.cleanup()


async def collect(kube, number):
    """The first events of a watch."""
    found = []
    async with contextlib.aclosing(kube.watch("Service")) as events:
        async for event, obj in events:
            found.append((event, obj.get("metadata", {}).get("name") or sorted(obj["names"])))
            if len(found) == number:
                return found
    raise AssertionError("a watch never ends")


async def hang(*_):
    await asyncio.sleep(60)


async def test_what_is_there_comes_page_by_page_then_what_happens(server):
    async def watch(_, send):
        await send("ADDED", service("d", 11))
        await hang()

    server.watch, server.page = watch, 2
    found = await asyncio.wait_for(collect(server.kube, 5), 10)
    assert found == [("ITEM", "a"), ("ITEM", "b"), ("ITEM", "c"), ("LISTED", ["a", "b", "c"]), ("ADDED", "d")]
    assert [q.get("continue") for q in server.lists] == [None, "2"]
    assert server.watches == ["10"]


async def test_a_silent_watch_is_taken_up_where_it_fell_silent(server, monkeypatch):
    monkeypatch.setattr(kube_module, "_SILENCE_SECONDS", 0.3)

    async def watch(number, send):
        if number == 1:
            await send("ADDED", service("d", 11))
            await hang()
        await send("ADDED", service("e", 12))
        await hang()

    server.watch = watch
    found = await asyncio.wait_for(collect(server.kube, 6), 10)
    assert found[-2:] == [("ADDED", "d"), ("ADDED", "e")]
    assert server.watches == ["10", "11"]
    assert len(server.lists) == 1


async def test_a_watch_that_is_too_old_lists_anew(server):
    async def watch(number, send):
        if number == 1:
            await send("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
            return
        await hang()

    server.watch = watch
    found = await asyncio.wait_for(collect(server.kube, 8), 10)
    assert [event for event, _ in found].count("LISTED") == 2
    assert len(server.lists) == 2


async def test_watches_that_end_at_once_make_no_storm(server):
    async def watch(number, send):
        pass

    server.watch = watch
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(collect(server.kube, 5), 2.5)
    assert 2 <= len(server.watches) <= 4
    assert len(server.lists) == 1


async def test_an_object_that_went_while_nobody_watched_is_forgotten():
    changed = []
    children = Children(None, changed.append)
    for name in ("a", "b"):
        children.put("Service", service(name, 5))
    children._keep_only("Service", {"a"})
    assert list(children.family("cm-ada").children) == [("Service", "a")]
    assert changed == ["cm-ada"] * 3


async def test_an_older_state_does_not_take_the_place_of_a_newer_one():
    children = Children(None, lambda _: None)
    children.put("Service", service("a", 9, annotations={"x": "new"}))
    children.put("Service", service("a", 7))
    assert children.family("cm-ada").children["Service", "a"].version == 9
    # made anew, the numbers tell nothing
    children.put("Service", {**service("a", 8, uid="other")})
    assert children.family("cm-ada").children["Service", "a"].uid == "other"


@pytest.mark.parametrize(
    ("manager", "more", "touched"),
    [
        ("kubectl-edit", {"fieldsV1": {"f:spec": {}}}, True),
        ("kubectl", {"fieldsV1": {"f:spec": {}}, "subresource": "scale"}, True),
        ("kube-controller-manager", {"fieldsV1": {"f:status": {}}, "subresource": "status"}, False),
        ("cert-manager", {"fieldsV1": {"f:metadata": {}}}, False),
        ("kubectl-edit", {"fieldsV1": {"f:spec": {}}, "time": "2026-01-01T00:00:00Z"}, False),
    ],
)
def test_who_changed_an_object_after_us_is_read_from_its_fields_managers(manager, more, touched):
    ours = {"manager": "cytomine-stacks", "time": "2026-02-02T00:00:00Z", "fieldsV1": {"f:spec": {}}}
    theirs = {"manager": manager, "time": "2026-02-02T00:00:05Z", **more}
    meta = service("a", 5, managedFields=[ours, theirs], generation=3)
    found = observe.child("Deployment", meta)
    assert found.touched is touched
    assert found.revision == 3
