"""The options form in Chromium: by keyboard, without scripts, and as it looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.hub import Hub, running


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that offers stacks; its cluster does not answer, which a form has to live with."""
    folder: Path = tmp_path_factory.mktemp("hub")
    with running(folder, TEST_HUB_CYTOMINE="1") as hub:
        yield hub


def log_in(page: Page, hub: Hub, user: str) -> None:
    page.goto(f"{hub.url}/hub/login")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Sign in").click()


def options(hub: Hub, user: str) -> dict:
    model = hub.api("GET", f"/users/{user}", params={"include_stopped_servers": "1"}).json()
    return model["servers"][""]["user_options"]


def test_a_stack_is_chosen_with_the_keyboard_alone(page: Page, hub: Hub) -> None:
    log_in(page, hub, "ada")
    page.goto(f"{hub.url}/hub/spawn")
    none, stack = page.get_by_label("No Cytomine"), page.get_by_label("My own Cytomine")
    sizes = page.get_by_role("group", name="Size of Cytomine")
    expect(none).to_be_checked()
    expect(sizes).to_be_hidden()
    none.focus()
    page.keyboard.press("ArrowDown")
    expect(stack).to_be_checked()
    expect(sizes).to_be_visible()
    page.keyboard.press("Tab")
    expect(sizes.get_by_label("Small")).to_be_focused()
    costs = page.get_by_text("Medium: 0.52 cores")
    expect(costs).to_be_hidden()
    page.keyboard.press("ArrowDown")
    expect(sizes.get_by_label("Medium")).to_be_checked()
    expect(costs).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Similarity search")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/hub/spawn" not in url or "pending" in url)
    assert options(hub, "ada")["cytomine"] == {"size": "M", "components": ["cbir"]}


def test_the_form_works_without_scripts(browser: Browser, hub: Hub) -> None:
    with_scripts = browser.new_context()
    log_in(with_scripts.new_page(), hub, "bo")
    context = browser.new_context(java_script_enabled=False, storage_state=with_scripts.storage_state())
    page = context.new_page()
    page.goto(f"{hub.url}/hub/spawn")
    page.get_by_label("My own Cytomine").check()
    page.get_by_label("Text search").check()
    page.get_by_role("button", name="Start").click()
    assert options(hub, "bo")["cytomine"] == {"size": "S", "components": ["meilisearch"]}
    context.close()
    with_scripts.close()
