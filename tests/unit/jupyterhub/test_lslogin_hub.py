"""The pages around LS Login, from a real JupyterHub process and a provider on loopback."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from bs4 import BeautifulSoup

from tests.support.hub import free_port, process
from tests.support.lsloginfake import ADA, BY, CLIENT, MARKS, ROOT, SECRET, USERS, Provider, wait_until

CONFIG = """
import os
from jupyterhub.proxy import Proxy
from tornado import web


class NoProxy(Proxy):
    should_start = False

    async def add_route(self, routespec, target, data): pass
    async def delete_route(self, routespec): pass
    async def get_all_routes(self): return {}


async def show_groups(spawner):
    with open("groups", "w") as record:
        record.write(",".join(sorted(group.name for group in spawner.user.groups)))
    raise web.HTTPError(409, "this test starts no server")


c = get_config()
port = os.environ["TEST_PORT"]
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.log_level = "DEBUG"
c.Spawner.pre_spawn_hook = show_groups
c.JupyterHub.authenticator_class = "cytomine_spawner.lslogin.LSLoginAuthenticator"
c.LSLoginAuthenticator.allowed_groups = {"cytomine:users", "cytomine:guests"}
c.LSLoginAuthenticator.issuer = os.environ["TEST_ISSUER"]
c.LSLoginAuthenticator.client_id = os.environ["TEST_CLIENT"]
c.LSLoginAuthenticator.client_secret_file = "client-secret"
c.LSLoginAuthenticator.oauth_callback_url = f"http://127.0.0.1:{port}/hub/oauth_callback"
c.LSLoginAuthenticator.contact = "hub@example.org"
c.LSLoginAuthenticator.access_help = "Tell <your> group's manager."
c.LSLoginAuthenticator.request_timeout = 1
c.LSLoginAuthenticator.discovery_timeout = 1
c.LSLoginAuthenticator.check_before_login = os.environ.get("TEST_PROBE") == "1"
c.LSLoginAuthenticator.test_environment = True
c.LSLoginAuthenticator.auto_login = os.environ.get("TEST_AUTO") == "1"
c.LSLoginAuthenticator.auth_refresh_age = 1
"""


@dataclass
class Hub:
    """A running hub and its log; its address ends with a slash."""

    url: str
    log: Path


@contextmanager
def running(folder: Path, provider: Provider, **environment: str) -> Iterator[Hub]:
    """A hub whose users log in at the provider."""
    port = free_port()
    (folder / "client-secret").write_text(SECRET)
    env = {
        **os.environ,
        "JUPYTERHUB_CRYPT_KEY": secrets.token_hex(32),
        "TEST_PORT": str(port),
        "TEST_ISSUER": provider.issuer,
        "TEST_CLIENT": CLIENT,
        **environment,
    }
    url = f"http://127.0.0.1:{port}"
    with process(folder, CONFIG, url, env):
        yield Hub(f"{url}/hub/", folder / "hub.log")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture(scope="module")
def hub(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("hub"), provider) as hub:
        yield hub
    text = hub.log.read_text()
    assert "Login failed (down)" in text, "the log is not the hub's"
    assert "Login failed (refused): LS Login answered access_denied: 'told <b>x</b> [hidden]'" in text
    leaks = [line for line in text.splitlines() if any(mark in line for mark in MARKS)]
    assert not leaks, leaks[:3]


@pytest.fixture(autouse=True)
def healthy(provider: Provider) -> None:
    """Each test starts with a provider that works."""
    provider.person, provider.claims, provider.broken, provider.refuse = dict(ADA), {}, {}, ""
    provider.ended.clear()


@pytest.fixture
def browser(hub: Hub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, follow_redirects=True, timeout=20, verify=False) as client:
        yield client


def page(answer: httpx.Response) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: httpx.Response) -> str:
    return " ".join(
        page(answer).select_one("#login-problem, #logged-out, .service-login, body").get_text(" ").split()
    )  # type: ignore[union-attr]


def kind(answer: httpx.Response) -> Any:
    problem = page(answer).select_one("#login-problem")
    return problem["data-problem"] if problem else None


def links(answer: httpx.Response) -> dict[str, str]:
    return {
        " ".join(link.get_text(" ").split()): str(link["href"])
        for link in page(answer).select("main a[href]")
    }


def follow(browser: httpx.Client, answer: httpx.Response, text: str) -> httpx.Response:
    """Click on a link."""
    return browser.get(answer.url.join(links(answer)[text]))


def test_a_name_with_markup_is_shown_as_text(browser: httpx.Client, provider: Provider) -> None:
    provider.person = {**ADA, "name": "<img src=x onerror=alert(1)>"}
    home = browser.get("oauth_login", params={"next": "/hub/home"})
    assert "<img src=x" not in home.text
    assert "<img src=x onerror=alert(1)>" in page(home).select_one("#login_widget").get_text()  # type: ignore[union-attr]


def test_two_lines_are_enough_to_log_in_and_the_page_knows_the_name(browser: httpx.Client) -> None:
    home = browser.get("oauth_login", params={"next": "/hub/home"})
    assert home.status_code == 200
    assert urlsplit(str(home.url)).path == "/hub/home"
    widget = page(home).select_one("#login_widget")
    assert widget is not None
    assert "Ada Lovelace" in widget.get_text()
    assert ADA["sub"] not in widget.get_text()
    groups = browser.get("api/user", headers={"Referer": str(home.url)}).json()["groups"]
    assert groups == ["cytomine:users"]


def test_the_login_page_names_ls_login_and_its_test_environment(browser: httpx.Client) -> None:
    login = browser.get("login", params={"next": "/hub/token"})
    button = page(login).select_one(".service-login a.btn")
    assert button is not None
    assert button.get_text(strip=True) == "Sign in with LS Login"
    assert button["href"] == "/hub/oauth_login?next=%2Fhub%2Ftoken"
    assert "lifescience_test" in words(login)


def test_a_person_in_no_allowed_group_is_told_who_which_and_what_to_do(
    browser: httpx.Client, provider: Provider
) -> None:
    provider.person = {
        **ADA,
        "sub": "b" * 40 + "@lifescience-ri.eu",
        "name": "Bob <b>",
        "email": "bob@example.org",
    }
    provider.person["eduperson_entitlement"] = [f"{ROOT}:other{BY}"]
    refused = browser.get("oauth_login")
    assert refused.status_code == 403
    assert kind(refused) == "not_allowed"
    text = words(refused)
    for part in (
        "Bob <b>",
        "bob@example.org",
        "b" * 40,
        "cytomine:users",
        "cytomine:guests",
        "other",
        "Tell <your> group's",
    ):
        assert part in text
    assert "<b>" not in refused.text.replace("&lt;b&gt;", "")
    assert refused.headers["cache-control"] == "no-store"
    assert refused.headers["referrer-policy"] == "no-referrer"
    assert links(refused)["hub@example.org"] == "mailto:hub@example.org"
    assert browser.get("home").url.path == "/hub/login", "the refused person has a session"
    # "Use another account" ends the session at LS Login and comes back here.
    away = follow(browser, refused, "Use another account")
    assert provider.ended[-1]["id_token_hint"]
    assert away.url.path == "/hub/logout"
    assert "signed out of this hub and of LS Login" in words(away)


@pytest.mark.parametrize(
    ("path", "broken"), [("token", 503), ("token", "hang"), ("userinfo", 500), ("userinfo", "hang")]
)
def test_ls_login_down_gives_503_and_what_to_do(
    browser: httpx.Client, provider: Provider, path: str, broken: int | str
) -> None:
    provider.broken = {path: broken}
    down = browser.get("oauth_login", params={"next": "/hub/token"})
    assert down.status_code == 503
    assert kind(down) == "down"
    assert down.headers["retry-after"] == "60"
    assert "servers that run already go on" in words(down)
    assert "support@aai.lifescience-ri.eu" in links(down)
    provider.broken = {}
    assert follow(browser, down, "Try again").url.path == "/hub/token"


@pytest.mark.parametrize(
    ("error", "status", "page_kind"),
    [
        ("access_denied", 403, "refused"),
        ("interaction_required", 403, "refused"),
        ("temporarily_unavailable", 503, "down"),
        ("server_error", 503, "down"),
        ("invalid_scope", 500, "registration"),
        ("unauthorized_client", 500, "registration"),
    ],
)
def test_a_login_that_ls_login_sends_back_gets_its_page(
    browser: httpx.Client, provider: Provider, error: str, status: int, page_kind: str
) -> None:
    provider.refuse = error
    answer = browser.get("oauth_login")
    assert (answer.status_code, kind(answer)) == (status, page_kind)
    assert "told" not in words(answer)
    if page_kind == "refused":
        assert "signup.aai.lifescience-ri.eu" in str(links(answer))
    if page_kind == "registration":
        assert error in words(answer)


@pytest.mark.parametrize(
    "query",
    [
        {"code": "x", "state": "eyJzdGF0ZV9pZCI6ICJ4In0="},
        {"code": "x", "state": "not base64 \u00e4"},
        {"code": "x", "state": "W10="},
        {"code": "x"},
        {"state": "x"},
        {},
    ],
)
@pytest.mark.parametrize("began", [True, False])
def test_a_state_mismatch_or_a_lost_cookie_offers_to_sign_in_again(
    browser: httpx.Client, query: dict[str, str], began: bool
) -> None:
    if began:
        browser.get("oauth_login", params={"next": "/hub/token"}, follow_redirects=False)
    answer = browser.get("oauth_callback", params=query)
    assert (answer.status_code, kind(answer)) == (400, "expired")
    assert "allow cookies" in words(answer)
    expected = "/hub/token" if began else "/hub/"
    assert follow(browser, answer, "Sign in again").url.path.startswith(expected)


def test_a_good_code_with_another_state_logs_nobody_in(browser: httpx.Client, provider: Provider) -> None:
    went = browser.get("oauth_login", follow_redirects=False)
    back = httpx.URL(browser.get(went.headers["location"], follow_redirects=False).headers["location"])
    asked = provider.requests["token"]
    answer = browser.get(back.copy_set_param("state", "eyJzdGF0ZV9pZCI6ICJ4In0="))
    assert (answer.status_code, kind(answer)) == (400, "expired")
    assert provider.requests["token"] == asked
    assert browser.get("home").url.path == "/hub/login"


def test_a_code_used_twice_is_an_expired_login(browser: httpx.Client, provider: Provider) -> None:
    went = browser.get("oauth_login", follow_redirects=False)
    back = browser.get(went.headers["location"], follow_redirects=False).headers["location"]
    provider.codes.clear()
    answer = browser.get(back)
    assert (answer.status_code, kind(answer)) == (400, "expired")


def test_the_back_button_after_a_login_is_no_error(browser: httpx.Client) -> None:
    went = browser.get("oauth_login", follow_redirects=False)
    back = browser.get(went.headers["location"], follow_redirects=False).headers["location"]
    assert browser.get(back, follow_redirects=False).status_code == 302
    again = browser.get(back, follow_redirects=False)
    assert (again.status_code, again.headers["location"]) == (302, "/hub/")


def test_an_answer_that_is_no_json_is_502(browser: httpx.Client, provider: Provider) -> None:
    provider.broken = {"userinfo": "garbage"}
    answer = browser.get("oauth_login")
    assert (answer.status_code, kind(answer)) == (502, "unusable")


def test_groups_are_fresh_before_each_spawn(browser: httpx.Client, provider: Provider, hub: Hub) -> None:
    browser.get("oauth_login", params={"next": "/hub/home"})
    provider.claims = {"eduperson_entitlement": [USERS, f"{ROOT}:cytomine:new{BY}"]}
    assert browser.get("spawn").status_code == 409
    assert (hub.log.parent / "groups").read_text() == "cytomine:new,cytomine:users"


def test_a_person_taken_out_of_the_group_is_refused_before_the_next_spawn(
    browser: httpx.Client, provider: Provider, hub: Hub
) -> None:
    browser.get("oauth_login", params={"next": "/hub/home"})
    (hub.log.parent / "groups").unlink(missing_ok=True)
    provider.person = {**ADA, "eduperson_entitlement": []}
    provider.claims = {"eduperson_entitlement": []}
    spawn = browser.get("spawn")
    again = page(spawn).select_one("a.btn[href^='/hub/oauth_login']")
    assert again is not None
    assert again.get_text(strip=True) == "Sign in again"
    assert spawn.status_code == 403
    assert "it has left the groups that may" in words(spawn)
    refused = browser.get(spawn.url.join(str(again["href"])))
    assert (refused.status_code, kind(refused)) == (403, "not_allowed")
    assert browser.get("home").url.path == "/hub/login"
    assert not (hub.log.parent / "groups").exists()


def test_an_outage_does_not_log_a_working_person_out(browser: httpx.Client, provider: Provider) -> None:
    browser.get("oauth_login", params={"next": "/hub/home"})
    provider.broken = {"userinfo": 503, "token": 503}
    asked = provider.requests["userinfo"]

    def home() -> bool:
        answer = browser.get("home")
        assert answer.url.path == "/hub/home"
        return provider.requests["userinfo"] >= asked + 2

    wait_until(home, "the hub to ask LS Login again, twice")


def test_logout_logs_out_here_and_at_ls_login(browser: httpx.Client, provider: Provider) -> None:
    browser.get("oauth_login", params={"next": "/hub/home"})
    provider.revoked.clear()
    out = browser.get("logout")
    assert out.url.path == "/hub/logout"
    assert "signed out of this hub and of LS Login" in words(out)
    ended = provider.ended[-1]
    assert ended["id_token_hint"].count(".") == 2
    assert ended["post_logout_redirect_uri"].endswith("/hub/logout")
    assert ended["client_id"] == CLIENT
    wait_until(lambda: len(provider.revoked) == 2, "both tokens to be revoked")
    assert browser.get("home").url.path == "/hub/login"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
        {
            "Sec-Fetch-Site": "same-site",
            "Sec-Fetch-Mode": "navigate",
            "Referer": "https://petra.hub.example.org/",
        },
    ],
)
def test_another_sites_page_logs_nobody_out(
    browser: httpx.Client, provider: Provider, headers: dict[str, str]
) -> None:
    browser.get("oauth_login", params={"next": "/hub/home"})
    provider.revoked.clear()
    asked = browser.get("logout", headers=headers)
    assert page(asked).select_one("#ask-logout h1").get_text() == "Sign out?"  # type: ignore[union-attr]
    assert links(asked) == {"Sign out": "/hub/logout", "Stay signed in": "/hub/home"}
    assert browser.get("home").url.path == "/hub/home"
    assert not provider.ended
    assert not provider.revoked
    # and whoever wants to, does
    out = browser.get("logout", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"})
    assert "signed out of this hub and of LS Login" in words(out)


def test_a_picture_in_another_sites_page_logs_nobody_out(browser: httpx.Client, provider: Provider) -> None:
    browser.get("oauth_login", params={"next": "/hub/home"})
    provider.revoked.clear()
    refused = browser.get("logout", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
    assert refused.status_code == 403
    assert browser.get("home").url.path == "/hub/home"
    assert not provider.ended
    assert not provider.revoked


def test_a_place_in_a_page_is_kept_over_the_login(browser: httpx.Client) -> None:
    login = browser.get("login", params={"next": "/hub/token"})
    assert page(login).select_one("#keep-place")
    home = browser.get("oauth_login", params={"next": "/hub/home#/a?b=1&c=%C3%A9"})
    assert str(home.url).endswith("/hub/home#/a?b=1&c=%C3%A9")


def test_where_the_login_begins_by_itself_a_browser_is_asked_for_its_place(
    provider: Provider, tmp_path: Path
) -> None:
    with (
        running(tmp_path, provider, TEST_AUTO="1") as hub,
        httpx.Client(base_url=hub.url, follow_redirects=True, verify=False) as browser,
    ):
        seen = browser.get("home", headers={"Sec-Fetch-Dest": "document"})
        assert seen.url.path == "/hub/oauth_login"
        onward = page(seen).select_one("#onward")["href"]  # type: ignore[index]
        assert page(seen).select_one("noscript meta")["content"] == f"0; url={onward}"  # type: ignore[index]
        assert onward == "/hub/oauth_login?next=%2Fhub%2Fhome&place=1"
        # as the script of the page does where there is a place
        placed = seen.url.join(onward.replace("%2Fhome", "%2Fhome%23here"))
        there = browser.get(placed, headers={"Sec-Fetch-Dest": "document"})
        assert str(there.url).endswith("/hub/home#here")
        browser.cookies.clear()
        # A program has no place.
        assert browser.get("home").url.path == "/hub/home"


def test_logout_of_somebody_not_logged_in_stays_here(browser: httpx.Client, provider: Provider) -> None:
    out = browser.get("logout")
    assert out.url.path == "/hub/logout"
    assert not provider.ended
    assert "sign out of LS Login" in links(out)


def test_pages_need_no_script_and_have_one_heading_and_a_title(
    browser: httpx.Client, provider: Provider
) -> None:
    provider.refuse = "access_denied"
    answer = page(browser.get("oauth_login"))
    assert [heading.get_text() for heading in answer.select("main h1")] == ["You are not signed in"]
    assert answer.title is not None
    assert answer.title.get_text(strip=True) == "You are not signed in"
    assert not answer.select("main script, main [onclick]")
    assert all(link.get_text(strip=True) for link in answer.select("main a"))
    assert not re.search(r"\{\{|\{%", answer.get_text())


def test_with_the_check_before_login_an_outage_is_told_before_the_browser_leaves(
    provider: Provider, tmp_path: Path
) -> None:
    with (
        running(tmp_path, provider, TEST_PROBE="1", JUPYTERHUB_CRYPT_KEY="") as hub,
        httpx.Client(base_url=hub.url, verify=False) as client,
    ):
        provider.broken = {".well-known/openid-configuration": 503}
        down = client.get("oauth_login", params={"next": "/hub/token"})
        assert (down.status_code, kind(down)) == (503, "down")
        assert links(down)["Try again"] == "/hub/oauth_login?next=%2Fhub%2Ftoken"
        provider.broken = {}

        def leaves() -> bool:
            answer = client.get("oauth_login")
            return answer.status_code == 302 and answer.headers["location"].startswith(provider.issuer)

        wait_until(leaves, "the login to work again", 15)
        # Without a key for auth_state the logout at LS Login works, too, without the hint.
        with httpx.Client(base_url=hub.url, follow_redirects=True, verify=False) as browser:
            browser.get("oauth_login")
            browser.get("logout")
        assert provider.ended[-1]["post_logout_redirect_uri"] == f"{hub.url}logout"
        assert "id_token_hint" not in provider.ended[-1]
