"""The gateway's nginx configuration, run by a real nginx on loopback ports."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cytomine_spawner.stacks import model, render
from cytomine_spawner.stacks.model import StackSpec
from cytomine_spawner.stacks.settings import StackSettings

NGINX = os.environ.get("NGINX_PROGRAM") or shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
pytestmark = pytest.mark.skipif(
    not NGINX, reason="nginx is not installed (Debian's package nginx, or set NGINX_PROGRAM)"
)
PUBLIC = "https://cm-ada.stacks.example.org"
INTERNAL = "http://cm-ada-gateway.ns.svc"


class Backend(BaseHTTPRequestHandler):
    """Says who it is and what it got; speaks as core, pims or the web interface."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length, got = int(self.headers.get("content-length", 0)), 0
        while got < length:
            got += len(self.rfile.read1(min(65536, length - got)))
            self.server.started.set()
        answer = {
            "who": self.server.who,
            "path": self.path,
            "host": self.headers["host"],
            "proto": self.headers["x-forwarded-proto"],
            "upgrade": self.headers["upgrade"],
            "date": self.headers["date"],
            "length": got,
            "thumb": f"{PUBLIC}/api/thumb.png",
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815 - http.server chooses the name

    def log_message(self, *args):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def gateway(folder: Path, access: str):
    """Run the rendered configuration with its neighbours' and its own ports moved to loopback."""
    stack = model.new_stack("ns", StackSpec(owner="ada"))
    objs = render.render(stack, StackSettings(namespace="ns", public_access=access))
    files = next(
        o["data"] for o in objs if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "cm-ada-gateway"
    )
    servers, ports = {}, {8080: free_port(), 8081: free_port(), 6000: free_port()}
    text = files["nginx.conf"]
    for who, name in (
        ("core", "cm-ada-core:8080"),
        ("pims", "cm-ada-pims:5000"),
        ("web-ui", "cm-ada-web-ui:9090"),
    ):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        server.who, server.started = who, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers[who] = server
        assert name in text
        text = text.replace(name, f"127.0.0.1:{server.server_port}")
    for port, own in ports.items():
        assert f"listen {port};" in text
        text = text.replace(f"listen {port};", f"listen 127.0.0.1:{own};")
    text = text.replace("/tmp/", f"{folder}/").replace("/etc/gateway/", f"{folder}/")
    (folder / "nginx.conf").write_text(text)
    (folder / "routes.conf").write_text(files["routes.conf"])
    folder.chmod(0o755)
    command = [
        NGINX,
        "-e",
        "stderr",
        "-c",
        str(folder / "nginx.conf"),
        "-g",
        "daemon off; master_process off;",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", ports[6000]), 0.2).close()
                break
            except OSError:
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < deadline
                threading.Event().wait(0.05)
        yield ports, servers
    finally:
        process.terminate()
        process.wait(10)
        for server in servers.values():
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    with gateway(tmp_path_factory.mktemp("open"), "open") as running:
        yield running


def ask(port, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data) if data[:1] == b"{" else data.decode()


@pytest.mark.parametrize("port", [8080, 8081])
@pytest.mark.parametrize(
    ("path", "who", "seen"),
    [
        ("/api/user/current.json", "core", "/api/user/current.json"),
        ("/api/a?x=1&y=%2F", "core", "/api/a?x=1&y=%2F"),
        ("/server/ping", "core", "/server/ping"),
        ("/session/admin/open.json", "core", "/session/admin/open.json"),
        ("/ws/user-position/1", "core", "/ws/user-position/1"),
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
def test_each_path_goes_to_its_component(door, port, path, who, seen):
    ports, _ = door
    status, answer = ask(ports[port], path)
    assert status == 200
    assert (answer["who"], answer["path"]) == (who, seen)


@pytest.mark.parametrize("port", [8080, 8081])
@pytest.mark.parametrize(
    "path",
    [
        "/ims/image/upload-1/small.png/thumb",
        "/ims/image/a/export",
        "/ims",
        "/ims/",
        "/ims/upload/../image/x",
        "//ims/image/x",
        "/%69ms/image/x",
        "/x/../ims/image/x",
        "/ims/upload/x",
    ],
)
def test_pims_other_paths_are_closed(door, port, path):
    ports, _ = door
    status, answer = ask(ports[port], path)
    assert status == 404 or answer["who"] == "web-ui"
    assert "pims" not in str(answer)


def test_an_upload_streams_and_has_no_limit_of_size(door, tmp_path):
    ports, servers = door
    servers["pims"].started.clear()
    size = 64 * 1024 * 1024
    with socket.create_connection(("127.0.0.1", ports[8080]), 10) as sock:
        head = f"POST /upload HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        sock.sendall(head.encode() + b"x" * 100_000)
        # the image server reads while most of the slide is still to come
        assert servers["pims"].started.wait(10)
        block = b"x" * 65536
        left = size - 100_000
        while left:
            left -= sock.send(block[: min(left, len(block))])
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["length"] == size


def test_links_in_answers_work_where_the_answers_go(door):
    ports, _ = door
    assert ask(ports[8080], "/api/x")[1]["thumb"] == f"{PUBLIC}/api/thumb.png"
    assert ask(ports[8081], "/api/x")[1]["thumb"] == f"{INTERNAL}/api/thumb.png"


def test_the_signed_headers_arrive_untouched(door):
    ports, _ = door
    _, answer = ask(ports[8081], "/api/x", date="Tue, 24 Nov 2026 08:00:00 +0000", host="h")
    assert answer["date"] == "Tue, 24 Nov 2026 08:00:00 +0000"
    assert answer["host"] == "h"
    assert ask(ports[8080], "/api/x")[1]["proto"] == "https"


def test_websockets_are_passed_on(door):
    ports, _ = door
    assert ask(ports[8080], "/ws/x", upgrade="websocket", connection="upgrade")[1]["upgrade"] == "websocket"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_something_answers_core_in_the_place_of_cbir(door, method):
    ports, _ = door
    chunks = (part for part in [b"crop" * 5000, b"end"])
    connection = http.client.HTTPConnection("127.0.0.1", ports[6000], timeout=10)
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


def test_browsers_stay_outside_until_a_login_stands_before_the_stack(tmp_path):
    with gateway(tmp_path, "closed") as (ports, _):
        for path in ("/", "/api/imageinstance/1/thumb.png", "/upload", "/healthz"):
            status, answer = ask(ports[8080], path)
            assert status == 403
            assert "no login stands before it" in answer
        assert ask(ports[8081], "/api/x")[0] == 200
