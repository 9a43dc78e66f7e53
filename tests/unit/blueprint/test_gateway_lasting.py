"""Connections that last: what the gateway knows of them, and that they end when the stack service says so."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cytomine_spawner.access import lasting as stacks_lasting
from cytomine_spawner.access.lasting import Watchman
from cytomine_spawner.app import Rights
from tests.support.gateway import SESSION, SIGNED, URL, Door, running, websocket
from tests.support.gateway_login import MISSING, REASON, before
from tests.support.hub import free_port
from tests.support.identity import GATEWAY_SECRET, world
from tests.support.stacks import PREFIX, a_stack
from tests.unit.blueprint.test_gateway_identity import come

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
SECONDS = 30
OPEN: list[socket.socket] = []


def token(**claims: str) -> str:
    """A token as the session's is, but for the signature."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2ln"


@pytest.fixture(autouse=True)
def sockets() -> Iterator[None]:
    """Close what a test left open."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with running(tmp_path, script=True) as found:
        given = ("X-Auth-Request-Access-Token", token(sid="s1", preferred_username="mia"))
        found.servers["login"].reply = lambda _: (202, "text/plain", b"", [given])
        yield found


def lasting(door: Door) -> list[dict[str, Any]]:
    found = door.ask(8082, "/lasting").json["lasting"]
    return [{key: value for key, value in one.items() if key != "since"} for one in found]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def opened(door: Door, port: int = 8080) -> socket.socket:
    """A WebSocket that carries both ways."""
    own = {"Cookie": SESSION, "Origin": URL} if port == 8080 else {"Authorization": SIGNED}
    status, sock = websocket(door.ports[port], "/ws/user-position/1", **own)
    OPEN.append(sock)
    assert status == 101
    carries(sock)
    return sock


def uploading(door: Door) -> socket.socket:
    """An upload of nine bytes of which four were sent."""
    sock = socket.create_connection(("127.0.0.1", door.ports[8080]), 10)
    OPEN.append(sock)
    head = (
        f"POST /upload HTTP/1.1\r\nHost: h\r\nCookie: {SESSION}\r\nOrigin: {URL}\r\nContent-Length: 9\r\n\r\n"
    )
    sock.sendall(head.encode() + b"half")
    return sock


def carries(sock: socket.socket) -> None:
    sock.sendall(b"ping")
    assert sock.recv(4) == b"ping"


def ended(sock: socket.socket) -> bool:
    """Whether the other end closes, though this one goes on sending."""
    sock.settimeout(SECONDS)
    try:
        while sock.recv(4096):
            sock.sendall(b"ping")
    except (ConnectionError, TimeoutError) as error:
        return not isinstance(error, TimeoutError)
    return True


MIA = {"side": "public", "session": "s1", "user": "mia", "key": ""}


def test_a_websocket_an_upload_and_a_download_are_known_for_as_long_as_they_last(door: Door) -> None:
    assert lasting(door) == []
    sock = opened(door)
    assert lasting(door) == [MIA]
    upload = uploading(door)
    until(lambda: lasting(door) == [MIA, MIA])
    upload.sendall(b"whole")
    until(lambda: lasting(door) == [MIA])
    assert door.public("/api/imageinstance/1/download").status == 200
    assert door.public("/api/project.json").status == 200
    sock.close()
    until(lambda: lasting(door) == [])


def test_on_the_notebooks_side_it_is_known_by_which_key_or_token(door: Door) -> None:
    sock = opened(door, 8081)
    assert lasting(door) == [{"side": "internal", "session": "", "user": "", "key": "8f5c"}]
    sock.close()


def test_no_token_no_signature_and_no_cookie_is_written_down(door: Door) -> None:
    for port in (8080, 8081):
        sock = opened(door, port)
        (file,) = (door.folder / "lasting").iterdir()
        text = file.read_text()
        for secret in (SESSION.partition("=")[2], SIGNED.partition(":")[2], "c2ln", "eyJ"):
            assert secret not in text
        sock.close()
        until(lambda: lasting(door) == [])


def test_what_lasts_is_known_only_to_the_stack_service(door: Door) -> None:
    for port in (8080, 8081):
        answer = door.ask(port, "/lasting", Cookie=SESSION, Authorization=SIGNED)
        assert "sid" not in answer.text
        assert [who for who, _ in door.reached()] == ["web-ui"] * len(door.reached()), (
            "an address of the web interface"
        )
    assert door.ask(8082, "/lasting/end").status == 405


@pytest.mark.parametrize("port", [8080, 8081])
def test_what_lasts_ends_when_the_stack_service_says_so_and_the_gateway_goes_on(
    door: Door, port: int
) -> None:
    sock = opened(door, port)
    upload = uploading(door)
    until(lambda: len(lasting(door)) == 2)
    assert door.ask(8082, "/lasting/end", "POST", "").status == 202
    assert ended(sock)
    assert ended(upload)
    assert lasting(door) == []
    assert door.public("/api/project.json").status == 200
    carries(opened(door))


def test_without_being_told_a_websocket_stays(door: Door) -> None:
    sock = opened(door)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        carries(sock)
        time.sleep(0.2)


def test_a_removed_members_open_websocket_ends_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, rounds = free_port(), []
    with world(stack_url=f"http://{{stack}}.stacks.localhost:{port}") as w:
        w.vault.put("cm-ada-secrets", oidc_client_secret=GATEWAY_SECRET)
        w.service.put(a_stack("ada", members={"users": ("cleo",)}))
        for name in ("ada", "cleo"):
            w.person(name)
        service = f"{w.service.url}{PREFIX}".rstrip("/")
        # The login itself would ask after four minutes: that is not what is tried here.
        with before(service, tmp_path, GATEWAY_SECRET, w, port, script=True) as login:
            monkeypatch.setattr(stacks_lasting, "PORT", login.door.ports[8082])
            monkeypatch.setattr(stacks_lasting.model, "internal_url", lambda *_: "http://127.0.0.1")

            async def pause() -> None:
                rounds.append(1)
                await asyncio.sleep(0.3)

            rights = Rights(w.identity, None, w.service.site_hub)  # type: ignore[arg-type]
            watchman = Watchman(w.service.store, rights, pause=pause)
            task = asyncio.run_coroutine_threadsafe(watchman.run(), w.service.loop)
            try:
                browser, _ = come(login, "cleo")
                own = {"Cookie": browser.header(), "Origin": login.url}
                status, sock = websocket(
                    port, "/ws/user-position/1", Host=f"cm-ada.stacks.localhost:{port}", **own
                )
                OPEN.append(sock)
                assert status == 101
                begun = len(rounds)
                until(lambda: len(rounds) > begun + 3)
                carries(sock)
                w.service.put(a_stack("ada", generation=2))
                assert ended(sock)
                assert not task.done()
            finally:
                task.cancel()


def test_a_configuration_that_cannot_be_read_for_a_moment_only_delays_the_end(door: Door) -> None:
    sock = opened(door)
    file = door.folder / "nginx.conf"
    text = file.read_text()
    file.write_text(text + "broken")
    door.ask(8082, "/lasting/end", "POST", "")
    end = time.monotonic() + 4
    while time.monotonic() < end:
        carries(sock)
        time.sleep(0.2)
    assert lasting(door) == [MIA], "it is still known, so that it can be ended"
    file.write_text(text)
    assert ended(sock)
