"""The page of the stacks in a browser, over a store in memory: live updates, focus, speech, keyboard, contrast."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from cytomine_spawner.cluster.store import LogSource
from cytomine_spawner.stack.model import ComponentStatus, Condition, Members, Phase, State
from tests.support.stacks import NAMES, PREFIX, Service, a_stack

pytest_plugins = ["tests.support.servedstacks"]

ADA = "cm-ada"


class Window:
    """A page, and all that went wrong in it."""

    def __init__(self, browser: Browser, service: Service, who: str = "ada", **options: Any) -> None:
        admin = options.pop("admin", False)
        self.context = browser.new_context(**options)
        cookie = {"name": "who", "value": service.hub.token(who, admin=admin), "url": service.url}
        self.context.add_cookies([cookie])  # type: ignore[list-item]
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.faults.append(str(e)))
        self.page.goto(service.url + PREFIX)


@pytest.fixture
def window(browser: Browser, service: Service) -> Iterator[Window]:
    service.put(a_stack("ada"))
    window = Window(browser, service)
    expect(window.page.locator("#live")).to_have_text("This page updates by itself.")
    yield window
    window.context.close()
    assert window.faults == []


def starting(**changes: Any) -> Any:
    components = [
        ComponentStatus(name=n, state=State.STARTING if n == "core" else State.READY, message="So it goes.")
        for n in NAMES
    ]
    usual = {
        "phase": Phase.STARTING,
        "slowest": "core",
        "components": tuple(components),
        "message": "Core is late.",
    }
    return a_stack("ada", **{**usual, **changes})


def importing(reason: str) -> Any:
    """A stack that serves while its datasets are being imported, or could not be."""
    condition = Condition(
        type="DatasetsImported",
        status="False",
        reason=reason,
        message=f"Colon{'n' * 120}: {reason}.",
        last_transition_time=datetime.now(timezone.utc),
    )
    return a_stack("ada", reason.lower(), conditions=(condition,), datasets=("colon",))


def test_what_changes_in_the_cluster_changes_on_the_page_without_reloading(
    window: Window, service: Service
) -> None:
    page = window.page
    page.evaluate("window.stays = true")
    service.put(starting())
    card = page.locator(f"#{ADA}")
    expect(card.locator(".state").first).to_contain_text("Starting")
    expect(card).to_contain_text("Core is late.")
    expect(page.locator("#say")).to_have_text("Cytomine: Starting, waiting for Core.")
    service.put(a_stack("ada", "second", display_name="A second one"))
    expect(page.locator("article")).to_have_count(2)
    service.do(service.store.view.remove, ADA)
    expect(page.locator("article")).to_have_count(1)
    service.do(service.store.view.remove, a_stack("ada", "second").name)
    expect(page.locator("#empty")).to_be_visible()
    assert page.evaluate("window.stays") is True


def test_a_new_sentence_is_not_spoken_but_a_new_state_is(window: Window, service: Service) -> None:
    page = window.page
    service.put(starting())
    expect(page.locator("#say")).to_have_text("Cytomine: Starting, waiting for Core.")
    page.evaluate("document.querySelector('#say').textContent = ''")
    service.put(starting(message="Core is very late."))
    expect(page.locator(f"#{ADA}")).to_contain_text("very late")
    expect(page.locator("#say")).to_have_text("")


def test_the_focus_stays_where_it_was(window: Window, service: Service) -> None:
    page = window.page
    page.locator(f"#{ADA}-delete").focus()
    service.put(starting())
    expect(page.locator(f"#{ADA}")).to_contain_text("Core is late.")
    assert page.evaluate("document.activeElement.id") == f"{ADA}-delete"
    page.locator(f"#{ADA}-hibernate").focus()
    service.put(a_stack("ada", phase=Phase.HIBERNATED, desired_state="Hibernated", generation=2))
    expect(page.locator(f"#{ADA}-resume")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == f"{ADA}-title", (
        "the focus fell to the top of the page"
    )


def test_an_opened_list_of_components_stays_open(window: Window, service: Service) -> None:
    page = window.page
    details = page.locator(f"#{ADA}-components")
    details.locator("summary").click()
    service.put(a_stack("ada", message="Another sentence."))
    expect(page.locator(f"#{ADA}")).to_contain_text("Another sentence.")
    changed = a_stack("ada", message="And another.")
    components = (ComponentStatus(name="core", state=State.READY, message="New words."),)
    service.put(changed.replace(status=changed.status.replace(components=components)))
    expect(details.locator("li")).to_have_count(1)
    expect(details).to_have_attribute("open", "")


def test_a_button_works_by_keyboard_and_says_what_it_did(window: Window, service: Service) -> None:
    page = window.page
    page.locator(f"#{ADA}-hibernate").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text("Cytomine was asked to hibernate. Its data stay.")
    expect(page.locator(f"#{ADA}-resume")).to_be_visible()
    assert service.store.view.get(ADA).spec.desired_state == "Hibernated"


def test_a_lost_cluster_is_said_and_unsaid(window: Window, service: Service) -> None:
    outage = window.page.locator("#outage")
    service.do(service.store.view.lost)
    expect(outage).to_contain_text("The cluster has not answered since")
    service.do(service.store.view.replace, [a_stack("ada")])
    expect(outage).to_have_text("")


def test_a_stack_is_deleted_after_its_name_was_typed(window: Window, service: Service) -> None:
    page = window.page
    page.locator(f"#{ADA}-delete").click()
    page.get_by_label("Delete the data, too").check()
    page.get_by_label("Type the stack's name").fill(ADA)
    page.get_by_role("button", name="Delete the stack").click()
    expect(page.locator("#notice")).to_have_text("Cytomine is being deleted.")
    assert service.store.deleted == [(ADA, False)]
    assert "done=" not in page.url, "a reload would say it again"


def test_members_are_invited_and_removed_by_keyboard(window: Window, service: Service) -> None:
    service.hub.people.update(ada=(), bob=())
    page = window.page
    page.locator(f"#{ADA}-members").press("Enter")
    page.get_by_label("called").fill("bob")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("They may use the stack now")
    assert service.store.view.get(ADA).spec.members.users == ("bob",)  # type: ignore[union-attr]
    page.get_by_role("button", name="Remove the user bob").press("Enter")
    expect(page.locator("#notice")).to_contain_text("may not use the stack any more")
    assert service.store.view.get(ADA).spec.members.users == ()  # type: ignore[union-attr]


def test_a_card_goes_from_the_page_of_somebody_who_is_a_member_no_longer(
    browser: Browser, service: Service
) -> None:
    service.put(a_stack("ada", members=Members(users=("bob",))))
    window = Window(browser, service, "bob")
    expect(window.page.locator("#live")).to_have_text("This page updates by itself.")
    expect(window.page.locator(f"#{ADA}-leave")).to_be_visible()
    service.put(a_stack("ada", generation=2))
    expect(window.page.locator(f"#{ADA}")).to_have_count(0)
    assert window.faults == []
    window.context.close()


def test_a_log_is_followed(window: Window, service: Service) -> None:
    service.store.sources, service.store.lines = [LogSource(f"{ADA}-core-0", "core", "running")], ["old line"]
    service.store.coming = service.do(asyncio.Queue)
    page = window.page
    page.goto(f"{service.url}{PREFIX}stacks/{ADA}/logs/core")
    expect(page.locator("#log")).to_have_text("old line\n", use_inner_text=False)
    page.get_by_label("Follow").check()
    expect(page.locator("#live")).to_have_text("Following the log.")
    service.do(service.store.coming.put_nowait, "<b>new</b> line")
    expect(page.locator("#log")).to_contain_text("<b>new</b> line")
    service.do(service.store.coming.put_nowait, None)
    expect(page.locator("#live")).to_have_text("The log ended.")


def test_without_scripts_every_action_is_a_form(browser: Browser, service: Service) -> None:
    service.put(a_stack("ada"))
    window = Window(browser, service, java_script_enabled=False)
    window.page.locator(f"#{ADA}-hibernate").click()
    expect(window.page.locator("#notice")).to_contain_text("asked to hibernate")
    expect(window.page.get_by_role("link", name="Reload")).to_be_visible()
    window.context.close()


def test_nothing_sticks_out_of_a_narrow_window(browser: Browser, service: Service) -> None:
    name = "28f7bc3a2d32a4a0f1c99b7e0a5d0c1f2e3d4c5b@lifescience-ri.eu"
    members = Members(users=(name.replace("28", "29"), "bob"), groups=("g" * 60,))
    long = a_stack(name, "a-long-server-name", display_name="W" * 200, members=members)
    service.put(starting(), importing("Importing"), importing("Failed"), long)
    widths = (320, 360, 768, 1400)
    window = Window(browser, service, "root", admin=True, viewport={"width": widths[0], "height": 700})
    at = f"{service.url}{PREFIX}stacks/{a_stack(name, 'a-long-server-name').name}"
    for address in (service.url + PREFIX, at, f"{at}/delete", f"{at}/members", f"{at}/logs/core"):
        window.page.goto(address)
        for width in widths:
            window.page.set_viewport_size({"width": width, "height": 700})
            shown = window.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
            assert shown[0] == width, "the window was not resized"
            assert shown[1] <= width, (address, width)
    window.context.close()


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const found = rgb(getComputedStyle(e).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest(".visually-hidden, .skip, script, datalist")) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(browser: Browser, service: Service, scheme: str) -> None:
    for number, phase in enumerate(Phase):
        service.put(a_stack("ada", f"s{number}", phase))
    service.put(starting(members=Members(users=("bob",), groups=("lab",)), generation=2))
    service.put(importing("Importing"), importing("Failed"))
    service.hub.shared["ada", ""] = [("user", "eve")]
    service.do(service.store.view.lost)
    window = Window(browser, service, color_scheme=scheme)
    paths = ("delete", "logs/core", "members", "members?done=added")
    for path in (f"?done=hibernate&stack={ADA}", *(f"stacks/{ADA}/{p}" for p in paths), "none"):
        window.page.goto(service.url + PREFIX + path)
        assert window.page.evaluate(CONTRAST) == [], path
    window.context.close()


def test_a_bookmark_of_a_sleeping_stack_goes_on_to_the_very_place_once_it_was_resumed(
    window: Window, service: Service
) -> None:
    page = window.page
    service.put(a_stack("ada", phase=Phase.HIBERNATED, desired_state="Hibernated"))
    page.route("https://cm-ada.stacks.example.org/**", lambda route: route.fulfill(body="Cytomine"))
    page.goto(f"{service.url}{PREFIX}open/{ADA}?place=/project%3Ftab%3D2#/project/12")
    expect(page.locator("#opening")).to_contain_text("It is asleep: press Resume, its data is kept.")
    page.locator(f"#{ADA}-resume").click()
    expect(page.locator("#notice")).to_contain_text("asked to resume")
    service.put(starting(generation=3))
    expect(page.locator(f"#{ADA}")).to_contain_text("Core is late.")
    assert page.url.startswith(service.url), "it waits until the stack serves"
    service.put(a_stack("ada", generation=4))
    expect(page).to_have_url("https://cm-ada.stacks.example.org/project?tab=2#/project/12")
