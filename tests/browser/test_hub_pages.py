"""The hub's own pages in Chromium, with a login in another tab, and on the way through the login."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.hub import Hub, running


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder: Path = tmp_path_factory.mktemp("hub")
    with running(folder) as hub:
        yield hub


def log_in(page: Page, user: str) -> None:
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Sign in").click()


def log_in_elsewhere(page: Page, hub: Hub, user: str) -> None:
    """Log out and in again in another tab."""
    other = page.context.new_page()
    other.goto(f"{hub.url}/hub/logout")
    other.goto(f"{hub.url}/hub/login?next=/hub/home")
    log_in(other, user)
    other.wait_for_url("**/hub/home")
    other.close()


def test_a_form_from_before_a_login_leads_back_to_the_form(page: Page, hub: Hub) -> None:
    page.goto(f"{hub.url}/hub/login?next=/hub/spawn")
    log_in(page, "ada")
    page.get_by_label("Standard").check()
    log_in_elsewhere(page, hub, "ada")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="This page is out of date")).to_be_visible()
    page.get_by_role("link", name="Open the page again").click()
    expect(page.get_by_role("heading", name="Server Options")).to_be_visible()
    assert not hub.api("GET", "/users/ada").json()["servers"]


def test_a_button_of_a_page_from_before_a_login_says_what_to_do(page: Page, hub: Hub) -> None:
    page.goto(f"{hub.url}/hub/login?next=/hub/token")
    log_in(page, "bo")
    log_in_elsewhere(page, hub, "bo")
    page.get_by_role("button", name="Request new API token").click()
    expect(page.locator("#error-dialog")).to_contain_text("Reload the page and try again.")
    expect(page.locator("#error-dialog")).not_to_contain_text("XSRF")


def test_a_place_in_a_page_is_kept_over_the_login(page: Page, hub: Hub) -> None:
    page.goto(f"{hub.url}/hub/token#/a?b=1&c=é")
    log_in(page, "cy")
    page.wait_for_url(re.compile("/hub/token#"))
    assert page.evaluate("decodeURIComponent(location.hash)") == "#/a?b=1&c=é"
