"""Upstream's own web interface in Chromium: what a pathologist does on the first day."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Response, expect

from dev.demo.install import Installed
from tests.browser.conftest import OUTPUT
from tests.browser.test_journey import log_in
from tests.real.covered import LIST
from tests.support import requestlist
from tests.support.lab import Lab
from tests.support.person import wait

# Core says so where nobody has described an annotation yet.
NO_DESCRIPTION = re.compile(r"404 .*/api/domain/[\w.]+/\d+/description\.json")
# What core keeps of people's ways in MongoDB; where FerretDB stands in its place, it lacks the aggregations for that.
ACTIVITY = re.compile(
    r"/api/(sliceinstance/\d+/(position|lastopened)|.*method/lastopened|connectionFrequency)"
)
# Cytomine's number for a file that it has taken in.
STORED = 100
IMAGES = """
import json
from cytomine.models import ImageInstanceCollection, ProjectCollection
from cytomine_spawner.notebook import connect
connect(progress=False)
project = next(p for p in ProjectCollection().fetch() if p.name == "mock-skin")
images = ImageInstanceCollection({"project": project.id}).fetch()
print(json.dumps({"project": project.id, "images": {i.instanceFilename: i.id for i in images}}))
"""


class Traffic:
    """What the page asked the stack and the login for, and what went wrong."""

    def __init__(self, page: Page, stack: str, login: str) -> None:
        self.seen: list[str] = []
        self.asked: list[tuple[str, int, str]] = []
        self.faults: list[str] = []
        self._ours = (stack, login)
        page.context.on("response", self._answered)
        page.context.on("requestfailed", self._failed)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _answered(self, answer: Response) -> None:
        if not answer.url.startswith(self._ours):
            return
        self.asked.append((answer.request.method, answer.status, answer.url))
        self.seen.append(f"{answer.request.method} {answer.status} {answer.url}")
        usual = ACTIVITY.search(answer.url) or NO_DESCRIPTION.search(self.seen[-1])
        if answer.status >= 400 and not usual:
            self.faults.append(self.seen[-1])

    def _failed(self, request: Request) -> None:
        # A page that is left takes its open requests along.
        if request.url.startswith(self._ours) and request.failure != "net::ERR_ABORTED":
            self.faults.append(f"{request.method} {request.failure} {request.url}")


@pytest.fixture(scope="module")
def slides_of(analyst: Lab) -> dict[str, Any]:
    """The project's id and its images' by name."""
    found: dict[str, Any] = analyst.python(IMAGES)
    return found


@pytest.fixture
def traffic(page: Page, hub: Installed, analyst: Lab) -> Iterator[Traffic]:
    """The owner, logged in at the hub and not yet at the stack; nothing may go wrong unseen."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": 1600, "height": 900})
    log_in(page, hub, "Petra")
    page.wait_for_load_state()
    login = f"{hub.cards}/{analyst.name}/iam/"
    found = Traffic(page, analyst.stack_url(), login)
    yield found
    requestlist.keep(requestlist.kinds("web-ui", found.asked), LIST)
    assert found.faults == []


def test_the_dashboard_greets_its_owner(page: Page, analyst: Lab, traffic: Traffic) -> None:
    page.goto(analyst.stack_url())
    # Not what was opened last, which is among what core keeps in MongoDB.
    expect(page.get_by_role("row", name=re.compile(r"^\s*20 Images"))).to_be_visible(timeout=60_000)
    expect(page.locator("nav")).to_contain_text("Petra Pathologist")
    expect(page.get_by_text("Applications")).to_have_count(0)
    page.screenshot(path=OUTPUT / "real-1-dashboard.png")
    page.get_by_role("link", name="View all projects").click()
    expect(page.get_by_role("link", name="mock-skin", exact=True).first).to_be_visible(timeout=60_000)


def test_a_link_to_a_slide_survives_the_login_and_a_reload(
    page: Page, analyst: Lab, slides_of: dict[str, Any], traffic: Traffic
) -> None:
    place = f"#/project/{slides_of['project']}/image/{slides_of['images']['skin.svs']}"
    for load in (lambda: page.goto(f"{analyst.stack_url()}/{place}"), page.reload):
        with page.expect_response(lambda r: "/normalized-tile/" in r.url and r.ok, timeout=120_000):
            load()
            expect(page.locator(".draw-tools")).to_be_visible(timeout=60_000)
        assert page.url.endswith(place)
        page.screenshot(path=OUTPUT / "real-2-slide.png")
    logins = [line for line in traffic.seen if "/openid-connect/auth?client_id=core" in line]
    assert len(logins) == 2, "one login for each load"


