"""What repository's first container does before a migration: the script of the manifest, with a real database."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack.model import StackSpec, new_stack
from dev.standin.faults import told
from dev.standin.local import Local, answers
from dev.standin.schema import WAITS_FOR_LOCK
from tests.support.person import wait
from tests.support.prefork import ForkedStandIns


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Local]:
    """A stack with its database up, and nothing in it."""
    made = ForkedStandIns(tmp_path, "http://issuer", "http://issuer/certs")
    made.database.start()
    yield made
    for role in list(made.processes):
        made.stop(role)
    made.database.stop()


def before_repository(stack: Local) -> None:
    """Run the script of repository's first container to its end."""
    settings = StackSettings(namespace="cytomine", service_url="http://hub/s", stack_url="http://{stack}.x")
    objects = render.render(new_stack("cytomine", StackSpec(owner="ada")), settings)
    pod = next(
        o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-repository")
    )["spec"]["template"]["spec"]
    container = pod["initContainers"][0]
    env = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    database = stack.database
    here = {"PGHOST": "127.0.0.1", "PGPORT": str(database.port), "PGDATABASE": "postgres"}
    # As Kubernetes gives it to the container.
    command = [*container["command"], *(text.replace("$$", "$") for text in container["args"])]
    env = {**os.environ, **env, **here, "PGPASSWORD": database.password}
    done = subprocess.run(command, env=env, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_migration_that_was_killed_goes_on_in_the_next_pod(fresh: Local, tmp_path: Path) -> None:
    may = tmp_path / "may"
    before_repository(fresh)
    slow = told("migration", until=str(may), role="repository")
    first = fresh.launch("repository", STANDIN_FAULTS=slow)
    wait(lambda: "the migration waits" in fresh.log("repository"), "the migration to begin")
    first.send_signal(signal.SIGKILL)
    first.wait(20)
    may.touch()
    # The same container again, as after a lack of memory: it waits, as upstream's.
    second = fresh.launch("repository")
    wait(lambda: WAITS_FOR_LOCK in fresh.log("repository"), "the next migration to meet the lock")
    assert second.poll() is None
    second.send_signal(signal.SIGKILL)
    second.wait(20)
    before_repository(fresh)
    fresh.launch("repository")
    fresh.wait("repository")
    assert answers(f"http://127.0.0.1:{fresh.ports['repository']}/ping")


def test_what_repository_wrote_stays_as_it_is_at_its_next_start(fresh: Local) -> None:
    before_repository(fresh)
    fresh.launch("repository")
    fresh.wait("repository")
    fresh.stop("repository")
    before_repository(fresh)
    fresh.launch("repository")
    fresh.wait("repository")
    assert "migration" not in fresh.log("repository").split("listens", 1)[1].split("listens", 1)[0]
