"""Logs of components, read from a server that answers as the API server and its kubelets do."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from kubernetes_asyncio import client

from cytomine_spawner.access import credentials
from cytomine_spawner.access.credentials import Connection
from cytomine_spawner.blueprint import render, secretdata
from cytomine_spawner.cluster import logs, stacks
from cytomine_spawner.cluster.loglines import LINE_LENGTH
from cytomine_spawner.cluster.stacks import KubeStore
from cytomine_spawner.cluster.store import LogQuery, LogSource, NotFound, Unavailable
from cytomine_spawner.common.redact import REMOVED
from cytomine_spawner.stack import model
from tests.support.stacks import a_stack

STACK = a_stack("ada")
SOURCE = LogSource("cm-ada-core-0", "core", "running", stack="cm-ada")
PIMS = LogSource("cm-ada-pims-0", "pims", "running", stack="cm-ada", secrets=("cm-ada-secrets",))
PUBLIC, PRIVATE = "3d1f0a72-97c4-4e0b-8f5e-b1c0a9d8e7f6", "0b6f1c9e-5a0d-4f8e-9a53-6a0c2d1f7e44"


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
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    forbidden: bool = False
    secrets_asked: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)
    # Read by the log's handler after the chunks, until None comes.
    coming: asyncio.Queue[bytes | None] | None = None

    def hide(self, obj: dict[str, Any]) -> None:
        """Put a Secret into the cluster."""
        texts = obj.pop("stringData", {})
        obj["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in texts.items()} or obj["data"]
        self.secrets[obj["metadata"]["name"]] = obj

    async def secrets_were_asked(self, times: int) -> None:
        """Wait until Secrets were asked for so often."""
        while self.secrets_asked < times:
            self.more.clear()
            await self.more.wait()

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
            while cluster.coming and (chunk := await cluster.coming.get()):
                self.write(chunk)
                await self.flush()
            if cluster.hold:
                await cluster.left.wait()

        def on_connection_close(self) -> None:
            cluster.left.set()

    class Secrets(tornado.web.RequestHandler):
        def prepare(self) -> None:
            cluster.secrets_asked += 1
            cluster.more.set()
            if cluster.forbidden:
                self.set_status(403)
                self.finish({"kind": "Status", "message": "secrets is forbidden: User cannot list"})

        def get(self, name: str = "") -> None:
            if not name:
                wanted = self.get_argument("labelSelector").split(",")
                found = [s for s in cluster.secrets.values() if selected(s, wanted)]
                self.finish({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": found})
            elif name in cluster.secrets:
                self.finish(cluster.secrets[name])
            else:
                self.set_status(404)
                self.finish({"kind": "Status", "message": f'secrets "{name}" not found'})

    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server = tornado.httpserver.HTTPServer(
        tornado.web.Application(
            [
                ("/api/v1/namespaces/cytomine/pods", Pods),
                ("/api/v1/namespaces/cytomine/pods/([^/]+)/log", Log),
                ("/api/v1/namespaces/cytomine/secrets", Secrets),
                ("/api/v1/namespaces/cytomine/secrets/([^/]+)", Secrets),
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


def selected(obj: dict[str, Any], wanted: Iterable[str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for want in wanted:
        key, unlike, value = want.partition("!=") if "!=" in want else want.partition("=")
        if (labels.get(key) == value) is (unlike == "!="):
            return False
    return True


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
    assert sources[0] == LogSource(
        "new", "core", "CrashLoopBackOff", 3, started=True, previous=True, stack="cm-ada"
    )
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
    monkeypatch.setattr(stacks, "CALL_SECONDS", 0.1)
    world.cluster.hold = True
    with pytest.raises(Unavailable):
        await read(world)


async def test_a_server_that_is_gone_is_unavailable() -> None:
    configuration = client.Configuration()
    configuration.host = "http://127.0.0.1:9"
    async with client.ApiClient(configuration) as api:
        with pytest.raises(Unavailable, match="does not answer"):
            await KubeStore(api, "cytomine").log_sources(STACK, "core")


# -- secrets ----------------------------------------------------------------------------------------------


def a_secret(world: World, name: str = "", **values: str) -> dict[str, str]:
    """Put the stack's Secret, or one of an administrator, into the cluster."""
    if name:
        world.cluster.hide({"metadata": {"name": name}, "stringData": values})
        return values
    made = secretdata.generate()
    world.cluster.hide(render.secret(STACK, made))
    return made


def keys_of(world: World, user: str, public: str = PUBLIC, private: str = PRIVATE) -> None:
    name = model.connection_secret_name(STACK.name, "" if user == "ada" else user)
    connection = Connection("http://cm-ada-gateway.cytomine.svc", public, private, user)
    world.cluster.hide(credentials.secret(STACK, name, user, "run", connection))


