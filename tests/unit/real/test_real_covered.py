"""The table that says which ring meets each request of Cytomine's own web interface and of the client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real import covered
from tests.support import recorder, requestlist

SEEN = [
    ("GET", 200, "http://s.stacks.localhost:8000/api/project/89.json?light=true"),
    ("GET", 200, "http://s.stacks.localhost:8000/api/project/104.json"),
    ("GET", 200, "https://s/api/sliceinstance/7/normalized-tile/zoom/2/tx/0/ty/1.jpg?zSlices=0"),
    ("POST", 200, "https://s/upload?idStorage=3"),
    ("GET", 200, "https://s/api/user/35/imageinstance/167/annotationposition.json"),
    ("GET", 404, "https://s/api/nothing/stands/in/for/5/this.json"),
    ("GET", 200, "https://s/assets/index-Ab3_x-9Z.js"),
    ("GET", 302, "https://hub/services/cytomine/petra--x/iam/realms/cytomine/protocol/openid-connect/auth?x"),
]


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, covered.Row]:
    """The table of a list that two runs have written, by the request."""
    path = tmp_path / "sub" / "list.txt"
    requestlist.keep(requestlist.kinds("web-ui", SEEN), path)
    requestlist.keep(requestlist.kinds("client", SEEN[:1]), path)
    return {
        f"{row.method} {row.path}": row for row in covered.table(covered.read(path.read_text().splitlines()))
    }


def test_requests_that_differ_by_numbers_and_names_alone_are_one_kind(rows: dict[str, covered.Row]) -> None:
    assert rows.keys() == {
        "GET /api/project/N.json",
        "GET /api/sliceinstance/N/normalized-tile/zoom/N/tx/N/ty/N.jpg",
        "POST /upload",
        "GET /api/user/N/imageinstance/N/annotationposition.json",
        "GET /api/nothing/stands/in/for/N/this.json",
        "GET /assets/index-HASH.js",
        "GET /services/cytomine/STACK/iam/realms/cytomine/protocol/openid-connect/auth",
    }
    assert rows["GET /api/project/N.json"].who == "client, web-ui"


def test_a_recorded_exchange_of_the_same_route_names_its_test(rows: dict[str, covered.Row]) -> None:
    contract = "unit: tests/unit/dev/test_standin_contract.py["
    assert rows["GET /api/project/N.json"].covered.startswith(contract)
    assert "projects" in rows["GET /api/project/N.json"].covered
    assert "binaries" in rows["GET /api/sliceinstance/N/normalized-tile/zoom/N/tx/N/ty/N.jpg"].covered
    assert "storages-uploads" in rows["POST /upload"].covered


def test_what_the_stand_in_answers_without_a_recording_is_told_apart(rows: dict[str, covered.Row]) -> None:
    said = rows["GET /api/user/N/imageinstance/N/annotationposition.json"].covered
    assert said.startswith("the stand-in's own answer, not recorded: core GET")


def test_the_stacks_own_login_is_met_by_its_own_tests(rows: dict[str, covered.Row]) -> None:
    login = rows["GET /services/cytomine/STACK/iam/realms/cytomine/protocol/openid-connect/auth"]
    assert "test_identity" in login.covered


def test_the_tests_that_are_named_exist() -> None:
    folder = Path(covered.__file__).parents[1]
    for _, tests in covered.OURS:
        for part in tests.split("; "):
            ring, _, name = part.partition(": ")
            assert list((folder / ring).rglob(name)), part


def test_what_no_ring_meets_stands_below_the_table_and_files_do_not(rows: dict[str, covered.Row]) -> None:
    text = covered.written(list(rows.values()))
    assert "Files of the web interface itself, left out here: 1." in text
    assert "Met by the real ring alone: 1 of 6." in text
    assert text.splitlines()[-1] == "- GET /api/nothing/stands/in/for/N/this.json (404)"
    assert "index-HASH" not in text


def test_a_path_alone_is_not_the_same_request(rows: dict[str, covered.Row]) -> None:
    assert not covered.covered("PATCH", "/api/project/N.json")
    assert rows["POST /upload"].covered != covered.covered("PUT", "/upload")


@pytest.mark.parametrize("line", ["GET /api/project/N.json", "web-ui GET ok /api", "nonsense"])
def test_a_line_of_something_else_is_shown(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"{line}\n")
    assert covered.main([str(path)]) == 1
    assert f"no line of a list of requests (who, method, status, path): {line}" in capsys.readouterr().out


def test_what_a_program_asks_by_requests_is_noted_once_a_kind(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(Path(recorder.__file__).read_text())
    seen = tmp_path / "seen.txt"
    code = (
        "import http.server, threading, requests\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "session = requests.Session()\n"
        "session.trust_env = False\n"
        "for n in (1, 2, 3):\n"
        "    session.get(f'http://127.0.0.1:{server.server_port}/none/{n}.json', params={'key': 'secret'})\n"
        "session.post(f'http://127.0.0.1:{server.server_port}/', json={})\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), recorder.FILE: str(seen)}
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=env, cwd=tmp_path, capture_output=True, timeout=60
    )
    lines = seen.read_text().splitlines()
    assert [line.split(" ")[:2] for line in lines] == [["GET", "404"], ["POST", "501"]]
    assert [requestlist.path_of(line.split(" ")[2]) for line in lines] == ["/none/N.json", "/"]


def test_a_list_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert covered.main([str(tmp_path / "none.txt")]) == 1
    assert "run python3 -m dev.real first" in capsys.readouterr().out
