"""The stand-in's page: login with the genuine keycloak-js, slides, drawing, terms, review, several people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, Response, Route, expect
from shapely import wkt

from dev import dataset
from dev.console import Console
from dev.standin import webassets
from dev.standin.local import Local
from tests.browser.conftest import OUTPUT
from tests.support.standin import local_stack
from tests.support.webissuer import WebIssuer

WIDTH, HEIGHT = 2220, 2967


def stored(answer: Response) -> bool:
    """An annotation was sent to be stored."""
    return answer.url.endswith("/api/annotation.json") and answer.request.method == "POST"


class World:
    """A stack of stand-ins with a project that ada owns and eve is a member of."""

    def __init__(self, local: Local, issuer: WebIssuer) -> None:
        self.local, self.issuer, self.url = local, issuer, local.url
        # Members cannot read the first of all: in a stack the service spares it.
        self.post("ontology.json", {"name": "none"})
        ontology = self.post("ontology.json", {"name": "tissue"})["data"]["id"]
        self.terms = {
            name: self.post("term.json", {"name": name, "ontology": ontology, "color": colour})["data"]["id"]
            for name, colour in (("tumour", "#d62728"), ("stroma", "#2ca02c"))
        }
        self.project = self.post("project.json", {"name": "trial", "ontology": ontology})["project"]["id"]
        storage = self.get("storage.json")["collection"][0]["id"]
        images = dataset.build(Console()) / dataset.SKIN / "DATASET_mock-skin/IMAGES"
        self.image = self.upload(images / "IMAGE_2/skin.svs", storage)
        self.channels = self.upload(images / "IMAGE_4/cells.ome.tif", storage)
        eve = self.get("user/current.json", "eve")["id"]
        self.post(f"project/{self.project}/user/{eve}.json", {})

    def _head(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token(who)}"}

    def get(self, path: str, who: str = "ada") -> Any:
        answer = requests.get(f"{self.url}/api/{path}", headers=self._head(who), timeout=30)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, data: Any, who: str = "ada") -> Any:
        answer = requests.post(f"{self.url}/api/{path}", json=data, headers=self._head(who), timeout=30)
        answer.raise_for_status()
        return answer.json()

    def upload(self, path: Path, storage: int) -> int:
        import cytomine

        keys = self.get("user/current/keys")
        client = cytomine.Cytomine.connect(
            self.url, keys["primaryKey"], keys["secondaryKey"], use_cache=False
        )
        done = client.upload_image(str(path), storage, self.project, sync=True)
        return int(done.images[0]["imageInstances"][0].id)

    def annotations(self) -> list[dict[str, Any]]:
        query = f"image={self.image}&showWKT=true&showTerm=true&showMeta=true&max=0"
        return list(self.get(f"annotation.json?{query}")["collection"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    issuer = WebIssuer({"ada": "ADMIN"})
    folder = tmp_path_factory.mktemp("webui")
    with local_stack(folder, issuer, modules=webassets.node_modules()) as (local, _):
        yield World(local, issuer)


@pytest.fixture(scope="module")
def _ada(shell: Browser) -> Iterator[BrowserContext]:
    context = shell.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def ada(_ada: BrowserContext) -> Iterator[BrowserContext]:
    """Ada's browser, in which she is logged in from test to test; their tabs are closed."""
    yield _ada
    for page in _ada.pages:
        page.close()


def enter(world: World, context: BrowserContext, who: str, path: str = "/") -> Page:
    """A tab of someone who is logged in at the issuer; nothing may go wrong in it unseen."""
    context.add_cookies([{"name": "who", "value": who, "url": world.issuer.url}])
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"an error in the page: {error}"))
    page.goto(world.url + path)
    expect(page.locator("#who")).to_have_text(who.title(), timeout=20_000)
    return page


def slide(world: World, context: BrowserContext, who: str = "ada", image: int = 0) -> Page:
    page = enter(world, context, who, f"/#/project/{world.project}/image/{image or world.image}")
    expect(page.locator("#map canvas").first).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("")
    return page


def corners(page: Page) -> tuple[float, float, float]:
    """Where the slide's top left corner is on the screen, and how many screen pixels one of its own is."""
    box = page.locator("#map").bounding_box()
    assert box
    # It fits into the map as a whole, in the middle.
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left = box["x"] + (box["width"] - WIDTH * scale) / 2
    return left, box["y"] + (box["height"] - HEIGHT * scale) / 2, scale


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """The place on the screen of a pixel of the slide, counted from its top left."""
    left, top, scale = corners(page)
    return left + x * scale, top + y * scale


