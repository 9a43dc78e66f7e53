"""The HTML of the pages of the stacks: well-formed, labelled, without inline code, and names as text."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytomine_spawner.cluster.store import LogSource
from cytomine_spawner.common.names import plain as readable
from cytomine_spawner.stack.model import Access, ChosenProject, Members, Phase, ProjectRole, Reach
from tests.support.examples import examples
from tests.support.stackpages import ADA, cards, starting
from tests.support.stacks import PREFIX, Service, a_stack

pytest_plugins = ["tests.support.servedstacks"]


VOID = {"meta", "link", "img", "input", "br", "hr"}
PHASES = [None, *Phase]


@pytest.fixture(scope="module")
def client(running: Service) -> httpx.Client:
    """Ada's browser, for a test that looks many times."""
    return running.browser("ada")


class Strict(HTMLParser):
    """Collects what a browser would have to forgive."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(page)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]
        ids = Counter(a["id"] for _, a in self.elements if "id" in a)
        self.faults += [f"the id {name} stands {n} times" for name, n in ids.items() if n > 1]
        labelled = {a["for"] for tag, a in self.elements if tag == "label"}
        for tag, attributes in self.elements:
            if (
                tag in ("input", "select")
                and attributes.get("type") != "hidden"
                and attributes.get("id") not in labelled
            ):
                self.faults.append(f"no label: {attributes}")
            for name in ("aria-labelledby", "aria-describedby", "for", "list"):
                self.faults += [
                    f"{name} points nowhere: {i}" for i in attributes.get(name, "").split() if i not in ids
                ]
            self.faults += [
                f"inline: {tag} {name}" for name in attributes if name.startswith("on") or name == "style"
            ]
            if tag == "script" and not attributes.get("src"):
                self.faults.append("inline script")
            if tag == "img" and not attributes.get("alt"):
                self.faults.append("image without words")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"attribute twice: <{tag}>")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


@pytest.mark.parametrize("admin", [False, True])
def test_every_page_is_well_formed_labelled_and_without_inline_code(service: Service, admin: bool) -> None:
    for number, phase in enumerate(PHASES):
        service.put(a_stack("ada", f"s{number}", phase))
    service.put(starting())
    service.store.sources = [
        LogSource(f"{ADA}-core-0", "core"),
        LogSource(f"{ADA}-core-0", "wait", "Completed"),
    ]
    service.store.lines = ["x"]
    client = service.browser("root" if admin else "ada", admin=admin)
    at = f"{PREFIX}stacks/{ADA}"
    for address in (
        PREFIX,
        at,
        f"{at}/delete",
        f"{at}/logs/core",
        f"{at}/logs/pims",
        f"{PREFIX}none",
        f"{PREFIX}?owner=x",
    ):
        page = client.get(address).text
        parsed = Strict(page)
        assert parsed.faults == [], address
        headings = [tag for tag, _ in parsed.elements if tag in ("h1", "h2", "h3")]
        assert headings[0] == "h1", address
        assert headings.count("h1") == 1, address


def test_the_page_of_members_with_a_choice_of_projects_each_is_well_formed_and_labelled(
    service: Service,
) -> None:
    these = (ChosenProject(id=7, name='"><script>alert(1)</script>'), ChosenProject(id=9))
    access = (
        Access(kind="user", name="bob", projects=Reach.THESE, these=these),
        Access(kind="group", name="lab", projects=Reach.THESE, these=these, role=ProjectRole.MANAGER),
    )
    service.put(a_stack("ada", members=Members(users=("bob", "eve"), groups=("lab",), access=access)))
    page = service.browser("ada").get(f"{PREFIX}stacks/{ADA}/members").text
    parsed = Strict(page)
    assert parsed.faults == []
    assert "<script>alert" not in page
    assert sum(a.get("type") == "checkbox" for _, a in parsed.elements) == 4


SHOWN = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60)


NASTY = st.sampled_from(
    ['"><script>alert(1)</script>', "' onload=x '", "&lt;b&gt;", "</article>", "{{ 7*7 }}", "<!--"]
)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=NASTY | SHOWN, sentence=NASTY | SHOWN, server=NASTY | SHOWN.filter(bool))
def test_whatever_a_stack_is_called_the_page_shows_it_as_text(
    service: Service, client: httpx.Client, title: str, sentence: str, server: str
) -> None:
    service.clear()
    plain = a_stack("ada", "server", Phase.FAILED, display_name="name", message="sentence")
    service.put(plain)
    expected = Counter(tag for tag, _ in Strict(client.get(PREFIX).text).elements)
    service.clear()
    nasty = a_stack("ada", server, Phase.FAILED, display_name=title, message=sentence)
    service.put(nasty)
    page = client.get(PREFIX)
    parsed = Strict(page.text)
    assert parsed.faults == []
    assert Counter(tag for tag, _ in parsed.elements) == expected
    card = cards(page)[nasty.name]
    assert card.select_one(".title").get_text() == (readable(title) or f"Cytomine of {server}")
    assert card.select_one(".message p").get_text() == (sentence or "It could not start.")
