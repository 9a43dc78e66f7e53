"""A stack's gateway on loopback: the rendered configuration in a real nginx, with recording neighbours.

``nginx`` comes from ``NGINX_PROGRAM`` and ``NGINX_MODULES`` (a folder) or the machine's own package.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import StackSpec
from dev.standin.local import free_port

NGINX = os.environ.get("NGINX_PROGRAM") or shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
MODULES = os.environ.get("NGINX_MODULES", "/usr/lib/nginx/modules")
MISSING = not NGINX or not (Path(MODULES) / "ngx_http_js_module.so").exists()
REASON = "nginx or its JavaScript module is not installed (Debian: nginx, libnginx-mod-http-js)"
URL = "https://cm-ada.stacks.example.org"
INTERNAL = "http://cm-ada-gateway.ns.svc"
NEIGHBOURS = {"core": "cm-ada-core:8080", "pims": "cm-ada-pims:5000", "web-ui": "cm-ada-web-ui:9090"}
# A token that the identity knows, and one that it does not.
GOOD, BAD = "aaaa.good.token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ."
SIGNED = "CYTOMINE 8f5c:c2lnbmVk"
# A cookie that the login knows: it stands for a session with the token GOOD.
SESSION = "cytomine-session=known"


class Neighbour(BaseHTTPRequestHandler):
    """Tells what it got; takes WebSockets and sends back what comes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        server: Any = self.server
        if self.headers["upgrade"] == "websocket":
            self.echo()
            return
        got = self._read()
        seen = {
            "who": server.who,
            "peer": self.client_address[1],
            "method": self.command,
            "path": self.path,
            "length": got,
            "headers": {k.lower(): v for k, v in self.headers.items()},
            "names": [k.lower() for k in self.headers.keys()],  # noqa: SIM118 - one may come twice
        }
        server.seen.append(seen)
        reply = server.reply(seen)
        if reply is None:  # cut off without an answer
            self.close_connection = True
            return
        status, kind, data, more = reply
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if ("Transfer-Encoding", "chunked") in more:
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        else:
            self.send_header("Content-Length", str(len(data)))
        for name, value in more:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815 - http.server's names

    def _read(self) -> int:
        server: Any = self.server
        got = 0
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                got += len(self.rfile.read(size))
                self.rfile.readline()
                server.started.set()
            self.rfile.readline()
        length = int(self.headers.get("content-length", 0))
        while got < length:
            data = self.rfile.read1(min(65536, length - got))
            if (
                not data
            ):  # cut off: without an end here the thread would keep a processor busy for the rest of the run
                self.close_connection = True
                break
            got += len(data)
            server.started.set()
        return got

    def echo(self) -> None:
        server: Any = self.server
        server.seen.append({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}})
        self.wfile.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        while data := self.rfile.read1(65536):
            self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A neighbour of the gateway. Set ``reply`` to have it answer something else than what it got."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, who: str) -> None:
        super().__init__(("127.0.0.1", 0), Neighbour)
        self.who = who
        self.seen: list[dict[str, Any]] = []
        self.started = threading.Event()
        self.reply: Callable[[dict[str, Any]], Any] = tell
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


def tell(seen: dict[str, Any]) -> tuple[int, str, bytes, list[tuple[str, str]]]:
    """The usual reply: what was seen."""
    return 200, "application/json", json.dumps(seen).encode(), []


