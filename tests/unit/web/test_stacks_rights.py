"""What a token lets somebody do, for every address: by the role in the stack and by the token's scopes."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from bs4 import BeautifulSoup

from cytomine_spawner.stack.model import Members
from cytomine_spawner.stack.rights import ADMIN_SCOPE, HUB_ADMIN_SCOPE, MANAGE_SCOPE, RIGHTS, Action
from tests.support.stacks import ACCESS_SCOPE, PREFIX, Service, a_stack, xsrf

pytest_plugins = ["tests.support.servedstacks"]

API = f"{PREFIX}api/stacks"
ADA = "cm-ada"
# What the hub puts into the token of a notebook's server reaches the service and no further.
NOTEBOOK = (ACCESS_SCOPE, "users:activity!user=x", "access:servers!server=x/")
PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "owner": ("ada", {}),
    "owner's notebook": ("ada", {"scopes": NOTEBOOK}),
    "member": ("mia", {}),
    "member's notebook": ("mia", {"scopes": NOTEBOOK}),
    "administrator": ("root", {"admin": True}),
    "administrator's notebook": ("root", {"admin": True, "scopes": NOTEBOOK}),
    "administrator's token to manage": ("root", {"admin": True, "scopes": (ACCESS_SCOPE, MANAGE_SCOPE)}),
    "one with the hub's page of administrators": ("hal", {"scopes": (ACCESS_SCOPE, HUB_ADMIN_SCOPE)}),
    "one who was given all stacks": ("hal", {"scopes": (ACCESS_SCOPE, ADMIN_SCOPE)}),
    "service with all stacks": ("monitor", {"kind": "service", "scopes": (ACCESS_SCOPE, ADMIN_SCOPE)}),
    "stranger": ("eve", {}),
}
OWNER, ALL_OWNERS = {"owner"}, {"owner", "owner's notebook"}
ADMINS = {"administrator", "one who was given all stacks", "service with all stacks"}
MEMBER, ALL_MEMBERS = {"member"}, {"member", "member's notebook"}


@dataclass(frozen=True)
class Way:
    """A request, and who gets what they ask for."""

    method: str
    path: str
    may: set[str]
    body: Any = None
    form: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.body or ''}".strip()


WAYS = [
    Way("GET", f"{API}/{ADA}", ALL_OWNERS | ALL_MEMBERS | ADMINS),
    Way("PATCH", f"{API}/{ADA}", ALL_OWNERS | ADMINS, {"desiredState": "Running"}),
    Way("PATCH", f"{API}/{ADA}", OWNER | ADMINS, {"desiredState": "Hibernated"}),
    Way("PATCH", f"{API}/{ADA}", OWNER | ADMINS, {"displayName": "Lung"}),
    Way("PATCH", f"{API}/{ADA}", OWNER | ADMINS, {"desiredState": "Running", "displayName": "Lung"}),
    Way("DELETE", f"{API}/{ADA}?keepData=true", OWNER | ADMINS),
    Way("POST", f"{API}/{ADA}/retry", OWNER | ADMINS),
    Way("GET", f"{API}/{ADA}/events", ALL_OWNERS | ALL_MEMBERS | ADMINS),
    Way("GET", f"{API}/{ADA}/components/core/logs", OWNER | ADMINS),
    Way("GET", f"{API}/{ADA}/components/core/logs?follow=true", OWNER | ADMINS),
    Way("POST", f"{API}/{ADA}/connection", ALL_OWNERS | ALL_MEMBERS),
    Way("POST", f"{API}/{ADA}/connection/rotate", ALL_OWNERS | ALL_MEMBERS),
    Way("POST", f"{API}/{ADA}/token", ALL_OWNERS | ALL_MEMBERS),
    Way("GET", f"{API}/{ADA}/projects", OWNER),
    Way("GET", f"{API}/{ADA}/members", OWNER | ADMINS),
    Way("GET", f"{API}/{ADA}/members/users/mia", OWNER | ADMINS),
    Way("PUT", f"{API}/{ADA}/members/users/zoe", OWNER | ADMINS),
    Way("POST", f"{API}/{ADA}/members/users/zoe", OWNER | ADMINS),
    Way("DELETE", f"{API}/{ADA}/members/users/zoe", OWNER | ADMINS),
    Way("DELETE", f"{API}/{ADA}/members/users/mia", OWNER | ADMINS | MEMBER),
    Way("GET", f"{API}/{ADA}/members/groups/lab", OWNER | ADMINS),
    Way("PUT", f"{API}/{ADA}/members/groups/lab", OWNER | ADMINS),
    Way("POST", f"{API}/{ADA}/members/groups/lab", OWNER | ADMINS),
    Way("DELETE", f"{API}/{ADA}/members/groups/lab", OWNER | ADMINS),
    Way("GET", f"{PREFIX}stacks/{ADA}", ALL_OWNERS | ALL_MEMBERS | ADMINS),
    Way("GET", f"{PREFIX}open/{ADA}", ALL_OWNERS | ALL_MEMBERS | ADMINS),
    Way("POST", f"{PREFIX}stacks/{ADA}/resume", ALL_OWNERS | ADMINS),
    Way("POST", f"{PREFIX}stacks/{ADA}/hibernate", OWNER | ADMINS),
    Way("POST", f"{PREFIX}stacks/{ADA}/retry", OWNER | ADMINS),
    Way("GET", f"{PREFIX}stacks/{ADA}/delete", OWNER | ADMINS),
    Way("POST", f"{PREFIX}stacks/{ADA}/delete", OWNER | ADMINS, form={"name": ADA, "data": "keep"}),
    Way("GET", f"{PREFIX}stacks/{ADA}/logs/core", OWNER | ADMINS),
    Way("GET", f"{PREFIX}stacks/{ADA}/members", OWNER | ADMINS),
    Way(
        "POST",
        f"{PREFIX}stacks/{ADA}/members",
        OWNER | ADMINS,
        form={"do": "add", "kind": "users", "member": "zoe"},
    ),
    Way("POST", f"{PREFIX}stacks/{ADA}/leave", MEMBER),
]


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    running.put(a_stack("ada", members=Members(users=("mia",), groups=("lab",))))
    running.hub.people.update(ada=(), mia=(), zoe=(), root=(), gil=("lab",))
    return running


def ask(client: httpx.Client, way: Way) -> httpx.Response:
    """The answer's head: some of them never end."""
    send: dict[str, Any] = {"json": way.body} if way.body else {"data": way.form} if way.form else {}
    with client.stream(way.method, way.path, follow_redirects=False, **send) as answer:
        return answer


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_each_address_does_for_a_token_what_role_and_scopes_allow_and_no_more(
    service: Service, way: Way, who: str
) -> None:
    name, model = PEOPLE[who]
    before = service.store.view.get(ADA)
    answer = ask(service.program(name, **model), way)
    if who in way.may:
        # 404 and 409: nothing is there to be read or tried; 503: nothing here gives out keys.
        assert answer.status_code in (200, 202, 204, 303, 404, 409, 503), answer
        if answer.status_code == 404:
            assert "logs" in way.path or "groups" in way.path
        return
    sees = who in WAYS[0].may
    assert answer.status_code == (403 if sees else 404), answer
    assert service.store.view.get(ADA) == before
    assert service.store.deleted == []


