"""The page of the stacks, from outside, as a browser without scripts sees it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from bs4 import BeautifulSoup, Tag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytomine_spawner.stacks.model import ComponentStatus, Condition, Phase, Reason, Stack, State
from cytomine_spawner.stacks.store import LogSource
from tests.support.stacks import NAMES, PREFIX, Service, a_stack, events, serving, xsrf

ADA = "cm-ada"
PHASES = [None, *Phase]


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    return running


@pytest.fixture(scope="module")
def client(running: Service) -> httpx.Client:
    """Ada's browser, for a test that looks many times."""
    return running.browser("ada")


def soup(page: httpx.Response, status: int = 200) -> BeautifulSoup:
    assert page.status_code == status, page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    return BeautifulSoup(page.text, "html.parser")


def cards(page: httpx.Response, status: int = 200) -> dict[str, Tag]:
    return {str(card["data-stack"]): card for card in soup(page, status).select("article.card")}


def text(element: Any) -> str:
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


def starting(owner: str = "ada", server: str = "") -> Stack:
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
        seen += cards(page)
        older = soup(page).select_one("a[rel=next]")
        if older is None:
            break
        page = root.get(str(older["href"]))
    assert len(seen) == len(set(seen)) == 120
    for odd in ("0", "-1", "many", "99999999999999999999", "²"):
        assert cards(root.get(PREFIX, params={"page": odd}))


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


# -- buttons ----------------------------------------------------------------------------------------------


def press(service: Service, verb: str, start: str = PREFIX) -> httpx.Response:
    ada = service.browser("ada")
    page = ada.get(start)
    form = cards(page)[ADA].select_one(f"form[action$='/{verb}']")
    assert form is not None, f"no form to {verb}"
    return send(ada, page, form)


def test_hibernate_and_resume_work_without_scripts(service: Service) -> None:
    service.put(a_stack("ada"))
    page = press(service, "hibernate")
    assert service.store.view.get(ADA).spec.desired_state == "Hibernated"
    assert "Cytomine was asked to hibernate. Its data stay." in text(soup(page).select_one("#notice"))
    assert "asked for" in text(cards(page)[ADA].select_one(".message"))
    press(service, "resume")
    assert service.store.view.get(ADA).spec.desired_state == "Running"


def test_try_again_works_without_scripts(service: Service) -> None:
    service.put(a_stack("ada", phase=Phase.FAILED))
    press(service, "retry")
    assert service.store.view.get(ADA).spec.retry == 1


def test_a_button_on_the_stacks_own_page_leads_back_there(service: Service) -> None:
    service.put(a_stack("ada"))
    assert press(service, "hibernate", f"{PREFIX}stacks/{ADA}").url.path == f"{PREFIX}stacks/{ADA}"


def test_a_button_that_comes_too_late_says_why(service: Service) -> None:
    service.put(a_stack("ada", phase=Phase.FAILED))
    ada = service.browser("ada")
    page = ada.get(PREFIX)
    form = cards(page)[ADA].select_one("form[action$='/retry']")
    service.put(a_stack("ada"))
    answer = send(ada, page, form)
    assert "Nothing failed" in text(soup(answer, 409).main)


