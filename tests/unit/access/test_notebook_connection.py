"""connect() from a notebook: a real stand-in of Cytomine, the real service of the stacks, and a hub of a few lines."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cytomine
import pytest
import requests
from cytomine.models import ProjectCollection

from cytomine_spawner import notebook
from cytomine_spawner.access import credentials
from cytomine_spawner.access.credentials import Connection
from cytomine_spawner.access.hubapi import Hub
from cytomine_spawner.access.keys import Connections
from cytomine_spawner.notebook import connection
from cytomine_spawner.notebook import cytomine_env as command
from cytomine_spawner.stack.model import Desired, Members, Phase, Reason, Stack
from dev.standin.local import Local, free_port
from tests.support.importing import Stack as Stand
from tests.support.secretstore import FakeSecrets
from tests.support.stacks import PREFIX, FakeStore, Service, a_stack, serving
from tests.support.standin import Issuer

pytest_plugins = ["tests.support.importstack"]

VARIABLES = ("CYTOMINE_HOST", "CYTOMINE_PUBLIC_KEY", "CYTOMINE_PRIVATE_KEY")
RUN = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)


class World:
    """A Cytomine, the service that gives its keys, and a notebook's environment."""

    def __init__(self, local: Local, issuer: Issuer) -> None:
        self.local, self.issuer = local, issuer
        self.service: Service
        self.connections: Connections
        self.address = ""

    def make(self, store: FakeStore, hub: Hub) -> Connections:
        self.connections = Connections(
            store,
            FakeSecrets(),  # type: ignore[arg-type]
            self,
            hub,
            address=lambda _: self.address,
        )
        return self.connections

    def mint(self, stack: str, username: str, name: str, email: str, role: str) -> str:
        return self.issuer.token(username, role, name=name)

    def keys(self, user: str = "ada", *, renew: bool = False) -> Connection:
        stack = self.service.store.view.get("cm-ada")
        assert stack
        job = self.connections.provide(stack, user, renew=renew)
        return asyncio.run_coroutine_threadsafe(job, self.service.loop).result(20)

    def put(self, *stacks: Stack) -> None:
        self.service.put(*stacks)


@pytest.fixture(scope="module")
def running(stack: Stand) -> Iterator[World]:
    world = World(stack.local, stack.issuer)
    with serving(connections=world.make) as world.service:
        yield world


