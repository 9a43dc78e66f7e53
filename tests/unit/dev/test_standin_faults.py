"""What goes wrong on request at the stand-in, and that this project survives it in the way that it promises."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cytomine_spawner.datasets.client import Connection
from cytomine_spawner.datasets.errors import Interrupted
from dev.standin.faults import KINDS, STATES, told
from dev.standin.local import Local, answers
from tests.support.importing import Stack, make, whole
from tests.support.prefork import ForkedStandIns
from tests.unit.dev.test_standin_start import is_open, until

pytest_plugins = ["tests.support.importstack"]

README = Path(__file__).resolve().parents[3] / "dev" / "standin" / "README.md"
FEW = 12


@pytest.fixture
def local(stack: Stack) -> Iterator[Local]:
    yield stack.local
    for role in ("core", "pims", "cbir", "repository", "gateway"):
        assert stack.local.faults(role) == []


def health(local: Local) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{local.ports['cbir']}/health", timeout=20)


# -- the faults themselves --------------------------------------------------------------------------------


def test_each_kind_is_explained() -> None:
    stated = re.findall(r"^\| `([a-z]+)` \|", README.read_text(), re.MULTILINE)
    assert [name for name in stated if name in KINDS] == list(KINDS)
    assert set(KINDS) >= STATES


def test_a_fault_happens_as_often_as_asked_and_where_it_fits(local: Local) -> None:
    with local.failing("cbir", "status", path="^/health$", method="GET", times=2, skip=1, status=503):
        assert [health(local).status_code for _ in range(4)] == [200, 503, 503, 200]
    with local.failing("cbir", "status", path="^/elsewhere$", times=0):
        assert health(local).ok
    with local.failing("cbir", "status", times=0):
        assert [health(local).status_code for _ in range(3)] == [500] * 3
    assert health(local).ok


def test_a_worker_that_is_killed_answers_nothing_and_the_next_one_does(local: Local) -> None:
    with local.failing("cbir", "killed"):
        with pytest.raises(requests.ConnectionError):
            health(local)
        assert health(local).ok


def test_an_answer_may_be_lost_or_come_by_half(local: Local) -> None:
    with local.failing("cbir", "lost"), pytest.raises(requests.ConnectionError):
        health(local)
    with local.failing("cbir", "half", after=5):
        connection = http.client.HTTPConnection("127.0.0.1", local.ports["cbir"], timeout=20)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        assert len(caught.value.partial) == 5


def test_a_slow_answer_comes_when_it_may(local: Local, tmp_path: Path) -> None:
    may = tmp_path / "may"
    with local.failing("cbir", "slow", until=str(may)):
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"http://127.0.0.1:{local.ports['cbir']}/health", timeout=0.5)
        may.touch()
        assert health(local).ok


@pytest.mark.parametrize(
    "wrong", [{"kind": "worse"}, {"kind": "slow", "when": 1}, {"kind": "slow", "path": "("}]
)
def test_a_fault_that_there_is_none_of_is_refused(local: Local, wrong: dict[str, Any]) -> None:
    url = f"http://127.0.0.1:{local.ports['cbir']}/standin/faults"
    assert requests.post(url, json=wrong, timeout=20).status_code == 400
    assert set(requests.get(url, timeout=20).json()["kinds"]) == set(KINDS)


def test_without_the_variable_nothing_can_be_made_to_go_wrong(tmp_path: Path) -> None:
    plain = ForkedStandIns(tmp_path, "http://issuer", "http://issuer/certs")
    del plain.variables["STANDIN_FAULTS"]
    plain.launch("cbir")
    try:
        plain.wait("cbir")
        with pytest.raises(ValueError, match="Not Found"):
            plain.faults("cbir")
    finally:
        plain.stop("cbir")


@pytest.mark.parametrize("text", ['[{"kind": "worse"}]', '[{"sort": "slow"}]', "nothing"])
def test_a_role_with_a_fault_that_there_is_none_of_does_not_start(tmp_path: Path, text: str) -> None:
    plain = ForkedStandIns(tmp_path, "http://issuer", "http://issuer/certs")
    assert plain.launch("cbir", STANDIN_FAULTS=text).wait(30) == 2
    assert "a setting cannot be read" in plain.log("cbir")


# -- a slow migration -------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Local]:
    """A stack with its database up, and nothing in it."""
    made = ForkedStandIns(tmp_path, "http://issuer", "http://issuer/certs")
    made.database.start()
    yield made
    for role in list(made.processes):
        made.stop(role)
    made.database.stop()


def test_a_slow_migration_keeps_the_port_closed_until_it_may_go_on(fresh: Local, tmp_path: Path) -> None:
    may = tmp_path / "may"
    process = fresh.launch("repository", STANDIN_FAULTS=told("migration", until=str(may), role="repository"))
    assert until(lambda: "the migration waits before its next step" in fresh.log("repository"))
    assert process.poll() is None
    assert not is_open(fresh.ports["repository"])
    may.touch()
    fresh.wait("repository")
    assert answers(f"http://127.0.0.1:{fresh.ports['repository']}/ping")


# -- cbir down --------------------------------------------------------------------------------------------


def test_an_import_waits_for_the_similarity_search_and_says_so(
    stack: Stack, local: Local, tmp_path: Path
) -> None:
    root = make(tmp_path, "nocbir", count=FEW)
    with (
        local.failing("cbir", "killed", times=0),
        pytest.raises(Interrupted, match=r"^Cytomine failed at a call \(500\)\. Try again: it goes on"),
    ):
        stack.start(root, lambda _: None, (0.0,))
    assert stack.inside("nocbir")["projects"] == 0
    with (
        local.failing("cbir", "killed", path="/cbir/images", times=0),
        pytest.raises(Interrupted, match=r"^Cytomine failed at a call \(500\)\. Try again: it goes on"),
    ):
        stack.start(root, lambda _: None, (0.0,))
    assert stack.inside("nocbir")["annotations"] == []
    stack.run(root)
    whole(stack, "nocbir", FEW)


# -- the image server's worker is killed ------------------------------------------------------------------


def test_an_import_survives_that_the_image_server_is_killed_at_any_of_its_calls(
    stack: Stack, local: Local, tmp_path: Path
) -> None:
    root = make(tmp_path, "pimskilled", count=FEW)
    with (
        local.failing("pims", "killed", path="upload$"),
        local.failing("pims", "lost", path="upload$", skip=1),
        local.failing("pims", "killed", path="annotation$", skip=3),
        local.failing("pims", "half", path="annotation$", after=10),
    ):
        stack.start(root, lambda _: None, (0.0, 0.0, 0.0))
    whole(stack, "pimskilled", FEW)


# -- a slow core ------------------------------------------------------------------------------------------


def test_an_import_asks_a_slow_core_again_and_stores_nothing_twice(
    stack: Stack, local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, never = make(tmp_path, "slowcore", count=FEW), str(tmp_path / "never")
    monkeypatch.setitem(Connection.call.__kwdefaults__ or {}, "seconds", 1.0)
    with (
        local.failing("core", "slow", path="/api/user/current.json", until=never),
        local.failing("core", "slow", path="/api/project.json", method="GET", until=never),
        local.failing("core", "lost", path="/api/project.json", method="POST"),
        local.failing("core", "lost", path="/api/annotation.json", method="POST"),
        local.failing("core", "lost", path="/api/attachedfile.json", method="POST"),
        local.failing("core", "deadlock", path="/api/annotation.json", method="POST", skip=1),
    ):
        stack.start(root, lambda _: None, (0.0, 0.0, 0.0))
    whole(stack, "slowcore", FEW)


def test_a_core_that_never_answers_is_said_and_the_next_run_goes_on(
    stack: Stack, local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, may = make(tmp_path, "nevercore", count=FEW), tmp_path / "may"
    with monkeypatch.context() as patched, local.failing("core", "slow", times=0, until=str(may)):
        patched.setitem(Connection.call.__kwdefaults__ or {}, "seconds", 0.5)
        with pytest.raises(Interrupted, match=r"does not answer any more \(.+\)\. Try again when it runs"):
            stack.start(root, lambda _: None, (0.0,))
        may.touch()
    stack.run(root)
    whole(stack, "nevercore", FEW)
