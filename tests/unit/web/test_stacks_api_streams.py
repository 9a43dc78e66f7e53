"""The REST API's events and logs, and its answers while the cluster or the hub is silent."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from cytomine_spawner.cluster.store import LogSource
from cytomine_spawner.stack.model import Members, Phase
from cytomine_spawner.web import api
from cytomine_spawner.web import events as stream_events
from tests.support.stacks import ACCESS_SCOPE, PREFIX, Service, a_stack, events, xsrf

pytest_plugins = ["tests.support.servedstacks"]

API = f"{PREFIX}api"
ADA, BOB = "cm-ada", "cm-bob"


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    running.put(a_stack("ada"), a_stack("bob"))
    return running


def test_a_change_reaches_the_listener_and_nobody_elses_does(service: Service) -> None:
    ada = service.program("ada")
    with ada.stream("GET", f"{API}/stacks/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        heard = events(stream)
        first = [next(heard) for _ in range(4)]
        assert [event for event, _ in first] == ["view", "reset", "stack", "cursor"]
        assert first[1][1] == {"names": [ADA]}
        service.put(
            a_stack("bob", phase=Phase.FAILED), a_stack("ada", phase=Phase.FAILED, message="No memory.")
        )
        event, stack = next(heard)
        assert (event, stack["name"], stack["message"]) == ("stack", ADA, "No memory.")
        assert next(heard)[0] == "cursor"
        service.do(service.store.view.remove, ADA)
        assert next(heard) == ("removed", {"name": ADA})


def test_a_listener_goes_on_where_it_was(service: Service) -> None:
    ada = service.program("ada")
    cursor = ada.get(f"{API}/stacks").json()["cursor"]
    service.put(a_stack("ada", phase=Phase.HIBERNATED))
    for where in ({"params": {"since": cursor}}, {"headers": {"Last-Event-ID": cursor}}):
        with ada.stream("GET", f"{API}/stacks/events", **where) as stream:
            heard = events(stream)
            assert [next(heard)[0] for _ in range(3)] == ["view", "stack", "cursor"]


@pytest.mark.parametrize("cursor", ["00000000-5", "nonsense", "-1", "²-²", "9" * 400])
def test_an_unknown_cursor_brings_everything(service: Service, cursor: str) -> None:
    with service.program("ada").stream("GET", f"{API}/stacks/events", params={"since": cursor}) as stream:
        heard = events(stream)
        assert [next(heard)[0] for _ in range(3)] == ["view", "reset", "stack"]


def test_the_events_of_one_stack_are_of_that_one(service: Service) -> None:
    root = service.program("root", admin=True)
    with root.stream("GET", f"{API}/stacks/{BOB}/events") as stream:
        heard = events(stream)
        assert [next(heard) for _ in range(2)][1] == ("reset", {"names": [BOB]})


def test_a_listener_hears_when_the_cluster_is_lost_and_found(service: Service) -> None:
    with service.program("ada").stream("GET", f"{API}/stacks/events") as stream:
        heard = events(stream)
        assert next(heard) == ("view", {"connected": True, "asOf": None})
        while next(heard)[0] != "cursor":
            pass
        service.do(service.store.view.lost)
        event, data = next(heard)
        assert (event, data["connected"]) == ("view", False)
        assert data["asOf"]


def test_listeners_who_leave_are_forgotten(service: Service) -> None:
    ada = service.program("ada")
    for _ in range(3):
        with ada.stream("GET", f"{API}/stacks/events") as stream:
            heard = events(stream)
            next(heard)
            assert service.do(lambda: service.store.view.subscribers) >= 1
    wait_for(lambda: service.do(lambda: service.store.view.subscribers) == 0)


def with_log(service: Service, *lines: str, **source: Any) -> None:
    usual = {"pod": f"{ADA}-core-0", "container": "core", "state": "running"}
    service.store.sources = [
        LogSource(**{**usual, **source}),
        LogSource(f"{ADA}-core-0", "wait", "Completed"),
    ]
    service.store.lines = list(lines)


def test_the_last_lines_of_a_log_come_as_text(service: Service) -> None:
    with_log(service, "one", "two", "three <b>")
    answer = service.program("ada").get(f"{API}/stacks/{ADA}/components/core/logs?tail=2")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "two\nthree <b>\n"


def test_one_container_of_a_pod_can_be_named(service: Service) -> None:
    with_log(service, "x")
    ada = service.program("ada")
    assert ada.get(f"{API}/stacks/{ADA}/components/core/logs?container=wait").status_code == 200
    assert service.store.asked[-1].source.container == "wait"
    assert ada.get(f"{API}/stacks/{ADA}/components/core/logs?pod=cm-bob-core-0").status_code == 404


@pytest.mark.parametrize(
    ("source", "query", "sentence"),
    [
        ({"started": False, "state": "ImagePullBackOff"}, "", "ImagePullBackOff"),
        ({}, "?previous=true", "did not run before"),
        ({"pod": "cm-ada-pims-0"}, "?container=core", "no such pod"),
    ],
)
def test_a_log_that_is_not_there_is_said_in_a_sentence(
    service: Service, source: dict[str, Any], query: str, sentence: str
) -> None:
    with_log(service, **source)
    answer = service.program("ada").get(f"{API}/stacks/{ADA}/components/core/logs{query}")
    assert answer.status_code == 404
    assert sentence in answer.json()["message"]
    assert service.store.asked == []


def test_a_followed_log_brings_new_lines_and_its_end(service: Service) -> None:
    with_log(service, "old")
    service.store.coming = service.do(asyncio.Queue)
    with service.program("ada").stream(
        "GET", f"{API}/stacks/{ADA}/components/core/logs?follow=true"
    ) as stream:
        heard = events(stream)
        assert next(heard) == ("line", "old")
        service.do(service.store.coming.put_nowait, 'new "line"')
        assert next(heard) == ("line", 'new "line"')
        service.do(service.store.coming.put_nowait, None)
        assert next(heard) == ("end", {})
    assert service.store.open_logs == 0


def test_a_follower_who_leaves_gives_back_the_connection_to_the_cluster(service: Service) -> None:
    with_log(service, "old")
    service.store.coming = service.do(asyncio.Queue)
    ada = service.program("ada")
    with ada.stream("GET", f"{API}/stacks/{ADA}/components/core/logs?follow=true") as stream:
        heard = events(stream)
        assert next(heard) == ("line", "old")
        assert service.store.open_logs == 1
    wait_for(lambda: service.store.open_logs == 0)


def test_one_person_cannot_take_all_connections_to_the_cluster(service: Service) -> None:
    with_log(service, "old")
    service.store.coming = service.do(asyncio.Queue)
    ada = service.program("ada")
    address = f"{API}/stacks/{ADA}/components/core/logs?follow=true"
    with ExitStack() as stack:
        following = [events(stack.enter_context(ada.stream("GET", address))) for _ in range(4)]
        assert [next(heard) for heard in following] == [("line", "old")] * 4
        assert ada.get(address).status_code == 503
    wait_for(lambda: service.store.open_logs == 0)
    with ada.stream("GET", address) as stream:
        assert stream.status_code == 200


def test_while_the_cluster_is_silent_the_api_says_since_when(service: Service) -> None:
    service.do(service.store.view.lost)
    ada = service.program("ada")
    for address in (f"{API}/stacks", f"{API}/stacks/{ADA}"):
        answer = ada.get(address)
        assert answer.status_code == 503
        assert re.search(r"since \d{4}-\d\d-\d\dT", answer.json()["message"])


def test_a_change_that_the_cluster_does_not_answer_is_503(service: Service) -> None:
    service.store.silent = True
    ada = service.program("ada")
    assert ada.patch(f"{API}/stacks/{ADA}", json={"desiredState": "Hibernated"}).status_code == 503
    assert ada.delete(f"{API}/stacks/{ADA}?keepData=true").status_code == 503


def test_a_silent_hub_is_503_with_a_sentence_and_no_address_of_it(service: Service) -> None:
    ada = service.program("ada")
    service.hub.silent = True
    answer = ada.get(f"{API}/stacks")
    assert answer.status_code == 503
    assert answer.json()["message"].startswith("The hub does not answer")
    assert "127.0.0.1" not in answer.text


def wait_for(true: Any, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true"
        time.sleep(0.02)


# -- who may no longer ------------------------------------------------------------------------------------


@pytest.fixture
def watched(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service, where streams look after their listeners all the time."""
    for module in (stream_events, api):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(stream_events, "RECHECK_SECONDS", 0.1)
    return service


