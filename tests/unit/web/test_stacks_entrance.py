"""The address of a stack that sleeps or starts: never an error page of a proxy, always the way on."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack.model import Phase
from cytomine_spawner.web import entrance
from tests.support.rendering import everything, stack
from tests.support.stackpages import ADA, soup, text
from tests.support.stacks import PREFIX, Service, a_stack, serving

SERVICE = "https://hub.example.org/services/cytomine"
SETTINGS = {"stack_url": "https://{stack}.stacks.example.org", "service_url": SERVICE}
BROWSER = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with serving(entered=StackSettings(**SETTINGS)) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    running.clear()
    return running


def ask(
    service: Service, path: str, host: str = "cm-ada.stacks.example.org", **headers: str
) -> httpx.Response:
    client = service.client(headers={"Host": host, **(headers or BROWSER)})
    return client.get(path, follow_redirects=False)


def test_a_bookmark_leads_to_the_stacks_own_page_and_keeps_the_place(service: Service) -> None:
    answer = ask(service, "/project/12?tab=images&x=%2F")
    assert answer.status_code == 302
    address = urlsplit(answer.headers["location"])
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{SERVICE}/open/cm-ada"
    assert parse_qs(address.query) == {"place": ["/project/12?tab=images&x=%2F"]}
    assert not address.fragment, "a fragment here would replace that of the bookmark"
    assert ask(service, "/").headers["location"] == f"{SERVICE}/open/cm-ada"


def test_whether_a_stack_exists_does_not_show_there(service: Service) -> None:
    service.put(a_stack("ada", phase=Phase.HIBERNATED))
    hers, nobodys = ask(service, "/"), ask(service, "/", "cm-none.stacks.example.org")
    assert hers.headers["location"].replace("cm-ada", "cm-none") == nobodys.headers["location"]
    assert set(hers.headers) == set(nobodys.headers)


@pytest.mark.parametrize("path", ["/oauth2/callback?code=c&state=s", "//evil.example.org/x", "/a\\b"])
def test_no_other_site_and_no_half_login_is_a_place_to_go_on_to(service: Service, path: str) -> None:
    assert entrance.safe_place(path) == "/"
    service.put(a_stack("ada"))
    page = service.browser("ada").get(f"{PREFIX}open/{ADA}", params={"place": path})
    assert soup(page).select_one("main")["data-target"] == "https://cm-ada.stacks.example.org/"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Sec-Fetch-Mode": "cors", "Accept": "application/json"}),
        ("GET", {"Sec-Fetch-Mode": "no-cors", "Accept": "text/html"}),
        ("GET", {"Accept": "application/json"}),
        ("GET", {"Accept": "text/html", "Upgrade": "websocket"}),
        ("POST", BROWSER),
    ],
)
def test_programs_are_told_in_a_sentence_that_it_does_not_run(
    service: Service, method: str, headers: dict[str, str]
) -> None:
    client = service.client(headers={"Host": "cm-ada.stacks.example.org", **headers})
    answer = client.request(method, "/api/project.json", follow_redirects=False)
    assert answer.status_code == 503
    assert answer.json() == {"status": 503, "message": entrance.NOT_SERVING}
    assert answer.headers["retry-after"] == "5"
    assert "set-cookie" not in answer.headers


def test_nothing_of_the_service_is_reached_at_a_stacks_host(service: Service) -> None:
    service.put(a_stack("ada"))
    for path in (PREFIX, f"{PREFIX}api/stacks", f"{PREFIX}static/stacks.js", f"{PREFIX}health"):
        assert ask(service, path).status_code == 302
        assert ask(service, path, Accept="application/json").status_code == 503
    for host in ("two.labels.stacks.example.org", "stacks.example.org", "cm-ada.stacks.example.org.evil.org"):
        assert ask(service, f"{PREFIX}health", host).status_code == 200, "no stack's host: the service itself"


def test_the_page_says_what_is_awaited_and_where_it_goes(service: Service) -> None:
    place = "/project/12?tab=images"
    service.put(a_stack("ada", phase=Phase.HIBERNATED, desired_state="Hibernated"))
    ada = service.browser("ada")
    page = soup(ada.get(f"{PREFIX}open/{ADA}", params={"place": place}))
    assert "It is asleep: press Resume" in text(page.select_one("#opening"))
    assert page.select_one(f"#{ADA}-resume")
    assert page.select_one("main")["data-target"] == f"https://cm-ada.stacks.example.org{place}"
    assert not page.select_one("#go-on"), "nothing to go on to"
    service.put(a_stack("ada"))
    page = soup(ada.get(f"{PREFIX}open/{ADA}", params={"place": place}))
    assert page.select_one("#go-on")["href"] == f"https://cm-ada.stacks.example.org{place}"


def test_who_is_not_let_in_learns_nothing_and_who_is_not_logged_in_comes_back(service: Service) -> None:
    service.put(a_stack("ada", phase=Phase.HIBERNATED))
    bob = service.browser("bob")
    hers, nobodys = bob.get(f"{PREFIX}open/{ADA}"), bob.get(f"{PREFIX}open/cm-none")
    assert hers.status_code == nobodys.status_code == 404
    assert hers.text.replace("cm-ada", "cm-none") == nobodys.text
    ada = service.client(cookies={"who": service.hub.token("ada")})
    page = ada.get(f"{PREFIX}open/{ADA}", params={"place": "/project/1"})
    assert page.url.path == f"{PREFIX}open/{ADA}"
    assert page.url.params["place"] == "/project/1"


def test_a_stack_has_an_address_of_its_own_only_while_it_serves() -> None:
    def addresses(entrance: bool, **changes: object) -> list[str]:
        status = stack().status.replace(**changes)
        objects = render.render(stack().model_copy(update={"status": status}), everything(entrance=entrance))
        return [o["metadata"]["name"] for o in objects if o["kind"] == "Ingress"]

    began = a_stack().created
    assert addresses(False) == addresses(True, ready_at=began) == ["cm-ada-gateway"]
    assert addresses(True) == []


def test_an_override_of_the_address_is_no_mistake() -> None:
    render.check(
        everything(entrance=True, overrides=[{"kind": "Ingress", "metadata": {"labels": {"a": "b"}}}])
    )
