"""Cytomine's own servers: where nobody gave their images, there is nothing to test, and a sentence says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from dev import real
from dev.console import Console
from dev.demo import install, mock
from tests.browser.conftest import (
    _playwright,
    chromium,
    context,
    page,
    programs,
    pytest_runtest_makereport,
)
from tests.support.lab import Lab

HERE = Path(__file__).parent
# Chromium and its pages, and the pictures of failed ones, as in the browser ring.
__all__ = ["_playwright", "chromium", "context", "page", "programs", "pytest_runtest_makereport"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real servers take minutes where stand-ins take seconds, and an import an hour on a busy machine."""
    for item in items:
        if item.path.parent == HERE and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(7200))


@pytest.fixture(scope="session")
def hub(request: pytest.FixtureRequest) -> install.Installed:
    """The release with the real parts."""
    if not real.given():
        pytest.skip(f"there are no images of the real Cytomine here: {real.MISSING}")
    target: install.Target = request.getfixturevalue("target")
    return real.hub(Console(), target, real.given())


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """Debian's Chromium for every page."""
    return chromium


@pytest.fixture(scope="session")
def analyst(hub: install.Installed, slides: Path) -> Lab:
    """Somebody with a notebook and a stack in which the mock dataset is; kept between runs, so that the second meets it."""
    assert slides
    lab = Lab(hub, "petra")
    if not lab.stacks() or not lab.person.server():
        lab.begin(cytomine={"size": "S", "datasets": [d["name"] for d in mock.OFFERED]})
    elif lab.status().get("phase") != "Ready":
        # Nobody worked in it for so long that it was put to sleep, or a run was cut meanwhile.
        lab.ask("PATCH", f"api/stacks/{lab.name}", {"desiredState": "Running"})
    lab.wait_ready()
    lab.wait_imported(1200)
    return lab