@pytest.fixture
def world(running: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A server of ada, without a stack beside it, and the stack cm-ada that serves."""
    running.service.clear()
    running.service.hub.people.update(ada=(), bob=(), eve=())
    running.address = running.local.url
    running.put(a_stack("ada", started_at=RUN))
    for name in (*VARIABLES, "CYTOMINE_STACK", "CYTOMINE_CONNECTION_DIR", "JUPYTERHUB_PUBLIC_HUB_URL"):
        # delenv alone would not take away what connect() sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CYTOMINE_SERVICE_URL", f"{running.service.url}{PREFIX}")
    log_in(running, monkeypatch, "ada")
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.05)
    return running


def log_in(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", world.service.hub.token(name))


def mount(monkeypatch: pytest.MonkeyPatch, folder: Path, keys: Connection) -> None:
    """The Secret in the notebook beside the stack."""
    files = {
        "host": keys.host,
        "public-key": keys.public_key,
        "private-key": keys.private_key,
        "user": keys.user,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("CYTOMINE_CONNECTION_DIR", str(folder))
    monkeypatch.setenv("CYTOMINE_STACK", "cm-ada")


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the notebook's own files."""
    monkeypatch.delenv("CYTOMINE_SERVICE_URL")


def within(seconds: float, call: Callable[[], Any]) -> Any:
    began = time.monotonic()
    try:
        return call()
    finally:
        assert time.monotonic() - began < seconds


# -- connected --------------------------------------------------------------------------------------------


def test_an_owner_is_connected_as_administrator_with_a_session_that_counts(world: World) -> None:
    client = notebook.connect()
    assert isinstance(client, cytomine.Cytomine)
    assert cytomine.Cytomine.get_instance() is client
    assert client.current_user.username == "ada"
    assert ProjectCollection().fetch() is not False


def test_the_environment_has_host_and_keys_for_other_tools(world: World) -> None:
    notebook.connect()
    keys = world.keys()
    assert [os.environ[name] for name in VARIABLES] == [keys.host, keys.public_key, keys.private_key]


def test_the_notebooks_files_are_enough_where_the_service_cannot_be_reached(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount(monkeypatch, tmp_path, world.keys())
    alone(monkeypatch)
    assert notebook.connect().current_user.username == "ada"


def test_files_that_are_older_than_the_keys_are_no_hindrance(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount(monkeypatch, tmp_path, world.keys())
    world.keys(renew=True)
    assert notebook.connect().current_user.username == "ada"


def test_files_that_change_are_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone(monkeypatch)
    mount(monkeypatch, tmp_path, world.keys())
    notebook.connect()
    mount(monkeypatch, tmp_path, world.keys(renew=True))
    assert notebook.connect().current_user.username == "ada"


def test_keys_that_cytomine_has_forgotten_are_made_anew_by_the_service(world: World) -> None:
    world.keys()
    head = {"Authorization": f"Bearer {world.issuer.token('ada', 'ADMIN')}"}
    assert requests.post(f"{world.local.url}/api/user/current/keys", headers=head, timeout=10).ok
    assert notebook.connect().current_user.username == "ada"


def test_a_member_connects_to_a_colleagues_stack_as_herself_and_is_no_administrator(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(a_stack("ada", started_at=RUN, members=Members(users=("bob",)), generation=2))
    log_in(world, monkeypatch, "bob")
    assert [(s.name, s.owner, s.role) for s in notebook.stacks()] == [("cm-ada", "ada", "user")]
    client = notebook.connect("cm-ada")
    assert client.current_user.username == "bob"
    assert connection._signed(
        connection.Keys(*(os.environ[name] for name in VARIABLES)), "/session/admin/info.json"
    ).json() == {
        "admin": False,
        "user": True,
        "guest": False,
        "adminByNow": False,
        "userByNow": True,
        "guestByNow": False,
    }


def test_an_administrators_session_that_ran_out_is_opened_again_without_a_failed_call(world: World) -> None:
    client = notebook.connect()
    assert client.close_admin_session()
    assert ProjectCollection().fetch() is not False


def test_one_waits_for_a_stack_that_starts_with_a_bar_that_names_the_slow_part(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put(
        a_stack("ada", phase=Phase.STARTING, started_at=RUN, ready="4/7", slowest="repository", generation=2)
    )
    result: list[Any] = []
    waiting = threading.Thread(target=lambda: result.append(notebook.connect()))
    waiting.start()
    asked = world.service.hub.asked
    end = time.monotonic() + 20
    while world.service.hub.asked == asked and waiting.is_alive() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)  # some looks at the stack that starts
    assert waiting.is_alive()
    world.put(a_stack("ada", started_at=RUN, generation=3))
    waiting.join(20)
    assert result[0].current_user.username == "ada"
    shown = capsys.readouterr().err
    assert "cm-ada: waiting for Repository" in shown
    assert "4/7" in shown


def test_without_progress_nothing_is_written(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.connect(progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_hibernated_stack_is_resumed_only_when_asked(world: World) -> None:
    asleep = {"phase": Phase.HIBERNATED, "desired_state": Desired.HIBERNATED, "started_at": RUN}
    world.put(a_stack("ada", **asleep, generation=2))
    with pytest.raises(notebook.StackHibernated, match=r"connect\(resume=True\) starts it") as caught:
        notebook.connect()
    assert caught.value.stack == "cm-ada"
    result: list[Any] = []
    waiting = threading.Thread(target=lambda: result.append(notebook.connect(resume=True, progress=False)))
    waiting.start()
    end = time.monotonic() + 20
    while world.service.store.view.get("cm-ada").spec.desired_state is not Desired.RUNNING:  # type: ignore[union-attr]
        assert time.monotonic() < end
        time.sleep(0.02)
    world.put(a_stack("ada", started_at=RUN, generation=9))
    waiting.join(20)
    assert result[0].current_user.username == "ada"


def test_a_member_cannot_wake_a_stack_and_is_told_who_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = {"phase": Phase.HIBERNATED, "desired_state": Desired.HIBERNATED}
    world.put(a_stack("ada", **asleep, members=Members(users=("bob",)), generation=2))
    log_in(world, monkeypatch, "bob")
    with pytest.raises(notebook.StackHibernated, match="Ask ada, its owner"):
        notebook.connect("cm-ada", resume=True)


# -- not connected ----------------------------------------------------------------------------------------


def test_a_failed_stack_says_why_at_once(world: World) -> None:
    world.put(
        a_stack(
            "ada",
            phase=Phase.FAILED,
            message="The image of core cannot be pulled.",
            reason=Reason.IMAGE_PULL,
            generation=2,
        )
    )
    with pytest.raises(notebook.StackFailed, match="The image of core cannot be pulled") as caught:
        within(5, notebook.connect)
    assert caught.value.reason == "ImagePullFailed"


def test_who_has_no_stack_is_told_how_to_get_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(world, monkeypatch, "eve")
    assert notebook.stacks() == []
    with pytest.raises(notebook.NoStack, match="Tick Cytomine in the options"):
        notebook.connect()
    with pytest.raises(notebook.NoStack, match="You have no stack called cm-ada"):
        notebook.connect("cm-ada")


def test_who_may_use_several_is_asked_which(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"members": Members(users=("eve",)), "generation": 2}
    world.put(a_stack("ada", started_at=RUN, **members), a_stack("bob", **members))
    log_in(world, monkeypatch, "eve")
    with pytest.raises(notebook.NoStack, match=r"connect\('cm-ada'\).*connect\('cm-bob'\)"):
        notebook.connect()
    world.put(a_stack("eve", started_at=RUN))
    assert notebook.connect().current_user.username == "eve"  # one's own goes first


def test_who_was_invited_to_the_only_stack_there_is_works_there_only_by_naming_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(a_stack("ada", started_at=RUN, members=Members(users=("eve",)), generation=2))
    log_in(world, monkeypatch, "eve")
    for call in (notebook.connect, notebook.environment, notebook.token):
        with pytest.raises(
            notebook.NoStack, match=r"no Cytomine of your own.*connect\('cm-ada'\) \(.* of ada\)"
        ):
            call()
    assert not any(os.environ.get(name) for name in VARIABLES)
    assert notebook.connect("cm-ada").current_user.username == "eve"


def test_a_download_shows_a_stack_no_token_but_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    members = {"members": Members(users=("eve",)), "generation": 2}
    world.put(a_stack("ada", started_at=RUN, **members), a_stack("eve", started_at=RUN))
    log_in(world, monkeypatch, "eve")
    asked = []

    def token(self: Any, name: str) -> Any:
        asked.append(name)
        raise notebook.NoStack("Enough.")

    monkeypatch.setattr(connection.Service, "token", token)
    for stack in ("cm-ada", None):
        notebook.connect(stack)
        with pytest.raises(notebook.NoStack, match="Enough"):
            notebook.download(1, tmp_path / "slide")
    assert asked == ["cm-ada", "cm-eve"]


def test_an_administrator_of_the_hub_who_is_no_member_gets_in_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", world.service.hub.token("root", admin=True))
    assert notebook.stacks() == []
    with pytest.raises(notebook.NoStack, match="Ask ada"):
        notebook.connect("cm-ada")


def test_a_stack_that_does_not_get_ready_in_time_is_no_failure_for_ever(world: World) -> None:
    world.put(a_stack("ada", phase=Phase.STARTING, message="core is starting.", generation=2))
    with pytest.raises(notebook.StackNotReady, match=r"core is starting\. connect\(\) again"):
        within(5, lambda: notebook.connect(timeout=0.3, progress=False))


def test_a_dead_host_is_told_within_seconds_instead_of_two_minutes(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dead = Connection(f"http://127.0.0.1:{free_port()}", "a", "b", "ada")
    mount(monkeypatch, tmp_path, dead)
    alone(monkeypatch)
    with pytest.raises(notebook.CytomineUnreachable, match="does not answer"):
        within(8, notebook.connect)


def test_a_host_that_takes_connections_and_never_answers_is_told_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    alone(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mount(
            monkeypatch,
            tmp_path,
            Connection(f"http://127.0.0.1:{silent.getsockname()[1]}", "a", "b", "ada"),
        )
        with pytest.raises(notebook.CytomineUnreachable, match="ReadTimeout"):
            within(8, notebook.connect)


@pytest.mark.parametrize("fault", [{"kind": "slow"}, {"kind": "status", "status": 503}])
def test_a_core_that_is_slow_is_waited_for_and_that_is_said(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fault: dict[str, Any],
) -> None:
    world.keys()
    monkeypatch.setattr(connection, "READ_SECONDS", 0.5)
    monkeypatch.setattr(credentials, "CORE_SECONDS", 0.5)
    # The service has proved the keys; the next two who ask are kept waiting, and then the first that opens the session.
    with (
        world.local.failing(
            "core", path="/api/user/current.json", skip=1, times=2, until=str(tmp_path / "no"), **fault
        ),
        world.local.failing("core", "slow", path="/session/admin/info.json", until=str(tmp_path / "no")),
    ):
        assert notebook.connect(timeout=60).current_user.username == "ada"
        assert world.local.faults("core") == []
    assert "does not answer (ReadTimeout)" in (shown := capsys.readouterr().err) or "answered 503" in shown


def test_a_core_that_stays_slow_is_said_when_the_time_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.keys()
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    with (
        world.local.failing(
            "core", "slow", path="/api/user/current.json", skip=1, times=0, until=str(tmp_path / "no")
        ),
        pytest.raises(notebook.StackNotReady, match=r"does not answer|is not ready after 0 s.*ReadTimeout"),
    ):
        notebook.connect(timeout=0.1, progress=False)


def test_refused_keys_are_told_as_such(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mount(monkeypatch, tmp_path, Connection(world.local.url, "no", "keys", "ada"))
    alone(monkeypatch)
    with pytest.raises(notebook.KeysRefused, match="connect"):
        notebook.connect()


def test_a_notebook_that_does_not_belong_to_a_hub_says_what_is_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch)
    with pytest.raises(notebook.ServiceUnreachable, match="CYTOMINE_SERVICE_URL is not set"):
        notebook.connect()


def test_the_hubs_public_address_leads_to_the_service(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_HUB_URL", f"{world.service.url}/hub/")
    assert [s.name for s in notebook.stacks()] == ["cm-ada"]


def test_a_token_without_the_services_scope_is_told_what_it_lacks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "JUPYTERHUB_API_TOKEN", world.service.hub.token("ada", scopes=("read:users!user=ada",))
    )
    with pytest.raises(notebook.ServiceUnreachable, match="access:services!service=cytomine"):
        notebook.connect()


def test_a_silent_service_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOMINE_SERVICE_URL", f"http://127.0.0.1:{free_port()}/services/cytomine/")
    for call in (notebook.connect, notebook.stacks, notebook.token):
        with pytest.raises(notebook.ServiceUnreachable, match="does not answer"):
            within(8, call)


# -- other tools ------------------------------------------------------------------------------------------


def test_a_token_opens_what_takes_no_signature(world: World) -> None:
    head = {"Authorization": f"Bearer {notebook.token()}"}
    answer = requests.get(f"{world.local.url}/api/user/current.json", headers=head, timeout=10)
    assert answer.json()["username"] == "ada"


def test_the_command_prints_lines_that_a_shell_takes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == 0
    lines = capsys.readouterr().out
    shell = subprocess.run(
        [
            "sh",
            "-c",
            f'{lines}\nprintf "%s %s %s" "$CYTOMINE_HOST" "$CYTOMINE_PUBLIC_KEY" "$CYTOMINE_PRIVATE_KEY"',
        ],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    keys = world.keys()
    assert shell.stdout == f"{keys.host} {keys.public_key} {keys.private_key}"


def test_the_commands_values_cannot_run_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nasty = "'; touch /tmp/x; $(id) `id`"
    monkeypatch.setattr(command, "environment", lambda *_, **__: {"CYTOMINE_HOST": nasty})
    assert command.main([]) == 0
    assert shlex.split(capsys.readouterr().out) == ["export", f"CYTOMINE_HOST={nasty}"]


def test_the_command_says_what_went_wrong_where_eval_does_not_see_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(world, monkeypatch, "eve")
    assert command.main(["cm-ada"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cytomine-env: You have no stack")


def test_private_keys_are_not_shown(world: World) -> None:
    keys = world.keys()
    found = connection.Keys(keys.host, keys.public_key, keys.private_key)
    assert keys.private_key not in repr(found)


BLOCKED = ("jupyterhub", "kubespawner", "kubernetes_asyncio", "kopf", "tornado", "pydantic", "traitlets")


def test_a_notebook_needs_neither_the_hubs_packages_nor_kubernetes() -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Block())
from cytomine_spawner.notebook import connect
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
