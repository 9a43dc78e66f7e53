"""The REST API of the stack service, from outside: a running site, a hub on loopback, a store in memory."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytomine_spawner.common.names import is_plain, plain
from cytomine_spawner.stack.model import Members, Phase
from tests.support.examples import examples
from tests.support.stacks import PREFIX, Service, a_stack

pytest_plugins = ["tests.support.servedstacks"]


API = f"{PREFIX}api"
ADA = "cm-ada"


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    running.put(a_stack("ada"), a_stack("bob"))
    return running


# -- changes ----------------------------------------------------------------------------------------------


def test_patching_hibernates_and_resumes_and_says_so(service: Service) -> None:
    ada = service.program("ada")
    asleep = ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"}).json()
    assert asleep["desiredState"] == "Hibernated"
    assert "asked for" in asleep["note"]
    generation = service.store.view.get(ADA).generation
    assert ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"}).status_code == 200
    assert service.store.view.get(ADA).generation == generation, "the second request changed the object again"
    assert (
        ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": "Running"}).json()["desiredState"] == "Running"
    )


def test_patching_sets_only_what_is_given(service: Service) -> None:
    ada = service.program("ada")
    ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"})
    answer = ada.patch(f"{API}/stacks/{ADA}", json={"displayName": "Lung", "idleTimeout": 7200}).json()
    assert (answer["displayName"], answer["idleTimeout"], answer["desiredState"]) == (
        "Lung",
        7200,
        "Hibernated",
    )
    assert ada.patch(f"{API}/stacks/{ADA}", json={"idleTimeout": None}).json()["idleTimeout"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"desiredState": "Sleeping"}, "desiredState"),
        ({"desiredState": None}, "desiredState"),
        ({"idleTimeout": -1}, "idleTimeout"),
        ({"idleTimeout": "60"}, "idleTimeout"),
        ({"idleTimeout": True}, "idleTimeout"),
        ({"idleTimeout": 1e9}, "idleTimeout"),
        ({"displayName": "x" * 201}, "displayName"),
        ({"displayName": "two\nlines"}, "displayName"),
        # What turns the rest of a line around, is not seen, or has no width.
        ({"displayName": "Lung \u202egnul"}, "displayName"),
        ({"displayName": "\u2067Lung\u2069"}, "displayName"),
        ({"displayName": "Lu\u200bng"}, "displayName"),
        ({"displayName": "Lu\u200dng"}, "displayName"),
        ({"displayName": "\ufeffLung"}, "displayName"),
        ({"displayName": "Lung\u3164"}, "displayName"),
        ({"displayName": "Lung\u2028of ada"}, "displayName"),
        ({"displayName": "Lung\x1b[2J"}, "displayName"),
        ({"owner": "eve"}, "owner"),
        ({"retry": 5}, "retry"),
        ({"members": {"users": ["eve"]}}, "members"),
        ({"desiredState": "Running", "desired_state": "Running"}, "desired_state"),
    ],
)
def test_bad_input_is_400_and_names_the_field(service: Service, body: dict[str, Any], field: str) -> None:
    before = service.store.view.get(ADA)
    answer = service.program("ada").patch(f"{API}/stacks/{ADA}", json=body)
    assert answer.status_code == 400
    assert field in [fault["field"] for fault in answer.json()["errors"]]
    assert field in answer.json()["message"]
    assert service.store.view.get(ADA) == before


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'"Running"', b'{"idleTimeout": NaN}', b"\xff", b"[" * 20_000]
)
def test_what_is_no_json_object_is_400(service: Service, body: bytes) -> None:
    answer = service.program("ada").patch(f"{API}/stacks/{ADA}", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"]


def test_a_huge_request_is_refused(service: Service) -> None:
    answer = service.program("ada").patch(f"{API}/stacks/{ADA}", json={"displayName": "x" * 100_000})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("address", "field"),
    [
        (f"{API}/stacks?ownr=ada", "ownr"),
        (f"{API}/stacks/{ADA}?verbose=1", "verbose"),
        (f"{API}/stacks/{ADA}/components/core/logs?tail=0", "tail"),
        (f"{API}/stacks/{ADA}/components/core/logs?tail=many", "tail"),
        (f"{API}/stacks/{ADA}/components/core/logs?tail=100000", "tail"),
        (f"{API}/stacks/{ADA}/components/core/logs?follow=perhaps", "follow"),
        (f"{API}/stacks/{ADA}/events?until=now", "until"),
    ],
)
def test_an_unknown_or_wrong_parameter_is_400_and_named(service: Service, address: str, field: str) -> None:
    answer = service.program("ada").get(address)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["desiredState", "idleTimeout", "displayName", "owner", ""])


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(FIELDS, JSON, max_size=3) | JSON)
def test_no_input_makes_the_service_fail(service: Service, body: Any) -> None:
    answer = service.program("ada").patch(f"{API}/stacks/{ADA}", content=json.dumps(body))
    assert answer.status_code in (200, 400), answer.text


def test_retry_is_for_what_failed_and_once_at_a_time(service: Service) -> None:
    ada = service.program("ada")
    assert ada.post(f"{API}/stacks/{ADA}/retry").status_code == 409
    service.put(a_stack("ada", phase=Phase.FAILED))
    assert ada.post(f"{API}/stacks/{ADA}/retry").status_code == 202
    assert service.store.view.get(ADA).spec.retry == 1
    again = ada.post(f"{API}/stacks/{ADA}/retry")
    assert again.status_code == 409
    assert "already" in again.json()["message"]
    service.put(a_stack("ada", phase=Phase.HIBERNATED, desired_state="Hibernated", generation=9))
    assert "resume" in ada.post(f"{API}/stacks/{ADA}/retry").json()["message"]


def test_a_stack_that_is_being_deleted_takes_no_change(service: Service) -> None:
    service.put(a_stack("ada", deleting=True))
    ada = service.program("ada")
    for state in ("Running", "Hibernated"):
        assert ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": state}).status_code == 409
    assert ada.post(f"{API}/stacks/{ADA}/retry").status_code == 409


@pytest.mark.parametrize("keep", [True, False])
def test_deleting_says_what_happens_to_the_data_and_may_be_repeated(service: Service, keep: bool) -> None:
    ada = service.program("ada")
    word = str(keep).lower()
    for _ in range(2):
        answer = ada.delete(f"{API}/stacks/{ADA}?keepData={word}")
        assert answer.status_code == 202
        assert answer.json() == {"name": ADA, "keepData": keep}
    assert service.store.deleted == [(ADA, keep)]


def test_deleting_without_a_word_on_the_data_is_refused(service: Service) -> None:
    answer = service.program("ada").delete(f"{API}/stacks/{ADA}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "keepData"
    assert service.store.deleted == []


# -- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["..%2f..", "%2e%2e", "CM-ADA", "cm-ada%00", "a" * 64, "cm_ada", "cm-ada%0a"]
)
def test_what_is_no_kubernetes_name_is_not_found_and_goes_no_further(service: Service, name: str) -> None:
    answer = service.program("ada").get(f"{API}/stacks/{name}")
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


def test_every_answer_carries_the_security_headers(service: Service) -> None:
    ada = service.program("ada")
    for address in (
        PREFIX,
        f"{PREFIX}stacks/{ADA}",
        f"{PREFIX}stacks/{ADA}/delete",
        f"{PREFIX}nothing",
        f"{API}/stacks",
        f"{API}/nothing",
        f"{API}/openapi.json",
        f"{PREFIX}static/stacks.css",
        f"{PREFIX}health",
        f"{PREFIX}oauth_callback",
    ):
        headers = ada.get(address).headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy, address
        assert "unsafe-inline" not in policy
        assert headers["x-content-type-options"] == "nosniff", address


def test_the_document_describes_the_api_as_it_is(service: Service) -> None:
    ada = service.program("ada")
    document = ada.get(f"{API}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    json_text = json.dumps(document)
    for reference in set(re.findall(r'"#/([^"]+)"', json_text)):
        place: Any = document
        for step in reference.split("/"):
            place = place[step]
    served = {
        re.sub(r"\(\[a-z0-9\][^)]*\)\?\)|\(\[\^/\][^)]*\)", "{}", pattern.removeprefix(f"{API}")).replace(
            "\\", ""
        )
        for pattern, *_ in service.site.handlers
        if pattern.startswith(f"{API}/")
    }
    described = {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}
    assert described == served
    schema = {**document["components"]["schemas"]["StackView"], "components": document["components"]}
    stack = ada.get(f"{API}/stacks/{ADA}").json()
    jsonschema.Draft202012Validator(schema).validate(stack)
    assert set(stack) == set(schema["properties"])
    error = {**document["components"]["schemas"]["Error"], "additionalProperties": False}
    jsonschema.Draft202012Validator(error).validate(ada.patch(f"{API}/stacks/{ADA}", json={"a": 1}).json())


# -- names ------------------------------------------------------------------------------------------------


@given(name=st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
def test_a_name_is_taken_as_it_is_or_refused(service: Service, name: str) -> None:
    answer = service.program("ada").patch(f"{API}/stacks/{ADA}", json={"displayName": name})
    assert answer.status_code == (200 if is_plain(name) else 400), answer.text
    if answer.status_code == 200:
        assert service.store.view.get(ADA).spec.display_name == name


@given(name=st.text(max_size=60))
def test_what_is_shown_of_a_name_can_be_seen(name: str) -> None:
    shown = plain(name)
    assert is_plain(shown)
    assert shown == plain(shown)


def test_a_name_of_an_earlier_version_is_shown_without_what_cannot_be_seen(service: Service) -> None:
    service.put(a_stack("ada", display_name="Lung \u202egnul\u200b of\u2067 bob", generation=9))
    shown = service.program("ada").get(f"{API}/stacks/{ADA}").json()
    assert shown["title"] == shown["displayName"] == "Lung gnul of bob"
    page = service.browser("ada").get(PREFIX).text
    assert not {"\u202e", "\u200b", "\u2067"} & set(page)


def test_beside_the_name_of_somebody_elses_stack_stands_whose_it_is(service: Service) -> None:
    service.put(a_stack("bob", display_name="Cytomine of Ada", members=Members(users=("ada",)), generation=9))
    cards = BeautifulSoup(service.browser("ada").get(PREFIX).text, "html.parser")
    heads = {
        str(card["data-stack"]): card.header.get_text(" ", strip=True) for card in cards.select("article")
    }
    assert "of bob" in heads["cm-bob"]
    assert "of ada" not in heads[ADA]