@pytest.mark.parametrize("path", ["stacks/events", f"stacks/{ADA}/events"])
def test_events_end_when_the_token_does(watched: Service, path: str) -> None:
    ada = watched.program("ada")
    with ada.stream("GET", f"{API}/{path}") as stream:
        heard = events(stream)
        assert next(heard)[0] == "view"
        watched.do(watched.hub.tokens.clear)
        assert not [event for event, _ in heard if event == "fault"], "it ends by itself"


def test_a_page_that_is_open_hears_no_more_when_its_user_logs_out(watched: Service) -> None:
    ada = watched.browser("ada")
    head = {"X-XSRFToken": xsrf(ada.get(PREFIX))}
    with ada.stream("GET", f"{PREFIX}updates", headers=head) as stream:
        heard = events(stream)
        next(heard)
        watched.do(watched.hub.tokens.clear)
        list(heard)
    assert ada.get(f"{PREFIX}updates", headers=head).status_code == 401


def test_a_log_that_is_followed_ends_when_the_token_does(watched: Service) -> None:
    follow_core(watched)
    with watched.program("ada").stream(
        "GET", f"{API}/stacks/{ADA}/components/core/logs?follow=true"
    ) as stream:
        heard = events(stream)
        assert next(heard) == ("line", "before")
        watched.do(watched.hub.tokens.clear)
        ((event, data),) = heard
        assert event == "fault"
        assert "logged out" in data["message"]
    until(lambda: not watched.store.open_logs)


