"""The whole way in Chromium: a stack with slides, annotated by hand, scripted in the notebook, and seen in Cytomine again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dev.demo.install import Installed
from tests.browser.conftest import OUTPUT
from tests.browser.test_journey import log_in
from tests.browser.test_lab_card import opened
from tests.browser.test_webui import at, stored
from tests.support.person import Person

Picture = Callable[[str], None]
# In pixels from the top left of skin.svs, in its lower half.
DRAWN = {
    "Keratin": [(1250, 1700), (1430, 1720), (1420, 1910), (1260, 1900)],
    "Epidermis": [(500, 2250), (800, 2280), (780, 2500), (520, 2480)],
}


def draw(page: Page, term: str, corners: list[tuple[int, int]]) -> int:
    """Draw a polygon with a term by the mouse; the id that it was stored under."""
    page.get_by_label("Term", exact=True).select_option(label=term)
    page.get_by_role("button", name="Polygon", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Click for each corner")
    for corner in corners[:-1]:
        page.mouse.click(*at(page, *corner))
    with page.expect_response(stored) as answer:
        page.mouse.dblclick(*at(page, *corners[-1]))
    assert answer.value.status == 200, answer.value.text()
    return int(answer.value.json()["annotation"]["id"])


def mark(page: Page, annotation: int) -> Any:
    """An annotation's entry in the viewer's list."""
    return page.locator(f"#annotations [data-annotation='{annotation}']")


@pytest.mark.timeout(600)
def test_slides_are_annotated_in_cytomine_and_by_a_notebook_and_each_sees_the_others(
    page: Page,
    hub: Installed,
    petra: Person,
    slides: Path,
    picture: Picture,
) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log_in(page, hub, "Petra")
    expect(page.locator("#spawn_form")).to_be_visible()
    page.locator("#option-cytomine input[name=cytomine][value=stack]").check()
    page.get_by_label("Mock skin", exact=True).check()
    # The form remembers what was chosen last.
    page.get_by_label("Mock landmarks", exact=True).uncheck()
    picture("30-options-dataset")
    page.get_by_role("button", name="Start").click()
    expect(page).to_have_url(re.compile(r"/user/.+/lab"), timeout=90_000)
    lab = page.url.split("?")[0]

    page.goto(f"{hub.cards}/")
    card = page.locator("article.card")
    datasets = card.locator("[data-part=datasets]")
    expect(datasets).to_contain_text("Mock skin is", timeout=60_000)
    picture("31-card-waits")
    # On a busy machine the notebook may have come later than the slides.
    expect(datasets).to_contain_text(re.compile("being imported|in Cytomine"), timeout=120_000)
    picture("32-card-imports")
    expect(datasets).to_contain_text("Mock skin is in Cytomine.", timeout=180_000)
    picture("33-card-imported")

    cytomine = opened(page, card.get_by_role("link", name=re.compile("^Open")).click)
    cytomine.get_by_role("link", name="mock-skin").click(timeout=60_000)
    cytomine.get_by_role("link", name="skin.svs").click()
    expect(cytomine.locator("#map canvas").first).to_be_visible()
    expect(cytomine.get_by_role("status")).to_have_text("")
    expect(cytomine.locator("#map")).to_have_attribute("aria-busy", "false")
    by_hand = [draw(cytomine, term, corners) for term, corners in DRAWN.items()]
    for number, term in zip(by_hand, DRAWN, strict=True):
        expect(mark(cytomine, number)).to_have_text(f"{term}: polygon")
    cytomine.get_by_role("button", name="Select", exact=True).click()
    expect(cytomine.locator("#map")).to_have_attribute("aria-busy", "false")
    cytomine.screenshot(path=str(OUTPUT / "34-drawn.png"))

    page.goto(f"{lab}/tree/cytomine-notebooks/01_first_steps.ipynb?reset")
    expect(page.locator(".jp-Notebook")).to_be_visible(timeout=60_000)
    # JupyterLab drops cells that are run while their kernel is still connecting.
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    result = page.locator(".jp-OutputArea-output", has_text="RESULT {")
    expect(result).to_be_visible(timeout=240_000)
    expect(page.get_by_text("Jupyter news")).to_have_count(0)
    picture("35-notebook")
    found = json.loads(result.inner_text().partition("RESULT ")[2])
    assert found["lost_area_px2"] < 1

    # The tab that was open all the time sees them come.
    cytomine.bring_to_front()
    for number in found["annotations"]:
        expect(mark(cytomine, number)).to_have_count(1, timeout=20_000)
    for number in by_hand:
        expect(mark(cytomine, number)).to_have_count(1)
    mark(cytomine, found["annotations"][0]).click()
    expect(cytomine.locator("#details")).to_contain_text("Keratin: polygon")
    expect(cytomine.locator("#map")).to_have_attribute("aria-busy", "false")
    cytomine.screenshot(path=str(OUTPUT / "36-from-the-notebook.png"))
