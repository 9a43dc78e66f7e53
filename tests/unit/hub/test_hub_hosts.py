"""A real hub whose users have hosts of their own, and the guard before its pages."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookies import SimpleCookie

import httpx
import pytest

from tests.support.hub import Hub, running, xsrf

pytestmark = pytest.mark.hub_contract

HOME = "http://hub.example.org:8000"
ADA = "ada.hub.example.org:8000"
OPENED = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
# What a page on a host below the hub's can make a browser send; what one on the hub's own host can is in the last.
ATTACKS = {
    "fetch no-cors": ("same-site", "no-cors", "empty"),
    "fetch": ("same-site", "cors", "empty"),
    "script": ("same-site", "no-cors", "script"),
    "picture": ("same-site", "no-cors", "image"),
    "frame": ("same-site", "navigate", "iframe"),
    "same origin": ("same-origin", "no-cors", "empty"),
}


def told(attack: str) -> dict[str, str]:
    names = ("Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")
    return dict(zip(names, ATTACKS[attack], strict=True))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("hub"), TEST_HUB_DOMAIN=HOME) as hub:
        yield hub


def log_in(hub: Hub, home: str, name: str) -> tuple[httpx.Client, SimpleCookie]:
    """Who is logged in, and what the hub set for that; cookies are kept by hand, as of the hub's own host."""
    client = httpx.Client(base_url=hub.url, headers={"Host": home.partition("//")[2]}, verify=False)
    hub.clients.append(client)
    kept = SimpleCookie()
    page = client.get("/hub/login", headers=OPENED)
    form = {"username": name, "password": "x", "_xsrf": xsrf(page)}
    for answer in (page, None):
        answer = answer or client.post("/hub/login", data=form)
        for line in answer.headers.get_list("set-cookie"):
            kept.load(line)
        client.cookies.clear()
        client.headers["Cookie"] = "; ".join(f"{key}={cookie.coded_value}" for key, cookie in kept.items())
    assert answer.status_code == 302, answer.text
    return client, kept


@pytest.fixture(scope="module")
def ada(hub: Hub) -> httpx.Client:
    return log_in(hub, HOME, "ada")[0]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "path", ["/hub/home", "/hub/token", "/hub/spawn", "/hub/admin", "/hub/api/user", "/hub/login"]
)
def test_a_page_from_elsewhere_is_refused_all_that_the_hub_shows(
    ada: httpx.Client, path: str, attack: str
) -> None:
    answer = ada.get(path, headers=told(attack))
    assert answer.status_code == 403
    assert "_xsrf" not in answer.text
    said = answer.json()["message"] if "/api/" in path else answer.text
    assert said.count(". ") <= 1, said


def test_the_hubs_own_pages_and_their_scripts_go_on(ada: httpx.Client) -> None:
    page = ada.get("/hub/home", headers=OPENED)
    assert page.status_code == 200
    assert ada.get("/hub/home", headers={**OPENED, "Sec-Fetch-Site": "cross-site"}).status_code == 200
    script = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    token = page.text.partition('xsrf_token: "')[2].partition('"')[0]
    found = ada.get("/hub/api/user", headers={**script, "X-XSRFToken": token, "Referer": f"{HOME}/hub/home"})
    assert (found.status_code, found.json()["name"]) == (200, "ada")
    # JupyterHub's refusal is a page with a token for forms in it: it must not come to that.
    for path in ("/hub/home", "/hub/token", "/hub/nothing"):
        refused = ada.get(path, headers=script)
        assert (refused.status_code, "_xsrf" in refused.text, "xsrf_token" in refused.text) == (
            403,
            False,
            False,
        )
    for path in ("/hub/static/css/style.min.css", "/hub/logo"):
        assert ada.get(path, headers=told("picture")).status_code == 200


def test_a_form_of_another_page_is_refused(ada: httpx.Client) -> None:
    headers = {**OPENED, "Sec-Fetch-Site": "same-site"}
    answer = ada.post("/hub/token", data={"note": "x"}, headers=headers)
    assert (answer.status_code, answer.text.count("\n")) == (403, 1)


def test_programs_with_tokens_are_asked_nothing(hub: Hub) -> None:
    assert hub.api("GET", "/users/ada", headers=told("fetch")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/hub/login", "/hub/home", "/hub/api/user", "/hub", "/hub/oauth_callback?code=1"]
)
def test_the_hubs_own_pages_are_at_no_users_host(ada: httpx.Client, path: str) -> None:
    answer = ada.get(path, headers={**OPENED, "Host": ADA})
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{HOME}{path}")
    sent = ada.post(path, headers={"Host": ADA}, data={"username": "ada"})
    assert sent.status_code == 403
    assert HOME in sent.text


def test_a_users_host_leads_to_the_hub_while_nothing_runs_there(ada: httpx.Client) -> None:
    answer = ada.get("/user/ada/lab?x=1", headers={**OPENED, "Host": ADA})
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{HOME}/hub/user/ada/lab?x=1")


def test_servers_run_at_hosts_of_their_own_and_are_told_so(hub: Hub, ada: httpx.Client) -> None:
    hub.user("ada")
    assert hub.api("POST", "/users/ada/server").status_code in (201, 202)
    try:
        model = hub.api("GET", "/users/ada").json()["servers"][""]
        full = model.get("full_url") or f"http://{ADA}/user/ada/"
        assert full == f"http://{ADA}/user/ada/"
        # The hub sends who opens it there.
        answer = ada.get("/hub/user/ada/lab", headers=OPENED)
        assert answer.headers["Location"].startswith(f"http://{ADA}/user/ada/lab")
    finally:
        hub.api("DELETE", "/users/ada/server")


def test_a_service_that_moved_to_its_own_host_is_found_from_its_old_address(ada: httpx.Client) -> None:
    answer = ada.get("/services/cards/stacks/x?a=b", headers=OPENED)
    assert answer.headers["Location"] == "http://cards--service.hub.example.org/services/cards/stacks/x?a=b"


def test_the_link_to_a_service_has_the_port(hub: Hub) -> None:
    root, _ = log_in(hub, HOME, "root")
    assert 'href="http://cards--service.hub.example.org:8000/services/cards/"' in root.get("/hub/home").text


def test_logins_are_in_cookies_of_the_hubs_host_alone_where_there_is_https(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running(tmp_path_factory.mktemp("secure"), TEST_HUB_DOMAIN="https://hub.example.org") as hub:
        _, cookies = log_in(hub, "https://hub.example.org", "ada")
        login = cookies["__Host-jupyterhub-hub-login"]
        assert (login["secure"], login["httponly"], login["path"], login["domain"]) == (True, True, "/", "")