def test_every_address_of_a_stack_is_in_the_table(running: Service) -> None:
    missing = []
    for pattern, handler, *_ in running.site.handlers:
        if "[a-z0-9]" not in pattern or "/iam/" in pattern or "/verify" in pattern:
            continue
        if pattern.endswith("/archive-token"):
            continue  # for an import's pod alone: tests/unit/datasets/test_archive_imports.py has who gets nothing there
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if getattr(handler, method.lower()).__qualname__.startswith("RequestHandler."):
                continue
            fits = [w for w in WAYS if w.method == method and re.fullmatch(pattern, w.path.partition("?")[0])]
            if not fits:
                missing.append((method, pattern))
    assert not missing


def test_every_right_is_in_the_one_table() -> None:
    assert set(RIGHTS) == set(Action)


def listed(client: httpx.Client) -> set[str]:
    answer = client.get(API)
    assert answer.status_code == 200, answer.text
    return {stack["name"] for stack in answer.json()["stacks"]}


@pytest.mark.parametrize("who", PEOPLE)
def test_a_list_holds_what_the_token_may_see(service: Service, who: str) -> None:
    name, model = PEOPLE[who]
    assert listed(service.program(name, **model)) == ({ADA} if who in WAYS[0].may else set())


def test_the_token_in_an_administrators_notebook_makes_nobody_a_member(service: Service) -> None:
    notebook = service.program("root", admin=True, scopes=NOTEBOOK)
    assert notebook.put(f"{API}/{ADA}/members/users/root").status_code == 404
    assert notebook.post(f"{API}/{ADA}/connection").status_code == 404
    assert service.store.view.get(ADA).spec.members.users == ("mia",)


def test_one_who_may_only_not_with_this_token_is_told_which_scope_is_missing(service: Service) -> None:
    notebook = service.program("ada", scopes=NOTEBOOK)
    answer = notebook.delete(f"{API}/{ADA}", params={"keepData": True})
    assert answer.status_code == 403
    assert MANAGE_SCOPE in answer.json()["message"]
    assert set(notebook.get(f"{API}/{ADA}").json()["actions"]) == {"open", "connect"}


# -- browsers ---------------------------------------------------------------------------------------------


def buttons(page: httpx.Response) -> set[str]:
    return {str(e["id"]) for e in BeautifulSoup(page.text, "html.parser").select(".actions [id]")}


