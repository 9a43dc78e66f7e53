"""Chromium against the tests' hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


# The whole ways of a user, with pods.
WAYS = ("test_annotate_journey.py", "test_journey.py", "test_stack_journey.py")


def on_a_way(node: pytest.Item) -> bool:
    """Whether a test is one of those with pods."""
    return node.path.parent == HERE and node.path.name in WAYS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for pods."""
    items.sort(key=lambda item: not on_a_way(item))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2` what waits for pods is one process, and what computes another: no server is started in both."""
    # Not xdist's own groups: with pytest 9.2 it does not see them.
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "ways" if nodeid.partition("::")[0].rpartition("/")[2] in WAYS else "pages"

    return Lanes(config, log)


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
    found: Browser = request.getfixturevalue("chromium" if on_a_way(request.node) else "shell")
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
