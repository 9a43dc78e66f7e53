"""Logging in to a stack as keycloak-js and oauth2-proxy do, and how long it lasts."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from cytomine_spawner.identity.claims import preferred_username
from tests.support.adapter import Pkce, answer
from tests.support.identity import GATEWAY_SECRET, FakeVault, World, unverified, world
from tests.support.stacks import PREFIX, a_stack

ADA, BOB = "cm-ada", "cm-bob"


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, str]]:
    return []


@pytest.fixture(scope="module")
def running(seen: list[tuple[str, str]]) -> Iterator[World]:
    with world(seen=lambda *who: seen.append(who)) as made:
        made.vault.put("cm-ada-secrets", oidc_client_secret=GATEWAY_SECRET)
        yield made


@pytest.fixture
def w(running: World) -> World:
    running.service.clear()
    running.vault.silent = False
    running.vault.secrets.pop("cm-ada-sessions", None)
    running.service.do(lambda: running.identity.provider.grants.forget(set()))
    running.service.put(a_stack("ada", members={"users": ("cleo",), "groups": ("lab",)}), a_stack("bob"))
    for name, groups in {"ada": (), "bob": (), "cleo": (), "dora": ("lab",), "eve": ()}.items():
        running.person(name, *groups)
    return running


def verified(w: World, stack: str, token: str, audience: str) -> dict[str, Any]:
    """What a token says, checked as core and oauth2-proxy check it: by the published metadata and keys."""
    metadata = w.service.client().get(f"{w.issuer(stack)}/.well-known/openid-configuration").json()
    assert metadata["issuer"] == w.issuer(stack)
    keys = jwt.PyJWKSet.from_dict(w.service.client().get(metadata["jwks_uri"]).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=["RS256"], audience=audience, issuer=metadata["issuer"]
    )
    return claims


def test_the_owner_gets_tokens_that_make_her_administrator_of_her_cytomine(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada", user_info={"name": "Ada Lovelace"}), ADA)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] <= 300
    access = verified(w, ADA, tokens["access_token"], "core")
    assert uuid.UUID(access["sub"])
    assert (access["name"], access["given_name"], access["family_name"]) == (
        "Ada Lovelace",
        "Ada",
        "Lovelace",
    )
    assert access["preferred_username"] == preferred_username("ada")
    assert access["resource_access"] == {"core": {"roles": ["ADMIN"]}}
    assert (access["typ"], access["azp"], access["nonce"]) == ("Bearer", "core", "a nonce")
    assert access["exp"] - access["iat"] <= 300
    identity = verified(w, ADA, tokens["id_token"], "core")
    assert (identity["typ"], identity["nonce"], identity["sub"]) == ("ID", "a nonce", access["sub"])
    assert identity["session_state"] == identity["sid"] == access["sid"]
    # keycloak-js reads it, too.
    assert unverified(tokens["refresh_token"])["sid"] == access["sid"]


@pytest.mark.parametrize("member", ["cleo", "dora"])
def test_members_by_name_and_by_group_come_in_as_users(w: World, member: str) -> None:
    tokens = w.log_in(w.service.browser(member), ADA)
    access = verified(w, ADA, tokens["access_token"], "core")
    assert access["resource_access"]["core"]["roles"] == ["USER"]
    assert access["name"] == member


def test_whoever_the_owners_server_is_shared_with_comes_in_as_user(w: World) -> None:
    w.service.do(lambda: w.service.hub.shared.__setitem__(("ada", ""), [("user", "eve")]))
    tokens = w.log_in(w.service.browser("eve"), ADA)
    assert unverified(tokens["access_token"])["resource_access"]["core"]["roles"] == ["USER"]


def test_a_stranger_reads_why_the_stack_stays_closed(w: World) -> None:
    page = w.ask(w.service.browser("eve"), ADA, **w.query(ADA, code_challenge=Pkce().challenge))
    assert page.status_code == 403
    assert "eve is not among its members" in page.text
    assert "Your stacks" in page.text
    assert page.headers["X-Frame-Options"] == "DENY"


def test_the_answer_comes_where_the_client_wants_it(w: World) -> None:
    browser, pkce = w.service.browser("ada"), Pkce()
    for mode in ("query", "fragment"):
        page = w.ask(
            browser, ADA, **w.query(ADA, response_mode=mode, code_challenge=pkce.challenge, state="a &#?=+b")
        )
        parts = urlsplit(page.headers["Location"])
        assert bool(parts.query) == (mode == "query")
        assert f"{parts.scheme}://{parts.netloc}" == w.origin(ADA)
        told = answer(page)
        assert told.keys() == {"code", "state", "session_state", "iss"}
        assert told["state"] == "a &#?=+b"
        assert told["iss"] == w.issuer(ADA)


PLACES = {
    "": "",
    "#": "",
    "#/": "/&",
    "#/project/12": "/project/12&",
    "#/project/12?x=1&y=%20b": "/project/12?x=1&y=%20b&",
    "#/a b{c}\u00e9": "/a%20b%7Bc%7D%C3%A9&",
    # Neither an answer of another login, nor what upstream's router made of one.
    "#/p&code=x&state=y&iss=z&error=e": "/p&",
    "#/code=x&state=y": "/&",
    "#/?code=x": "/&",
    "#code=x&state=y": "",
    "#" + "x" * 3000: "",
    "#/" + "x" * 3000: "/&",
    "#/a\r\nSet-Cookie: b": "/a%0D%0ASet-Cookie:%20b&",
}


@pytest.mark.parametrize("mode", ["fragment", "query"])
@pytest.mark.parametrize("fragment", PLACES)
def test_the_place_in_the_page_is_kept_before_the_answer_as_keycloak_does(
    w: World, fragment: str, mode: str
) -> None:
    browser, pkce = w.service.browser("ada"), Pkce()
    uri = w.origin(ADA) + "/?x=1" + fragment
    asked = w.query(ADA, redirect_uri=uri, response_mode=mode, code_challenge=pkce.challenge)
    there = w.ask(browser, ADA, **asked).headers["Location"]
    if mode == "fragment":
        assert there.startswith(f"{w.origin(ADA)}/?x=1#{PLACES[fragment]}code="), there
    else:
        head, _, place = there.partition("#")
        assert head.startswith(w.origin(ADA) + "/?x=1&code=")
        assert place == PLACES[fragment].removesuffix("&")
    code = there.partition("code=")[2].partition("&")[0]
    assert w.exchange(ADA, code, pkce, redirect_uri=uri).status_code == 200


def test_the_place_in_the_page_is_kept_with_an_error_and_after_the_logout(w: World) -> None:
    uri = w.origin(ADA) + "/#/project/12"
    query = w.query(ADA, redirect_uri=uri, prompt="none", code_challenge=Pkce().challenge)
    there = w.ask(w.service.client(), ADA, **query).headers["Location"]
    assert there.startswith(w.origin(ADA) + "/#/project/12&error=login_required&")
    after = w.identity.provider.after_logout
    assert after(ADA, uri, "") == uri
    assert after(ADA, uri, "s") == w.origin(ADA) + "/?state=s#/project/12"
    assert after(ADA, "https://elsewhere/#/project/12", "") == ""


def test_a_silent_login_gets_an_error_instead_of_a_page(w: World) -> None:
    query = w.query(ADA, prompt="none", code_challenge=Pkce().challenge)
    assert answer(w.ask(w.service.client(), ADA, **query))["error"] == "login_required"
    assert answer(w.ask(w.service.browser("eve"), ADA, **query))["error"] == "access_denied"
    assert answer(w.ask(w.service.browser("ada"), ADA, **query)).keys() >= {"code"}
    w.service.hub.silent = True
    assert answer(w.ask(w.service.client(cookies={"service-cytomine": "x"}), ADA, **query))["state"]


def test_the_proxy_before_the_stack_logs_in_with_its_secret(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA, "gateway")
    assert verified(w, ADA, tokens["id_token"], "gateway")["azp"] == "gateway"
    assert verified(w, ADA, tokens["access_token"], "core")["azp"] == "gateway"
    browser, pkce = w.service.browser("ada"), Pkce()
    form = {
        "grant_type": "authorization_code",
        "code": w.code(browser, ADA, pkce, "gateway"),
        "redirect_uri": w.query(ADA, "gateway")["redirect_uri"],
        "code_verifier": pkce.verifier,
    }
    basic = httpx.BasicAuth("gateway", GATEWAY_SECRET)
    assert w.service.client().post(w.oidc(ADA, "token"), data=form, auth=basic).status_code == 200


def test_refresh_tokens_change_at_each_use_and_the_session_goes_on(
    w: World, seen: list[tuple[str, str]]
) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    shown = {tokens["refresh_token"]}
    seen.clear()
    for _ in range(3):
        response = w.refresh(ADA, tokens["refresh_token"])
        assert response.status_code == 200, response.text
        tokens = response.json()
        assert unverified(tokens["id_token"])["nonce"] == "a nonce"
        shown.add(tokens["refresh_token"])
    assert len(shown) == 4
    assert seen == [(ADA, "ada")] * 3


def test_two_requests_that_refresh_at_the_same_time_both_go_on(w: World) -> None:
    first = w.log_in(w.service.browser("ada"), ADA)["refresh_token"]
    one, other = w.refresh(ADA, first).json(), w.refresh(ADA, first).json()
    assert one["refresh_token"] == other["refresh_token"]
    assert w.refresh(ADA, one["refresh_token"]).status_code == 200


def test_removing_a_member_ends_their_session_at_the_next_refresh(w: World) -> None:
    tokens = w.log_in(w.service.browser("cleo"), ADA)
    w.service.put(a_stack("ada", generation=2))
    response = w.refresh(ADA, tokens["refresh_token"])
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
    w.service.put(a_stack("ada", members={"users": ("cleo",)}, generation=3))
    assert w.refresh(ADA, tokens["refresh_token"]).status_code == 400


def test_a_session_that_lasts_stands_for_as_long_as_its_person_may_and_is_logged_in(w: World) -> None:
    hub, stands = w.service.hub, w.identity.provider.stands

    def session(who: str) -> str:
        token = w.log_in(w.service.browser(who), ADA)["access_token"]
        return str(unverified(token)["sid"])

    def good(name: str) -> bool:
        return bool(w.wait(stands(w.service.store.view.get(ADA), name)))

    ada, cleo, dora = session("ada"), session("cleo"), session("dora")
    assert good(ada)
    assert good(cleo)
    assert good(dora)
    assert not good("none")
    w.service.put(a_stack("ada", members={"groups": ("lab",)}, generation=2))
    assert not good(cleo)
    w.service.do(lambda: (hub.people.update(dora=()), w.service.site_hub.forget()))
    assert not good(dora)
    assert good(ada)
    # The hub forgets the tokens of a browser that logs out.
    w.service.do(hub.tokens.clear)
    deadline = time.monotonic() + 20
    while good(ada):  # its word is believed for some seconds
        assert time.monotonic() < deadline
        time.sleep(0.2)
    w.service.put(a_stack("ada", members={"users": ("cleo",), "groups": ("lab",)}, generation=3))
    assert not good(cleo), "what has ended does not come back"


@pytest.mark.parametrize("member", ["dora", "eve"])
def test_leaving_a_group_or_losing_a_share_ends_the_session(w: World, member: str) -> None:
    hub = w.service.hub
    w.service.do(lambda: hub.shared.__setitem__(("ada", ""), [("user", "eve")]))
    tokens = w.log_in(w.service.browser(member), ADA)
    w.service.do(lambda: (hub.shared.clear(), hub.people.update(dora=()), w.service.site_hub.forget()))
    assert w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_user_that_is_gone_from_the_hub_is_out(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    w.service.do(lambda: (w.service.hub.people.pop("ada"), w.service.site_hub.forget()))
    assert w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_hub_that_does_not_answer_logs_nobody_out(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    w.service.hub.silent = True
    w.service.do(forget_logins, w)
    response = w.refresh(ADA, tokens["refresh_token"])
    assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
    w.service.hub.silent = False
    assert w.refresh(ADA, tokens["refresh_token"]).status_code == 200


def forget_logins(w: World) -> None:
    """Let the hub be asked at once, not in some seconds."""
    w.identity.provider.logins._known.clear()
    w.service.site_hub.forget()


def test_logging_out_of_the_hub_ends_the_session_at_the_next_refresh(w: World) -> None:
    token = w.service.hub.token("ada")
    browser = w.service.client(cookies={"who": token})
    browser.get(PREFIX)
    tokens = w.log_in(browser, ADA)
    w.service.do(lambda: (w.service.hub.tokens.pop(token), forget_logins(w)))
    assert w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_sessions_outlive_a_restart_of_the_service() -> None:
    vault = FakeVault()
    vault.put("cm-ada-secrets", oidc_client_secret=GATEWAY_SECRET)
    with world(vault) as first:
        first.service.put(a_stack("ada"))
        first.person("ada")
        hub_token = first.service.hub.token("ada")
        browser = first.service.client(cookies={"who": hub_token})
        browser.get(PREFIX)
        tokens, pkce = first.log_in(browser, ADA), Pkce()
        code = first.code(browser, ADA, pkce)
        port = urlsplit(first.service.url).port
    assert vault.owners["cm-ada-sessions"].uid == "uid-cm-ada"
    kept = json.dumps(vault.secrets)
    for secret in (hub_token, code, tokens["refresh_token"], tokens["access_token"]):
        assert secret not in kept
    with world(vault, port=port) as second:
        second.service.put(a_stack("ada"))
        second.person("ada")
        second.service.hub.token("ada")
        second.service.do(lambda: second.service.hub.tokens.update({hub_token: model("ada")}))
        assert second.refresh(ADA, tokens["refresh_token"]).status_code == 200
        assert second.exchange(ADA, code, pkce).status_code == 200
        assert second.exchange(ADA, code, pkce).status_code == 400


def model(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "user", "scopes": ["access:services!service=cytomine"]}


def test_a_new_stack_of_the_same_name_knows_nothing_of_the_old_ones_sessions(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    w.service.do(lambda: w.service.store.view.remove(ADA))
    w.service.put(a_stack("ada", uid="another"))
    assert w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_userinfo_and_the_gateways_check_know_a_good_token(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    told = w.service.client().get(w.oidc(ADA, "userinfo"), headers=bearer)
    assert told.json()["sub"] == unverified(tokens["id_token"])["sub"]
    assert told.json()["name"] == "ada"
    check = w.service.client().get(f"{PREFIX}{ADA}/verify", headers=bearer)
    assert (check.status_code, check.headers["X-Cytomine-User"]) == (204, preferred_username("ada"))
    none = w.service.client().get(f"{PREFIX}{ADA}/verify")
    assert none.status_code == 401
    assert none.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_gateways_check_shuts_out_a_removed_member_at_once(w: World) -> None:
    bearer = {"Authorization": f"Bearer {w.log_in(w.service.browser('cleo'), ADA)['access_token']}"}
    assert w.service.client().get(f"{PREFIX}{ADA}/verify", headers=bearer).status_code == 204
    w.service.put(a_stack("ada", generation=2))
    assert w.service.client().get(f"{PREFIX}{ADA}/verify", headers=bearer).status_code == 401


def test_logging_out_of_cytomine_ends_all_that_came_from_the_same_login(w: World) -> None:
    browser = w.service.browser("ada")
    core, gateway = w.log_in(browser, ADA), w.log_in(browser, ADA, "gateway")
    elsewhere = w.log_in(w.service.browser("ada"), ADA)
    page = browser.get(
        w.oidc(ADA, "logout"),
        params={"id_token_hint": core["id_token"], "post_logout_redirect_uri": w.origin(ADA) + "/x"},
    )
    assert page.status_code == 200
    assert "You are logged out of this Cytomine" in page.text
    assert "Log out of the hub" in page.text
    assert f'href="{w.origin(ADA)}/x"' in page.text
    assert w.refresh(ADA, core["refresh_token"]).status_code == 400
    assert w.refresh(ADA, gateway["refresh_token"], "gateway").status_code == 400
    assert w.refresh(ADA, elsewhere["refresh_token"]).status_code == 200
    bearer = {"Authorization": f"Bearer {core['access_token']}"}
    assert w.service.client().get(w.oidc(ADA, "userinfo"), headers=bearer).status_code == 401


def test_whoever_is_logged_out_of_the_hub_too_is_sent_on(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    page = w.service.client().get(
        w.oidc(ADA, "logout"),
        params={
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": w.origin(ADA) + "/#/x",
            "state": "s",
        },
        follow_redirects=False,
    )
    assert (page.status_code, page.headers["Location"]) == (302, w.origin(ADA) + "/?state=s#/x")


def test_a_client_gives_its_session_back(w: World) -> None:
    for kind in ("refresh_token", "access_token"):
        tokens = w.log_in(w.service.browser("ada"), ADA)
        assert w.post(ADA, "revoke", client_id="core", token=tokens[kind]).status_code == 200
        assert w.refresh(ADA, tokens["refresh_token"]).status_code == 400
    assert w.post(ADA, "revoke", client_id="core", token="nonsense").status_code == 200


def test_the_status_frame_can_ask_whether_a_session_goes_on(w: World) -> None:
    tokens = w.log_in(w.service.browser("ada"), ADA)
    session = unverified(tokens["access_token"])["sid"]
    ask = {"client_id": "core", "session_state": session}
    address = w.oidc(ADA, "login-status-iframe.html/init")
    assert w.service.client().get(address, params=ask).status_code == 204
    w.post(ADA, "revoke", client_id="core", token=tokens["refresh_token"])
    assert w.service.client().get(address, params=ask).status_code == 403


def test_minted_tokens_speak_for_a_person_for_a_moment(w: World) -> None:
    token = w.service.do(lambda: w.identity.mint(ADA, "ada", "Ada", "ada@example.org", "ADMIN"))
    claims = verified(w, ADA, token, "core")
    assert claims["exp"] - claims["iat"] == 60
    assert claims["resource_access"] == {"core": {"roles": ["ADMIN"]}}
    assert (claims["name"], claims["email"]) == ("Ada", "ada@example.org")
    bearer = {"Authorization": f"Bearer {token}"}
    assert w.service.client().get(f"{PREFIX}{ADA}/verify", headers=bearer).status_code == 204


def test_an_api_server_that_does_not_answer_is_an_outage_and_no_logout(w: World) -> None:
    w.service.put(a_stack("ada", "other", uid="unread"))
    w.vault.silent = True
    found = next(s.name for s in w.service.store.view.all() if s.uid == "unread")
    page = w.ask(w.service.browser("ada"), found, **w.query(found, code_challenge=Pkce().challenge))
    assert page.status_code == 503
    assert w.refresh(found, "x").status_code == 503


def test_without_its_keys_the_service_says_so_and_recovers_by_itself() -> None:
    vault = FakeVault()
    vault.silent = True
    with world(vault) as made:
        made.service.put(a_stack("ada"))
        made.person("ada")
        for answer in (made.refresh(ADA, "x"), made.service.client().get(made.oidc(ADA, "certs"))):
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        page = made.service.browser("ada").get(made.oidc(ADA, "auth"))
        assert page.status_code == 503
        assert "Tell your administrator" in page.text
        vault.silent = False
        deadline = time.monotonic() + 20
        while made.service.client().get(made.oidc(ADA, "certs")).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert made.log_in(made.service.browser("ada"), ADA)["access_token"]
