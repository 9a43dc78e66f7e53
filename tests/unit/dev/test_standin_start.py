"""The stand-in starts, fails to start and comes back as Cytomine's servers do."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from dev.standin.local import Local, PostGIS, answers, free_port
from tests.support.prefork import ForkedStandIns
from tests.support.standin import Issuer

# What core needs at its start, beside the database.
BEFORE_CORE = ("mongo", "repository")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def _stack(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Local]:
    stack = ForkedStandIns(tmp_path_factory.mktemp("stack"), issuer.issuer, issuer.jwks)
    stack.database.start()
    yield stack
    for role in list(stack.processes):
        stack.stop(role)
    stack.database.stop()


@pytest.fixture
def local(_stack: Local) -> Local:
    """A stack with its database, mongo and repository up, and nothing else started."""
    for role in list(_stack.processes):
        if role not in BEFORE_CORE:
            _stack.stop(role)
    for role in BEFORE_CORE:
        if role not in _stack.processes:
            _stack.launch(role)
    _stack.wait("repository")
    assert until(lambda: is_open(_stack.ports["mongo"]))
    return _stack


def until(done: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("schema", "the database's schema is missing"),
        ("mongo", "no mongo at"),
        ("database", "no database at"),
    ],
)
def test_core_lives_on_with_its_port_closed_when_its_start_failed(
    local: Local, missing: str, said: str
) -> None:
    # In template1 no repository ran; nobody listens at the port.
    instead = {
        "schema": {"POSTGIS_DB_NAME": "template1"},
        "mongo": {"MONGO_PORT": str(free_port())},
        "database": {"POSTGIS_PORT": str(free_port())},
    }
    core = local.launch("core", **instead[missing])
    assert until(lambda: f"Application run failed: {said}" in local.log("core"))
    assert core.poll() is None
    assert not is_open(local.ports["core"])


def test_the_repository_ends_with_a_reason_when_there_is_no_database(tmp_path: Path, issuer: Issuer) -> None:
    # Not forked: this is the program as a pod starts it.
    stack = Local(tmp_path, issuer.issuer, issuer.jwks)
    process = stack.launch("repository", STANDIN_CONNECT_TIMEOUT="2")
    assert process.wait(30) == 1
    assert "repository cannot start: no database at" in stack.log("repository")


@pytest.mark.parametrize("file", ["", "/nowhere/logging.yml"])
def test_the_image_server_ends_without_the_file_that_log_config_file_names(
    tmp_path: Path, issuer: Issuer, file: str
) -> None:
    stack = ForkedStandIns(tmp_path, issuer.issuer, issuer.jwks)
    assert stack.launch("pims", LOG_CONFIG_FILE=file).wait(30) == 1
    named = file or "/app/logging-prod.yml"
    assert f"FileNotFoundError: [Errno 2] No such file or directory: '{named}'" in stack.log("pims")


def test_the_migration_fails_where_the_superuser_is_named_postgres(tmp_path: Path, issuer: Issuer) -> None:
    stack = ForkedStandIns(tmp_path, issuer.issuer, issuer.jwks)
    stack.database = PostGIS(tmp_path, superuser="postgres")
    stack.database.start()
    try:
        assert stack.launch("repository").wait(30) == 1
        assert "migration failed: current user cannot be dropped" in stack.log("repository")
    finally:
        stack.database.stop()


def test_data_is_there_after_a_crash_of_the_database_and_new_services(local: Local, issuer: Issuer) -> None:
    def start() -> None:
        for role in ("mongo", "cbir", "pims", "gateway", "repository"):
            if role not in local.processes:
                local.launch(role)
        local.wait("repository")
        assert until(lambda: is_open(local.ports["mongo"]))
        local.launch("core")
        for role in ("pims", "cbir", "core", "gateway"):
            local.wait(role)

    def call(method: str, path: str, **data: str) -> requests.Response:
        head = {"Authorization": f"Bearer {issuer.token('alice', 'ADMIN')}"}
        url = f"{local.url}/api/{path}"
        return requests.request(method, url, headers=head, json=data or None, timeout=20)

    start()
    keys = call("GET", "user/current/keys").json()
    assert call("POST", "project.json", name="kept").status_code == 200
    local.database.stop(signal.SIGQUIT)
    assert until(lambda: call("GET", "project.json").status_code == 500)
    local.database.start()
    # The services find the database again by themselves.
    assert until(lambda: call("GET", "project.json").status_code == 200, 40)
    for role in list(local.processes):
        assert local.stop(role) == 0, role
    start()
    assert [p["name"] for p in call("GET", "project.json").json()["collection"]] == ["kept"]
    assert call("GET", "user/current/keys").json() == keys
    assert "migration" not in local.log("repository").split("listens", 1)[1]


def test_a_delayed_start_keeps_the_port_closed(local: Local) -> None:
    process = local.launch("cbir", STANDIN_START_DELAY="60")
    assert until(lambda: "waiting 60.0 s before the start" in local.log("cbir"))
    assert not answers(f"http://127.0.0.1:{local.ports['cbir']}/health")
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture
def core(local: Local) -> str:
    """A stack's core; the similarity search and the image server are not there. The address of its API."""
    local.launch("core")
    local.wait("core")
    return f"http://127.0.0.1:{local.ports['core']}/api"


def test_a_project_needs_the_similarity_search(core: str, issuer: Issuer) -> None:
    head = {"Authorization": f"Bearer {issuer.token('alice', 'ADMIN')}"}

    def named() -> list[str]:
        found = requests.get(f"{core}/project.json", headers=head, timeout=20).json()
        return [project["name"] for project in found["collection"]]

    before = named()
    answer = requests.post(f"{core}/project.json", json={"name": "lonely"}, headers=head, timeout=20)
    assert answer.status_code == 500
    assert named() == before


def test_a_token_that_is_not_signed_is_refused_everywhere(core: str, issuer: Issuer) -> None:
    import jwt

    good = issuer.token("alice", "ADMIN")
    assert requests.get(f"{core}/user/current.json?auth={good}", timeout=10).status_code == 200
    claims = jwt.decode(good, options={"verify_signature": False})
    forged = jwt.encode(claims, None, "none")
    other = jwt.encode({**claims, "iss": "http://elsewhere"}, issuer.key, "RS256", headers={"kid": "test"})
    old = jwt.encode({**claims, "exp": 1_700_000_000}, issuer.key, "RS256", headers={"kid": "test"})
    for token in (forged, other, old):
        assert requests.get(f"{core}/user/current.json?auth={token}", timeout=10).status_code == 401
        thumb = f"{core}/imageinstance/1/thumb.png?authorization=Bearer {token}"
        assert requests.get(thumb, timeout=10).status_code == 500
    known = requests.get(f"{core}/imageinstance/1/thumb.png?authorization=Bearer {good}", timeout=10)
    assert known.status_code == 404
