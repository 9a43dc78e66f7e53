"""Chromium against the tests' hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from dev.demo import install
from tests.support import deaf
from tests.support.lab import Lab
from tests.support.person import Person

HERE = Path(__file__).parent
PROGRAMS = {"chromium": "/usr/bin/chromium", "engine": "/usr/bin/chromium-headless-shell"}
OUTPUT = Path(__file__).resolve().parents[2] / ".test-output" / "screens"
# Chromium itself must not look for anything outside of this machine.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test of this folder its lane: those with pods, which wait, and those without, which compute.

    With `-n 2 --dist loadgroup` each lane is a process.
    """
    # First what waits longest.
    items.sort(key=lambda item: item.path.parent == HERE and not has_pods(item))
    for item in items:
        if item.path.parent == HERE and config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group("pods" if has_pods(item) else "pages"))


def has_pods(item: pytest.Item) -> bool:
    """Whether a test needs the cluster."""
    return "target" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def _playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What starts Chromium and its engine while pods come and go."""
    folder = tmp_path_factory.mktemp("chromium")
    return {name: deaf.launcher(folder, program) for name, program in PROGRAMS.items()}


@pytest.fixture(scope="session")
def chromium(_playwright: Playwright, programs: dict[str, Path]) -> Iterator[Browser]:
    """Debian's Chromium, headless: all of what users have, so that a page costs three times as much."""
    chromium = _playwright.chromium.launch(executable_path=programs["chromium"], args=QUIET)
    yield chromium
    chromium.close()


@pytest.fixture(scope="session")
def shell(_playwright: Playwright, programs: dict[str, Path]) -> Iterator[Browser]:
    """Chromium's engine, without windows, profiles and policies: the same pages, scripts, cookies and frames."""
    shell = _playwright.chromium.launch(executable_path=programs["engine"], args=QUIET)
    yield shell
    shell.close()


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Browser:
    """Chromium for the whole way of a user, its engine for single pages."""
    found: Browser = request.getfixturevalue("chromium" if has_pods(request.node) else "shell")
    return found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A clean profile."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@contextmanager
def kept_if_failed(page: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page; what it shows at the end of a failed test is kept as a picture."""
    yield page
    if getattr(request.node, "failed", False):
        OUTPUT.mkdir(parents=True, exist_ok=True)
        page.screenshot(
            path=OUTPUT / f"failed-{re.sub(r'[^a-z0-9]+', '-', request.node.name)}.png", full_page=True
        )


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab."""
    with kept_if_failed(context.new_page(), request) as page:
        yield page


@pytest.fixture
def petra(hub: install.Installed) -> Iterator[Person]:
    """Somebody without server and stack, before and after."""
    lab = Lab(hub, "petra")
    lab.remove()
    yield lab.person
    # The stack goes while the server stops and the next test begins; who needs Petra without one waits for that.
    for stack in lab.stacks():
        lab.kubectl("delete", "cytominestack", stack["metadata"]["name"], "--wait=false")
    if lab.person.server():
        lab.person.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Tell the fixtures whether the test failed."""
    report = yield
    if report.failed:
        item.failed = True
    return report


@pytest.fixture
def picture(page: Page) -> Callable[[str], None]:
    """Keep a picture of the page, to be looked at."""

    def take(name: str) -> None:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=OUTPUT / f"{name}.png", full_page=True)

    return take
