"""Cytomine's own servers: where nobody gave their images, there is nothing to test, and a sentence says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from dev import real
from dev.console import Console
from dev.demo import install, mock
from tests.browser.conftest import _playwright, chromium, context, page, programs
from tests.support.lab import Lab

HERE = Path(__file__).parent
# Chromium and its pages, as in the browser ring.
__all__ = ["_playwright", "chromium", "context", "page", "programs"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real servers take minutes where stand-ins take seconds."""
    for item in items:
        if item.path.parent == HERE and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3000))


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
    lab.wait_ready()
    lab.wait_imported(1200)
    return lab