def say(value: Any, status: int = 200, *more: tuple[str, str]) -> Callable[[dict[str, Any]], Any]:
    """A reply with this JSON (or text, or bytes)."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda _: (status, "application/json", data, list(more))


def _verify(seen: dict[str, Any]) -> tuple[int, str, bytes, list[tuple[str, str]]]:
    good = (
        seen["path"].endswith("/cm-ada/verify") and seen["headers"].get("authorization") == f"Bearer {GOOD}"
    )
    return (204 if good else 401), "text/plain", b"", []


def _sessions(seen: dict[str, Any]) -> tuple[int, str, bytes, list[tuple[str, str]]]:
    if seen["path"].startswith("/oauth2/start?"):
        return 302, "text/plain", b"", [("Location", "https://hub.example.org/")]
    known = seen["path"] == "/oauth2/auth" and SESSION in seen["headers"].get("cookie", "")
    return (202, "text/plain", b"", [TOKEN]) if known else (401, "text/plain", b"", [])


TOKEN = ("X-Auth-Request-Access-Token", GOOD)
# The neighbours that do not repeat what they got.
REPLIES = {"identity": _verify, "login": _sessions}


@dataclass
class Door:
    """A running gateway.

    Attributes:
        ports: the container's ports and where they are on loopback.
        servers: the neighbours; ``identity`` checks tokens, ``login`` sessions.
        folder: nginx's files, among them ``activity``.
        pid: of nginx.
    """

    ports: dict[int, int]
    servers: dict[str, Server]
    folder: Path
    pid: int = 0
    objects: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, port: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Ask the gateway; underscores in names of headers are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=10)
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in names, skip_accept_encoding=True)
        data = body.encode() if isinstance(body, str) else body
        if data is not None:
            connection.putheader("Content-Length", str(len(data)))
        for name, value in names.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """The answer to a browser with a session as it comes, headers of the same name apart."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[8080], timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Cookie": SESSION})
            yield connection.getresponse()

    def public(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Ask as the stack's own page does in a browser with a session."""
        cookies = "; ".join(filter(None, (SESSION, headers.pop("Cookie", ""))))
        origin = {} if method in ("GET", "HEAD") else {"Origin": URL}
        return self.ask(8080, path, method, body, **{"Cookie": cookies, **origin, **headers})

    def internal(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Ask as a notebook's client does, signed."""
        return self.ask(8081, path, method, body, **{"Authorization": SIGNED, **headers})

    def forget(self) -> None:
        """Forget what was seen, and reply as usual again."""
        for server in self.servers.values():
            server.seen.clear()
            server.started.clear()
            server.reply = REPLIES.get(server.who, tell)

    def reached(self) -> list[tuple[str, str]]:
        """Which component saw which path."""
        return [(s.who, e["path"]) for s in self.servers.values() for e in s.seen if s.who not in REPLIES]


@dataclass
class Answer:
    """What the gateway answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode()


@contextlib.contextmanager
def running(
    folder: Path,
    access: str = "login",
    url: str = URL,
    others: dict[str, int] | None = None,
    public: int = 0,
    login: int = 0,
    components: Sequence[str] = (),
    changes: Mapping[str, str] | None = None,
    script: bool = False,
    **settings: Any,
) -> Iterator[Door]:
    """Run the rendered configuration with its neighbours' and its own ports moved to loopback.

    Args:
        folder: for nginx's files.
        access: how browsers reach the stack.
        url: the stack's own, for browsers.
        others: ports of real neighbours; with them the internal address is the one on loopback, too.
        public: the port for browsers; any if 0.
        login: the port of a real login.
        components: what the stack has beside the usual.
        changes: of the configuration's text, such as a shorter time.
        script: whether it is started by the pod's own script, with a master process and a worker.
        settings: of the stacks.
    """
    servers = {who: Server(who) for who in (*NEIGHBOURS, *REPLIES)}
    service = f"http://127.0.0.1:{servers['identity'].server_port}/services/cytomine"
    given = {"service_internal_url": service, "stack_url": url.replace("cm-ada", "{stack}"), **settings}
    stack = model.new_stack("ns", StackSpec(owner="ada", components=components))
    objects = render.render(stack, StackSettings(namespace="ns", public_access=access, **given))
    files = next(
        o["data"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "cm-ada-gateway"
    )
    ports = {port: free_port() for port in (8080, 8081, 8082, 6000)}
    ports[8080] = public or ports[8080]
    at = {who: server.server_port for who, server in servers.items()} | (others or {})
    for name, text in files.items():
        text = text.replace("server 127.0.0.1:4180;", f"server 127.0.0.1:{login or at['login']};")
        for who, address in NEIGHBOURS.items():
            text = text.replace(f"server {address}", f"server 127.0.0.1:{at[who]}")
        if others:
            text = text.replace(INTERNAL, f"http://127.0.0.1:{ports[8081]}")
        for port, own in ports.items():
            text = text.replace(f"listen {port};", f"listen 127.0.0.1:{own};")
        for before, after in (changes or {}).items():
            text = text.replace(before, after)
        text = text.replace("/tmp/", f"{folder}/").replace("/etc/gateway/", f"{folder}/")
        (folder / name).write_text(text.replace("/usr/lib/nginx/modules", MODULES))
    folder.chmod(0o755)
    (folder / "lasting").mkdir()
    configuration = str(folder / "nginx.conf")
    command = [str(NGINX), "-e", "stderr", "-c", configuration, "-g", "daemon off; master_process off;"]
    if script:
        command = ["/bin/sh", "-c", _script(objects, folder)]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out, start_new_session=True)
    door = Door(ports, servers, folder, process.pid, objects)
    door.forget()
    try:
        wait_for(ports[6000], process, log)
        if script:
            _wait_for_worker(door, log)
        yield door
    finally:
        process.terminate()
        process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what the script left: its loop ends with the container
        # Each looks twenty times a second whether it is to end.
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(Server.shutdown, servers.values()))
        for server in servers.values():
            server.server_close()


def _script(objects: list[dict[str, Any]], folder: Path) -> str:
    """The script by which the pod starts nginx, with its files moved."""
    deployment = next(
        o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "cm-ada-gateway"
    )
    (text,) = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    text = text.replace("/tmp/log", "/tmp/printed")  # the log is what comes out of it
    text = text.replace("/tmp/", f"{folder}/").replace("/etc/gateway/", f"{folder}/")
    # In the pod nobody is root; here the worker would become another user.
    user = "daemon off; user root root;" if os.geteuid() == 0 else "daemon off;"
    return f"nginx() {{ '{NGINX}' \"$@\"; }}\n" + text.replace("daemon off;", user).replace(
        "exec nginx", f"exec '{NGINX}'"
    )


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a program listens."""
    deadline = time.monotonic() + 10
    while not _listens(port):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        threading.Event().wait(0.01)


def _wait_for_worker(door: Door, log: Path) -> None:
    """Wait until nginx serves: its look at its configuration listens for a moment, too."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if door.ask(8082, "/healthz").status == 200 and (door.folder / "nginx.pid").read_text():
                return
        assert time.monotonic() < deadline, log.read_text()
        threading.Event().wait(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def websocket(port: int, path: str, **headers: str) -> tuple[int, socket.socket]:
    """Ask for a WebSocket; the status and the connection, which carries bytes after 101."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    headers = {"Host": "h", **headers}
    lines = [f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head and (data := sock.recv(1)):
        head += data
    return int(head.split(b" ")[1]), sock


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
