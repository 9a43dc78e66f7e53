"""Members of a stack, from outside: REST and page, over a hub that knows users, groups and shares of servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bs4 import BeautifulSoup

from cytomine_spawner.stacks.credentials import Connection
from cytomine_spawner.stacks.members import Role
from cytomine_spawner.stacks.model import Members, Phase, Stack
from cytomine_spawner.stacks.store import Conflict
from tests.support.stacks import PREFIX, Service, a_stack, events, serving, xsrf

API = f"{PREFIX}api/stacks/cm-ada"
PAGE = f"{PREFIX}stacks/cm-ada"


class Keys:
    """Gives out keys without a Cytomine, and remembers to whom."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str, bool]] = []
        self.refusal = ""

    async def provide(self, stack: Stack, user: str, *, renew: bool = False) -> Connection:
        if self.refusal:
            raise Conflict(self.refusal)
        self.given.append((stack.name, user, renew))
        return Connection("http://gateway", "public", f"private of {user}", user)

    async def token(self, stack: Stack, user: str, role: Role) -> tuple[str, int]:
        return f"{user} {role.in_core}", 1_800_000_000


KEYS = Keys()


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with serving(connections=lambda *_: KEYS) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    KEYS.given.clear()
    KEYS.refusal = ""
    running.hub.people.update(ada=(), bob=("lab",), eve=(), carl=("lab", "staff"))
    running.hub.shared["ada", ""] = []
    running.put(a_stack("ada"), a_stack("zoe", url=None))
    return running


def members(service: Service) -> Members:
    stack = service.store.view.get("cm-ada")
    assert stack
    return stack.spec.members


def invite(service: Service, *users: str, groups: tuple[str, ...] = ()) -> None:
    service.put(a_stack("ada", members=Members(users=users, groups=groups), generation=5))


def stacks(program: httpx.Client) -> dict[str, Any]:
    return {s["name"]: s for s in program.get(f"{PREFIX}api/stacks").json()["stacks"]}


# -- who may ----------------------------------------------------------------------------------------------


def test_a_user_becomes_a_member_sees_the_stack_opens_it_and_is_out_after_the_removal(
    service: Service,
) -> None:
    ada, bob = service.program("ada"), service.program("bob")
    assert stacks(bob) == {}
    answer = ada.put(f"{API}/members/users/bob")
    assert (answer.status_code, answer.json()["users"]) == (200, ["bob"])
    seen = stacks(bob)["cm-ada"]
    assert (seen["role"], seen["owner"], seen["members"]) == ("user", "ada", None)
    assert seen["url"] == "https://cm-ada.stacks.example.org/"
    assert set(seen["actions"]) == {"open", "connect", "leave"}
    assert ada.delete(f"{API}/members/users/bob").json()["users"] == []
    assert stacks(bob) == {}
    assert bob.get(API).status_code == 404


def test_the_users_of_a_group_become_members(service: Service) -> None:
    bob, eve = service.program("bob", groups=["lab"]), service.program("eve", groups=["other"])
    assert service.program("ada").put(f"{API}/members/groups/lab").json()["groups"] == ["lab"]
    assert stacks(bob)["cm-ada"]["role"] == "group"
    assert "leave" not in stacks(bob)["cm-ada"]["actions"]
    assert stacks(eve) == {}


@pytest.mark.parametrize("share", [("user", "bob"), ("group", "staff")])
def test_those_with_whom_the_server_is_shared_are_members(service: Service, share: tuple[str, str]) -> None:
    service.hub.shared["zoe", "other"] = [share]  # a server without a stack
    service.hub.shared["ada", ""] = [("user", "eve"), share]
    who = {"bob": "bob", "staff": "carl"}[share[1]]
    assert stacks(service.program(who))["cm-ada"]["role"] == "share"
    shown = service.program("ada").get(f"{API}/members").json()
    assert {"kind": share[0], "name": share[1]} in shown["shares"]
    assert {"kind": "user", "name": "eve"} in shown["shares"]
    assert shown["users"] == []


def test_a_share_of_another_server_of_the_owner_opens_nothing(service: Service) -> None:
    service.hub.shared["ada", "gpu"] = [("user", "bob")]
    assert stacks(service.program("bob")) == {}