def test_a_log_that_is_followed_ends_when_its_reader_may_no_longer_administer(watched: Service) -> None:
    follow_core(watched)
    token = watched.hub.token("root", admin=True)
    root = watched.client(headers={"Authorization": f"token {token}"})
    with root.stream("GET", f"{API}/stacks/{ADA}/components/core/logs?follow=true") as stream:
        heard = events(stream)
        next(heard)
        watched.do(lambda: watched.hub.tokens[token].update(scopes=[ACCESS_SCOPE]))
        assert [event for event, _ in heard] == ["fault"]


def test_another_group_shows_and_hides_stacks_though_no_stack_changed(watched: Service) -> None:
    watched.put(a_stack("ada", members=Members(groups=("lab",))))
    token = watched.hub.token("gil", groups=["lab"])
    gil = watched.client(headers={"Authorization": f"token {token}"})
    with gil.stream("GET", f"{API}/stacks/events") as stream:
        heard = events(stream)
        while next(heard)[0] != "cursor":
            pass
        watched.do(lambda: watched.hub.tokens[token].update(groups=[]))
        assert next(heard) == ("removed", {"name": ADA})
        watched.do(lambda: watched.hub.tokens[token].update(groups=["lab"]))
        event, stack = next(heard)
        assert (event, stack["name"]) == ("stack", ADA)


def test_a_silent_hub_ends_no_stream_for_a_while_and_then_it_does(
    watched: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow_core(watched)
    path = f"{API}/stacks/{ADA}/components/core/logs?follow=true"
    with watched.program("ada").stream("GET", path) as stream:
        heard = events(stream)
        next(heard)
        asked = watched.hub.asked
        watched.do(setattr, watched.hub, "silent", True)
        until(lambda: watched.hub.asked > asked + 2)
        watched.do(watched.store.coming.put_nowait, "still")  # type: ignore[union-attr]
        assert next(heard) == ("line", "still")
        monkeypatch.setattr(stream_events, "STREAM_SECONDS", 0)
        assert [event for event, _ in heard] == ["fault"]


def follow_core(service: Service) -> None:
    """Let core have a log that goes on."""

    def put() -> None:
        service.store.sources = [LogSource(f"{ADA}-core-0", "core", "running", stack=ADA)]
        service.store.lines = ["before"]
        service.store.coming = asyncio.Queue()

    service.do(put)


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
