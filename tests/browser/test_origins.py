"""A page that one user's notebook serves, opened by another user and by an administrator, in Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.origins import World, world

# What is on the pages that the attack is after, and on no other.
SECRET = re.compile(
    r"xsrf_token: \"\w|name=\"_xsrf\" value=\"\w|name=\"xsrf\" content=\"\w|\"kind\": \"user\"|cm-ivan|data-stack|was loaded"
)


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Each user at a host of their own, as installed by default."""
    with world(tmp_path_factory.mktemp("separate")) as made:
        yield made


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All on one host."""
    with world(tmp_path_factory.mktemp("together"), per_user_hosts=False) as made:
        yield made


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All on one host, and JupyterHub without the guard."""
    with world(tmp_path_factory.mktemp("bare"), per_user_hosts=False, guarded=False) as made:
        yield made


def attacked(page: Page, made: World, victim: str, *, popups: bool) -> dict[str, str]:
    """Log a victim in at the hub and at the page of stacks, then have them open the attacker's page: what it has read."""
    page.goto(f"{made.url}/hub/login")
    page.get_by_label("Username").fill(victim)
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"{made.url}/hub/home")
    expect(page.locator("#logout")).to_be_visible()
    page.goto(f"{made.cards}/")
    expect(page.get_by_role("article")).to_have_count(1 if victim == "ivan" else 0)
    at = {"hub": made.url, "cards": made.cards, "own": made.attack, "popups": popups}
    page.goto(f"{made.attack}?at={quote(json.dumps(at))}")
    page.locator("#go").click()
    page.wait_for_function("window.done", timeout=240_000)
    found: dict[str, str] = page.evaluate("found")
    # The page works, and reads what is its own.
    assert "A page that a notebook serves" in found.pop("control")
    assert len(found) > 50
    return found


def done(made: World) -> tuple[list[str], list[str]]:
    """What the attack has done: the notes of tokens that it made, and whom it invited."""
    tokens = [
        token["note"]
        for user in ("ivan", "root")
        for token in made.hub.api("GET", f"/users/{user}/tokens").json()["api_tokens"]
        if "petra" in (token["note"] or "")
    ]
    stack = made.service.store.view.get("cm-ivan")
    assert stack
    return tokens, [*stack.spec.members.users, *stack.spec.members.groups]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", ["ivan", "root"])
def test_a_page_of_anothers_notebook_reads_and_does_nothing_in_ones_name(
    page: Page, separate: World, victim: str
) -> None:
    found = attacked(page, separate, victim, popups=True)
    assert [name for name, text in found.items() if SECRET.search(text)] == []
    assert done(separate) == ([], [])


@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", ["ivan", "root"])
def test_on_one_host_such_a_page_fetches_nothing_either(page: Page, together: World, victim: str) -> None:
    # What it opens in a window it does read there: that is why one host is for trials only.
    found = attacked(page, together, victim, popups=False)
    assert [name for name, text in found.items() if SECRET.search(text)] == []
    assert done(together) == ([], [])


@pytest.mark.timeout(400)
def test_the_attack_is_one_where_nothing_stands_against_it(page: Page, bare: World) -> None:
    found = attacked(page, bare, "root", popups=False)
    assert [name for name, text in found.items() if SECRET.search(text)], "the page reads nothing anywhere"
    tokens, _ = done(bare)
    assert tokens, "no token was made"


def test_a_person_goes_from_page_to_page_and_into_her_notebook(page: Page, separate: World) -> None:
    page.goto(f"{separate.url}/hub/login")
    page.get_by_label("Username").fill("petra")
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state()
    # Logged in, she is led to her running server.
    assert page.url.startswith(f"{separate.notebooks}/user/petra/")
    page.goto(f"{separate.url}/hub/home")
    page.get_by_role("button", name="Services").or_(page.get_by_text("Services")).first.click()
    page.get_by_role("link", name="cytomine").click()
    expect(page).to_have_url(f"{separate.cards}/")
    # The hub's own scripts work: it lists her server.
    page.goto(f"{separate.url}/hub/token", wait_until="networkidle")
    page.get_by_role("button", name="Request new API token").click()
    expect(page.locator("#token-result")).not_to_be_empty()
    # From the hub's old address of the page of stacks to the new one.
    page.goto(f"{separate.url}/services/cytomine/")
    expect(page).to_have_url(f"{separate.cards}/")


def test_the_hubs_pages_are_not_at_a_users_host(browser: Browser, separate: World) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"{separate.notebooks}/hub/login")
        assert page.url.startswith(f"{separate.url}/hub/login")
    finally:
        context.close()
