"""Members of a stack, from outside: REST and page, over a hub that knows users, groups and shares of servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bs4 import BeautifulSoup

from cytomine_spawner.access.credentials import Connection
from cytomine_spawner.access.projectcalls import Project
from cytomine_spawner.cluster.store import Conflict, StoreError, Unavailable
from cytomine_spawner.stack.model import Access, ChosenProject, Members, Phase, ProjectRole, Reach, Stack
from cytomine_spawner.stack.people import Role
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


class Worker:
    """Knows projects without a Cytomine."""

    def __init__(self) -> None:
        self.there = [Project(12, "Liver"), Project(7, "Lung <b>")]
        self.fault: StoreError | None = None
        self.said = ""
        self.seen: list[tuple[str, str]] = []

    async def listed(self, stack: Stack) -> list[Project]:
        if self.fault:
            raise self.fault
        return self.there

    def trouble(self, stack: Stack) -> str:
        return self.said

    def arrived(self, name: str, user: str) -> None:
        self.seen.append((name, user))


KEYS = Keys()
WORKER = Worker()


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with serving(connections=lambda *_: KEYS, projects=WORKER) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    KEYS.given.clear()
    KEYS.refusal = ""
    WORKER.__init__()  # type: ignore[misc]
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
    ("GET", "/projects", None),
    ("PUT", "/members/users/bob", {"role": "manager"}),
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
        ("GET", "/projects"),
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
    usual = {"projects": "all", "role": "user"}
    assert ada.get(f"{API}/members/users/{name}").json() == {"kind": "user", "name": name, **usual}
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


# -- projects ---------------------------------------------------------------------------------------------


def test_the_owner_lists_the_projects_and_chooses_them_by_number_and_by_name(service: Service) -> None:
    ada = service.program("ada")
    listed = ada.get(f"{API}/projects")
    assert listed.json() == {"projects": [{"id": 12, "name": "Liver"}, {"id": 7, "name": "Lung <b>"}]}
    wish = {"projects": [7, "Liver", "Lung <b>"], "role": "manager"}
    answer = ada.put(f"{API}/members/users/bob", json=wish)
    both = [{"id": 7, "name": "Lung <b>"}, {"id": 12, "name": "Liver"}]
    bobs = {"kind": "user", "name": "bob", "projects": both, "role": "manager"}
    assert answer.json()["access"] == [bobs]
    assert ada.get(f"{API}/members/users/bob").json() == bobs
    chosen = members(service).access_of("user", "bob")
    assert (chosen.projects, [one.id for one in chosen.these], chosen.role) == (
        Reach.THESE,
        [7, 12],
        ProjectRole.MANAGER,
    )


def test_what_is_left_out_of_a_choice_stays_and_an_invitation_again_changes_none(service: Service) -> None:
    ada = service.program("ada")
    path = f"{API}/members/groups/lab"
    assert ada.put(path, json={"projects": "none"}).json()["access"][0]["projects"] == "none"
    answer = ada.put(path, json={"role": "manager"}).json()["access"][0]
    assert (answer["projects"], answer["role"]) == ("none", "manager")
    before = service.store.view.get("cm-ada")
    for body in (None, {}, {"projects": "none"}):
        assert ada.put(path, json=body).status_code == 200
    assert service.store.view.get("cm-ada") == before
    assert ada.put(path, json={"projects": "all"}).json()["access"][0]["projects"] == "all"


def test_who_is_removed_and_invited_again_begins_as_usual(service: Service) -> None:
    ada = service.program("ada")
    for name in ("bob", "eve"):
        ada.put(f"{API}/members/users/{name}", json={"projects": "none"})
    ada.delete(f"{API}/members/users/bob")
    assert [one.name for one in members(service).access] == ["eve"]
    assert service.program("eve").delete(f"{API}/members/users/eve").status_code == 204
    assert members(service) == Members()


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"projects": "some"}, "projects", "all, none, or a list"),
        ({"projects": 7}, "projects", "all, none, or a list"),
        ({"projects": [True]}, "projects", "all, none, or a list"),
        ({"projects": ["x" * 256]}, "projects", "all, none, or a list"),
        ({"projects": list(range(101))}, "projects", "all, none, or a list"),
        ({"projects": [99]}, "projects", "no project 99"),
        ({"projects": ["Kidney"]}, "projects", "no project Kidney"),
        ({"role": "admin"}, "role", "role"),
        ({"rôle": "user"}, "rôle", "rôle"),
    ],
)
def test_a_bad_choice_is_refused_with_the_field_and_lets_nobody_in(
    service: Service, body: dict[str, Any], field: str, words: str
) -> None:
    answer = service.program("ada").put(f"{API}/members/users/bob", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field
    assert words in answer.json()["message"]
    assert members(service) == Members()


def test_while_the_stack_sleeps_all_and_none_can_be_chosen_and_what_was_chosen_stays(
    service: Service,
) -> None:
    ada = service.program("ada")
    ada.put(f"{API}/members/users/bob", json={"projects": [7, 12]})
    WORKER.fault = Conflict("The stack is hibernated; it has to be resumed first.")
    for answer in (
        ada.get(f"{API}/projects"),
        ada.put(f"{API}/members/users/eve", json={"projects": ["Liver"]}),
    ):
        assert answer.status_code == 409
        assert "all or none" in answer.json()["message"]
    assert members(service).users == ("bob",)
    assert ada.put(f"{API}/members/users/eve", json={"projects": "none"}).status_code == 200
    bobs = ada.put(f"{API}/members/users/bob", json={"projects": [12]}).json()["access"][0]
    assert bobs["projects"] == [{"id": 12, "name": "Liver"}]


def test_an_administrator_learns_no_projects_and_chooses_all_or_none(service: Service) -> None:
    root = service.program("root", admin=True)
    assert root.get(f"{API}/projects").status_code == 403
    answer = root.put(f"{API}/members/users/bob", json={"projects": ["Liver"]})
    assert answer.status_code == 403
    assert root.put(f"{API}/members/users/bob", json={"projects": "none"}).status_code == 200
    assert "Liver" not in service.browser("root", admin=True).get(f"{PAGE}/members").text


def test_a_member_who_connects_a_notebook_is_brought_into_projects_too(service: Service) -> None:
    invite(service, "bob")
    service.program("bob").post(f"{API}/connection")
    assert WORKER.seen == [("cm-ada", "bob")]


def test_why_members_are_not_in_their_projects_yet_is_said(service: Service) -> None:
    WORKER.said = "Cytomine does not answer at its gateway."
    assert service.program("ada").get(f"{API}/members").json()["projectsMessage"] == WORKER.said
    assert WORKER.said in service.browser("ada").get(f"{PAGE}/members").text


def test_a_service_without_identity_lists_no_projects_and_still_takes_all_and_none() -> None:
    with serving() as plain:
        plain.put(a_stack("ada"))
        plain.hub.people.update(bob=())
        ada = plain.program("ada")
        assert ada.get(f"{API}/projects").status_code == 503
        assert ada.put(f"{API}/members/users/bob", json={"projects": "none"}).status_code == 200
        assert plain.browser("ada").get(f"{PAGE}/members").status_code == 200


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


def form_of(page: httpx.Response, name: str) -> Any:
    """The form with the projects of a member, or of the one who is to be invited."""
    forms = soup(page).find_all("form")
    return next(
        f for f in forms if f.find("fieldset") and (f.find(type="hidden", attrs={"value": name}) or not name)
    )


def test_the_owner_chooses_projects_at_the_invitation_and_later_without_scripts(service: Service) -> None:
    browser = service.browser("ada")
    page = browser.get(f"{PAGE}/members")
    assert {box["value"] for box in soup(page).find_all("input", type="checkbox")} == {"7", "12"}
    assert soup(page).find(id="new-all").has_attr("checked")
    form = {"_xsrf": xsrf(page), "do": "add", "kind": "users", "member": "bob", "role": "user"}
    page = browser.post(f"{PAGE}/members", data={**form, "projects": "these", "project": ["7", "12"]})
    people = soup(page).find("ul", class_="people")
    assert "2 projects: Lung <b>, Liver" in people.get_text()
    assert "Lung <b>" not in page.text
    bobs = form_of(page, "bob")
    assert {box["value"] for box in bobs.find_all("input", checked=True)} == {"these", "7", "12"}
    change = {i["name"]: i["value"] for i in bobs.find_all("input", type="hidden")}
    page = browser.post(
        f"{PAGE}/members", data={**change, "projects": "all", "role": "manager", "project": "7"}
    )
    assert "Their projects are changed" in page.text
    assert "all projects, as manager" in soup(page).find("ul", class_="people").get_text()
    assert members(service).access_of("user", "bob") == Access(
        kind="user", name="bob", projects=Reach.ALL, role=ProjectRole.MANAGER
    )


def test_a_choice_of_no_projects_at_all_is_asked_about_and_keeps_what_was_typed(service: Service) -> None:
    browser = service.browser("ada")
    form = {"_xsrf": xsrf(browser.get(PREFIX)), "do": "add", "kind": "users", "member": "bob"}
    page = browser.post(f"{PAGE}/members", data={**form, "projects": "these", "role": "manager"})
    assert page.status_code == 400
    assert "Tick the projects" in soup(page).find(role="alert").get_text()
    assert soup(page).find(id="member")["value"] == "bob"
    assert soup(page).find(id="new-these").has_attr("checked")
    assert soup(page).find(id="new-role").find("option", selected=True)["value"] == "manager"
    assert members(service) == Members()


@pytest.mark.parametrize(
    "wrong", [{"projects": "most"}, {"role": "owner"}, {"projects": "these", "project": "x"}]
)
def test_a_choice_that_the_page_does_not_have_is_refused(service: Service, wrong: dict[str, str]) -> None:
    invite(service, "bob")
    browser = service.browser("ada")
    form = {"_xsrf": xsrf(browser.get(PREFIX)), "do": "change", "kind": "users", "member": "bob"}
    assert browser.post(f"{PAGE}/members", data={**form, **wrong}).status_code == 400
    assert members(service).access == ()


def test_changing_the_projects_of_one_who_was_removed_meanwhile_does_not_invite_again(
    service: Service,
) -> None:
    browser = service.browser("ada")
    form = {"_xsrf": xsrf(browser.get(PREFIX)), "do": "change", "kind": "users", "member": "bob"}
    page = browser.post(f"{PAGE}/members", data={**form, "projects": "all"})
    assert page.status_code == 409
    assert "no member any more" in page.text
    assert members(service) == Members()


@pytest.mark.parametrize("fault", [Conflict("The stack is hibernated."), Unavailable("Cytomine is away.")])
def test_the_page_of_a_stack_that_does_not_answer_shows_what_was_chosen_and_says_what_can_be(
    service: Service, fault: StoreError
) -> None:
    access = Access(kind="user", name="bob", projects=Reach.THESE, these=(ChosenProject(id=7, name="Lung"),))
    service.put(a_stack("ada", members=Members(users=("bob",), access=(access,)), generation=5))
    WORKER.fault = fault
    page = service.browser("ada").get(f"{PAGE}/members")
    assert "1 project: Lung" in soup(page).find("ul", class_="people").get_text()
    assert (
        "all or none of its projects can be chosen" in page.text or "all or none can be chosen" in page.text
    )
    assert soup(page).find(id="new-these") is None


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