async def test_the_image_servers_settings_are_shown_without_their_secrets(world: World) -> None:
    made = a_secret(world)
    settings = {
        "root": "/data/images",
        "cytomine_public_key": made["image-server-public-key"],
        "cytomine_private_key": made["image-server-private-key"],
        "a_name_that_says_nothing": made["meilisearch-key"],
        "port": 5000,
    }
    world.cluster.chunks = [
        "".join(f"[2026-11-24 08:00:00][INFO] * {k}: {v}\n" for k, v in settings.items()).encode(),
        f"Settings({', '.join(f'{k}={v!r}' for k, v in settings.items())})\n".encode(),
        f"{json.dumps({'message': json.dumps(settings)})}\n".encode(),
        f"GET /?k={quote(made['jwt-secret'], safe='')} HTTP/1.1\n".encode(),
    ]
    lines = await read(world, LogQuery(PIMS))
    assert len(lines) == 8
    text = "\n".join(lines)
    assert not [key for key, value in made.items() if value[:12] in text or value[-12:] in text]
    assert text.count(REMOVED) == 3 + 3 + 3 + 1
    for word in ("* root: /data/images", "* port: 5000", "cytomine_private_key=", "HTTP/1.1"):
        assert word in text


async def test_the_keys_of_the_owner_and_of_members_go_and_their_names_stay(world: World) -> None:
    a_secret(world)
    keys_of(world, "ada")
    keys_of(
        world, "grace-hopper", "11111111-97c4-4e0b-8f5e-b1c0a9d8e7f6", "22222222-97c4-4e0b-8f5e-b1c0a9d8e7f6"
    )
    world.cluster.chunks = [
        b"grace-hopper used 22222222-97c4-4e0b-8f5e-b1c0a9d8e7f6 at http://cm-ada-gateway.cytomine.svc\n",
        f"{PUBLIC}:{PRIVATE} and 99999999-97c4-4e0b-8f5e-b1c0a9d8e7f6\n".encode(),
    ]
    assert await read(world) == [
        f"grace-hopper used {REMOVED} at http://cm-ada-gateway.cytomine.svc",
        f"{REMOVED}:{REMOVED} and 99999999-97c4-4e0b-8f5e-b1c0a9d8e7f6",
    ]


async def test_the_secrets_of_another_stack_and_the_identitys_are_not_read(world: World) -> None:
    made = a_secret(world)
    world.cluster.secrets["cm-ada-secrets"]["metadata"]["labels"]["app.kubernetes.io/instance"] = "cm-bob"
    world.cluster.hide(
        {
            "metadata": {
                "name": "cm-ada-sessions",
                "labels": {
                    "app.kubernetes.io/instance": "cm-ada",
                    "app.kubernetes.io/managed-by": "cytomine-identity",
                },
            },
            "stringData": {"owner": STACK.uid},
        }
    )
    line = f"stack {STACK.uid} asks {made['meilisearch-key']}"
    world.cluster.chunks = [line.encode()]
    assert await read(world) == [line]


async def test_a_secret_of_an_administrator_that_a_pod_names_is_known_too(world: World) -> None:
    def named(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "key": "token", **more}

    there = pod("p", "2026-11-24T08:00:00Z", [("core", RUNNING)])
    there["spec"]["containers"][1] |= {
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": named("engine")}}, {"name": "B", "value": "b"}],
        "envFrom": [{"secretRef": {"name": "more", "optional": True}}],
    }
    there["spec"]["volumes"] = [
        {"name": "one", "secret": {"secretName": "mounted"}},
        {"name": "two", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
        {"name": "three", "emptyDir": {}},
    ]
    world.cluster.pods = [there]
    a_secret(world, "engine", token="engine-token-1234", user="somebody")
    a_secret(world, "mounted", password="mounted-word")
    a_secret(world, "projected", password="projected-word")
    source = next(s for s in await world.store.log_sources(STACK, "core") if s.container == "core")
    assert source.secrets == ("engine", "projected", "mounted")
    assert source.optional_secrets == ("more",)
    world.cluster.chunks = [b"engine-token-1234 mounted-word projected-word somebody"]
    assert await read(world, LogQuery(source)) == [f"{REMOVED} {REMOVED} {REMOVED} somebody"]
    del world.cluster.secrets["mounted"]
    with pytest.raises(Unavailable, match="not shown"):
        await read(world, LogQuery(source))


async def test_without_the_secrets_no_line_is_shown_and_the_sentence_says_what_to_do(world: World) -> None:
    a_secret(world)
    world.cluster.chunks, world.cluster.forbidden = [b"a line\n"], True
    for follow in (False, True):
        with pytest.raises(Unavailable, match=r"not shown.*administrator has to allow") as caught:
            await read(world, LogQuery(SOURCE, follow=follow))
        assert "forbidden" not in str(caught.value)
    assert not world.cluster.asked, "the log was not even asked for"


async def test_a_log_of_no_stack_is_not_read(world: World) -> None:
    with pytest.raises(ValueError, match="stack"):
        await read(world, LogQuery(LogSource("p", "c")))


async def test_keys_that_are_made_while_a_log_is_followed_are_known_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "REREAD_SECONDS", 0.01)
    made = a_secret(world)
    world.cluster.coming = asyncio.Queue()
    lines = world.store.logs(LogQuery(SOURCE, follow=True))
    world.cluster.coming.put_nowait(f"first {made['meilisearch-key']}\n".encode())
    assert await asyncio.wait_for(anext(lines), 5) == f"first {REMOVED}"
    keys_of(world, "grace")
    # What the service knew before stays known: old keys may still be in the log.
    del world.cluster.secrets["cm-ada-secrets"]
    asked = world.cluster.secrets_asked
    # The second after the change began when what the first said was taken over.
    await asyncio.wait_for(world.cluster.secrets_were_asked(asked + 3), 5)
    world.cluster.coming.put_nowait(f"then {PRIVATE} {made['meilisearch-key']}\n".encode())
    assert await asyncio.wait_for(anext(lines), 5) == f"then {REMOVED} {REMOVED}"
    await lines.aclose()
    world.cluster.coming.put_nowait(None)