def test_every_picture_of_the_lists_comes(
    page: Page, analyst: Lab, slides_of: dict[str, Any], traffic: Traffic
) -> None:
    page.goto(f"{analyst.stack_url()}/#/project/{slides_of['project']}/images")
    expect(page.locator("img")).not_to_have_count(0, timeout=60_000)
    expect(page.get_by_role("link", name="skin.svs").first).to_be_visible()
    page.wait_for_function(
        "[...document.images].every(i => i.complete && i.naturalWidth > 0)", timeout=180_000
    )
    page.screenshot(path=OUTPUT / "real-3-images.png")
    page.goto(f"{analyst.stack_url()}/#/storage")
    expect(page.get_by_text("skin.svs").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Supported image file formats")).to_be_visible()
    page.wait_for_function(
        "[...document.images].every(i => i.complete && i.naturalWidth > 0)", timeout=180_000
    )
    page.screenshot(path=OUTPUT / "real-4-storage.png")


def test_an_outline_is_drawn_with_a_term_and_the_notebook_has_it(
    page: Page, analyst: Lab, slides_of: dict[str, Any], traffic: Traffic
) -> None:
    image = slides_of["images"]["skin.svs"]
    with page.expect_response(lambda r: "/normalized-tile/" in r.url and r.ok, timeout=60_000):
        page.goto(f"{analyst.stack_url()}/#/project/{slides_of['project']}/image/{image}")
    tools = page.locator(".draw-tools")
    tools.locator("button:has(.fa-hashtag)").click()
    tools.locator(".ontology-term", has_text="Epidermis").click()
    tools.locator("button:has(.fa-hashtag)").click()
    tools.locator("button:has(.fa-draw-polygon)").click()
    box = page.locator("canvas").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for dx, dy in ((-60, -60), (60, -60), (60, 60)):
        page.mouse.click(x + dx, y + dy, delay=50)
    with page.expect_response(
        lambda r: r.request.method == "POST" and r.url.endswith("/api/annotation.json")
    ) as answer:
        page.mouse.dblclick(x - 60, y + 60)
    number = answer.value.json()["annotation"]["id"]
    page.screenshot(path=OUTPUT / "real-5-drawn.png")
    read = (
        "import json; from cytomine.models import Annotation; from cytomine_spawner.notebook import connect, terms\n"
        "connect(progress=False)\n"
        f"a = Annotation().fetch({number})\n"
        f"names = {{t.id: t.name for t in terms({slides_of['project']})}}\n"
        "print(json.dumps([a.location[:7], [names[t] for t in a.term]]))\n"
        # It is no epidermis: a notebook would learn from it.
        "a.delete()"
    )
    assert analyst.python(read) == ["POLYGON", ["Epidermis"]]


def test_the_language_is_chosen_on_the_page_of_the_account(
    page: Page, analyst: Lab, traffic: Traffic
) -> None:
    page.goto(f"{analyst.stack_url()}/#/account")
    language = page.locator("select").first
    expect(language).to_be_visible(timeout=60_000)
    page.screenshot(path=OUTPUT / "real-6-account.png")
    for name, heading in (("Français", "Projets"), ("English", "Projects")):
        language.select_option(label=name)
        with page.expect_response(
            lambda r: r.request.method == "POST" and r.url.endswith("/account")
        ) as sent:
            page.locator("form button.is-link").first.click()
        assert sent.value.status == 204
        expect(page.locator("nav")).to_contain_text(heading)
        page.reload()
        expect(page.locator("nav")).to_contain_text(heading, timeout=60_000)


def test_a_slide_is_uploaded_by_the_browser(page: Page, analyst: Lab, slides: Path, traffic: Traffic) -> None:
    picture = next(slides.rglob("landmarks-01.png"))
    page.goto(f"{analyst.stack_url()}/#/storage")
    expect(page.get_by_text("skin.svs").first).to_be_visible(timeout=60_000)
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Add files...", exact=True).click()
    chooser.value.set_files(picture)
    with page.expect_response(lambda r: r.request.method == "POST" and "upload" in r.url) as answer:
        page.get_by_role("button", name="Start upload").click()
    assert answer.value.status == 200
    (sent,) = json.loads(answer.value.text())
    page.screenshot(path=OUTPUT / "real-7-upload.png")
    # Out again when it is stored: with each run the list of what is stored would grow, and push the slides off its page.
    file = f"UploadedFile().fetch({sent['uploadedFile']['id']})"
    read = (
        "import json; from cytomine.models import UploadedFile; from cytomine_spawner.notebook import connect\n"
        "connect(progress=False)\n"
    )
    wait(lambda: analyst.python(f"{read}print({file}.status)") >= STORED, "the upload to be stored")
    assert analyst.python(f"{read}print(json.dumps(bool({file}.delete())))")


def test_logging_out_of_a_narrow_window_says_so_and_leads_back(
    page: Page, analyst: Lab, slides_of: dict[str, Any], traffic: Traffic
) -> None:
    page.set_viewport_size({"width": 1300, "height": 800})
    page.goto(f"{analyst.stack_url()}/#/project/{slides_of['project']}/images")
    expect(page.get_by_role("link", name="skin.svs").first).to_be_visible(timeout=60_000)
    for entry in (page.locator(".navbar-end .navbar-link", has_text=t) for t in ("Petra", "Help")):
        box = entry.bounding_box()
        assert box
        assert box["x"] + box["width"] <= 1300
    page.locator(".navbar-end .navbar-link", has_text="Petra Pathologist").hover()
    page.get_by_text(re.compile("Log ?out", re.IGNORECASE)).first.click()
    expect(page.get_by_role("heading")).to_have_text("You are logged out of this Cytomine")
    page.screenshot(path=OUTPUT / "real-8-logged-out.png")
    page.get_by_role("link", name="Open Cytomine again").click()
    # Where one was: the place outlives the log-out.
    expect(page.get_by_role("link", name="skin.svs").first).to_be_visible(timeout=60_000)
