"""An import of datasets goes on, or leaves nothing, whatever cuts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.demo import install
from tests.cluster.test_datasets import check, jobs
from tests.support.lab import Lab
from tests.support.person import wait


@pytest.fixture
def cut(hub: install.Installed, slides: Path) -> Iterator[Lab]:
    """Somebody whose import waits in its midst, for an image server that was killed."""
    with Lab.beside(hub, "ivan", ready=False, datasets=["mock-skin"]) as lab:
        wait(lambda: lab.status().get("phase"), "the service to see the stack")
        wait(lambda: jobs(lab), "the import to begin", 180)
        of_stack = f"app.kubernetes.io/instance={lab.name},app.kubernetes.io/component"
        lab.kubectl("delete", "pods", "-l", f"{of_stack}=pims", "--grace-period=0", "--force")
        yield lab


def test_an_import_goes_on_after_a_restart_of_the_service_and_after_hibernation(cut: Lab) -> None:
    assert cut.person.ready(), "the notebook waits for no import"
    (before,) = jobs(cut)
    parts = "app.kubernetes.io/name=cytomine-hub,app.kubernetes.io/component=stacks"
    cut.kubectl("delete", "pods", "-l", parts, "--grace-period=0", "--force")
    cut.kubectl("rollout", "status", "deploy/hub-stacks", "--timeout=60s", timeout=70)
    assert [job["metadata"]["uid"] for job in jobs(cut)] == [before["metadata"]["uid"]]
    assert cut.importing()["reason"] == "Importing"
    cut.kubectl(
        "patch", "cytominestack", cut.name, "--type=merge", "-p", '{"spec":{"desiredState":"Hibernated"}}'
    )
    wait(lambda: cut.status().get("phase") == "Hibernated", "the stack to sleep", 90)
    assert not jobs(cut)
    assert cut.importing()["reason"] == "Waiting"
    cut.kubectl(
        "patch", "cytominestack", cut.name, "--type=merge", "-p", '{"spec":{"desiredState":"Running"}}'
    )
    cut.wait_ready()
    cut.wait_imported()
    check(cut, "mock-skin")


def test_a_stack_that_is_deleted_while_it_imports_leaves_nothing(cut: Lab) -> None:
    assert jobs(cut)
    cut.kubectl("delete", "cytominestack", cut.name, "--timeout=90s", timeout=100)
    wait(lambda: not cut.left(), f"nothing to be left, but {cut.left()}")
