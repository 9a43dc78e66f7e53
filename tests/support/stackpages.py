"""The pages of the stack service as a browser without scripts sees them."""

from __future__ import annotations

from typing import Any

import httpx
from bs4 import BeautifulSoup, Tag

from cytomine_spawner.stack.model import ComponentStatus, Phase, Stack, State
from tests.support.stacks import NAMES, PREFIX, Service, a_stack

ADA = "cm-ada"


def soup(page: httpx.Response, status: int = 200) -> BeautifulSoup:
    """A page that is as it should be, parsed."""
    assert page.status_code == status, page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    return BeautifulSoup(page.text, "html.parser")


def cards(page: httpx.Response, status: int = 200) -> dict[str, Tag]:
    """The cards of a page by the names of their stacks."""
    return {str(card["data-stack"]): card for card in soup(page, status).select("article.card")}


def text(element: Any) -> str:
    """What an element says."""
    return " ".join(element.get_text(" ").split()).replace(" ,", ",")


def send(client: httpx.Client, page: httpx.Response, form: Tag, **typed: str) -> httpx.Response:
    """Send a form as a browser does."""
    data = {
        str(field["name"]): str(field.get("value", ""))
        for field in form.select("input[name]")
        if field.get("type") not in ("radio", "checkbox") or field.has_attr("checked")
    }
    return client.request(
        str(form["method"]), str(page.url.join(str(form["action"]))), data={**data, **typed}
    )


def press(service: Service, verb: str, start: str = PREFIX) -> httpx.Response:
    """Press a button of a card."""
    ada = service.browser("ada")
    page = ada.get(start)
    form = cards(page)[ADA].select_one(f"form[action$='/{verb}']")
    assert form is not None, f"no form to {verb}"
    return send(ada, page, form)


def starting(owner: str = "ada", server: str = "") -> Stack:
    """A stack whose core is late."""
    components = tuple(
        ComponentStatus(name=name, state=State.READY, message="It serves.", ready_seconds=75)
        if name != "core"
        else ComponentStatus(
            name="core", state=State.PULLING, message="Its image is being fetched.", restarts=2
        )
        for name in NAMES
    )
    return a_stack(
        owner,
        server,
        Phase.STARTING,
        components=components,
        slowest="core",
        ready="6/7",
        message="Core is late.",
    )
