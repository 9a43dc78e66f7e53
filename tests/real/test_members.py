"""A colleague who is invited finds the projects, works in them, and is out when removed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from dev.demo.install import Installed
from tests.browser.conftest import OUTPUT
from tests.browser.test_journey import log_in
from tests.real.covered import LIST
from tests.real.pages import open_projects
from tests.real.test_web_interface import Traffic
from tests.support import requestlist
from tests.support.lab import Lab
from tests.support.person import Person


@pytest.fixture
def colleague(hub: Installed, analyst: Lab) -> Iterator[Person]:
    """Somebody who is no member yet, and afterwards."""
    person = Person(hub, "ivan")
    where = f"api/stacks/{analyst.name}/members/users/{person.name}"
    analyst.request("DELETE", where)
    yield person
    analyst.request("DELETE", where)


@pytest.mark.parametrize("chosen", ["all", ["mock-landmarks"]])
def test_an_invited_colleague_sees_the_projects_that_the_owner_chose(
    page: Page, hub: Installed, analyst: Lab, colleague: Person, chosen: str | list[str]
) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log_in(page, hub, "Ivan")
    page.wait_for_load_state()
    traffic = Traffic(page, analyst.stack_url(), f"{hub.cards}/{analyst.name}/iam/")
    page.goto(analyst.stack_url())
    expect(page.get_by_text("is not among its members")).to_be_visible(timeout=60_000)
    known = {
        p["name"]: p["id"] for p in analyst.ask("GET", f"api/stacks/{analyst.name}/projects")["projects"]
    }
    assert set(known) >= {"mock-skin", "mock-landmarks"}
    projects = chosen if isinstance(chosen, str) else [known[name] for name in chosen]
    where = f"api/stacks/{analyst.name}/members/users/{colleague.name}"
    analyst.ask("PUT", where, {"projects": projects, "role": "user"})
    shown = ["mock-skin", "mock-landmarks"] if chosen == "all" else list(chosen)
    open_projects(page, analyst.stack_url(), shown)
    if chosen != "all":
        for name in set(known) - set(shown):
            expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    page.screenshot(path=OUTPUT / "real-9-member.png")
    # Not the list alone: a project opens only for whoever may read its ontology.
    page.goto(f"{analyst.stack_url()}/#/project/{known[shown[0]]}/images")
    slide = page.get_by_role("link", name=re.compile(r"\.(svs|tif|png)$"))
    expect(slide.first).to_be_visible(timeout=60_000)
    page.screenshot(path=OUTPUT / "real-9-member-project.png")
    analyst.ask("DELETE", where)
    # What is open goes on for as long as the gateway believes its session, and a new login is refused.
    page.context.clear_cookies(domain=analyst.stack_url().split("//")[1].split(":")[0])
    page.goto(analyst.stack_url())
    expect(page.get_by_text("is not among its members")).to_be_visible(timeout=60_000)
    requestlist.keep(requestlist.kinds("web-ui", traffic.asked), LIST)
