"""The gateway's ways, run by a real nginx on loopback ports."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dev.standin.local import free_port
from tests.support import recordings
from tests.support.gateway import (
    GOOD,
    INTERNAL,
    MISSING,
    REASON,
    SESSION,
    SIGNED,
    URL,
    Server,
    resident,
    running,
    say,
    tell,
)

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)


def recorded_links():
    """Real answers of core that have addresses in them."""
    bodies = [e.data["answer"]["json"] for e in recordings.load() if "json" in e.data.get("answer", {})]
    return [json.dumps(b).replace("<HOST>", URL) for b in bodies if '"<HOST>/' in json.dumps(b)]


@pytest.mark.parametrize("side", ["public", "internal"])
@pytest.mark.parametrize(
    ("path", "who", "seen"),
    [
        ("/api/user/current.json", "core", "/api/user/current.json"),
        ("/api/a?x=1&y=%2F", "core", "/api/a?x=1&y=%2F"),
        (
            "/api/imageinstance/1/window-0-0-9-9.png?x=a+b",
            "core",
            "/api/imageinstance/1/window-0-0-9-9.png?x=a+b",
        ),
        ("/api/user/current/keys", "core", "/api/user/current/keys"),
        ("/server/ping", "core", "/server/ping"),
        ("/server/ping.json", "core", "/server/ping.json"),
        ("/session/admin/open.json", "core", "/session/admin/open.json"),
        ("/upload?idStorage=1&sync=true", "pims", "/ims/upload?idStorage=1&sync=true"),
        ("/import?storage_id=1", "pims", "/ims/import?storage_id=1"),
        ("/ims/upload?a=b", "pims", "/ims/upload?a=b"),
        ("/ims/import", "pims", "/ims/import"),
        ("/ims/formats", "pims", "/ims/formats"),
        ("/", "web-ui", "/"),
        ("/configuration.json", "web-ui", "/configuration.json"),
        ("/project/1", "web-ui", "/project/1"),
    ],
)
def test_each_path_goes_to_its_component(door, side, path, who, seen):
    answer = getattr(door, side)(path, Sec_Fetch_Site="same-origin")
    assert answer.status == 200
    assert (answer.json["who"], answer.json["path"]) == (who, seen)


@pytest.mark.parametrize("port", [8080, 8081])
def test_an_upload_streams_has_no_limit_of_size_and_takes_no_memory(door, port):
    size = 96 * 1024 * 1024
    before = resident(door.pid)
    with socket.create_connection(("127.0.0.1", door.ports[port]), 10) as sock:
        head = [
            "POST /upload HTTP/1.1",
            "Host: h",
            f"Origin: {URL}",
            f"Authorization: {SIGNED}",
            f"Cookie: {SESSION}",
            "Content-Type: multipart/form-data; boundary=b",
            "Connection: close",
            f"Content-Length: {size}",
            "",
            "",
        ]
        sock.sendall("\r\n".join(head).encode() + b"x" * 100_000)
        # the image server reads while most of the slide is still to come
        assert door.servers["pims"].started.wait(10)
        block = b"x" * 65536
        left = size - 100_000
        most = 0
        while left:
            left -= sock.send(block[: min(left, len(block))])
            most = max(most, resident(door.pid))
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200")
    assert door.servers["pims"].seen[0]["length"] == size
    assert most - before < 16 * 1024 * 1024


def test_links_in_cores_real_answers_work_where_the_answers_go(door):
    texts = recorded_links()
    assert len(texts) > 50
    for text in texts:
        door.servers["core"].reply = say(text.encode())
        assert door.public("/api/x").text == text
        assert door.internal("/api/x").text == text.replace(f'"{URL}/', f'"{INTERNAL}/')
        assert f"{URL}/" not in door.internal("/api/x").text


@pytest.mark.parametrize("side", ["public", "internal"])
def test_a_course_that_looks_at_slides_does_not_make_a_connection_for_each_tile(door, side):
    course, tiles = 60, 3
    door.forget()
    path = "/api/sliceinstance/1/normalized-tile/zoom/1/tx/1/ty/1.jpg"
    together = threading.Barrier(course)
    ports = set()

    def reply(seen):
        together.wait(20)  # all tiles of a wave are under way
        ports.add(seen["peer"])
        return tell(seen)

    door.servers["core"].reply = reply
    try:
        for _ in range(tiles):
            with ThreadPoolExecutor(course) as pool:
                answers = list(pool.map(getattr(door, side), [path] * course))
            assert {answer.status for answer in answers} == {200}
    finally:
        door.forget()
    assert len(ports) == course


def test_the_signed_headers_arrive_untouched(door):
    date = "Tue, 24 Nov 2026 08:00:00 +0000"
    got = door.internal("/api/x", "POST", "{}", date=date, Content_Type="application/json").json["headers"]
    assert (got["date"], got["content-type"], got["authorization"]) == (date, "application/json", SIGNED)
    parts = "multipart/form-data; boundary=0123"
    got = door.internal("/upload", "POST", "x", date=date, Content_Type=parts, dateFull=date).json["headers"]
    assert (got["content-type"], got["datefull"], got["authorization"]) == (parts, date, SIGNED)
    assert "content-type" not in door.internal("/api/x").json["headers"]


def test_an_upload_from_the_page_is_signed_by_the_page(door):
    got = door.public("/upload", "POST", "x", Authorization=SIGNED).json["headers"]
    assert got["authorization"] == SIGNED


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_something_answers_core_in_the_place_of_cbir(door, method):
    chunks = (part for part in [b"crop" * 5000, b"end"])
    connection = http.client.HTTPConnection("127.0.0.1", door.ports[6000], timeout=10)
    for _ in range(2):  # twice on one connection: the chunked body was read to its end
        if method == "POST":
            connection.request(method, "/cbir/images?storage=1&index=annotation", chunks, encode_chunked=True)
        else:
            connection.request(method, "/cbir/storages/1")
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.read()) == {}
        chunks = (part for part in [b"more"])
    connection.close()


def test_a_closed_stack_takes_nobody_from_outside(tmp_path):
    with running(tmp_path, "closed") as door:
        for path in ("/", "/api/imageinstance/1/thumb.png", "/upload", "/healthz"):
            answer = door.public(path)
            assert answer.status == 403
            assert "not open to browsers" in answer.text
        assert door.internal("/api/x").status == 200


def test_an_open_stack_checks_the_tokens_that_it_is_given(tmp_path):
    with running(tmp_path, "open") as door:
        assert door.ask(8080, "/").status == 200
        assert door.ask(8080, "/api/x", Authorization=f"Bearer {GOOD}").status == 200
        assert door.ask(8080, "/api/x", Authorization="Bearer forged").status == 401
        # nobody stands before it who could have set this
        assert door.ask(8080, "/api/x", X_Forwarded_Access_Token=GOOD).status == 401


def test_a_part_that_is_not_there_yet_is_told(tmp_path):
    gone = dict.fromkeys(("core", "pims", "web-ui"), free_port())
    with running(tmp_path, others=gone) as door:
        for side in (door.public, door.internal):
            for path in ("/api/x", "/upload", "/server/ping", "/api/user/5.json"):
                answer = side(path)
                assert answer.status == 503
                assert "may still be starting" in answer.json["errors"]
        page = door.public("/")
        assert (page.status, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert "https://hub.example.org/services/cytomine/" in page.text


# --- activity


def activity(door):
    return door.ask(8082, "/activity").json["last"]


def noted(door):
    """The time of the last request that counts, as soon as it is written down."""
    deadline = time.monotonic() + 5
    while not (last := activity(door)):
        assert time.monotonic() < deadline, "nothing was written down"
        time.sleep(0.02)
    return last


def count(door):
    """How many requests counted so far."""
    os.kill(door.pid, signal.SIGUSR1)  # nginx writes down what it has in memory
    for _ in range(2):  # it looks at signals between two requests
        activity(door)
    return (door.folder / "activity").read_text().count(".")


@pytest.fixture
def quiet(tmp_path):
    with running(tmp_path) as found:
        yield found


def test_nobody_has_done_anything_in_a_new_stack(quiet):
    answer = quiet.ask(8082, "/activity")
    assert (answer.status, answer.json) == (200, {"last": None})
    assert quiet.ask(8082, "/api/x").status == 404


def test_what_an_open_page_asks_for_by_itself_is_no_activity(quiet):
    for path in (
        "/api/annotation.json?image=1",
        "/api/user/current.json",
        "/api/project/1/online/user.json",
        "/api/imageinstance/1/positions.json",
        "/api/storage.json",
        "/api/uploadedfile.json",
        "/server/ping",
        "/configuration.json",
        "/assets/index.js",
        "/healthz",
    ):
        assert quiet.public(path).status == 200
    for path in ("/server/ping", "/api/imageinstance/1/position.json", "/api/project/1/userconnection.json"):
        assert quiet.public(path, "POST", "{}").status == 200
    for path in ("/server/ping", "/api/user/current.json", "/healthz"):
        assert quiet.internal(path).status == 200
    assert count(quiet) == 0


@pytest.mark.parametrize(
    ("side", "method", "path"),
    [
        ("public", "GET", "/api/sliceinstance/1/normalized-tile/zoom/1/tx/0/ty/0.webp"),
        ("public", "POST", "/api/annotation.json"),
        ("public", "DELETE", "/api/annotation/5.json"),
        ("public", "POST", "/upload"),
        ("internal", "GET", "/api/project.json"),
        ("internal", "POST", "/ims/import"),
    ],
)
def test_what_someone_does_is_activity(quiet, side, method, path):
    start = int(time.time())
    assert getattr(quiet, side)(path, method, None if method == "GET" else "x").status == 200
    assert start - 1 <= noted(quiet) <= time.time()  # files have a coarse clock


def test_what_the_service_looks_after_by_itself_keeps_no_stack_awake(quiet):
    assert quiet.internal("/api/project.json", X_Unattended="1").status == 200
    assert quiet.internal("/api/project/1/user/2.json", "POST", "x", X_Unattended="1").status == 200
    assert count(quiet) == 0
    assert quiet.public("/api/annotation.json", "POST", "{}", X_Unattended="1").status == 200
    assert count(quiet) == 1  # a page's word on that does not count


def test_opening_the_page_is_activity_and_being_refused_is_none(quiet):
    assert quiet.internal("/api/x", Authorization="").status == 401
    assert quiet.public("/api/annotation.json", "POST", "{}", Origin="https://evil.example").status == 403
    lead = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert quiet.ask(8080, "/", **lead).status == 302
    assert quiet.public("/", **lead).status == 200
    assert count(quiet) == 1


def test_a_long_upload_is_activity_from_its_start(quiet):
    with socket.create_connection(("127.0.0.1", quiet.ports[8081]), 10) as sock:
        head = (
            f"POST /upload HTTP/1.1\r\nHost: h\r\nAuthorization: {SIGNED}\r\nContent-Length: 1000000\r\n\r\n"
        )
        sock.sendall(head.encode() + b"x" * 10)
        assert quiet.servers["pims"].started.wait(10)
        assert noted(quiet)


def test_a_busy_stack_does_not_fill_the_disk_with_marks_and_stays_busy(quiet):
    quiet.internal("/api/project.json")
    assert count(quiet) == 1
    file = quiet.folder / "activity"
    with file.open("a") as marks:
        marks.write(".\n" * 40_000)
    last = activity(quiet)
    assert (quiet.ask(8082, "/healthz").status, file.stat().st_size) == (200, 2)
    assert last <= activity(quiet) <= time.time()
    quiet.internal("/api/project.json")
    assert count(quiet) == 2  # what was begun anew is written on


def test_nginx_takes_the_longest_names_that_a_stack_may_have(tmp_path):
    from cytomine_spawner.blueprint import render
    from cytomine_spawner.blueprint.settings import StackSettings
    from cytomine_spawner.stack import model
    from cytomine_spawner.stack.model import StackSpec
    from tests.support.gateway import MODULES, NGINX

    owner = "28f7bc3a2d32a4a4ae0f28f7bc3a2d32a4a4ae0f@lifescience-ri.eu"
    stack = model.new_stack("n" * 63, StackSpec(owner=owner, server_name="a long server name"))
    settings = StackSettings(
        namespace="n" * 63,
        stack_url="https://{stack}." + ".".join(["stacks", *["d" * 60] * 3, "example.org"]),
        service_internal_url="http://127.0.0.1:9/services/cytomine",
    )
    (files,) = [
        o["data"]
        for o in render.render(stack, settings)
        if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-gateway")
    ]
    for name, text in files.items():
        text = re.sub(rf"server {stack.name}-[a-z-]+:", "server 127.0.0.1:", text)
        text = text.replace("/tmp/", f"{tmp_path}/").replace("/etc/gateway/", f"{tmp_path}/")
        (tmp_path / name).write_text(text.replace("/usr/lib/nginx/modules", MODULES))
    command = [str(NGINX), "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_a_neighbour_that_is_cut_off_in_an_upload_leaves_no_thread_that_computes():
    server = Server("pims")
    before = set(threading.enumerate())
    try:
        with socket.create_connection(server.server_address[:2], timeout=5) as client:
            client.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            assert server.started.wait(5)
            (serving,) = set(threading.enumerate()) - before
        serving.join(10)
        assert not serving.is_alive()
        assert server.seen[0]["length"] == 3
    finally:
        server.shutdown()
        server.server_close()
