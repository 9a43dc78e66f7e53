"""The genuine keycloak-js on a stack's own host, against the stacks' login on the hub's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import QUIET
from tests.support import keycloakjs
from tests.support.hub import free_port
from tests.support.identity import World, world
from tests.support.stacks import PREFIX, a_stack

ADA = "cm-ada"


@dataclass
class Place:
    """A service on the hub's host and a page on the stack's."""

    w: World
    hub: str
    stack: str

    def enter(self, context: BrowserContext, name: str) -> str:
        """Be logged in at the hub; the hub's token."""
        token = self.w.service.hub.token(name)
        context.add_cookies([{"name": "who", "value": token, "url": self.hub}])
        return token


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    port = free_port()
    hub = f"http://hub.localhost:{port}"
    with keycloakjs.page(f"{hub}{PREFIX}{ADA}/iam") as page_port:
        options: dict[str, Any] = {
            "service_url": hub,
            "stack_url": f"http://{{stack}}.stacks.localhost:{page_port}",
            "oauth_redirect_uri": f"{hub}{PREFIX}oauth_callback",
        }
        with world(port=port, **options) as made:
            yield Place(made, hub, f"http://{ADA}.stacks.localhost:{page_port}")


@pytest.fixture
def place(running: Place) -> Place:
    running.w.service.clear()
    running.w.service.put(a_stack("ada"))
    for name in ("ada", "eve"):
        running.w.person(name)
    return running


