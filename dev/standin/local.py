"""Stand-in for Cytomine: a whole stack of it on this machine, as processes on loopback, for tests and a laptop.

Runs on the standard library alone; the services run under the Python that is given, with requirements.txt installed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from dev import cache, host
from dev.console import Console, Problem

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path("/usr/lib/postgresql/15/bin")
# What shows that a package is there: the package.
PACKAGES = {
    str(BINARIES / "initdb"): "postgresql-15",
    "/usr/share/postgresql/15/extension/postgis.control": "postgresql-15-postgis-3",
}
# In a database cluster's folder, which is its user's alone.
KEPT = "standin-password"
PROBES = {
    "core": "/server/ping",
    "repository": "/ping",
    "pims": "/ims/ping",
    "cbir": "/health",
    "web-ui": "/",
}


def ensure_postgis(console: Console) -> None:
    """Install PostgreSQL 15 with PostGIS from Debian's packages where they are missing (as root)."""
    if host.missing(PACKAGES) and os.geteuid() == 0:
        # Debian's package would start a server of its own.
        Path("/etc/postgresql-common").mkdir(exist_ok=True)
        settings = Path("/etc/postgresql-common/createcluster.conf")
        if not settings.exists():
            settings.write_text("create_main_cluster = false\n")
    host.need(console, PACKAGES)


def need_postgis() -> None:
    """Say what is missing, and install nothing."""
    if missing := host.missing(PACKAGES):
        raise Problem(
            f"The package {' and the package '.join(missing)} is missing",
            "Run ./test, which installs it, or install it by hand",
        )


def free_port() -> int:
    """A port that is free on loopback now, and that no process gives away again as long as this one lives.

    It is below those that the kernel gives to outgoing connections: one of them could be taken while its
    server is down, and the server could not come back. Until a server listens, only the name of another socket
    shows that the port is somebody's: tests run side by side.
    """
    while True:
        port, name = 20_000 + secrets.randbelow(12_000), socket.socket(socket.AF_UNIX)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            name.bind(f"\0cytomine-standin-port-{port}")
            name.detach()  # open until this process ends
            return port
        name.close()


def _account() -> dict[str, int]:
    """PostgreSQL refuses to run as root; its package brings a user."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _empty(superuser: str) -> Path:
    """An empty database cluster to copy, which takes a tenth of making one; its superuser's password is in it."""

    def make(folder: Path) -> None:
        # Not in the cache, whose way PostgreSQL's own user may not go.
        with tempfile.TemporaryDirectory(prefix="postgres-") as place:
            account, made, password = _account(), Path(place) / "pgdata", Path(place) / "password"
            made.mkdir(mode=0o700)
            password.touch(mode=0o600)
            password.write_text(secrets.token_hex(16))
            if account:
                for path in (made, password):
                    os.chown(path, account["user"], account["group"])
                _open_parents(made)
            command = [BINARIES / "initdb", "--no-sync", "-D", made, "-U", superuser, "-A", "scram-sha-256"]
            command += ["-E", "UTF8", "--locale=C.UTF-8", f"--pwfile={password}"]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=120, **account
            )
            if done.returncode:
                raise Problem(f"initdb failed: {done.stderr.strip()[-300:]}", "See whether the disk is full")
            password.rename(made / KEPT)
            _copy(made, folder / "pgdata")

    version = subprocess.run([BINARIES / "postgres", "--version"], capture_output=True, text=True, check=True)
    # Another user's PostgreSQL takes no folder of this one's.
    key = cache.digest([Path(__file__)], version.stdout, superuser, str(_account() or os.geteuid()))
    return cache.built("postgres", key, make, keep=6) / "pgdata"