def test_whoever_is_logged_in_sees_the_projects_without_a_form(world: World, context: BrowserContext) -> None:
    page = enter(world, context, "ada")
    expect(page.get_by_text("Stand-in, not Cytomine")).to_be_visible()
    page.get_by_role("link", name="trial").click()
    expect(page.get_by_role("link", name="skin.svs")).to_be_visible()
    preview = page.locator("li", has_text="skin.svs").locator("img")
    expect(preview).to_have_js_property("complete", True)
    page.wait_for_function("[...document.images].every(i => i.naturalWidth > 0)")
    page.screenshot(path=OUTPUT / "webui-project.png")


def test_a_polygon_drawn_over_a_place_is_stored_there_with_its_term(
    world: World, ada: BrowserContext
) -> None:
    page = slide(world, ada)
    page.get_by_label("Term", exact=True).select_option(label="tumour")
    page.get_by_role("button", name="Polygon", exact=True).click()
    # Over the horn cyst, from the top left.
    wanted = [(1300, 900), (1650, 900), (1700, 1500), (1200, 1900)]
    for place in wanted:
        page.mouse.click(*at(page, *place))
    with page.expect_response(stored) as answer:
        page.mouse.dblclick(*at(page, 1100, 1400))
    assert answer.value.status == 200
    expect(page.locator("#annotations")).to_contain_text("tumour: polygon")
    found = [a for a in world.annotations() if a["term"] == [world.terms["tumour"]]]
    assert len(found) == 1
    polygon = wkt.loads(found[0]["location"])
    places = [(x, HEIGHT - y) for x, y in polygon.exterior.coords[:-1]]
    assert len(places) == 5
    near = 6 / corners(page)[2]
    for x, y in [*wanted, (1100, 1400)]:
        assert any(abs(x - px) < near and abs(y - py) < near for px, py in places), (x, y, places)
    page.wait_for_function("document.querySelectorAll('#map canvas').length > 0")
    page.screenshot(path=OUTPUT / "webui-polygon.png")


@pytest.mark.parametrize(
    ("tool", "kind"),
    [("Point", "POINT"), ("Line", "LINESTRING"), ("Rectangle", "POLYGON"), ("Freehand", "POLYGON")],
)
def test_every_tool_draws(world: World, ada: BrowserContext, tool: str, kind: str) -> None:
    before = {a["id"] for a in world.annotations()}
    page = slide(world, ada)
    page.get_by_role("button", name=tool, exact=True).click()
    first, second = at(page, 300, 300), at(page, 700, 600)
    with page.expect_response(stored):
        if tool == "Freehand":
            page.mouse.move(*first)
            page.mouse.down()
            for x, y in ((500, 300), (700, 500), (500, 700), (350, 500)):
                page.mouse.move(*at(page, x, y), steps=4)
            page.mouse.up()
        else:
            page.mouse.click(*first)
            if tool == "Line":
                page.mouse.dblclick(*second)
            elif tool == "Rectangle":
                page.mouse.click(*second)
    (new,) = [a for a in world.annotations() if a["id"] not in before]
    assert new["location"].startswith(kind)
    left, bottom, right, top = wkt.loads(new["location"]).bounds
    assert 280 < left <= right < 720
    assert HEIGHT - 720 < bottom <= top < HEIGHT - 280


def test_what_a_tool_asks_for_stays_while_what_was_stored_is_read_again(
    world: World, ada: BrowserContext
) -> None:
    page = slide(world, ada)
    page.get_by_role("button", name="Point", exact=True).click()
    before, held = page.locator("#annotations li").count(), list[Route]()
    page.route("**/annotation.json?*", lambda route: held.append(route))
    with page.expect_request(lambda asked: "annotation.json?" in asked.url and asked.method == "GET"):
        page.mouse.click(*at(page, 900, 700))
    page.get_by_role("button", name="Polygon", exact=True).click()
    expect(page.locator("#annotations li")).to_have_count(before)
    for route in held:
        route.continue_()
    page.unroute("**/annotation.json?*")
    expect(page.locator("#annotations li")).to_have_count(before + 1)
    expect(page.get_by_role("status")).to_contain_text("Click for each corner")