def test_a_service_called_like_a_member_is_none(service: Service) -> None:
    invite(service, "bob")
    service.hub.shared["ada", ""] = [("user", "bob")]
    assert stacks(service.program("bob", kind="service")) == {}


FORBIDDEN = [
    ("PATCH", "", {"desiredState": "Hibernated"}),
    ("DELETE", "?keepData=true", None),
    ("POST", "/retry", None),
    ("GET", "/components/core/logs", None),
    ("GET", "/members", None),
    ("PUT", "/members/users/eve", None),
    ("POST", "/members/users/bob", None),
    ("PUT", "/members/groups/lab", None),
    ("DELETE", "/members/users/eve", None),
    ("DELETE", "/members/groups/lab", None),
    ("GET", "/members/users/eve", None),
]


@pytest.mark.parametrize(("method", "path", "body"), FORBIDDEN)
@pytest.mark.parametrize("by", ["user", "group", "share"])
def test_a_member_neither_manages_the_stack_nor_lets_others_in_nor_promotes_herself(
    service: Service, method: str, path: str, body: Any, by: str
) -> None:
    invite(service, *(["bob"] if by == "user" else []), "eve", groups=("lab",) if by == "group" else ())
    service.hub.shared["ada", ""] = [("user", "bob")] if by == "share" else []
    before = service.store.view.get("cm-ada")
    bob = service.program("bob", groups=["lab"] if by == "group" else [])
    answer = bob.request(method, f"{API}{path}", json=body)
    assert answer.status_code == 403, answer.text
    assert service.store.view.get("cm-ada") == before
    assert service.store.deleted == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/members"),
        ("PUT", "/members/users/eve"),
        ("DELETE", "/members/users/bob"),
        ("POST", "/connection"),
        ("POST", "/connection/rotate"),
        ("POST", "/token"),
    ],
)
def test_a_stranger_learns_nothing_of_the_stack_by_its_members_or_keys(
    service: Service, method: str, path: str
) -> None:
    invite(service, "bob")
    eve = service.program("eve")
    answers = [eve.request(method, f"{PREFIX}api/stacks/{name}{path}") for name in ("cm-ada", "cm-nobody")]
    assert [a.status_code for a in answers] == [404, 404]
    assert answers[0].text.replace("cm-ada", "") == answers[1].text.replace("cm-nobody", "")
    assert KEYS.given == []


def test_a_member_leaves_by_herself(service: Service) -> None:
    invite(service, "bob", "eve")
    bob = service.program("bob")
    assert bob.delete(f"{API}/members/users/bob").status_code == 204
    assert members(service).users == ("eve",)
    assert stacks(bob) == {}


def test_an_administrator_changes_members_but_gets_no_keys(service: Service) -> None:
    root = service.program("root", admin=True)
    assert root.put(f"{API}/members/users/bob").status_code == 200
    assert root.post(f"{API}/connection").status_code == 403
    assert root.post(f"{API}/token").status_code == 403
    assert KEYS.given == []


# -- inviting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words", "field"),
    [
        ("users/nobody", "knows no user called nobody", "user"),
        ("groups/nothing", "knows no group called nothing", "group"),
        ("users/ada", "owns the stack", "user"),
        ("users/%20", "Give the name of the user", "user"),
        ("users/..%2Fgroups%2Flab", "knows no user called ../groups/lab", "user"),
    ],
)
def test_only_whom_the_hub_knows_can_be_invited(service: Service, path: str, words: str, field: str) -> None:
    answer = service.program("ada").put(f"{API}/members/{path}")
    assert answer.status_code == 400
    assert words in answer.json()["message"]
    assert answer.json()["errors"][0]["field"] == field
    assert members(service) == Members()


def test_the_names_of_ls_login_can_be_invited(service: Service) -> None:
    name = "28f7a1b2c3@lifescience-ri.eu"
    service.hub.people[name] = ()
    ada = service.program("ada")
    assert ada.put(f"{API}/members/users/{name}").json()["users"] == [name]
    assert ada.get(f"{API}/members/users/{name}").json() == {"kind": "user", "name": name}
    assert ada.get(f"{API}/members/users/eve").status_code == 404


