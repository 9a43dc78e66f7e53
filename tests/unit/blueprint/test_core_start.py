"""What core's first container waits for: the script of the manifest, with a real database and a stand-in's ports."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack.model import StackSpec, new_stack
from dev.standin.faults import told
from dev.standin.local import PostGIS, answers, free_port
from tests.support.person import wait
from tests.support.prefork import ForkedStandIns

OTHER = "cytomine/repository@sha256:0000"


@dataclass
class Neighbours:
    """The ports that core waits for, and the database.

    Attributes:
        database: a real one.
        serves: whether repository answers.
        asked: how often repository was asked.
    """

    database: PostGIS
    serves: bool = True
    asked: int = 0
    ports: dict[str, int] = field(default_factory=dict)

    def script(self, image: str) -> tuple[list[str], dict[str, str]]:
        """The container's command and its variables, with the addresses of this machine."""
        settings = StackSettings(
            namespace="cytomine", service_url="http://hub/s", stack_url="http://{stack}.x"
        )
        settings.values.images["repository"] = image
        objects = render.render(new_stack("cytomine", StackSpec(owner="ada")), settings)
        core = next(
            o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-core")
        )
        container = core["spec"]["template"]["spec"]["initContainers"][0]
        env = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        [text] = container["args"]
        for name, port in (("repository", 8081), ("mongo", 27017), ("gateway", 6000)):
            assert f"cm-ada-{name} {port}" in text
            text = text.replace(f"cm-ada-{name} {port}", f"127.0.0.1 {self.ports[name]}")
        here = {"PGHOST": "127.0.0.1", "PGPORT": str(self.database.port), "PGDATABASE": "postgres"}
        return [*container["command"], text], {**env, **here, "PGPASSWORD": self.database.password}

    def start(self, image: str = "cytomine/repository:1") -> subprocess.Popen[bytes]:
        command, env = self.script(image)
        return subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.PIPE)

    def goes_on(self, image: str = "cytomine/repository:1") -> bool:
        """Whether core starts; if it waits, until repository has been asked a few times."""
        self.asked = 0
        with self.start(image) as process:
            while process.poll() is None and self.asked < 3:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            ended = process.poll()
            if ended is None:
                process.kill()
        return ended == 0


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[Neighbours]:
    database = PostGIS(tmp_path / "data")
    database.start()
    found = Neighbours(database)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/ping":
                found.asked += 1
            self.send_response(200 if found.serves else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as mongo:
        port = server.server_address[1]
        found.ports = {"repository": port, "gateway": port, "mongo": mongo.getsockname()[1]}
        try:
            yield found
        finally:
            server.shutdown()
            server.server_close()
            database.stop()


def test_core_waits_for_the_first_migration_and_starts_beside_repository_from_then_on(
    neighbours: Neighbours,
) -> None:
    neighbours.serves = False
    assert not neighbours.goes_on()
    neighbours.serves = True
    assert neighbours.goes_on()
    assert neighbours.asked == 1
    # The next start: nobody asks repository, whose port is closed to the world.
    neighbours.ports["repository"] = free_port()
    assert neighbours.goes_on()
    assert neighbours.asked == 0


def test_core_waits_when_another_image_of_repository_is_to_migrate(neighbours: Neighbours) -> None:
    assert neighbours.goes_on()
    neighbours.serves = False
    assert not neighbours.goes_on(OTHER)
    neighbours.serves = True
    assert neighbours.goes_on(OTHER)
    neighbours.ports["repository"] = free_port()
    assert neighbours.goes_on(OTHER)


def test_core_waits_for_a_database_that_does_not_answer(neighbours: Neighbours) -> None:
    assert neighbours.goes_on()
    neighbours.database.stop()
    neighbours.serves = False
    assert not neighbours.goes_on()


def test_core_waits_for_a_migration_that_takes_long_and_then_starts(
    neighbours: Neighbours, tmp_path: Path
) -> None:
    repository = ForkedStandIns(tmp_path, "http://issuer", "http://issuer/certs")
    repository.database = neighbours.database
    neighbours.ports["repository"], may = repository.ports["repository"], tmp_path / "may"
    with neighbours.start() as core:
        repository.launch("repository", STANDIN_FAULTS=told("migration", until=str(may)))
        try:
            # It has begun, and holds its port closed; core came first, and is still there.
            wait(lambda: "the migration waits" in repository.log("repository"), "the migration to begin")
            assert core.poll() is None
            may.touch()
            assert core.wait(60) == 0
            assert answers(f"http://127.0.0.1:{repository.ports['repository']}/ping")
        finally:
            core.kill()
            repository.stop("repository")
