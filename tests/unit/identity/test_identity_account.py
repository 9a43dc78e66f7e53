"""The account that upstream's user interface asks for at each start, as Keycloak's account service answers it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cytomine_spawner.identity.claims import preferred_username, subject
from tests.support.identity import FakeVault, World, world
from tests.support.stacks import a_stack

ADA = "cm-ada"


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def w(running: World) -> World:
    running.service.clear()
    running.vault.silent = False
    running.vault.secrets.pop("cm-ada-sessions", None)
    running.service.do(lambda: running.identity.provider.grants.forget(set()))
    running.service.put(a_stack("ada", members={"users": ("cleo",)}))
    for name in ("ada", "cleo"):
        running.person(name)
    return running


@pytest.fixture
def token(w: World) -> str:
    browser = w.service.browser("ada", user_info={"name": "Ada Lovelace", "email": "ada@example.org"})
    return str(w.log_in(browser, ADA)["access_token"])


def ask(
    w: World, token: str = "", method: str = "GET", path: str = "account", **options: Any
) -> httpx.Response:
    head = {"Origin": w.origin(ADA), "Accept": "application/json", **options.pop("headers", {})}
    if token:
        head["Authorization"] = f"Bearer {token}"
    return w.service.client().request(method, f"{w.issuer(ADA)}/{path}", headers=head, **options)


def test_the_account_is_what_keycloak_says_of_a_person(w: World, token: str) -> None:
    answer = ask(w, token)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {
        "id": subject("ada"),
        "username": preferred_username("ada"),
        "firstName": "Ada",
        "lastName": "Lovelace",
        "email": "ada@example.org",
        "emailVerified": True,
        "attributes": {"locale": ["en"]},
    }


def test_the_page_of_the_account_finds_an_entry_of_a_password_that_cannot_be_changed(
    w: World, token: str
) -> None:
    # With an empty list upstream's page loads for ever.
    [password] = ask(w, token, path="account/credentials").json()
    assert (password["type"], password["userCredentialMetadatas"]) == ("password", [])
    assert "updateAction" not in password


def test_who_has_one_name_and_no_address_can_save_the_language_too(w: World) -> None:
    token = w.log_in(w.service.browser("cleo"), ADA)["access_token"]
    mine = ask(w, token).json()
    assert (mine["firstName"], mine["lastName"], mine["emailVerified"]) == ("cleo", "cleo", False)
    assert mine["email"] == f"{preferred_username('cleo')}@unknown.invalid"
    assert ask(w, token, "POST", json=mine).status_code == 204


@pytest.mark.parametrize("path", ["account", "account/credentials"])
def test_the_stacks_page_may_read_it_with_its_cookies_and_no_other_page(
    w: World, token: str, path: str
) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    before = ask(w, method="OPTIONS", path=path, headers=asked)
    assert before.status_code == 204
    assert "GET" in before.headers["Access-Control-Allow-Methods"]
    assert "authorization" in before.headers["Access-Control-Allow-Headers"].lower()
    for answer in (before, ask(w, token, path=path), ask(w, path=path)):
        assert answer.headers["Access-Control-Allow-Origin"] == w.origin(ADA)
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert ask(w, token, path=path, headers={"Origin": "https://elsewhere"}).status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_reads_or_changes_it_without_a_token(w: World, method: str) -> None:
    for shown in ("", "nonsense"):
        answer = ask(w, shown, method)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("nl-BE,nl;q=0.9,en;q=0.8", "nl"), ("cs,fr;q=0.5", "fr"), ("cs", "en"), ("", "en"), ("*", "en")],
)
def test_who_never_chose_a_language_gets_the_browsers(
    w: World, token: str, accepted: str, language: str
) -> None:
    found = ask(w, token, headers={"Accept-Language": accepted}).json()
    assert found["attributes"] == {"locale": [language]}


def test_the_language_is_kept_for_oneself_and_over_a_restart(w: World, token: str) -> None:
    sent = {**ask(w, token).json(), "locale": None, "attributes": {"locale": ["es"], "isDeveloper": ["1"]}}
    assert ask(w, token, "POST", json=sent).status_code == 204
    kept = {"locale": ["es"], "isDeveloper": ["1"]}
    assert ask(w, token).json()["attributes"] == kept
    cleo = w.log_in(w.service.browser("cleo"), ADA)["access_token"]
    assert ask(w, cleo).json()["attributes"] == {"locale": ["en"]}
    grants = w.identity.provider.grants
    w.wait(grants.flush())
    w.service.do(lambda: grants.forget(set()))
    assert ask(w, token).json()["attributes"] == kept
    assert "es" in w.vault.secrets["cm-ada-sessions"][0]["choices.json"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lastName": "Byron"}, "lastName"),
        ({"email": "other@example.org"}, "email"),
        ({"username": "admin"}, "username"),
        ({"attributes": {"locale": ["xx"]}}, "attributes.locale"),
        ({"attributes": {"locale": ["en", "fr"]}}, "attributes.locale"),
        ({"attributes": {"isDeveloper": [True]}}, "attributes.isDeveloper"),
        ({"attributes": []}, "body"),
    ],
)
def test_what_cannot_be_changed_is_refused_by_its_name(
    w: World, token: str, change: dict[str, Any], field: str
) -> None:
    answer = ask(w, token, "POST", json={**ask(w, token).json(), **change})
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert answer.json()["errorMessage"]
    assert ask(w, token).json()["attributes"] == {"locale": ["en"]}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"1" * 20_000])
def test_a_damaged_body_is_refused(w: World, token: str, body: bytes) -> None:
    answer = ask(w, token, "POST", content=body)
    assert (answer.status_code, answer.json()["field"]) == (400, "body")


def test_a_cluster_that_does_not_answer_is_no_missing_account(w: World, token: str) -> None:
    w.service.do(lambda: w.identity.provider.grants.forget(set()))
    w.vault.silent = True
    assert ask(w, token).status_code == 503


def test_choices_of_another_process_are_taken_over(w: World) -> None:
    vault: FakeVault = w.vault
    grants = w.identity.provider.grants
    stack = a_stack("ada")
    ledger = w.wait(grants.of(stack))
    w.service.do(lambda: ledger.choose("a", {"locale": "fr"}))
    vault.put(
        "cm-ada-sessions",
        **{
            "sessions.json": "[]",
            "stack-uid": stack.uid,
            "choices.json": json.dumps({"b": {"locale": "nl"}}),
        },
    )
    w.wait(grants.flush())
    assert json.loads(vault.secrets["cm-ada-sessions"][0]["choices.json"]) == {
        "a": {"locale": "fr"},
        "b": {"locale": "nl"},
    }