@pytest.fixture
def tab(context: BrowserContext, page: Page) -> Iterator[Page]:
    """A tab in which nothing may go wrong unseen."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if "Refused" in m.text or "CORS" in m.text else None)
    yield page
    assert faults == []


def inside(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-state", "in", timeout=20_000)


def test_the_user_interface_logs_in_without_a_form_and_stays_logged_in(
    place: Place, context: BrowserContext, tab: Page
) -> None:
    place.enter(context, "ada")
    tab.goto(f"{place.stack}/#/project/7")
    inside(tab)
    assert tab.url.startswith(place.stack)
    claims = tab.evaluate("kc.tokenParsed")
    assert claims["iss"] == f"{place.hub}{PREFIX}{ADA}/iam/realms/cytomine"
    assert claims["resource_access"]["core"]["roles"] == ["ADMIN"]
    assert claims["name"] == "ada"
    tokens = {tab.evaluate("kc.refreshToken")}
    for _ in range(3):
        assert tab.evaluate("kc.updateToken(-1)") is True
        tokens.add(tab.evaluate("kc.refreshToken"))
    assert len(tokens) == 4
    assert tab.evaluate("kc.loadUserInfo()")["sub"] == claims["sub"]
    # Upstream's interface asks for a token with this much left at each call.
    assert tab.evaluate("kc.updateToken(70)") is False
    tab.reload()
    inside(tab)


@pytest.mark.parametrize(
    ("address", "place_shown"),
    [
        ("/?router=hash", "/"),
        ("/?router=hash#/project/7/image/12?layer=a%20b&x=1", "/project/7/image/12?layer=a%20b&x=1"),
        # What an endless login left behind in a bookmark.
        ("/?router=hash#/code=an-old-one&state=s&session_state=x&iss=y", "/"),
        ("/project/7?router=history", "/project/7?router=history"),
        ("/project/7?router=history#part", "/project/7?router=history#part"),
    ],
)
def test_a_page_with_a_router_logs_in_once_and_is_where_it_was(
    place: Place, context: BrowserContext, tab: Page, address: str, place_shown: str
) -> None:
    place.enter(context, "ada")
    asked: list[str] = []
    tab.on(
        "request",
        lambda request: asked.append(request.url) if "/openid-connect/auth?" in request.url else None,
    )
    tab.goto(place.stack + address)
    inside(tab)
    expect(tab.locator("#place")).to_have_text(place_shown)
    # The hub's own login comes back to the same address.
    assert len({re.search("&state=([^&]+)", url)[1] for url in asked if "prompt=none" not in url}) == 1
    assert "code=" not in tab.url
    tab.reload()
    inside(tab)
    expect(tab.locator("#place")).to_have_text(place_shown)


def test_a_login_that_fails_leaves_the_place_in_the_page(
    place: Place, context: BrowserContext, tab: Page
) -> None:
    place.enter(context, "eve")
    tab.goto(f"{place.stack}/?how=check-sso&router=hash#/project/7")
    expect(tab.locator("body")).to_have_attribute("data-state", "out", timeout=20_000)
    assert tab.url.endswith("#/project/7")


def test_the_page_reads_the_account_and_keeps_the_language(
    place: Place, context: BrowserContext, tab: Page
) -> None:
    place.enter(context, "ada")
    tab.goto(place.stack)
    inside(tab)
    status, mine = tab.evaluate("mine")
    assert status == 200
    assert mine["username"] == tab.evaluate("kc.tokenParsed.preferred_username")
    assert mine["attributes"] == {"locale": ["en"]}
    assert tab.evaluate("account('/credentials')")[0] == 200
    sent = json.dumps({**mine, "attributes": {"locale": ["fr"]}})
    assert tab.evaluate("body => account('', {method: 'POST', body})", sent) == [204, None]
    tab.reload()
    inside(tab)
    assert tab.evaluate("mine")[1]["attributes"] == {"locale": ["fr"]}


def test_two_tabs_of_one_browser_do_not_log_each_other_out(place: Place, context: BrowserContext) -> None:
    place.enter(context, "ada")
    tabs = [context.new_page() for _ in range(2)]
    for tab in tabs:
        tab.goto(place.stack)
        inside(tab)
    for tab in [*tabs, *tabs]:
        assert tab.evaluate("kc.updateToken(-1)") is True


def test_whoever_is_not_logged_in_comes_to_the_hubs_login(place: Place, tab: Page) -> None:
    tab.goto(place.stack)
    expect(tab.locator("body")).to_have_text("Sign in")
    assert tab.url.startswith(place.hub)


def test_a_silent_check_finds_nobody_without_showing_a_page(place: Place, tab: Page) -> None:
    shown: list[str] = []
    tab.on("framenavigated", lambda frame: shown.append(frame.url) if frame == tab.main_frame else None)
    tab.goto(f"{place.stack}/?how=check-sso")
    expect(tab.locator("body")).to_have_attribute("data-state", "out", timeout=20_000)
    assert all(url.startswith(place.stack) for url in shown)


def test_logging_out_says_what_it_did_and_cytomine_opens_again(
    place: Place, context: BrowserContext, tab: Page
) -> None:
    place.enter(context, "ada")
    tab.goto(place.stack)
    inside(tab)
    old = tab.evaluate("kc.refreshToken")
    tab.evaluate("void kc.logout()")
    expect(tab.get_by_role("heading")).to_have_text("You are logged out of this Cytomine")
    assert place.w.refresh(ADA, old).status_code == 400
    tab.get_by_role("link", name="Open Cytomine again").click()
    inside(tab)


def test_logging_out_by_script_ends_the_session_too(place: Place, context: BrowserContext, tab: Page) -> None:
    place.enter(context, "ada")
    tab.goto(place.stack)
    inside(tab)
    old = tab.evaluate("kc.refreshToken")
    with tab.expect_response(re.compile("/logout$")) as answer:
        tab.evaluate("void kc.logout({logoutMethod: 'POST'})")
    assert answer.value.status == 204
    inside(tab)
    assert place.w.refresh(ADA, old).status_code == 400


def test_after_a_logout_of_the_hub_the_next_refresh_leads_to_its_login(
    place: Place, context: BrowserContext, tab: Page
) -> None:
    token = place.enter(context, "ada")
    tab.goto(place.stack)
    inside(tab)
    hub = place.w.service.hub
    place.w.service.do(lambda: (hub.tokens.pop(token), place.w.identity.provider.logins._known.clear()))
    context.clear_cookies(name="who")
    tab.evaluate("void kc.updateToken(-1).catch(() => 0)")
    expect(tab.locator("body")).to_have_text("Sign in")


def test_an_outage_of_the_hub_logs_nobody_out(place: Place, context: BrowserContext, tab: Page) -> None:
    place.enter(context, "ada")
    tab.goto(place.stack)
    inside(tab)
    place.w.service.hub.silent = True
    place.w.service.do(
        lambda: (place.w.identity.provider.logins._known.clear(), place.w.service.site_hub.forget())
    )
    assert tab.evaluate("kc.updateToken(-1).then(() => 'new', () => 'failed')") == "failed"
    assert tab.evaluate("kc.authenticated && !!kc.refreshToken") is True
    place.w.service.hub.silent = False
    assert tab.evaluate("kc.updateToken(-1)") is True


def test_a_stranger_reads_why(place: Place, context: BrowserContext, tab: Page, picture: Any) -> None:
    place.enter(context, "eve")
    tab.goto(place.stack)
    expect(tab.get_by_role("heading")).to_have_text("Not allowed")
    expect(tab.get_by_role("alert")).to_contain_text("eve is not among its members")
    picture("identity-stranger")


def test_the_status_frame_tells_when_the_session_has_ended(
    place: Place, context: BrowserContext, tab: Page
) -> None:
    place.enter(context, "ada")
    tab.goto(place.stack)
    inside(tab)
    ask = """async () => {
      const frame = document.createElement("iframe");
      frame.src = kc.authServerUrl + "/realms/cytomine/protocol/openid-connect/login-status-iframe.html";
      await new Promise(done => { frame.onload = done; document.body.append(frame); });
      const answer = new Promise(done => addEventListener("message", e => e.source === frame.contentWindow && done(e.data)));
      frame.contentWindow.postMessage("core " + kc.sessionId, new URL(frame.src).origin);
      return await answer;
    }"""
    assert tab.evaluate(ask) == "unchanged"
    place.w.post(ADA, "revoke", client_id="core", token=tab.evaluate("kc.refreshToken"))
    assert tab.evaluate(ask) == "changed"


def test_no_other_site_can_frame_the_frames(place: Place, page: Page) -> None:
    page.goto(place.stack.replace(ADA, "cm-bob") + "/?how=check-sso")
    address = f"{place.hub}{PREFIX}{ADA}/iam/realms/cytomine/protocol/openid-connect/3p-cookies/step1.html"
    with page.expect_console_message(lambda m: "frame-ancestors" in m.text):
        page.evaluate(
            "a => { const f = document.createElement('iframe'); f.src = a; document.body.append(f); }",
            address,
        )


@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "open"])
def test_it_works_whether_or_not_the_browser_blocks_third_party_cookies(
    place: Place, browser: Browser, programs: dict[str, Path], tmp_path: Path, blocked: bool
) -> None:
    (tmp_path / "Default").mkdir()
    profile = {"cookie_controls_mode": int(blocked), "block_third_party_cookies": blocked}
    (tmp_path / "Default/Preferences").write_text(json.dumps({"profile": profile}))
    context = browser.browser_type.launch_persistent_context(
        tmp_path, executable_path=programs["chromium"], args=QUIET
    )
    try:
        place.enter(context, "ada")
        page = context.new_page()
        page.goto(place.stack)
        inside(page)
        with page.expect_request(re.compile("/token$")) as asked:
            assert page.evaluate("kc.updateToken(-1)") is True
        # The browser's own word on whether this request could have had the other site's cookies.
        access = asked.value.all_headers()["sec-fetch-storage-access"]
        assert (access == "active") is not blocked
    finally:
        context.close()
