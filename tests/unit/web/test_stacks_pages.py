"""The page of the stacks, from outside, as a browser without scripts sees it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from bs4 import BeautifulSoup

from cytomine_spawner.cluster.store import LogQuery, LogSource, Unavailable
from cytomine_spawner.stack.model import Condition, Phase, Reason
from tests.support.stackpages import ADA, cards, press, soup, starting, text
from tests.support.stacks import PREFIX, Service, a_stack, events, xsrf

pytest_plugins = ["tests.support.servedstacks"]


# -- login and who sees what -------------------------------------------------------------------------------


def test_somebody_who_is_not_logged_in_is_sent_to_the_hub_and_comes_back(service: Service) -> None:
    service.put(a_stack("ada"))
    stranger = service.client()
    answer = stranger.get(f"{PREFIX}stacks/{ADA}", follow_redirects=False)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("/hub/api/oauth2/authorize?")
    ada = service.client(cookies={"who": service.hub.token("ada")})
    page = ada.get(f"{PREFIX}stacks/{ADA}")
    assert page.url.path == f"{PREFIX}stacks/{ADA}"
    assert ADA in cards(page)


def test_the_services_cookies_stay_on_its_path_and_away_from_scripts(service: Service) -> None:
    client = service.client(cookies={"who": service.hub.token("ada")})
    set_cookies = [
        c for r in [*client.get(PREFIX).history, client.get(PREFIX)] for c in r.headers.get_list("set-cookie")
    ]
    kept = [c for c in set_cookies if not re.search(r'=("")?;', c)]
    assert kept
    for cookie in kept:
        assert f"Path={PREFIX}" in cookie, cookie
        assert "httponly" in cookie.lower(), cookie
    assert any(c.startswith("service-cytomine=") and "SameSite=Lax" in c for c in kept)


def test_owners_see_their_own_stacks_and_nobody_elses(service: Service) -> None:
    service.put(a_stack("ada"), a_stack("ada", "second"), a_stack("bob"))
    page = service.browser("ada").get(PREFIX)
    assert set(cards(page)) == {ADA, a_stack("ada", "second").name}
    assert "cm-bob" not in page.text
    assert not soup(page).select("#owner"), "the filter is for administrators"


@pytest.mark.parametrize("path", ["", "/delete", "/logs/core"])
def test_a_page_of_somebody_elses_stack_is_not_found(service: Service, path: str) -> None:
    service.put(a_stack("bob"))
    ada = service.browser("ada")
    hers = ada.get(f"{PREFIX}stacks/cm-bob{path}")
    nobodys = ada.get(f"{PREFIX}stacks/cm-none{path}")
    assert hers.status_code == nobodys.status_code == 404
    assert text(soup(hers, 404).main).replace("cm-bob", "cm-none") == text(soup(nobodys, 404).main)


def test_administrators_see_all_and_filter_by_owner(service: Service) -> None:
    service.put(a_stack("ada"), a_stack("bob"))
    root = service.browser("root", admin=True)
    page = root.get(PREFIX)
    assert set(cards(page)) == {ADA, "cm-bob"}
    assert "ada" in text(cards(page)[ADA].select_one("dl"))
    form = soup(page).select_one("form.filter")
    assert form is not None
    filtered = root.get(str(form["action"]), params={"owner": "bob"})
    assert set(cards(filtered)) == {"cm-bob"}
    assert (
        text(soup(root.get(PREFIX, params={"owner": "<eve>"})).select_one("#empty")) == "<eve> has no stack."
    )


def test_many_stacks_come_in_pages(service: Service) -> None:
    service.put(*(a_stack(f"user{n:03}") for n in range(120)))
    root = service.browser("root", admin=True)
    seen: list[str] = []
    page = root.get(PREFIX)
    while True:
        parsed = soup(page)
        seen += [str(card["data-stack"]) for card in parsed.select("article.card")]
        older = parsed.select_one("a[rel=next]")
        if older is None:
            break
        page = root.get(str(older["href"]))
    assert len(seen) == len(set(seen)) == 120
    for odd in ("0", "-1", "many", "99999999999999999999", "²"):
        page = root.get(PREFIX, params={"page": odd})
        assert page.status_code == 200
        assert '<article class="card"' in page.text


# -- what a card says ------------------------------------------------------------------------------------


def test_without_a_stack_the_page_says_how_to_launch_one(service: Service) -> None:
    empty = soup(service.browser("ada").get(PREFIX)).select_one("#empty")
    assert empty is not None
    assert not empty.has_attr("hidden")
    assert "no Cytomine stack" in text(empty)
    assert empty.select_one('a[href="/hub/spawn"]')


def test_a_starting_stack_names_the_component_it_waits_for(service: Service) -> None:
    service.put(starting())
    card = cards(service.browser("ada").get(PREFIX))[ADA]
    assert "Starting" in text(card.header)
    assert "Core is late." in text(card.select_one(".message"))
    assert text(card.summary) == "Components: 6 of 7 ready, waiting for Core"
    assert card.details.has_attr("open")
    rows = {text(row.select_one(".component")): text(row) for row in card.select(".components li")}
    assert "fetching its image" in rows["Core"]
    assert "Its image is being fetched. This holds the stack up. Started anew 2 times." in rows["Core"]
    assert "ready It serves. Ready after 1 min 15 s." in rows["Database"]


@pytest.mark.parametrize(
    ("reason", "looks", "log"),
    [("Importing", "busy", True), ("Failed", "bad", True), ("Imported", "good", False)],
)
def test_the_card_says_how_the_import_of_datasets_stands(
    service: Service, reason: str, looks: str, log: bool
) -> None:
    time = datetime.now(timezone.utc)
    condition = Condition(
        type="DatasetsImported",
        status="False",
        reason=reason,
        message="Colon: 3 of 4.",
        last_transition_time=time,
    )
    service.put(a_stack("ada", conditions=(condition,)))
    card = cards(service.browser("ada").get(PREFIX))[ADA]
    part = card.select_one("[data-part=datasets]")
    assert text(part).startswith("Datasets Colon: 3 of 4.")
    assert part.select_one(f".look-{looks}")
    link = part.select_one("a")
    assert bool(link) is log
    if log:
        assert service.browser("ada").get(str(link["href"])).status_code in (200, 404)
    assert ("Try again" in text(card.select_one(".actions"))) is (reason == "Failed")


def test_a_failed_stack_shows_why_and_offers_another_try(service: Service) -> None:
    service.put(
        a_stack("ada", phase=Phase.FAILED, message="No node has 2 GiB free.", reason=Reason.UNSCHEDULABLE)
    )
    card = cards(service.browser("ada").get(PREFIX))[ADA]
    assert text(card.select_one(".message")) == "No node has 2 GiB free."
    assert "Failed" in text(card.header)
    assert "Try again" in text(card.select_one(".actions"))
    assert "Open" not in text(card.select_one(".actions"))


def test_dates_of_sleep_and_of_deletion_are_shown(service: Service) -> None:
    # The run may have begun long ago.
    now = datetime.now(timezone.utc)
    service.put(
        a_stack("ada", hibernates_at=now + timedelta(hours=3, minutes=10)),
        a_stack(
            "ada",
            "old",
            Phase.HIBERNATED,
            desired_state="Hibernated",
            hibernated_at=now - timedelta(days=2, hours=1),
            expires_at=datetime(2031, 5, 9, 7, 5, tzinfo=timezone.utc),
        ),
    )
    shown = cards(service.browser("ada").get(PREFIX))
    assert "Hibernates unless used in 3 hours, on " in text(shown[ADA].dl)
    assert "Last used 42 minutes ago" in text(shown[ADA].dl)
    assert "Created 3 days ago" in text(shown[ADA].dl)
    old = text(shown[a_stack("ada", "old").name].dl)
    assert "Hibernated 2 days ago" in old
    assert re.search(r"Deleted with its data unless resumed in \d years, on 9 May 2031, 07:05 UTC", old)


@pytest.mark.parametrize(
    ("changes", "opens"),
    [
        ({}, True),
        ({"phase": Phase.DEGRADED}, True),
        ({"phase": Phase.STARTING}, False),
        ({"phase": Phase.HIBERNATED}, False),
        ({"deleting": True}, False),
        ({"url": None}, False),
        ({"url": "javascript:alert(1)"}, False),
        ({"url": "data:text/html,x"}, False),
    ],
)
def test_open_is_offered_when_there_is_something_to_open(
    service: Service, changes: dict[str, Any], opens: bool
) -> None:
    service.put(a_stack("ada", **changes))
    card = cards(service.browser("ada").get(PREFIX))[ADA]
    links = [str(link["href"]) for link in card.select("a[target=_blank]")]
    assert links == (["https://cm-ada.stacks.example.org/"] if opens else [])
    assert "javascript:" not in str(card)
    assert "data:text" not in str(card)


def test_an_administrator_is_offered_no_way_into_somebodys_stack(service: Service) -> None:
    service.put(a_stack("ada"))
    card = cards(service.browser("root", admin=True).get(PREFIX))[ADA]
    assert not card.select("a[target=_blank]")


# -- logs -------------------------------------------------------------------------------------------------


def test_a_log_is_shown_as_text_with_its_container(service: Service) -> None:
    service.put(a_stack("ada"))
    service.store.sources = [LogSource(f"{ADA}-core-0", "core", "running", 1, previous=True)]
    service.store.lines = ["", "<script>alert(1)</script>", "second"]
    ada = service.browser("ada")
    link = cards(ada.get(PREFIX))[ADA].select_one("a[href$='/logs/core']")
    page = ada.get(str(link["href"]))
    log = soup(page).select_one("#log")
    assert log is not None
    assert log.get_text().splitlines()[-2:] == ["<script>alert(1)</script>", "second"]
    assert not log.select("*")
    assert f"Pod {ADA}-core-0, container core: running, started anew 1 time." in text(soup(page).main)
    before = ada.get(str(link["href"]), params={"tail": "1", "previous": "true", "container": "core"})
    assert before.status_code == 200
    assert (service.store.asked[-1].previous, service.store.asked[-1].tail) == (True, 1)


def test_a_log_can_be_downloaded(service: Service) -> None:
    service.put(a_stack("ada"))
    service.store.sources, service.store.lines = [LogSource(f"{ADA}-core-0", "core")], ["one", "two"]
    answer = service.browser("ada").get(f"{PREFIX}stacks/{ADA}/logs/core?download=yes")
    assert answer.headers["content-disposition"] == 'attachment; filename="cm-ada-core.log"'
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "one\ntwo\n"


def test_a_log_whose_secrets_cannot_be_taken_out_is_said_and_not_shown(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def logs(query: LogQuery) -> AsyncIterator[str]:
        raise Unavailable("The log is not shown, because of something.")
        yield "a secret"

    service.put(a_stack("ada"))
    service.store.sources = [LogSource(f"{ADA}-core-0", "core")]
    monkeypatch.setattr(service.store, "logs", logs)
    ada, page = service.browser("ada"), f"{PREFIX}stacks/{ADA}/logs/core"
    assert "is not shown, because" in text(soup(ada.get(page), 503).select_one(".alert"))
    answer = ada.get(f"{page}?download=yes")
    assert (answer.status_code, answer.text) == (503, "The log is not shown, because of something.\n")
    answer = ada.get(f"{PREFIX}api/stacks/{ADA}/components/core/logs")
    assert (answer.status_code, "is not shown" in answer.json()["message"]) == (503, True)


@pytest.mark.parametrize(
    ("sources", "status", "sentence"),
    [
        ([], 200, "No pod of the component core is there"),
        ([LogSource(f"{ADA}-core-0", "core", "ErrImagePull", started=False)], 200, "ErrImagePull"),
    ],
)
def test_a_log_that_is_not_there_is_said_on_the_page(
    service: Service, sources: list[LogSource], status: int, sentence: str
) -> None:
    service.put(a_stack("ada"))
    service.store.sources = sources
    page = soup(service.browser("ada").get(f"{PREFIX}stacks/{ADA}/logs/core"), status)
    assert sentence in text(page.select_one(".alert"))


# -- live updates -----------------------------------------------------------------------------------------


def test_a_change_arrives_as_the_card_that_a_reload_would_show(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    page = ada.get(PREFIX)
    main = soup(page).main
    headers = {"X-XSRFToken": xsrf(page), "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    params = {"since": str(main["data-cursor"])}
    with ada.stream("GET", str(main["data-updates"]), headers=headers, params=params) as stream:
        heard = events(stream)
        assert next(heard) == ("view", {"message": ""})
        service.put(starting(), a_stack("bob"))
        event, data = next(heard)
        assert (event, data["name"], data["say"]) == ("stack", ADA, "Cytomine: Starting, waiting for Core.")
        reloaded = cards(ada.get(PREFIX))[ADA]
        assert BeautifulSoup(data["html"], "html.parser").article == reloaded
        assert next(heard)[0] == "cursor"
        service.do(service.store.view.lost)
        event, data = next(heard)
        assert event == "view"
        assert "has not answered since" in data["message"]


def test_a_stream_without_the_pages_token_is_refused(service: Service) -> None:
    ada = service.browser("ada")
    answer = ada.get(f"{PREFIX}updates", headers={"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 401
    assert "log in" in answer.json()["message"]


# -- when others fail -------------------------------------------------------------------------------------


def test_while_the_cluster_is_silent_the_last_view_stays_with_its_age(service: Service) -> None:
    service.put(a_stack("ada"))
    service.do(service.store.view.lost, datetime.now(timezone.utc) - timedelta(minutes=7, seconds=5))
    page = service.browser("ada").get(PREFIX)
    assert ADA in cards(page, 503)
    outage = text(soup(page, 503).select_one("#outage"))
    assert "The cluster has not answered since" in outage
    assert "(7 minutes ago)" in outage
    assert soup(service.browser("ada").get(f"{PREFIX}stacks/{ADA}"), 503).select_one("article.card")


def test_before_the_first_list_the_page_says_so(service: Service) -> None:
    ada = service.browser("ada")
    service.do(lambda: setattr(service.store.view, "synced", False))
    assert "has not told" in text(soup(ada.get(PREFIX), 503).main)
    assert service.client().get(f"{PREFIX}health").status_code == 200
    assert service.client().get(f"{PREFIX}health/ready").status_code == 503


def test_a_button_while_the_cluster_is_silent_says_so(service: Service) -> None:
    service.put(a_stack("ada"))
    service.store.silent = True
    assert "does not answer" in text(soup(press(service, "hibernate"), 503).main)


def test_a_silent_hub_is_a_page_with_a_sentence(service: Service) -> None:
    ada = service.browser("ada")
    service.hub.silent = True
    # The hub's last word is believed for a second.
    service.do(lambda: service.site.handlers[1][2]["site"].hub_auth.cache.values.clear())
    assert "The hub does not answer" in text(soup(ada.get(PREFIX), 503).main)