def _copy(source: Path, target: Path) -> None:
    command = ["cp", "--archive", "--reflink=auto", source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Problem(
            f"{target} cannot be written: {done.stderr.strip()[-300:]}", "See whether the disk is full"
        )


class PostGIS:
    """A private database cluster in a folder; the superuser is ``docker``, as in the stacks."""

    def __init__(self, folder: Path, superuser: str = "docker") -> None:
        self.folder, self.superuser = folder / "pgdata", superuser
        self.port, self.password = free_port(), ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "postgres.log"

    def start(self) -> None:
        """Make the cluster if it is not there, start it, and wait until it takes connections."""
        need_postgis()
        account = _account()
        if not self.folder.exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            _copy(_empty(self.superuser), self.folder)
            if account:
                # A test's temporary folders are closed to other users.
                _open_parents(self.folder)
        self.password = (self.folder / KEPT).read_text()
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        options += ["-c", "fsync=off", "-c", "shared_buffers=32MB"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [BINARIES / "postgres", "-D", self.folder, *options], stdout=log, stderr=log, **account
            )
        _wait(lambda: self._ready(), 60, f"The database does not start, see {self._log}")

    def _ready(self) -> bool:
        if self._process and self._process.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Problem(f"The database ended at its start: {''.join(said)}", f"Look into {self._log}")
        command = [BINARIES / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(command, check=False, timeout=10).returncode == 0

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop it: SIGINT closes connections and ends cleanly, SIGQUIT is as good as a crash."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def environment(self) -> dict[str, str]:
        """The variables by which the services find it."""
        return {
            "POSTGIS_HOST": "127.0.0.1",
            "POSTGIS_PORT": str(self.port),
            "POSTGIS_DB_NAME": "postgres",
            "POSTGIS_USER": self.superuser,
            "POSTGIS_PASS": self.password,
        }


def _open_parents(folder: Path) -> None:
    for parent in folder.parents:
        if parent == Path("/tmp") or parent.stat().st_uid != os.geteuid():  # noqa: S108 - pytest's folders are below
            return
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o011)


def _wait(ready, seconds: float, failure: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise Problem(failure, "Look into that log")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether something answers 200 there."""
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=2)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", place.path)
        return connection.getresponse().status == 200
    return False


class Local:
    """All services of a stack on loopback; ``url`` is the gateway's, ``pims`` where core finds the image server.

    Args:
        folder: for its data and logs.
        issuer: of the tokens, as they name it; the page logs in there.
        jwks: where the issuer's keys are.
        python: has requirements.txt installed.
        modules: ``node_modules`` of the page, see ``webassets``; none leaves the page without its libraries.
        url: the gateway's address for browsers, with ``{port}`` in it.
    """

    def __init__(
        self,
        folder: Path,
        issuer: str,
        jwks: str,
        python: str = sys.executable,
        modules: Path | None = None,
        url: str = "",
    ) -> None:
        self.folder, self.python, self.issuer = folder, python, issuer
        self.database = PostGIS(folder)
        self.ports = {role: free_port() for role in (*PROBES, "mongo", "gateway")}
        # A browser may know the gateway by another name, which is written {port} here.
        self.url = url.format(port=self.ports["gateway"]) or f"http://127.0.0.1:{self.ports['gateway']}"
        self.image_keys = (secrets.token_hex(16), secrets.token_hex(16))
        at = {role: f"http://127.0.0.1:{port}" for role, port in self.ports.items()}
        self.variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "STANDIN_LISTEN": "127.0.0.1",
            "MONGO_HOST": "127.0.0.1",
            "MONGO_PORT": str(self.ports["mongo"]),
            "SERVER_URL": self.url,
            "CBIR_URL": at["cbir"],
            "REPOSITORY_URL": at["repository"],
            "INTERNAL_URL_CORE": at["core"],
            "WEBUI_URL": at["web-ui"],
            "LOG_CONFIG_FILE": str(ROOT / "dev/standin/logging.yml"),
            # None, and whoever is on this machine may add some.
            "STANDIN_FAULTS": "[]",
            "ROOT": str(folder / "images"),
            "WRITING_PATH": str(folder / "writing"),
            "IMAGE_SERVER_PUBLIC_KEY": self.image_keys[0],
            "IMAGE_SERVER_PRIVATE_KEY": self.image_keys[1],
            "SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_ISSUER_URI": issuer,
            "SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_JWK_SET_URI": jwks,
        }
        if "PYTHONPYCACHEPREFIX" in os.environ:
            # Else each stand-in keeps its bytecode in the checkout.
            self.variables["PYTHONPYCACHEPREFIX"] = os.environ["PYTHONPYCACHEPREFIX"]
        if modules:
            self.variables["STANDIN_NODE_MODULES"] = str(modules)
        self.pims = at["pims"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, Path] = {}

    def launch(self, *roles: str, **extra: str) -> subprocess.Popen[bytes]:
        """Start one service, or some in one process that is known by the first; its log is in the folder."""
        variables = {**self.variables, **self.database.environment()}
        for role in roles:
            variables[f"STANDIN_PORT_{role.upper().replace('-', '_')}"] = str(self.ports[role])
            self._logs[role] = self.folder / f"{roles[0]}.log"
        # The same name means the address of the images for the browser in web-ui.
        variables["PIMS_URL"] = f"{self.url}/ims" if "web-ui" in roles else self.pims
        if "web-ui" in roles:
            variables |= {"CORE_URL": f"{self.url}/api", "IAM_URL": self.issuer}
        process = self.start(roles, {**variables, **extra}, self._logs[roles[0]])
        self.processes[roles[0]] = process
        return process

    def start(
        self, roles: tuple[str, ...], variables: dict[str, str], log_file: Path
    ) -> subprocess.Popen[bytes]:
        """Start the program with an environment; what it says is added to a file."""
        with log_file.open("ab") as log:
            return subprocess.Popen(
                [self.python, "-m", "dev.standin", *roles],
                env=variables,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def wait(self, role: str, seconds: float = 60) -> None:
        """Wait until its probe answers."""
        url = f"http://127.0.0.1:{self.ports[role]}{PROBES.get(role, '/server/ping')}"
        log = self._logs[role]
        _wait(lambda: answers(url), seconds, f"{role} does not start, see {log}: {_tail(log)}")

    def log(self, role: str) -> str:
        """What the service has said."""
        return self._logs[role].read_text()

    def stop(self, role: str) -> int:
        """End one service as Kubernetes does; its exit status."""
        process = self.processes.pop(role)
        process.terminate()
        return process.wait(20)

    @contextlib.contextmanager
    def failing(self, role: str, kind: str, **more: object) -> Iterator[None]:
        """Have something go wrong at a service while the block lasts; see :mod:`.faults`."""
        self._ask(role, "POST", json.dumps({"kind": kind, **more}))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._ask(role, "DELETE")

    def faults(self, role: str) -> list[str]:
        """The kinds of what still is to go wrong at a service."""
        return [fault["kind"] for fault in self._ask(role, "GET")["faults"]]

    def _ask(self, role: str, method: str, body: str | None = None) -> dict:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[role], timeout=20)
        with contextlib.closing(connection):
            connection.request(method, "/standin/faults", body)
            answer = connection.getresponse()
            said = answer.read().decode()
            if answer.status != 200:
                raise ValueError(said)
            return json.loads(said)

    @contextlib.contextmanager
    def running(self) -> Iterator[Local]:
        """The whole stack, in upstream's order."""
        try:
            self.database.start()
            # Most of a start is imports. Core is alone, as it does most, and fails and comes back alone.
            self.launch("repository", "mongo", "cbir", "web-ui")
            self.launch("pims", "gateway")
            self.wait("repository")
            self.launch("core")
            for role in ("pims", "cbir", "web-ui", "core", "gateway"):
                self.wait(role)
            yield self
        finally:
            # All at once, then one after the other: each takes its time to end.
            for process in self.processes.values():
                process.terminate()
            for role in list(self.processes):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.stop(role)
            self.database.stop()
            shutil.rmtree(self.database.folder, ignore_errors=True)


def _tail(path: Path) -> str:
    return path.read_text()[-300:].strip() if path.exists() else ""
