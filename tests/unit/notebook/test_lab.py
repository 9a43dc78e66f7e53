"""The notebook's server tells JupyterLab how the stack is, and is not kept alive or held up by that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from cytomine_spawner.notebook.connection_service import StackInfo
from cytomine_spawner.notebook.lab import look
from cytomine_spawner.notebook.lab.look import Look, Lookout
from tests.support import jupyter
from tests.support.jupyter import NAME, Stacks
from tests.support.person import wait

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def service() -> Iterator[Stacks]:
    service = Stacks()
    yield service
    service.close()


@pytest.fixture(scope="module")
def url(service: Stacks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with jupyter.server(tmp_path_factory.mktemp("jupyter"), service.environment()) as url:
        yield url


@pytest.fixture
def client(url: str, service: Stacks) -> Iterator[httpx.Client]:
    service.stacks = [jupyter.stack(url="https://cm-ann.stacks.example/")]
    service.goes_on.set()
    head = {"Authorization": f"token {jupyter.TOKEN}"}
    with httpx.Client(base_url=url, headers=head, timeout=20) as client:
        yield client


def ask(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("cytomine/api/stack")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_server_tells_the_stack_and_where_it_is(client: httpx.Client, service: Stacks) -> None:
    wait(lambda: ask(client)["phase"] == "Ready", "the stack to be ready")
    assert ask(client) == {
        "name": NAME,
        "phase": "Ready",
        "ready": "7/7",
        "message": "A sentence on Ready.",
        "url": "https://cm-ann.stacks.example/",
        "page": f"{service.url}stacks/{NAME}",
        "state": "ready",
        "changing": False,
    }


def test_nobody_is_told_without_being_logged_in_at_the_server(url: str) -> None:
    answer = httpx.get(f"{url}cytomine/api/stack")
    assert answer.status_code == 403
    assert NAME not in answer.text


def test_asking_is_no_activity_of_the_server_but_using_it_is(client: httpx.Client) -> None:
    def last() -> str:
        return str(client.get("api/status").json()["last_activity"])

    client.get("api/contents")
    before = last()
    ask(client)
    assert last() == before
    client.get("api/contents")
    assert last() > before


def test_asking_often_asks_the_service_seldom(client: httpx.Client, service: Stacks) -> None:
    ask(client)
    service.asked.clear()
    for _ in range(20):
        ask(client)
    # Twice if what was kept ran out in between.
    assert len(service.asked) <= 2


def test_a_service_that_does_not_answer_holds_up_nothing_else(client: httpx.Client, service: Stacks) -> None:
    service.goes_on.clear()
    service.asked.clear()
    with ThreadPoolExecutor() as pool:

        def asks() -> Any:
            waiting = pool.submit(ask, client)
            # What was kept is told at once.
            wait(lambda: service.asked or waiting.done(), "an answer or a question")
            return None if waiting.done() else waiting

        waiting = wait(asks, "the service to be asked")
        assert client.get("api/status", timeout=5).status_code == 200
        assert not waiting.done()
        service.goes_on.set()
        assert waiting.result(20)["name"] == NAME


def test_a_stack_that_is_gone_is_said_to_be_gone(client: httpx.Client, service: Stacks) -> None:
    service.stacks = []
    wait(lambda: ask(client)["name"] is None, "the stack to be gone")
    seen = ask(client)
    assert (seen["state"], seen["message"], seen["url"]) == ("no stack", "There is no such stack.", None)
    assert seen["page"] == service.url


# -- what is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "state", "changing"),
    [
        ({"phase": "Ready"}, "ready", False),
        ({"phase": None}, "waiting", True),
        ({"phase": "Starting", "ready": "4/7", "slowest": "core"}, "core is starting (4/7)", True),
        ({"phase": "Starting", "ready": None}, "starting", True),
        (
            {"phase": "Degraded", "ready": "6/7", "slowest": "core"},
            "partly working, waiting for core (6/7)",
            False,
        ),
        ({"phase": "Hibernating"}, "hibernating", True),
        ({"phase": "Hibernated"}, "hibernated", False),
        ({"phase": "Hibernated", "desiredState": "Running"}, "hibernated", True),
        ({"phase": "Ready", "desiredState": "Hibernated"}, "ready", True),
        ({"phase": "Failed"}, "failed", False),
        ({"phase": "Failed", "desiredState": "Hibernated"}, "failed", False),
        ({"phase": "Deleting"}, "being deleted", True),
    ],
)
def test_each_state_has_its_words(data: dict[str, Any], state: str, changing: bool) -> None:
    desired = {"desiredState": "Hibernated" if str(data["phase"]).startswith("Hibern") else "Running"}
    seen = look._of(StackInfo.from_json({**jupyter.stack(), **desired, **data}))
    assert (seen.state, seen.changing) == (state, changing)


@pytest.mark.parametrize("phase", ["Starting", "Hibernated", "Failed", "Deleting"])
def test_only_a_stack_that_serves_is_opened_itself(phase: str) -> None:
    data = jupyter.stack(phase, url="https://cm-ann.stacks.example/")
    assert look._of(StackInfo.from_json(data)).url is None


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CYTOMINE_SERVICE_URL", "CYTOMINE_STACK", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("JUPYTERHUB_PUBLIC_HUB_URL", "JUPYTERHUB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _hub(_bare: None, service: Stacks, monkeypatch: pytest.MonkeyPatch) -> None:
    service.goes_on.set()
    for name, value in service.environment().items():
        if name != "CYTOMINE_STACK":
            monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_hub")
@pytest.mark.parametrize(
    ("stacks", "name", "state"),
    [
        ([], None, "no stack"),
        ([jupyter.stack(name="cm-bob", owner="bob", role="user")], None, "no stack"),
        ([jupyter.stack(), jupyter.stack(name="cm-bob", owner="bob", role="user")], NAME, "ready"),
        ([jupyter.stack(), jupyter.stack(name="cm-ann-two")], None, "2 stacks"),
    ],
)
def test_without_a_stack_beside_the_notebook_only_an_only_one_of_ones_own_is_meant(
    service: Stacks, stacks: list[dict[str, Any]], name: str | None, state: str
) -> None:
    service.stacks = stacks
    seen = look.ask()
    assert (seen.name, seen.state) == (name, state)


@pytest.mark.usefixtures("_hub")
def test_a_service_that_is_down_is_no_missing_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOMINE_SERVICE_URL", f"http://127.0.0.1:{jupyter.free_port()}/")
    monkeypatch.setenv("CYTOMINE_STACK", NAME)
    seen = look.ask()
    assert (seen.name, seen.state) == (NAME, "state unknown")
    assert "does not answer" in seen.message


@pytest.mark.usefixtures("_bare")
def test_a_notebook_without_a_hub_says_so_and_links_nowhere() -> None:
    seen = look.ask()
    assert (seen.state, seen.page) == ("state unknown", None)
    assert "Start it from the hub" in seen.message


@pytest.mark.usefixtures("_bare")
def test_without_a_public_address_the_page_is_on_the_notebooks_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_BASE_URL", "/jupyter/")
    assert look.page("cm-a/../b") == "/jupyter/services/cytomine/stacks/cm-a%2F..%2Fb"


# -- asking -----------------------------------------------------------------------------------------------


async def test_all_who_ask_at_once_wait_for_one_answer() -> None:
    asked = []

    def question() -> Look:
        asked.append(1)
        return look._none("None.")

    lookout = Lookout(question)
    seen = await asyncio.gather(*(lookout.look() for _ in range(8)))
    assert len(asked) == 1
    assert {s.message for s in seen} == {"None."}


async def test_what_goes_wrong_is_told_in_the_log_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([KeyError("title"), look._none("Better.")])

    def question() -> Look:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    monkeypatch.setattr(look, "KEPT_SECONDS", 0.0)
    lookout = Lookout(question)
    assert (await lookout.look()).state == "state unknown"
    assert "KeyError" in caplog.text
    assert (await lookout.look()).message == "Better."


# -- files ------------------------------------------------------------------------------------------------


def test_the_extension_has_the_packages_name_and_version() -> None:
    package = json.loads(
        (ROOT / "cytomine_spawner/notebook/lab/labextension/package.json").read_text(encoding="utf-8")
    )
    ours = jupyter.project()["project"]
    assert (package["name"], package["version"]) == (ours["name"], ours["version"])


def test_all_files_of_the_extension_are_installed(tmp_path: Path) -> None:
    jupyter.put_files(tmp_path)
    source = ROOT / "cytomine_spawner/notebook/lab/labextension"
    there = tmp_path / "share/jupyter/labextensions/cytomine-spawner"
    files = {p.relative_to(source) for p in source.rglob("*") if p.is_file()}
    assert {p.relative_to(there) for p in there.rglob("*") if p.is_file()} == files