async def test_a_followed_log_ends_when_the_secrets_could_not_be_read_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_secret(world)
    world.cluster.coming = asyncio.Queue()
    lines = world.store.logs(LogQuery(SOURCE, follow=True))
    world.cluster.coming.put_nowait(b"first\n")
    assert await asyncio.wait_for(anext(lines), 5) == "first"
    monkeypatch.setattr(logs, "STALE_SECONDS", 0)
    world.cluster.coming.put_nowait(b"second\n")
    with pytest.raises(Unavailable, match="not shown"):
        await asyncio.wait_for(anext(lines), 5)
    world.cluster.coming.put_nowait(None)


async def test_a_secret_over_the_border_of_two_chunks_goes_whole(world: World) -> None:
    made = a_secret(world)
    data = f"key {made['image-server-private-key']} and größer\nnext {made['jwt-secret']}".encode()
    for size in (13, 40):
        world.cluster.chunks = [data[i : i + size] for i in range(0, len(data), size)]
        assert await read(world) == [f"key {REMOVED} and größer", f"next {REMOVED}"]


@pytest.mark.parametrize("end", [b"\nnext\n", b""])
@pytest.mark.parametrize("before", [0, 1, 20, 47, 48])
async def test_a_secret_over_the_limit_of_a_line_leaves_no_half(
    world: World, before: int, end: bytes
) -> None:
    key = a_secret(world)["meilisearch-key"]
    line = f"{'x' * (LINE_LENGTH - before)}{key}{'y' * 20000}".encode()
    # With a chunk's end within the secret, just behind the limit.
    world.cluster.chunks = [line[: LINE_LENGTH + 3], line[LINE_LENGTH + 3 :], end]
    lines = await read(world)
    assert lines[1:] == ([] if not end else ["next"])
    assert lines[0] == f"{'x' * (LINE_LENGTH - before)}{REMOVED if before else ''} … (cut)"


async def test_many_secrets_in_a_long_line_do_not_pull_an_unseen_half_into_it(world: World) -> None:
    key = a_secret(world)["meilisearch-key"]
    line = f"{f'{key} ' * 400}".encode()
    for size in (LINE_LENGTH + 4096 + 1, LINE_LENGTH + 4096 + 30, 5000):
        world.cluster.chunks = [line[i : i + size] for i in range(0, len(line), size)]
        (shown,) = await read(world)
        assert not shown.replace(REMOVED, "").replace(" … (cut)", "").strip()


async def test_a_log_that_breaks_off_or_begins_within_a_secret_shows_no_half(world: World) -> None:
    key = a_secret(world)["meilisearch-key"]
    world.cluster.chunks = [f"{key[10:]}' is the end\nand then '{key[:40]}".encode()]
    assert await read(world) == [f"{REMOVED}' is the end", f"and then '{REMOVED}"]


async def test_ordinary_lines_are_shown_as_they_are(world: World) -> None:
    a_secret(world)
    keys_of(world, "ada")
    lines = [
        "2026-11-24 08:00:00 INFO token expired; Invalid token: signature verification failed",
        "image 99999999-97c4-4e0b-8f5e-b1c0a9d8e7f6 at /data/images/1/upload.tiff?x=1&y=2",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ]
    world.cluster.chunks = ["\n".join(lines).encode()]
    assert await read(world) == lines