def test_inviting_and_removing_twice_is_no_error_and_keeps_the_others(service: Service) -> None:
    ada = service.program("ada")
    for path in ("users/bob", "users/eve", "users/bob", "groups/lab"):
        assert ada.post(f"{API}/members/{path}").status_code == 200
    assert members(service) == Members(users=("bob", "eve"), groups=("lab",))
    for _ in range(2):
        assert ada.delete(f"{API}/members/users/bob").status_code == 200
    assert members(service) == Members(users=("eve",), groups=("lab",))


def test_a_stack_has_only_so_many_members(service: Service) -> None:
    invite(service, *(f"user{n}" for n in range(200)))
    answer = service.program("ada").put(f"{API}/members/users/bob")
    assert answer.status_code == 409
    assert "invite a group" in answer.json()["message"]


def test_a_hub_that_does_not_tell_keeps_the_invitation_back_and_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = service.program("ada")
    assert ada.get(f"{API}/members").json()["message"] == ""
    monkeypatch.setattr(service.hub, "service_token", "another")
    service.site_hub.forget()
    answer = ada.put(f"{API}/members/users/bob")
    assert answer.status_code == 500
    assert "scopes" in answer.json()["message"]
    shown = ada.get(f"{API}/members").json()
    assert "not known now" in shown["message"]
    assert stacks(ada)["cm-ada"]["role"] == "owner"  # and everything else goes on


# -- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["ada", "bob"])
def test_owner_and_members_get_their_own_keys_with_a_token_of_theirs(service: Service, who: str) -> None:
    invite(service, "bob")
    program = service.program(who)
    answer = program.post(f"{API}/connection")
    assert answer.status_code == 200
    assert answer.json() == {
        "stack": "cm-ada",
        "host": "http://gateway",
        "publicKey": "public",
        "privateKey": f"private of {who}",
        "user": who,
        "url": "https://cm-ada.stacks.example.org/",
    }
    assert answer.headers["cache-control"] == "no-store"
    assert program.post(f"{API}/connection/rotate").status_code == 200
    assert KEYS.given == [("cm-ada", who, False), ("cm-ada", who, True)]
    assert program.post(f"{API}/token").json() == {
        "token": f"{who} {'ADMIN' if who == 'ada' else 'USER'}",
        "expiresAt": 1_800_000_000,
    }


def test_keys_of_a_stack_that_does_not_serve_are_refused_with_its_state(service: Service) -> None:
    KEYS.refusal = "The stack is hibernated; it has to be resumed first."
    answer = service.program("ada").post(f"{API}/connection")
    assert (answer.status_code, answer.json()["message"]) == (409, KEYS.refusal)


def test_keys_are_not_to_be_had_by_a_link_or_another_sites_form(service: Service) -> None:
    browser = service.browser("ada")
    assert browser.get(f"{API}/connection").status_code == 405
    assert browser.post(f"{API}/connection").status_code == 403
    token = xsrf(browser.get(PREFIX))
    strange = {"X-XSRFToken": token, "Origin": "https://evil.example.org"}
    assert browser.post(f"{API}/connection", headers=strange).status_code == 403
    assert KEYS.given == []


def test_a_service_without_identity_says_that_it_gives_no_keys() -> None:
    with serving() as plain:
        plain.put(a_stack("ada"))
        answer = plain.program("ada").post(f"{API}/connection")
        assert answer.status_code == 503
        assert "identity" in answer.json()["message"]


# -- the page ---------------------------------------------------------------------------------------------


def soup(page: httpx.Response) -> BeautifulSoup:
    return BeautifulSoup(page.text, "html.parser")


def test_an_owner_invites_and_removes_on_the_page_without_scripts(service: Service) -> None:
    browser = service.browser("ada")
    card = soup(browser.get(PREFIX))
    assert card.find(id="cm-ada-members")["href"] == f"{PAGE}/members"
    form = {"_xsrf": xsrf(browser.get(f"{PAGE}/members")), "do": "add", "kind": "users", "member": " bob "}
    page = browser.post(f"{PAGE}/members", data=form)
    assert page.status_code == 200
    assert "They may use the stack now" in page.text
    assert members(service).users == ("bob",)
    people = soup(page).find("ul", class_="people")
    assert "bob" in people.get_text()
    hidden = {i["name"]: i["value"] for i in people.find("form").find_all("input")}
    page = browser.post(f"{PAGE}/members", data=hidden)
    assert "may not use the stack any more" in page.text
    assert members(service).users == ()