def test_an_annotation_is_added_by_the_keyboard_alone(world: World, ada: BrowserContext) -> None:
    page = slide(world, ada)
    page.get_by_label(re.compile("Geometry")).focus()
    page.keyboard.type("POINT (100 200)")
    page.keyboard.press("Tab")
    with page.expect_response(stored):
        page.keyboard.press("Enter")
    button = page.locator("#annotations button", has_text="point").first
    expect(button).to_be_visible()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_contain_text("point")
    assert any(a["location"] == "POINT (100 200)" for a in world.annotations())


def test_what_cytomine_refuses_is_said(world: World, ada: BrowserContext) -> None:
    page = slide(world, ada)
    page.get_by_label(re.compile("Geometry")).fill("POLYGON ((nonsense")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("status")).to_contain_text("Cytomine refused (400)")


def test_people_see_each_other_s_annotations_and_hide_them_by_layer(
    world: World, browser: Browser, ada: BrowserContext
) -> None:
    page = slide(world, ada)
    other = browser.new_context(viewport={"width": 1200, "height": 900})
    try:
        eve = slide(world, other, "eve")
        eve.get_by_label("Term", exact=True).select_option(label="stroma")
        eve.get_by_label(re.compile("Geometry")).fill("POLYGON ((900 900, 1300 900, 1300 1300, 900 900))")
        eve.get_by_role("button", name="Add").click()
        mark = page.locator("#annotations button", has_text="stroma")
        # It comes by itself.
        expect(mark).to_have_count(1, timeout=15_000)
        mark.click()
        expect(page.locator("#details")).to_contain_text("by Eve")
        page.get_by_label(re.compile(r"Eve \(")).uncheck()
        expect(mark).to_have_count(0)
        page.get_by_label(re.compile(r"Eve \(")).check()
        expect(mark).to_have_count(1)
    finally:
        other.close()


def test_a_review_accepts_and_takes_back(world: World, ada: BrowserContext) -> None:
    world.post(
        "annotation.json",
        {
            "location": "POINT (1500 1500)",
            "image": world.image,
            "project": world.project,
            "term": [world.terms["tumour"]],
        },
    )
    page = slide(world, ada)
    mark = page.locator("#annotations button", has_text="tumour: point")
    mark.click()
    expect(page.get_by_role("button", name="Accept", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Start the review").click()
    expect(page.get_by_role("button", name="The image is in review")).to_be_disabled()
    expect(page.get_by_role("button", name="Accept", exact=True)).to_be_enabled()
    page.get_by_role("button", name="Accept", exact=True).click()
    expect(mark).to_contain_text("accepted")
    assert any(a["reviewed"] and a["location"] == "POINT (1500 1500)" for a in world.annotations())
    (copy,) = world.get(f"annotation.json?image={world.image}&reviewed=true&showTerm=true")["collection"]
    assert copy["term"] == [world.terms["tumour"]]
    page.screenshot(path=OUTPUT / "webui-review.png")
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(mark).not_to_contain_text("accepted")
    assert not any(a["reviewed"] for a in world.annotations())
    page.get_by_label("Term of the chosen annotation").select_option(label="stroma")
    expect(page.locator("#details")).to_contain_text("stroma: point")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#details")).to_contain_text("None")


def test_the_channels_of_an_image_are_looked_at_one_by_one(world: World, ada: BrowserContext) -> None:
    page = slide(world, ada, image=world.channels)
    channel = page.get_by_label("Channel")
    assert channel.locator("option").all_inner_texts() == ["DAPI", "Cytoplasm", "Marker"]
    slices = world.get(f"imageinstance/{world.channels}/sliceinstance.json?max=0")["collection"]
    (third,) = [s["id"] for s in slices if s["channel"] == 2]
    with page.expect_response(re.compile(f"/sliceinstance/{third}/normalized-tile/")) as tile:
        channel.select_option(label="Marker")
    assert tile.value.status == 200
    page.wait_for_load_state("networkidle")
    page.screenshot(path=OUTPUT / "webui-channel.png")


def _configured(issuer: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json={"IAM_URL": issuer})


def test_without_a_login_the_page_says_so_in_one_sentence(
    world: World, context: BrowserContext, tmp_path: Path
) -> None:
    page = context.new_page()
    for address, says in (("", "names no login"), ("http://127.0.0.1:9/realms/cytomine", "does not answer")):
        page.route("**/configuration.json", _configured(address))
        page.goto(world.url)
        expect(page.get_by_role("status")).to_contain_text(says)
        page.unroute("**/configuration.json")


def test_leaving_ends_the_login(world: World, context: BrowserContext) -> None:
    page = enter(world, context, "ada")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{world.issuer.url}/gone")
