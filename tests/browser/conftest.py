"""Chromium against the tests' hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from dev.demo import install
from tests.support.lab import Lab
from tests.support.person import Person

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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A clean profile."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab; what it shows at the end of a failed test is kept as a picture."""
    page = context.new_page()
    yield page
    if getattr(request.node, "failed", False):
        OUTPUT.mkdir(parents=True, exist_ok=True)
        page.screenshot(
            path=OUTPUT / f"failed-{re.sub(r'[^a-z0-9]+', '-', request.node.name)}.png", full_page=True
        )


@pytest.fixture
def petra(hub: install.Installed) -> Iterator[Person]:
    """Somebody without server and stack, before and after."""
    lab = Lab(hub, "petra")
    lab.remove()
    yield lab.person
    lab.remove()


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
