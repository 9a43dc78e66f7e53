"""An import of datasets goes on, or leaves nothing, whatever cuts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.test_datasets import check
from tests.support.lab import Lab
from tests.support.person import wait
from tests.support.restarting import Restarted, cut_import, kill_images, uids


@pytest.fixture
def cut(restarted: Restarted, slides: Path) -> Lab:
    """Somebody whose import waited in its midst when hub and service were restarted."""
    assert restarted.importing
    return restarted.importing


def test_an_import_goes_on_after_a_restart_of_the_service_and_after_hibernation(
    cut: Lab, restarted: Restarted
) -> None:
    assert cut.person.ready(), "the notebook waits for no import"
    assert uids(cut.jobs()) == [restarted.job]
    assert cut.importing()["reason"] == "Importing"
    kill_images(cut)
    cut.kubectl(
        "patch", "cytominestack", cut.name, "--type=merge", "-p", '{"spec":{"desiredState":"Hibernated"}}'
    )
    cut.wait_asleep()
    assert not cut.jobs()
    assert cut.importing()["reason"] == "Waiting"
    cut.kubectl(
        "patch", "cytominestack", cut.name, "--type=merge", "-p", '{"spec":{"desiredState":"Running"}}'
    )
    cut.wait_ready()
    cut.wait_imported()
    check(cut, "mock-skin")


def test_a_stack_that_is_deleted_while_it_imports_leaves_nothing(cut: Lab) -> None:
    cut.wait_ready()
    cut_import(cut, "mock-skin", "mock-landmarks")
    kill_images(cut)
    assert cut.jobs()
    cut.kubectl("delete", "cytominestack", cut.name, "--timeout=270s", timeout=290)
    wait(lambda: not cut.left(), f"nothing to be left, but {cut.left()}")
