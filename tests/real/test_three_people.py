"""Three people look at slides at the same time, while a notebook reads another one: size S is enough for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from cytomine_spawner.common import quantity
from dev.console import Problem
from dev.demo.install import Installed
from tests.browser.conftest import OUTPUT
from tests.browser.test_journey import log_in
from tests.real.pages import open_projects
from tests.real.test_web_interface import IMAGES
from tests.support.lab import Lab
from tests.support.person import Person

MOVES = 20
# A part of the slide: the whole takes longer than the three have patience for.
TILES, AREA = 20 * 16, (0, 0, 20 * 512, 16 * 512)
READ = f"""
from cytomine.models import ImageInstanceCollection, ProjectCollection
from cytomine_spawner.notebook import connect, tiles
connect(progress=False)
project = next(p for p in ProjectCollection().fetch() if p.name == "mock-skin")
image = next(i for i in ImageInstanceCollection({{"project": project.id}}).fetch() if i.instanceFilename == "skin-large.tif")
print(sum(1 for _ in tiles(image, size=512, area={AREA}, progress=False)))
"""
# The page gets its tiles by XMLHttpRequest, to send its token along.
COUNT = """
window.tiles = {open: 0, shown: 0};
const begin = XMLHttpRequest.prototype.open;
XMLHttpRequest.prototype.open = function (method, url, ...more) {
  if (String(url).includes("/normalized-tile/")) {
    this.addEventListener("loadstart", () => { window.tiles.open += 1; });
    this.addEventListener("loadend", () => {
      window.tiles.open -= 1;
      if (this.status === 200) window.tiles.shown += 1;
    });
  }
  return begin.call(this, method, url, ...more);
};
"""
# Of all processes of a container: what they hold, with what they share counted in parts.
HELD = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {sum += $2} END {print sum * 1024}'"
MIB = 2**20


@pytest.fixture
def colleagues(hub: Installed, analyst: Lab) -> Iterator[list[Person]]:
    """Two members who see all projects."""
    found = [Person(hub, key) for key in ("ivan", "ada")]
    for person in found:
        where = f"api/stacks/{analyst.name}/members/users/{person.name}"
        analyst.ask("PUT", where, {"projects": "all", "role": "user"})
    yield found
    for person in found:
        analyst.ask("DELETE", f"api/stacks/{analyst.name}/members/users/{person.name}")


def running(lab: Lab) -> list[dict[str, Any]]:
    """The pods of the stack that work; not those of Jobs that have ended."""
    found = lab.kube.get("-n", lab.namespace, "pods", "-l", f"app.kubernetes.io/instance={lab.name}")
    assert found
    return [pod for pod in found["items"] if pod["status"]["phase"] == "Running"]


def held(lab: Lab) -> dict[str, tuple[int, int, int]]:
    """Bytes that each container of the stack holds, asked for and may hold, by its name; those that can be asked."""
    by_name = {}
    for pod in running(lab):
        for container in pod["spec"]["containers"]:
            resources = container["resources"]
            command = ["exec", pod["metadata"]["name"], "-c", container["name"], "--", "sh", "-c", HELD]
            try:
                said = lab.kubectl(*command)
            except Problem:
                continue  # some images have no shell
            sizes = (
                int(float(said)),
                *(quantity.to_bytes(resources[k]["memory"]) for k in ("requests", "limits")),
            )
            by_name[container["name"]] = (sizes[0], sizes[1], sizes[2])
    return by_name


def restarts(lab: Lab) -> dict[str, int]:
    return {
        pod["metadata"]["uid"]: sum(s["restartCount"] for s in pod["status"].get("containerStatuses", []))
        for pod in running(lab)
    }


def move(page: Page, turn: int) -> None:
    """Drag the slide or come nearer, after the tiles of the last move have come."""
    page.wait_for_function("window.tiles.open === 0", timeout=120_000)
    box = page.locator("canvas").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    if turn % 4 == 0:
        # Three steps nearer, then away again.
        page.mouse.wheel(0, -400 if turn % 20 in (4, 8, 12) else 400)
    else:
        # Never back to where it began: that would be a click, which selects an outline.
        page.mouse.down()
        page.mouse.move(x - 250 + 125 * (turn % 5), y + 130 - 75 * (turn % 4), steps=5)
        page.mouse.up()


def test_three_people_and_a_notebook_at_a_time_fit_into_size_s(
    chromium: Browser, hub: Installed, analyst: Lab, colleagues: list[Person]
) -> None:
    slides = analyst.python(IMAGES)
    before, idle = restarts(analyst), held(analyst)
    contexts = [chromium.new_context(viewport={"width": 1600, "height": 900}) for _ in range(3)]
    with ThreadPoolExecutor(1) as beside:
        try:
            pages = []
            for number, (context, name) in enumerate(zip(contexts, ("Petra", "Ivan", "Ada"), strict=True)):
                context.add_init_script(COUNT)
                page = context.new_page()
                log_in(page, hub, name)
                page.wait_for_load_state()
                open_projects(page, analyst.stack_url(), ["mock-skin"])
                image = slides["images"]["skin-large.tif" if number else "skin.svs"]
                page.goto(f"{analyst.stack_url()}/#/project/{slides['project']}/image/{image}")
                expect(page.locator(".draw-tools")).to_be_visible(timeout=120_000)
                page.wait_for_function("window.tiles.shown > 0", timeout=120_000)
                pages.append(page)
            reading = beside.submit(analyst.inside, "python", "-c", READ, timeout=900)
            seen = []
            for turn in range(1, MOVES + 1):
                for page in pages:
                    move(page, turn)
                if turn in (MOVES // 2, MOVES):
                    seen.append(held(analyst))
            read = int(reading.result().split()[-1])
            for page in pages:
                page.wait_for_function("window.tiles.open === 0", timeout=120_000)
            tiles = [int(page.evaluate("window.tiles.shown")) for page in pages]
            pages[2].screenshot(path=OUTPUT / "real-10-three.png")
        finally:
            for context in contexts:
                context.close()
    most = {part: max(look[part] for look in seen if part in look) for look in seen for part in look}
    lines = [f"tiles shown to each: {tiles}; read by the notebook: {read}"]
    lines += [
        f"{part:12} {idle.get(part, (0,))[0] / MIB:6.0f} MiB before, {now / MIB:6.0f} now; asks for {asked / MIB:.0f}, limit {may / MIB:.0f}"
        for part, (now, asked, may) in sorted(most.items())
    ]
    print("", *lines, sep="\n")  # noqa: T201
    assert {"core", "pims", "repository"} <= set(most)
    assert read == TILES
    assert min(tiles) > MOVES
    assert restarts(analyst) == before, "no part was killed or replaced"
    assert {part: sizes for part, sizes in most.items() if sizes[0] > sizes[2]} == {}