def test_a_form_without_the_pages_token_is_refused_in_words(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    answer = ada.post(f"{PREFIX}stacks/{ADA}/hibernate", data={"_xsrf": "x"})
    assert "reload" in text(soup(answer, 403).main)
    assert service.store.view.get(ADA).spec.desired_state == "Running"


def test_the_pages_script_gets_answers_as_json(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    headers = {"Accept": "application/json", "X-XSRFToken": xsrf(ada.get(PREFIX))}
    done = ada.post(f"{PREFIX}stacks/{ADA}/hibernate", headers=headers)
    assert done.json() == {"message": "Cytomine was asked to hibernate. Its data stay."}
    late = ada.post(f"{PREFIX}stacks/{ADA}/retry", headers=headers)
    assert (late.status_code, "resume" in late.json()["message"]) == (409, True)


def test_only_fixed_words_are_repeated_from_the_address(service: Service) -> None:
    service.put(a_stack("ada"))
    ada = service.browser("ada")
    for done, stack in (("<b>paid</b>", ADA), ("hibernate", "cm-bob"), ("hibernate", "../x")):
        page = ada.get(PREFIX, params={"done": done, "stack": stack})
        assert text(soup(page).select_one("#notice")) == ""


# -- deletion ---------------------------------------------------------------------------------------------


def ask(service: Service, **typed: str) -> httpx.Response:
    ada = service.browser("ada")
    page = ada.get(PREFIX)
    link = cards(page)[ADA].select_one(f"a[href$='/{ADA}/delete']")
    assert link is not None
    page = ada.get(str(link["href"]))
    form = soup(page).select_one("form.form")
    assert form is not None
    return send(ada, page, form, **typed)


@pytest.mark.parametrize("typed", ["", "cm-bob", "CM-ADA", " cm-ada x"])
def test_without_the_name_nothing_is_deleted(service: Service, typed: str) -> None:
    service.put(a_stack("ada"))
    page = soup(ask(service, name=typed), 400)
    assert service.store.deleted == []
    field = page.select_one("#typed")
    assert field is not None
    assert field["aria-invalid"] == "true"
    assert ADA in text(page.select_one(f"#{field['aria-describedby']}"))


def test_unless_something_else_is_chosen_the_data_are_kept(service: Service) -> None:
    service.put(a_stack("ada"))
    page = ask(service, name=ADA)
    assert service.store.deleted == [(ADA, True)]
    assert "is being deleted. Its volumes stay." in text(soup(page).select_one("#notice"))
    card = cards(page)[ADA]
    assert "Being deleted" in text(card.header)
    assert not card.select("form"), "there is nothing to do with it any more"


def test_the_data_can_be_deleted_too(service: Service) -> None:
    service.put(a_stack("ada"))
    ask(service, name=ADA, data="delete")
    assert service.store.deleted == [(ADA, False)]


def test_an_unknown_choice_on_the_data_deletes_nothing(service: Service) -> None:
    service.put(a_stack("ada"))
    assert ask(service, name=ADA, data="perhaps").status_code == 400
    assert service.store.deleted == []


def test_a_stack_made_anew_meanwhile_is_not_deleted(service: Service) -> None:
    service.put(a_stack("ada"))
    assert ask(service, name=ADA, uid="uid-of-the-old-one").status_code == 409
    assert service.store.deleted == []


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
    service.do(lambda: service.site.handlers[0][2]["site"].hub_auth.cache.values.clear())
    assert "The hub does not answer" in text(soup(ada.get(PREFIX), 503).main)


# -- HTML -------------------------------------------------------------------------------------------------

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Strict(HTMLParser):
    """Collects what a browser would have to forgive."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(page)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]
        ids = Counter(a["id"] for _, a in self.elements if "id" in a)
        self.faults += [f"the id {name} stands {n} times" for name, n in ids.items() if n > 1]
        labelled = {a["for"] for tag, a in self.elements if tag == "label"}
        for tag, attributes in self.elements:
            if (
                tag in ("input", "select")
                and attributes.get("type") != "hidden"
                and attributes.get("id") not in labelled
            ):
                self.faults.append(f"no label: {attributes}")
            for name in ("aria-labelledby", "aria-describedby", "for", "list"):
                self.faults += [
                    f"{name} points nowhere: {i}" for i in attributes.get(name, "").split() if i not in ids
                ]
            self.faults += [
                f"inline: {tag} {name}" for name in attributes if name.startswith("on") or name == "style"
            ]
            if tag == "script" and not attributes.get("src"):
                self.faults.append("inline script")
            if tag == "img" and not attributes.get("alt"):
                self.faults.append("image without words")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"attribute twice: <{tag}>")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


@pytest.mark.parametrize("admin", [False, True])
def test_every_page_is_well_formed_labelled_and_without_inline_code(service: Service, admin: bool) -> None:
    for number, phase in enumerate(PHASES):
        service.put(a_stack("ada", f"s{number}", phase))
    service.put(starting())
    service.store.sources = [
        LogSource(f"{ADA}-core-0", "core"),
        LogSource(f"{ADA}-core-0", "wait", "Completed"),
    ]
    service.store.lines = ["x"]
    client = service.browser("root" if admin else "ada", admin=admin)
    at = f"{PREFIX}stacks/{ADA}"
    for address in (
        PREFIX,
        at,
        f"{at}/delete",
        f"{at}/logs/core",
        f"{at}/logs/pims",
        f"{PREFIX}none",
        f"{PREFIX}?owner=x",
    ):
        page = client.get(address).text
        parsed = Strict(page)
        assert parsed.faults == [], address
        headings = [tag for tag, _ in parsed.elements if tag in ("h1", "h2", "h3")]
        assert headings[0] == "h1", address
        assert headings.count("h1") == 1, address


SHOWN = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60)
NASTY = st.sampled_from(
    ['"><script>alert(1)</script>', "' onload=x '", "&lt;b&gt;", "</article>", "{{ 7*7 }}", "<!--"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=NASTY | SHOWN, sentence=NASTY | SHOWN, server=NASTY | SHOWN.filter(bool))
def test_whatever_a_stack_is_called_the_page_shows_it_as_text(
    service: Service, client: httpx.Client, title: str, sentence: str, server: str
) -> None:
    service.clear()
    plain = a_stack("ada", "server", Phase.FAILED, display_name="name", message="sentence")
    service.put(plain)
    expected = Counter(tag for tag, _ in Strict(client.get(PREFIX).text).elements)
    service.clear()
    nasty = a_stack("ada", server, Phase.FAILED, display_name=title, message=sentence)
    service.put(nasty)
    page = client.get(PREFIX)
    parsed = Strict(page.text)
    assert parsed.faults == []
    assert Counter(tag for tag, _ in parsed.elements) == expected
    card = cards(page)[nasty.name]
    assert card.select_one(".title").get_text() == (title or f"Cytomine of {server}")
    assert card.select_one(".message p").get_text() == (sentence or "It could not start.")
