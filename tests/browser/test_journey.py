"""The way of a user through the hub, in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from dev.demo.install import Installed

Picture = Callable[[str], None]
# A notebook may be ready before a test has looked twice: the page itself notes what its progress showed.
NOTE_PROGRESS = """
document.addEventListener("DOMContentLoaded", () => {
  const message = document.querySelector("#progress-message");
  if (!message) return;
  const note = () => {
    const moves = JSON.parse(localStorage.getItem("moves") || "[]");
    const text = message.textContent.trim();
    if (text) localStorage.setItem("moves", JSON.stringify([...moves, text]));
  };
  new MutationObserver(note).observe(message, {childList: true, characterData: true, subtree: true});
});
"""


def noted(page: Page, hub: Installed) -> list[str]:
    """What the progress page showed; the notebook, where the browser is now, has a host of its own."""
    tab = page.context.new_page()
    tab.goto(f"{hub.url}/hub/home")
    moves: list[str] = tab.evaluate("JSON.parse(localStorage.getItem('moves') || '[]')")
    tab.close()
    return moves


def log_in(page: Page, hub: Installed, user: str) -> None:
    """From the hub's first page through LS Login's, as a test user."""
    page.goto(hub.url)
    page.get_by_role("link", name=re.compile("LS Login")).or_(
        page.get_by_role("button", name=re.compile("LS Login"))
    ).first.click()
    page.get_by_role("button", name=re.compile(user)).click()


def test_a_user_logs_in_works_in_a_notebook_stops_it_and_is_logged_out_everywhere(
    page: Page, hub: Installed, picture: Picture
) -> None:
    page.add_init_script(NOTE_PROGRESS)
    page.goto(hub.url)
    picture("01-hub-login")
    page.get_by_role("link", name=re.compile("LS Login")).or_(
        page.get_by_role("button", name=re.compile("LS Login"))
    ).first.click()
    expect(page).to_have_url(re.compile(re.escape(hub.issuer)))
    picture("02-ls-login")
    page.get_by_role("button", name=re.compile("Petra")).click()

    expect(page.locator("#spawn_form")).to_be_visible()
    picture("03-options")
    # The form remembers what was chosen last.
    page.locator("#option-cytomine input[name=cytomine][value=none]").check()
    page.locator("input[name=size][value=small]").check()
    page.get_by_role("button", name="Start").click()

    message = page.locator("#progress-message")
    expect(message).not_to_be_empty()
    picture("04-progress")

    expect(page).to_have_url(re.compile(r"/user/.+/lab"), timeout=90_000)
    moves = noted(page, hub)
    assert len(set(moves)) >= 2, f"the progress page did not move: {moves}"
    page.goto(page.url.split("?")[0] + "?reset")  # an earlier run's tabs would stand before the launcher
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click(timeout=60_000)
    # JupyterLab drops a cell that is run while its kernel is still connecting
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    cell = page.locator(".jp-CodeCell .cm-content").first
    cell.click(timeout=60_000)
    page.keyboard.type("import cytomine; print('answer', 6 * 7)")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("answer 42", timeout=60_000)
    picture("05-notebook")

    # The hub's buttons do nothing until their scripts are there.
    page.goto(f"{hub.url}/hub/home", wait_until="networkidle")
    page.locator("#stop").click()
    expect(page.locator("#start")).to_contain_text(re.compile("Start"), timeout=60_000)
    picture("06-home-stopped")

    page.locator("#logout").click()
    page.wait_for_load_state()
    picture("07-logged-out")
    page.goto(f"{hub.url}/hub/oauth_login")
    # still logged in there, LS Login would have sent the browser straight back to the hub
    expect(page.get_by_role("button", name=re.compile("Petra"))).to_be_visible()


def test_someone_in_no_allowed_group_reads_what_happened_and_can_take_another_account(
    page: Page, hub: Installed, picture: Picture
) -> None:
    log_in(page, hub, "Gina")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    picture("08-not-in-a-group")
    expect(page.locator("body")).to_contain_text(re.compile("group", re.IGNORECASE))
    page.get_by_role("link", name=re.compile("another account", re.IGNORECASE)).or_(
        page.get_by_role("button", name=re.compile("another account", re.IGNORECASE))
    ).first.click()
    page.wait_for_load_state()
    log_in(page, hub, "Ivan")
    expect(page.locator("#spawn_form")).to_be_visible()


def test_the_options_form_works_with_the_keyboard_alone(page: Page, hub: Installed) -> None:
    log_in(page, hub, "Ivan")
    expect(page.locator("#spawn_form")).to_be_visible()
    for control in page.locator("#spawn_form input, #spawn_form select").all():
        name = control.get_attribute("name")
        if control.get_attribute("type") == "hidden":
            continue
        label = page.locator(f"label[for='{control.get_attribute('id')}']")
        assert label.count() == 1, f"the control {name} has no label"
    radio = page.locator("#spawn_form input[type=radio]:checked").first
    radio.focus()
    before = radio.get_attribute("value")
    page.keyboard.press("ArrowDown")
    now = page.locator(f"#spawn_form input[name='{radio.get_attribute('name')}']:checked")
    assert now.get_attribute("value") != before