def test_a_login_of_a_time_without_scopes_is_renewed_without_a_form(service: Service) -> None:
    client = service.browser("ada", scopes=(ACCESS_SCOPE,))
    # As if it had been made before: by a service that did not ask for more.
    client.cookies.delete("cytomine-login")
    client.cookies.set("who", service.hub.token("ada"))
    page = client.get(PREFIX)
    assert str(page.url) == f"{service.url}{PREFIX}"
    assert f"{ADA}-hibernate" in buttons(page)


def test_a_hub_that_gives_no_scopes_is_asked_once_and_not_for_ever(service: Service) -> None:
    client = service.browser("ada", scopes=(ACCESS_SCOPE,))
    asked = service.hub.asked
    for _ in range(3):
        page = client.get(PREFIX)
        assert page.status_code == 200
        assert not page.history
    assert service.hub.asked <= asked + 3
    assert buttons(page) == {f"{ADA}-open"}
    answer = client.post(f"{PREFIX}stacks/{ADA}/hibernate", data={"_xsrf": xsrf(page)})
    assert answer.status_code == 403
    assert "log out of the hub and in again" in answer.text


# -- what administrators do -------------------------------------------------------------------------------


def acts(service: Service, who: str = "ada") -> list[str]:
    return [one["message"] for one in service.program(who).get(f"{API}/{ADA}").json()["notices"]]


def test_an_owner_reads_what_an_administrator_did_on_the_card_the_members_page_and_the_api(
    service: Service,
) -> None:
    root = service.browser("root", admin=True)
    form = {"_xsrf": xsrf(root.get(PREFIX)), "do": "add", "kind": "users", "member": "root"}
    assert root.post(f"{PREFIX}stacks/{ADA}/members", data=form).status_code == 200
    program = service.program("root", admin=True)
    program.put(f"{API}/{ADA}/members/users/zoe")
    program.delete(f"{API}/{ADA}/members/users/mia")
    program.patch(f"{API}/{ADA}", json={"desiredState": "Hibernated"})
    told = [
        "root, an administrator of the hub, let themselves in as a member.",
        "root, an administrator of the hub, invited the user zoe.",
        "root, an administrator of the hub, removed the user mia.",
        "root, an administrator of the hub, hibernated it.",
    ]
    assert acts(service) == told
    ada = service.browser("ada")
    card = ada.get(PREFIX).text
    assert [one in card for one in told] == [False, True, True, True], "a card shows the last three"
    assert all(one in ada.get(f"{PREFIX}stacks/{ADA}/members").text for one in told)
    assert acts(service, "zoe") == [], "what concerns the owner is for the owner"


def test_what_changes_nothing_and_what_the_owner_does_leaves_no_notice(service: Service) -> None:
    root, ada = service.program("root", admin=True), service.program("ada")
    root.delete(f"{API}/{ADA}/members/users/zoe")
    root.patch(f"{API}/{ADA}", json={"desiredState": "Running"})
    root.get(f"{API}/{ADA}/members")
    ada.put(f"{API}/{ADA}/members/users/zoe")
    service.program("mia").delete(f"{API}/{ADA}/members/users/mia")
    ada.patch(f"{API}/{ADA}", json={"displayName": "Lung"})
    assert acts(service) == []


def test_only_the_last_acts_are_kept_and_a_broken_note_breaks_nothing(service: Service) -> None:
    root = service.program("root", admin=True)
    for _ in range(15):
        root.put(f"{API}/{ADA}/members/users/zoe")
        root.delete(f"{API}/{ADA}/members/users/zoe")
    assert len(acts(service)) == 20
    for broken in ("{", "[1]", '[{"at": 1}]', "null", '{"at": "x"}'):
        stack = service.store.view.get(ADA)
        service.put(stack.replace(annotations={"cytomine-spawner.org/notices": broken}))
        assert acts(service) == []
        assert root.put(f"{API}/{ADA}/members/users/zoe").status_code == 200
        assert len(acts(service)) == 1
        root.delete(f"{API}/{ADA}/members/users/zoe")


def test_the_log_has_a_line_for_each_thing_that_an_administrator_asks_for_reading_included(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cytomine_spawner.stacks.audit")
    root = service.program("root\nforged", admin=True)
    root.get(f"{API}/{ADA}/components/core/logs")
    root.put(f"{API}/{ADA}/members/users/zoe?token=s3cret")
    service.program("ada").get(f"{API}/{ADA}/components/core/logs")
    lines = [r.getMessage() for r in caplog.records if r.name == "cytomine_spawner.stacks.audit"]
    assert all("\n" not in line for line in lines)
    said = [json.loads(line) for line in lines]
    assert [(one["administrator"], one["action"], one["stack"], one["owner"]) for one in said] == [
        ("root\nforged", "read the logs of", ADA, "ada"),
        ("root\nforged", "change the members of", ADA, "ada"),
    ]
    assert "s3cret" not in caplog.text
