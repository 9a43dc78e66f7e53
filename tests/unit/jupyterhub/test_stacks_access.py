"""Who reaches the stack service's REST API: tokens, cookies and requests of other sites, as HubOAuth lets them in."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.support.stacks import PREFIX, Service, a_stack, xsrf

pytest_plugins = ["tests.support.servedstacks"]


API = f"{PREFIX}api"
ADA, BOB = "cm-ada", "cm-bob"
ADMIN_SCOPES = ("access:services!service=cytomine", "custom:cytomine-stacks:admin")


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    running.put(a_stack("ada"), a_stack("bob"))
    return running


def names(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {stack["name"] for stack in answer.json()["stacks"]}


# -- who may ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "model", "sees"),
    [
        ("ada", {}, {ADA}),
        ("bob", {}, {BOB}),
        ("eve", {}, set()),
        ("root", {"admin": True}, {ADA, BOB}),
        # A service may be called like a user; that does not make it one.
        ("ada", {"kind": "service"}, set()),
        ("monitor", {"kind": "service", "scopes": ADMIN_SCOPES}, {ADA, BOB}),
    ],
)
def test_everybody_sees_their_own_stacks_and_administrators_see_all(
    service: Service, who: str, model: dict[str, Any], sees: set[str]
) -> None:
    program = service.program(who, **model)
    assert names(program.get(f"{API}/stacks")) == sees
    for name in (ADA, BOB):
        assert program.get(f"{API}/stacks/{name}").status_code == (200 if name in sees else 404)


def test_an_administrator_asks_for_one_owners_stacks(service: Service) -> None:
    root = service.program("root", admin=True)
    assert names(root.get(f"{API}/stacks", params={"owner": "bob"})) == {BOB}
    assert names(root.get(f"{API}/stacks", params={"owner": "nobody"})) == set()


REQUESTS = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", "?keepData=true"),
    ("POST", "/retry"),
    ("GET", "/events"),
    ("GET", "/components/core/logs"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_a_stack_of_somebody_else_cannot_be_told_from_one_that_is_not_there(
    service: Service, method: str, path: str
) -> None:
    eve = service.program("eve")

    def ask(name: str) -> tuple[int, str]:
        answer = eve.request(
            method,
            f"{API}/stacks/{name}{path}",
            json={"desiredState": "Running"} if method == "PATCH" else None,
        )
        return answer.status_code, answer.text.replace(name, "NAME")

    status, text = ask(ADA)
    assert status == 404
    assert (status, text) == ask("cm-nobody")
    assert service.store.deleted == []


def test_an_administrator_manages_a_stack_but_gets_no_address_to_open_it(service: Service) -> None:
    stack = service.program("root", admin=True).get(f"{API}/stacks/{ADA}").json()
    assert stack["url"] is None
    assert set(stack["actions"]) == {"hibernate", "logs", "delete", "members"}
    own = service.program("ada").get(f"{API}/stacks/{ADA}").json()
    assert own["url"] == "https://cm-ada.stacks.example.org/"
    assert set(own["actions"]) == {"open", "connect", "hibernate", "logs", "delete", "members"}


def test_without_a_token_the_answer_is_401_as_json(service: Service) -> None:
    for headers in ({}, {"Authorization": "token nobody-has-this"}):
        answer = service.client().get(f"{API}/stacks", headers=headers, follow_redirects=False)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "token" in answer.json()["message"]


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "token nobody-has-this"}, {"Cookie": "_xsrf=x"}])
def test_who_sends_no_token_that_the_hub_knows_is_not_told_of_forms(
    service: Service, method: str, headers: dict[str, str]
) -> None:
    for path in (f"{API}/stacks/{ADA}/retry", f"{API}/stacks/{ADA}", f"{PREFIX}stacks/{ADA}/hibernate"):
        answer = service.client().request(method, path, headers=headers, json={"desiredState": "Hibernated"})
        assert answer.status_code == 401, (path, answer.text)
        assert "form" not in answer.text.partition("<main")[2]


def test_a_wrong_token_beside_a_good_cookie_is_not_told_of_forms_either(service: Service) -> None:
    ada = service.browser("ada")
    answer = ada.post(f"{API}/stacks/{ADA}/retry", headers={"Authorization": "token nobody-has-this"})
    assert answer.status_code == 401


def test_a_token_in_an_address_opens_nothing_and_stands_in_no_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = service.hub.token("ada")
    for path in (
        f"{API}/stacks",
        PREFIX,
        f"{API}/nothing",
        f"{PREFIX}static/none.js",
        f"{PREFIX}health/ready",
    ):
        for method in ("GET", "POST", "DELETE"):
            answer = service.client().request(
                method, path, params={"token": token, "code": "c0de"}, follow_redirects=False
            )
            assert answer.status_code in (200, 302, 401, 403, 404, 405)
    # A mistake of ours is logged with all that helps to find it, and without the address.
    with ExitStack() as stack:
        broken = stack.enter_context(pytest.MonkeyPatch.context())
        broken.setattr(service.store, "view", None)
        head = {"Authorization": f"token {token}"}
        assert service.client().get(f"{API}/stacks", params={"token": token}, headers=head).status_code == 500
    said = [r.getMessage() + (r.exc_text or "") for r in caplog.records if not r.name.startswith("http")]
    assert any("GET /services/cytomine/api/stacks" in line for line in said), "the log has the requests"
    assert any("Uncaught exception" in line for line in said)
    assert not [line for line in said if token in line or "c0de" in line]


def test_a_token_without_the_scope_is_refused(service: Service) -> None:
    answer = service.program("ada", scopes=("self",)).get(f"{API}/stacks")
    assert answer.status_code == 403
    assert "administrator" in answer.json()["message"]


def test_bearer_is_understood_too(service: Service) -> None:
    token = service.hub.token("ada")
    answer = service.client().get(f"{API}/stacks", headers={"Authorization": f"Bearer {token}"})
    assert names(answer) == {ADA}


# -- requests that another site's page sends ---------------------------------------------------------------

UNSAFE = [
    (method, address)
    for address in (
        f"{API}/stacks/{ADA}",
        f"{API}/stacks/{ADA}?keepData=false",
        f"{API}/stacks/{ADA}/retry",
        f"{API}/nothing",
        f"{PREFIX}stacks/{ADA}/hibernate",
        f"{PREFIX}stacks/{ADA}/resume",
        f"{PREFIX}stacks/{ADA}/retry",
        f"{PREFIX}stacks/{ADA}/delete",
        PREFIX,
    )
    for method in ("POST", "PATCH", "DELETE", "PUT")
]


@pytest.mark.parametrize("browser_says", [{}, {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}])
def test_no_unsafe_request_with_a_cookie_passes_without_the_xsrf_token(
    service: Service, browser_says: dict[str, str]
) -> None:
    ada = service.browser("ada")
    before = service.store.view.get(ADA)
    for method, address in UNSAFE:
        answer = ada.request(method, address, headers=browser_says, json={"desiredState": "Hibernated"})
        assert answer.status_code == 403, (method, address, answer.text)
    assert service.store.view.get(ADA) == before
    assert service.store.deleted == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_gets_nothing_done_even_with_the_token(
    service: Service, headers: dict[str, str]
) -> None:
    ada = service.browser("ada")
    token = xsrf(ada.get(PREFIX))
    answer = ada.patch(
        f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"}, headers={"X-XSRFToken": token, **headers}
    )
    assert answer.status_code == 403
    assert "another site" in answer.json()["message"].lower()
    assert service.store.view.get(ADA).spec.desired_state == "Running"


def test_the_pages_own_script_may_use_the_api_with_its_token(service: Service) -> None:
    ada = service.browser("ada")
    token = xsrf(ada.get(PREFIX))
    headers = {
        "X-XSRFToken": token,
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": "cors",
        "Origin": service.url,
    }
    answer = ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"}, headers=headers)
    assert answer.status_code == 200, answer.text


def test_one_browsers_xsrf_token_is_worth_nothing_in_anothers(service: Service) -> None:
    token = xsrf(service.browser("bob").get(PREFIX))
    answer = service.browser("ada").patch(
        f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"}, headers={"X-XSRFToken": token}
    )
    assert answer.status_code == 403


def test_a_script_of_the_same_origin_cannot_read_the_api_with_the_cookie_alone(service: Service) -> None:
    # Notebooks of other users may share the origin.
    answer = service.browser("ada").get(
        f"{API}/stacks", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    )
    assert answer.status_code == 401
