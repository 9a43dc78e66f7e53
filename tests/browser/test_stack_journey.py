"""From the options to Cytomine in Chromium: one login, a stack whose progress names its parts, and who is in and out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dev.demo.install import Installed
from tests.browser.conftest import OUTPUT
from tests.browser.test_journey import NOTE_PROGRESS, log_in, noted
from tests.browser.test_lab_card import card, opened, state
from tests.support.person import Person, wait

Picture = Callable[[str], None]


@pytest.fixture
def colleague(browser: Browser) -> Iterator[BrowserContext]:
    """Another clean profile."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


# Of the archive; Petra's visas grant it and another one.
ARCHIVED = "aa-Dataset-demo02-biopsies"
READ_A_SLIDE = (
    f"import fsspec, PIL.Image; f = fsspec.open('sda://{ARCHIVED}/DATASET_mock-landmarks/IMAGES/IMAGE_1/landmarks-01.png'); "
    "image = PIL.Image.open(f.open()); print('slide', image.format, image.size[0] > 100)"
)
# A session asks anew after the hub's setting, four minutes or less, whether its user still may.
OUT_SECONDS = 300


@pytest.mark.timeout(900)
def test_one_login_leads_from_the_hub_to_a_notebook_and_to_cytomine_for_those_who_may_and_while_they_may(
    page: Page, hub: Installed, petra: Person, colleague: BrowserContext, picture: Picture
) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    page.add_init_script(NOTE_PROGRESS)
    log_in(page, hub, "Petra")
    expect(page.locator("#spawn_form")).to_be_visible()
    page.locator("#option-cytomine input[name=cytomine][value=stack]").check()
    # The form remembers what was chosen last.
    for dataset in page.locator("input[name=cytomine_datasets]:checked").all():
        dataset.uncheck()
    # What her visas grant of the archive, one of which she wants in Cytomine.
    granted = page.locator("#option-cytomine-archive")
    expect(granted.get_by_role("checkbox")).to_have_count(2)
    granted.get_by_label(ARCHIVED).check()
    picture("20-options-cytomine")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#progress-message")).not_to_be_empty()
    expect(page).to_have_url(re.compile(r"/user/.+/lab"), timeout=90_000)
    lab = page.url.split("?")[0]
    moves = noted(page, hub)
    assert any("Cytomine" in move for move in moves), moves

    page.goto(f"{hub.cards}/")
    on_page = page.locator("article.card")
    expect(on_page).to_have_count(1)
    picture("21-card-starting")
    expect(on_page.locator("[data-part=head] .state")).to_contain_text("Ready", timeout=120_000)
    expect(on_page).to_contain_text(f"{ARCHIVED} is in Cytomine", timeout=240_000)
    picture("22-card-ready")

    # Its own page opens without another form, also for a browser that has never been there.
    cytomine = opened(page, on_page.get_by_role("link", name=re.compile("^Open")).click)
    address = re.compile(rf"^http://cm-[a-z0-9-]+\.{hub.place.stacks}\.localhost")
    expect(cytomine).to_have_url(address, timeout=60_000)
    # The page logs in by itself, with keycloak-js, at the identity of the stack service.
    expect(cytomine.get_by_role("heading", name="Projects")).to_be_visible(timeout=30_000)
    expect(cytomine.get_by_text("mock-landmarks").first).to_be_visible(timeout=30_000)
    cytomine.wait_for_load_state()
    cytomine.screenshot(path=str(OUTPUT / "23-cytomine.png"))
    assert images_of(cytomine, "mock-landmarks") == 16
    me = current_user(cytomine)

    # A colleague is refused, then invited, then in, then out.
    other = colleague.new_page()
    log_in(other, hub, "Ivan")
    expect(other.locator("#spawn_form")).to_be_visible()
    refused = other.goto(cytomine.url)
    assert refused
    assert refused.status == 403, refused.status
    other.screenshot(path=str(OUTPUT / "24-stranger.png"))

    ivan = Person(hub, "ivan")
    page.goto(f"{hub.cards}/stacks/{stack_name(hub, petra)}/members")
    page.locator("#member").fill(ivan.name)
    page.get_by_role("button", name="Invite").click()
    expect(page.get_by_role("list", name="Who may use it")).to_contain_text(ivan.name)
    picture("25-members")

    def let_in() -> bool:
        found = other.goto(cytomine.url)
        return bool(found and found.status == 200)

    wait(let_in, "the colleague to be let in", 60)
    # The page leaves once, to log in.
    expect(other.get_by_role("heading", name="Projects")).to_be_visible(timeout=30_000)
    assert current_user(other) != me
    other.screenshot(path=str(OUTPUT / "26-member.png"))

    # JupyterLab knows the stack, and asks for nothing but that.
    page.goto(f"{lab}?reset")
    expect(state(page)).to_have_text("Cytomine: ready", timeout=60_000)
    settings = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent)")
    assert settings["news"] == {"disabled": True}
    for way in (card(page), state(page)):
        again = opened(page, way.click)
        expect(again).to_have_url(address)
        expect(again.get_by_role("heading", name="Projects")).to_be_visible(timeout=30_000)
        again.close()
    picture("27-lab")

    # The same slides are read out of the archive itself, with nothing set.
    page.goto(f"{lab}?reset")
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click(timeout=60_000)
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    page.locator(".jp-CodeCell .cm-content").first.click(timeout=60_000)
    page.keyboard.type(READ_A_SLIDE)
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("slide PNG True", timeout=90_000)
    picture("28-lab-archive")

    # The owner removes the colleague by the card's buttons; the page that the colleague has open is out, and no other opens.
    page.goto(f"{hub.cards}/")
    on_page.get_by_role("link", name=re.compile("^Members")).click()
    page.get_by_role("button", name=re.compile(f"^Remove .*{re.escape(ivan.name)}")).click()
    expect(page.get_by_role("list", name="Who may use it")).not_to_contain_text(ivan.name)

    def only_the_colleague_is_out() -> bool:
        assert answer(cytomine) == 200, "the owner is out"
        return answer(other) == 401

    wait(only_the_colleague_is_out, "the colleague's open page to be out", OUT_SECONDS)
    expelled = other.reload()
    assert expelled
    assert expelled.status == 403, expelled.status
    other.screenshot(path=str(OUTPUT / "29-removed.png"))

    # Who logs out of the hub is out of Cytomine, too, and back at the login.
    assert current_user(cytomine) == me, "the owner is still in"
    page.goto(f"{hub.url}/hub/home", wait_until="networkidle")
    page.locator("#logout").click()
    page.wait_for_load_state()
    wait(lambda: answer(cytomine) == 401, "the session in Cytomine to end", OUT_SECONDS)
    cytomine.reload()
    expect(cytomine.get_by_role("heading", name="Projects")).to_have_count(0)
    expect(cytomine).to_have_url(re.compile(f"^({re.escape(hub.url)}/hub/|{re.escape(hub.issuer)})"))


def answer(page: Page) -> int:
    """The status of Cytomine's answer to a page that is open, as its user's session is now."""
    return int(page.evaluate("fetch('/api/user/current.json').then(r => r.status)"))


def images_of(page: Page, project: str) -> int:
    """How many images a project has, as Cytomine tells the page's user."""
    projects = page.evaluate("fetch('/api/project.json?max=0').then(r => r.json())")["collection"]
    (found,) = [p for p in projects if p["name"] == project]
    images = page.evaluate(
        f"fetch('/api/project/{found['id']}/imageinstance.json?max=0').then(r => r.json())"
    )
    return len(images["collection"])


def current_user(page: Page) -> str:
    """Who Cytomine takes the page's user for."""
    status, found = page.evaluate(
        "fetch('/api/user/current.json').then(async r => [r.status, await r.json()])"
    )
    assert status == 200, found
    return str(found["username"])


def stack_name(hub: Installed, person: Person) -> str:
    found = hub.target.kube.get("-n", hub.place.users, "cytominestacks")
    assert found
    (name,) = [s["metadata"]["name"] for s in found["items"] if s["spec"]["owner"] == person.name]
    return str(name)
