"""Cytomine in a real JupyterLab: the launcher's card, the status bar, the palette."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import kept_if_failed
from tests.support import jupyter
from tests.support.jupyter import NAME, Stacks
from tests.support.person import wait

# A look is kept for five seconds, and a changing stack is looked at every five.
SOON = 20_000


@pytest.fixture(scope="module")
def service() -> Iterator[Stacks]:
    service = Stacks()
    yield service
    service.close()


@pytest.fixture(scope="module")
def url(service: Stacks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with jupyter.server(tmp_path_factory.mktemp("lab"), service.environment(), "jupyterlab") as url:
        yield url


@pytest.fixture(scope="module")
def jupyterlab(shell: Browser, url: str) -> Iterator[Page]:
    """One JupyterLab for all tests: to load it takes longer than all that they do there."""
    context = shell.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    # It goes as usual until a test moves it: what is still to come then comes at once.
    page.clock.install()
    yield page
    context.close()


@pytest.fixture
def page(jupyterlab: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The tab with JupyterLab; what a test opened or cut is as before when it ends."""
    with kept_if_failed(jupyterlab, request) as page:
        yield page
    page.unroute_all()
    for other in page.context.pages:
        if other != page:
            other.close()


def in_state(phase: str, **more: Any) -> dict[str, Any]:
    """A stack in some state; no other state has the same message."""
    return jupyter.stack(phase, **more, message=f"A sentence on {phase}. It has {sorted(more.items())}.")


@pytest.fixture
def lab(page: Page, url: str, service: Stacks) -> Callable[..., Page]:
    """Open JupyterLab beside a stack in some state."""

    def open_lab(phase: str, **more: Any) -> Page:
        found = in_state(phase, **more)
        service.stacks = [found]
        head = {"Authorization": f"token {jupyter.TOKEN}"}

        def forgot_the_last_test() -> bool:
            seen = httpx.get(f"{url}cytomine/api/stack", headers=head, timeout=20).json()
            return bool(seen["message"] == found["message"])

        wait(forgot_the_last_test, f"the server to say {phase}")
        if page.url.startswith(url):
            # A tab that comes to the front asks at once.
            page.bring_to_front()
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        else:
            page.goto(f"{url}lab?token={jupyter.TOKEN}")
        expect(page.locator(".jp-LauncherCard").first).to_be_visible(timeout=60_000)
        expect(state(page)).to_have_attribute("title", re.compile(re.escape(found["message"])), timeout=SOON)
        return page

    return open_lab


def card(page: Page) -> Any:
    section = page.locator(".jp-Launcher-section", has=page.get_by_role("heading", name="Other"))
    return section.locator(".jp-LauncherCard", has_text=re.compile("^Cytomine$"))


def state(page: Page) -> Any:
    return page.get_by_role("button", name="Cytomine: ")


def opened(page: Page, act: Callable[[], None]) -> Page:
    """The tab that ``act`` opens."""
    with page.context.expect_page() as found:
        act()
    found.value.wait_for_load_state()
    return found.value


def test_the_state_follows_the_stack_while_it_starts(lab: Callable[..., Page], service: Stacks) -> None:
    page = lab("Starting", ready="4/7", slowest="core")
    expect(state(page)).to_have_text("Cytomine: core is starting (4/7)", timeout=SOON)
    expect(state(page)).to_have_attribute("title", re.compile("A sentence on Starting"))
    service.stacks = [in_state("Ready", url=f"{service.root}/the-stack/")]
    expect(state(page)).to_have_text("Cytomine: ready", timeout=SOON)


def test_the_card_opens_a_stack_that_serves_in_a_tab_that_cannot_reach_back(
    lab: Callable[..., Page], service: Stacks, picture: Callable[[str], None]
) -> None:
    address = f"{service.root}/the-stack/"
    page = lab("Ready", url=address)
    expect(state(page)).to_have_text("Cytomine: ready", timeout=SOON)
    expect(card(page).locator("svg rect[fill='#2c7bb6']")).to_be_visible()
    picture("lab-card")
    tab = opened(page, card(page).click)
    assert tab.url == address
    assert tab.evaluate("window.opener") is None


def test_the_state_and_the_palette_open_it_from_the_keyboard(
    lab: Callable[..., Page], service: Stacks
) -> None:
    address = f"{service.root}/the-stack/"
    page = lab("Ready", url=address)
    expect(state(page)).to_have_text("Cytomine: ready", timeout=SOON)
    state(page).focus()
    assert opened(page, lambda: page.keyboard.press("Enter")).url == address
    page.bring_to_front()
    page.keyboard.press("Control+Shift+C")
    page.keyboard.type("Open Cytomine")
    expect(page.locator(".lm-CommandPalette-item", has_text="Open Cytomine").first).to_be_visible()
    assert opened(page, lambda: page.keyboard.press("Enter")).url == address


def test_an_address_that_is_none_of_the_web_is_not_opened(lab: Callable[..., Page], service: Stacks) -> None:
    page = lab("Ready", url="javascript:document.title='taken'")
    expect(state(page)).to_have_text("Cytomine: ready", timeout=SOON)
    card(page).click()
    expect(page.locator(".Toastify")).to_contain_text("A sentence on Ready.")
    assert len(page.context.pages) == 1


def test_the_card_opens_the_page_of_a_stack_that_sleeps(lab: Callable[..., Page], service: Stacks) -> None:
    page = lab("Hibernated", url=f"{service.root}/the-stack/")
    expect(state(page)).to_have_text("Cytomine: hibernated", timeout=SOON)
    tab = opened(page, card(page).click)
    assert tab.url == f"{service.url}stacks/{NAME}"


def test_a_server_that_stops_answering_is_said_to_be_unknown(lab: Callable[..., Page]) -> None:
    page = lab("Starting", ready="4/7", slowest="core")
    expect(state(page)).to_have_text("Cytomine: core is starting (4/7)", timeout=SOON)
    page.route("**/cytomine/api/stack**", lambda route: route.abort())
    expect(state(page)).to_have_text("Cytomine: state unknown", timeout=SOON)


def test_a_tab_that_nobody_sees_does_not_ask(page: Page, lab: Callable[..., Page]) -> None:
    lab("Starting", ready="4/7", slowest="core")
    expect(state(page)).to_have_text("Cytomine: core is starting (4/7)", timeout=SOON)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "cytomine/api/stack" in r.url else None)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
        const state = hidden ? "hidden" : "visible";
        Object.defineProperty(document, "visibilityState", {get: () => state, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.clock.run_for(120_000)
    assert not asked
    with page.expect_request("**/cytomine/api/stack**"):
        page.evaluate(hide, False)