def test_a_name_that_the_hub_does_not_know_stays_in_the_form_with_the_reason(service: Service) -> None:
    browser = service.browser("ada")
    form = {"_xsrf": xsrf(browser.get(PREFIX)), "do": "add", "kind": "groups", "member": "<b>no</b>"}
    page = browser.post(f"{PAGE}/members", data=form)
    assert page.status_code == 400
    assert soup(page).find(id="member")["value"] == "<b>no</b>"
    assert soup(page).find(id="member")["aria-invalid"] == "true"
    assert "knows no group called <b>no</b>" in soup(page).find(role="alert").get_text()
    assert "<b>no</b>" not in page.text
    assert soup(page).find("option", selected=True)["value"] == "groups"


@pytest.mark.parametrize("form", [{}, {"do": "add", "kind": "owner"}, {"do": "promote", "kind": "users"}])
def test_another_form_is_refused(service: Service, form: dict[str, str]) -> None:
    browser = service.browser("ada")
    token = {"_xsrf": xsrf(browser.get(PREFIX)), "member": "bob"}
    assert browser.post(f"{PAGE}/members", data={**token, **form}).status_code == 400
    assert members(service) == Members()


def test_the_forms_of_members_need_the_pages_token(service: Service) -> None:
    invite(service, "bob")
    ada, bob = service.browser("ada"), service.browser("bob")
    form = {"do": "remove", "kind": "users", "member": "bob"}
    assert ada.post(f"{PAGE}/members", data=form).status_code == 403
    assert bob.post(f"{PAGE}/leave").status_code == 403
    assert members(service).users == ("bob",)


def test_a_member_sees_owner_and_reason_opens_and_leaves(service: Service) -> None:
    invite(service, "bob", "eve")
    browser = service.browser("bob")
    page = browser.get(PREFIX)
    card = soup(page).find(id="cm-ada")
    text = card.get_text(" ", strip=True)
    assert "Owner ada" in text
    assert "as a member" in text
    assert "eve" not in text  # other members are the owner's business
    assert card.find(id="cm-ada-open")["href"] == "https://cm-ada.stacks.example.org/"
    for verb in ("members", "delete", "hibernate", "core-log"):
        assert card.find(id=f"cm-ada-{verb}") is None
    page = browser.post(f"{PAGE}/leave", data={"_xsrf": xsrf(page)})
    assert "You left the stack" in page.text
    assert members(service).users == ("eve",)
    assert soup(page).find(id="cm-ada") is None


@pytest.mark.parametrize("path", ["/members", "/delete", "/logs/core"])
def test_a_member_has_no_way_to_the_owners_pages(service: Service, path: str) -> None:
    invite(service, "bob")
    assert service.browser("bob").get(f"{PAGE}{path}").status_code == 403
    assert service.browser("eve").get(f"{PAGE}{path}").status_code == 404


def test_a_member_who_is_removed_loses_the_card_while_looking_at_it(service: Service) -> None:
    invite(service, "bob")
    with service.program("bob").stream("GET", f"{PREFIX}api/stacks/events") as stream:
        coming = events(stream)
        first = [next(coming) for _ in range(4)]
        assert ("reset", {"names": ["cm-ada"]}) in first
        service.put(a_stack("ada", generation=6))
        heard = next(event for event in coming if event[0] in ("stack", "removed"))
        assert heard == ("removed", {"name": "cm-ada"})


def test_a_stranger_hears_nothing_of_changes_of_members(service: Service) -> None:
    with service.program("zoe").stream("GET", f"{PREFIX}api/stacks/events") as stream:
        coming = events(stream)
        invite(service, "bob")
        service.put(a_stack("ada", generation=6))
        service.put(a_stack("zoe", phase=Phase.FAILED, generation=2, url=None))
        heard = []
        for event in coming:
            heard.append(event)
            if event[0] == "stack" and event[1]["phase"] == "Failed":
                break
        assert "cm-ada" not in str(heard)
