"""Cytomine in the options of a real hub whose cluster does not answer: the notebook comes first."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from bs4 import BeautifulSoup

from tests.support.hub import Hub, running


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Hub:
    with running(tmp_path_factory.mktemp("hub"), TEST_HUB_CYTOMINE="1") as hub:
        yield hub


def stop(hub: Hub, user: str) -> None:
    assert hub.api("DELETE", f"/users/{user}/server").status_code in (202, 204)


def options(hub: Hub, user: str) -> dict:
    model = hub.api("GET", f"/users/{user}", params={"include_stopped_servers": "1"}).json()
    return model["servers"][""]["user_options"]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"size": "XXL"}, "'cytomine.size'"),
        ({"components": ["coffee"]}, "'cytomine.components'"),
        ({"datasets": ["mock"]}, "'cytomine.datasets'"),
        ("yes", "'cytomine'"),
    ],
)
def test_a_wrong_choice_is_a_400_that_names_the_field(hub, raw, field):
    hub.user("ann")
    answer = hub.api("POST", "/users/ann/server", json={"cytomine": raw})
    assert answer.status_code == 400
    assert field in answer.json()["message"]


def test_a_notebook_starts_although_its_stack_cannot_be_made_and_the_choice_is_kept(hub):
    hub.user("bob")
    chosen = {"cytomine": {"size": "M", "components": ["cbir"]}}
    answer = hub.api("POST", "/users/bob/server", json=chosen)
    assert answer.status_code == 201
    assert options(hub, "bob") == chosen
    stop(hub, "bob")
    # what was kept is good for a start without a body
    assert hub.api("POST", "/users/bob/server").status_code == 201
    stop(hub, "bob")
    deadline = time.monotonic() + 20
    while "The stack cm-bob was not started" not in hub.log:
        assert time.monotonic() < deadline, hub.log
        time.sleep(0.1)


def test_the_form_offers_a_stack_starts_it_and_remembers_the_choice(hub):
    browser = hub.browser("cho")
    page = browser.get("/hub/spawn")
    assert (
        "The cluster does not answer"
        in BeautifulSoup(page.text, "html.parser").select_one("#option-cytomine [role=status]").get_text()
    )
    answer = browser.submit("/hub/spawn", {"cytomine": "stack", "cytomine_components": ["", "cbir"]})
    assert answer.status_code == 302
    assert options(hub, "cho")["cytomine"] == {"size": "S", "components": ["cbir"]}
    stop(hub, "cho")
    soup = BeautifulSoup(browser.get("/hub/spawn").text, "html.parser")
    assert [field["value"] for field in soup.select("input[name=cytomine][checked]")] == ["stack"]
    assert [field["value"] for field in soup.select("input[name=cytomine_components][checked]")] == ["cbir"]


def test_a_link_fills_in_the_stack_and_neither_starts_nor_keeps_anything(hub):
    browser = hub.browser("gus")
    link = "/hub/spawn?cytomine=stack&cytomine_size=M&cytomine_components=cbir"
    page = browser.get(link)
    assert page.status_code == 200
    soup = BeautifulSoup(page.text, "html.parser")
    assert [field["value"] for field in soup.select("#option-cytomine input[checked]")] == [
        "stack",
        "M",
        "cbir",
    ]
    assert "before you press Start" in soup.select_one("#option-link").get_text()
    assert "cm-gus" not in hub.log
    assert not hub.api("GET", "/users/gus").json()["servers"]
    # the button, and nothing else, starts what the form shows
    assert browser.submit(link, {"cytomine_components": ["", "cbir"]}).status_code == 302
    assert options(hub, "gus")["cytomine"] == {"size": "M", "components": ["cbir"]}
    stop(hub, "gus")
    # and a link that is not about Cytomine leaves that choice alone
    soup = BeautifulSoup(browser.get("/hub/spawn?image=standard").text, "html.parser")
    assert [field["value"] for field in soup.select("#option-cytomine input[checked]")] == [
        "stack",
        "M",
        "cbir",
    ]


def test_a_refused_form_shows_the_message_in_its_block(hub):
    answer = hub.browser("dee").submit("/hub/spawn", {"cytomine": "stack", "cytomine_size": "XXL"})
    assert answer.status_code == 400
    soup = BeautifulSoup(answer.text, "html.parser")
    assert "'XXL' is not offered" in soup.select_one("#option-cytomine [role=alert]").get_text()


def test_a_user_can_be_deleted_although_the_stack_cannot(hub):
    hub.user("eve")
    assert hub.api("POST", "/users/eve/server", json={"cytomine": True}).status_code == 201
    stop(hub, "eve")
    assert hub.api("DELETE", "/users/eve").status_code == 204
    assert "The stack cm-eve of eve was not deleted" in hub.log
    assert json.loads(hub.api("GET", "/users/eve").text)["status"] == 404


def test_the_hub_does_not_load_the_operators_engine(hub):
    hub.browser("fay").get("/hub/spawn")
    loaded = httpx.get(f"{hub.url}/hub/modules", verify=False).json()["packages"]
    assert "cytomine_spawner" in loaded
    assert "kopf" not in loaded
