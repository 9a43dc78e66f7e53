"""What keeps strangers and slow clients from using up the gateway, and what it prints, run by a real nginx."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gateway import (
    GOOD,
    MISSING,
    REASON,
    SESSION,
    SIGNED,
    URL,
    running,
)

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
LENGTH = "Content-Length: 1000000"
CHUNKED = "Transfer-Encoding: chunked"


def begun(door, port, line, *headers):
    """The head of an answer to a request whose body does not come; empty if none comes in five seconds."""
    with socket.create_connection(("127.0.0.1", door.ports[port]), 5) as sock:
        sock.sendall("\r\n".join([line, "Host: h", *headers, "", ""]).encode())
        try:
            return sock.recv(65536).decode()
        except TimeoutError:
            return ""


# --- slow clients


@pytest.mark.parametrize("body", [LENGTH, CHUNKED])
@pytest.mark.parametrize(
    "line",
    [
        "POST /oauth2/sign_in HTTP/1.1",
        "GET /oauth2/start?rd=%2F HTTP/1.1",
        "POST /oauth2/callback HTTP/1.1",
        "PUT /oauth2/sign_out HTTP/1.1",
        "GET / HTTP/1.1",
        "GET /api/user/current.json HTTP/1.1",
        "POST /api/annotation.json HTTP/1.1",
        "POST /upload HTTP/1.1",
    ],
)
def test_nothing_that_a_stranger_sends_is_waited_for(door, line, body):
    head = begun(door, 8080, line, body, "Accept: text/html", f"Origin: {URL}")
    assert head.split(" ")[1] in ("401", "413")
    assert door.reached() == []


def test_what_a_member_sends_slowly_arrives(door):
    with socket.create_connection(("127.0.0.1", door.ports[8080]), 10) as sock:
        head = [
            "POST /upload HTTP/1.1",
            "Host: h",
            f"Origin: {URL}",
            f"Cookie: {SESSION}",
            "Content-Length: 6",
        ]
        sock.sendall("\r\n".join([*head, "", ""]).encode() + b"abc")
        assert door.servers["pims"].started.wait(10)
        sock.sendall(b"def")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("client_header_timeout 15s;", "GET / HTTP/1.1\r\nHost: h\r\n"),
        (
            "client_body_timeout 2m;",
            f"POST /api/x HTTP/1.1\r\nHost: h\r\nOrigin: {URL}\r\nCookie: {SESSION}\r\n{LENGTH}\r\n\r\n",
        ),
    ],
)
def test_a_client_that_says_nothing_more_is_cut_off(tmp_path, limit, sent):
    """With the limit's time made short: nothing of it is measured."""
    with running(tmp_path, changes={limit: limit.split(" ")[0] + " 1s;"}) as door:
        for port in (8080, 8081):
            with socket.create_connection(("127.0.0.1", door.ports[port]), 20) as sock:
                sock.sendall(sent.replace("\r\n\r\n", f"\r\nAuthorization: {SIGNED}\r\n\r\n").encode())
                # until nginx closes it, or resets it
                with contextlib.suppress(ConnectionResetError):
                    while sock.recv(65536):
                        pass


# --- many of them


def waiting(door, asks, most):
    """The statuses when as many are served at once as may be, and what is over has been answered."""
    gate = threading.Event()

    def slow(_):
        gate.wait(20)
        return 302, "text/plain", b"", [("Location", "/")]

    door.servers["login"].reply = slow
    with ThreadPoolExecutor(len(asks)) as pool:
        answers = [pool.submit(ask) for ask in asks]
        try:
            until = time.monotonic() + 15
            while sum(a.done() for a in answers) < len(asks) - most:
                assert time.monotonic() < until
                time.sleep(0.02)
        finally:
            gate.set()
        return sorted(a.result().status for a in answers)


def test_the_logins_of_one_address_are_bounded_and_do_not_count_for_another(tmp_path):
    with running(tmp_path, changes={"limit_conn strangers 128;": "limit_conn strangers 4;"}) as door:

        def ask(address):
            return lambda: door.ask(8080, "/oauth2/start?rd=%2F", X_Forwarded_For=f"6.6.6.6, {address}")

        assert waiting(door, [*[ask("203.0.113.9")] * 8, ask("203.0.113.10")], 5) == [302] * 5 + [429] * 4


def test_strangers_together_leave_room_for_those_who_work(tmp_path):
    with running(tmp_path, changes={"limit_conn all_strangers 1024;": "limit_conn all_strangers 4;"}) as door:
        asks = [
            lambda n=n: door.ask(8080, "/oauth2/start?rd=%2F", X_Forwarded_For=f"203.0.113.{n}")
            for n in range(8)
        ]
        assert waiting(door, asks, 4) == [302] * 4 + [429] * 4
        door.forget()
        assert door.public("/api/x").status == 200


# --- what is printed


def test_probes_and_the_stand_in_for_cbir_print_nothing(door):
    before = (door.folder / "log").read_text()
    for port, path in (
        (8080, "/healthz"),
        (8081, "/healthz"),
        (8082, "/healthz"),
        (8082, "/activity"),
        (6000, "/"),
    ):
        assert door.ask(port, path).status == 200
    assert (door.folder / "log").read_text() == before


def test_what_the_gateway_prints_names_no_token(tmp_path):
    """nginx names the whole address where a neighbour is away, and the token that it put there itself."""
    with running(tmp_path, script=True) as door:
        for name in ("core", "login"):
            door.servers[name].shutdown()
            door.servers[name].server_close()
        for query in (f"authorization=Bearer%20{GOOD}", f"token={GOOD}", f"x=%22,%27&code={GOOD}"):
            assert door.internal(f"/api/imageinstance/1/download?{query}").status == 503
            assert door.ask(8080, f"/oauth2/callback?{query}", Referer=f"{URL}/?{query}").status == 503
        log = tmp_path / "log"
        until = time.monotonic() + 20
        while log.read_text().count("/oauth2/callback?") < 3:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        text = log.read_text()
    assert "/api/imageinstance/1/download?[removed]" in text
    assert "connect() failed" in text
    assert GOOD not in text


def test_what_reads_the_log_is_begun_anew_when_it_ends(tmp_path):
    with running(tmp_path, script=True) as door:
        door.servers["core"].shutdown()
        door.servers["core"].server_close()
        readers = subprocess.run(["pgrep", "-g", str(door.pid), "-x", "sed"], capture_output=True, text=True)
        os.kill(int(readers.stdout), signal.SIGKILL)
        until = time.monotonic() + 20
        while "connect() failed" not in (tmp_path / "log").read_text():
            assert door.internal("/api/x").status == 503
            assert time.monotonic() < until
            time.sleep(0.1)
