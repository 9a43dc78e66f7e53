"""The stand-in for LS Login, driven from outside over HTTP as a browser and a hub would."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from dev import lslogin
from dev.console import Problem

ISSUER = "http://login.localhost:8000/oidc/"
CALLBACK = "http://hub.localhost:8000/hub/oauth_callback"
AFTER_LOGOUT = "http://hub.localhost:8000/hub/logged-out"
SECRET = "a-secret-of-this-test-only"
ALL_SCOPES = "openid profile email eduperson_entitlement ga4gh_passport_v1"
FURTHER = lslogin.user("nora", "For tests")
CLIENTS = lslogin.clients_file([CALLBACK], [AFTER_LOGOUT], "hub", SECRET, users=[FURTHER])


class Ingress(httpx.HTTPTransport):
    """Brings requests for the public address to the process, as an ingress would."""

    def __init__(self, port):
        super().__init__()
        self.port = port

    def handle_request(self, request):
        assert request.url.host == "login.localhost", f"left LS Login for {request.url}"
        url = request.url.copy_with(host="127.0.0.1", port=self.port)
        return super().handle_request(
            httpx.Request(
                request.method,
                url,
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        )


@pytest.fixture(scope="module")
def port():
    with lslogin.running(CLIENTS) as number:
        yield number


@pytest.fixture
def browser(port):
    with browser_on(port) as client:
        yield client


def browser_on(port):
    return httpx.Client(
        transport=Ingress(port),
        base_url="http://login.localhost:8000",
        timeout=30,
        headers={"accept": "text/html"},
    )


@pytest.fixture
def hub(port):
    """The hub's back channel: the service's address in the cluster, not the public one."""
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"host": "lslogin.cytomine.svc"}, timeout=30
    ) as client:
        yield client


def pair():
    verifier = secrets.token_urlsafe(48)
    return verifier, base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(
        b"="
    ).decode()


def authorize(browser, challenge, scope=ALL_SCOPES, **more):
    asked = {
        "client_id": "hub",
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": scope,
        "state": "s1",
    }
    asked |= {"code_challenge": challenge, "code_challenge_method": "S256"} if challenge else {}
    return browser.get("/oidc/authorize", params=asked | more)


def follow(browser, response):
    """Follow redirects as long as they stay at LS Login; return the last response."""
    while response.is_redirect and urlsplit(response.headers["location"]).netloc in (
        "",
        "login.localhost:8000",
    ):
        response = browser.get(response.headers["location"])
    return response


def log_in(browser, user="petra", scope=ALL_SCOPES, **more):
    """Choose a user on the login page; return the callback's query and the verifier."""
    verifier, challenge = pair()
    page = follow(browser, authorize(browser, challenge, scope, **more))
    assert page.status_code == 200
    action = re.search(r'<form method="post" action="([^"]+)"', page.text)[1]
    back = follow(browser, browser.post(action, data={"user": user}))
    assert back.headers["location"].startswith(CALLBACK)
    return {k: v[0] for k, v in parse_qs(urlsplit(back.headers["location"]).query).items()}, verifier


def exchange(hub, code, verifier, **more):
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    return hub.post("/oidc/token", data=form | more, auth=("hub", SECRET))


def tokens_of(browser, hub, user="petra", scope=ALL_SCOPES):
    query, verifier = log_in(browser, user, scope)
    answer = exchange(hub, query["code"], verifier)
    assert answer.status_code == 200, answer.text
    return answer.json()


def userinfo(hub, access_token):
    return hub.get("/oidc/userinfo", headers={"authorization": f"Bearer {access_token}"})


def refresh(hub, token):
    return hub.post(
        "/oidc/token", data={"grant_type": "refresh_token", "refresh_token": token}, auth=("hub", SECRET)
    )


def test_discovery_names_ls_logins_paths_below_the_public_issuer_whoever_asks(hub, browser):
    found = hub.get("/oidc/.well-known/openid-configuration").json()
    assert found == browser.get("/oidc/.well-known/openid-configuration").json()
    assert found["issuer"] == ISSUER
    paths = {
        "authorization_endpoint": "authorize",
        "token_endpoint": "token",
        "userinfo_endpoint": "userinfo",
        "jwks_uri": "jwk",
        "introspection_endpoint": "introspect",
        "revocation_endpoint": "revoke",
        "end_session_endpoint": "endsession",
    }
    assert {name: found[name] for name in paths} == {name: ISSUER + path for name, path in paths.items()}
    assert {"client_secret_basic", "client_secret_post"} <= set(
        found["token_endpoint_auth_methods_supported"]
    )
    assert {
        "openid",
        "profile",
        "email",
        "offline_access",
        "eduperson_entitlement",
        "ga4gh_passport_v1",
    } <= set(found["scopes_supported"])
    assert found["subject_types_supported"] == ["public"]
    assert found["claims_parameter_supported"] is False
    assert "S256" in found["code_challenge_methods_supported"]


def test_the_login_page_lists_every_user_as_a_button_with_its_groups(browser):
    page = follow(browser, authorize(browser, pair()[1]))
    own = ["ada", "petra", "ivan", "gina", "tess"]
    assert re.findall(r'name="user" value="(\w+)"', page.text) == [*own, "nora"]
    assert "cytomine:admins" in page.text
    assert "Cytomine hub" in page.text


def test_a_login_ends_at_the_callback_with_state_and_issuer_and_gives_opaque_tokens(browser, hub):
    query, verifier = log_in(browser)
    assert query["state"] == "s1"
    assert query["iss"] == ISSUER
    found = exchange(hub, query["code"], verifier).json()
    assert found["token_type"] == "Bearer"
    assert found["expires_in"] == 3600
    assert "." not in found["access_token"]
    keys = jwt.PyJWKSet.from_dict(hub.get("/oidc/jwk").json())
    claims = jwt.decode(found["id_token"], keys.keys[0], algorithms=["RS256"], audience="hub", issuer=ISSUER)
    assert re.fullmatch(r"[0-9a-f]{40}@lifescience-ri\.eu", claims["sub"])
    assert not {"email", "eduperson_entitlement", "ga4gh_passport_v1"} & set(claims)


def test_the_client_may_send_its_secret_in_the_form(browser, hub):
    query, verifier = log_in(browser)
    form = {
        "grant_type": "authorization_code",
        "code": query["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    assert (
        hub.post("/oidc/token", data=form | {"client_id": "hub", "client_secret": SECRET}).status_code == 200
    )


def test_a_wrong_client_secret_is_refused(browser, hub):
    query, verifier = log_in(browser)
    form = {
        "grant_type": "authorization_code",
        "code": query["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    assert hub.post("/oidc/token", data=form, auth=("hub", "wrong")).status_code == 401


def test_a_wrong_verifier_is_refused(browser, hub):
    query, _ = log_in(browser)
    answer = exchange(hub, query["code"], pair()[0])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_a_login_without_pkce_is_refused(browser):
    back = follow(browser, authorize(browser, None))
    assert parse_qs(urlsplit(back.headers["location"]).query)["error"] == ["invalid_request"]


def test_a_login_with_a_plain_challenge_is_refused(browser):
    back = follow(browser, authorize(browser, pair()[0], code_challenge_method="plain"))
    assert parse_qs(urlsplit(back.headers["location"]).query)["error"] == ["invalid_request"]


def test_a_callback_that_is_not_registered_is_never_redirected_to(browser):
    page = authorize(browser, pair()[1], redirect_uri="http://evil.localhost/")
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "redirect_uri" in page.text


def test_userinfo_has_a_claim_only_if_its_scope_was_asked(browser, hub):
    bare = userinfo(hub, tokens_of(browser, hub, scope="openid")["access_token"]).json()
    assert set(bare) == {"sub"}
    browser.cookies.clear()
    found = userinfo(hub, tokens_of(browser, hub)["access_token"]).json()
    assert {k: found[k] for k in ("preferred_username", "name", "given_name", "family_name", "email")} == {
        "preferred_username": "petra",
        "name": "Petra Pathologist",
        "given_name": "Petra",
        "family_name": "Pathologist",
        "email": "petra@example.org",
    }
    assert lslogin.USERS_GROUP in found["eduperson_entitlement"]
    assert len(found["ga4gh_passport_v1"]) == 2
    browser.cookies.clear()
    groups = userinfo(
        hub, tokens_of(browser, hub, scope="openid eduperson_entitlement")["access_token"]
    ).json()
    assert set(groups) == {"sub", "eduperson_entitlement"}


def test_entitlements_cover_what_a_parser_must_cope_with(browser, hub):
    every = {}
    for user in ("ada", "petra", "ivan", "gina", "nora"):
        browser.cookies.clear()
        every[user] = userinfo(hub, tokens_of(browser, hub, user)["access_token"]).json()[
            "eduperson_entitlement"
        ]
    assert lslogin.ADMINS_GROUP in every["ada"]
    assert [u for u, urns in every.items() if lslogin.USERS_GROUP in urns] == ["ada", "petra", "ivan", "nora"]
    assert any("%20" in urn for urn in every["petra"])
    assert any(":role=" in urn for urn in every["petra"])
    assert any(not urn.endswith("#aai.lifescience-ri.eu") for urn in every["ivan"])


def test_visas_are_signed_by_the_key_that_their_jku_names(browser, hub):
    found = userinfo(hub, tokens_of(browser, hub)["access_token"]).json()
    keys = {k.key_id: k for k in jwt.PyJWKSet.from_dict(hub.get("/ga4gh-broker/jwk").json()).keys}
    assert all("d" not in key for key in hub.get("/ga4gh-broker/jwk").json()["keys"])
    values = set()
    for visa in found["ga4gh_passport_v1"]:
        header = jwt.get_unverified_header(visa)
        assert header["alg"] == "RS256"
        assert header["jku"] == "http://login.localhost:8000/ga4gh-broker/jwk"
        claims = jwt.decode(
            visa,
            keys[header["kid"]],
            algorithms=["RS256"],
            issuer="http://login.localhost:8000/ga4gh-broker/",
        )
        assert claims["sub"] == found["sub"]
        assert {"type", "asserted", "value", "source", "by"} == set(claims["ga4gh_visa_v1"])
        assert claims["ga4gh_visa_v1"]["type"] == "ControlledAccessGrants"
        values.add(claims["ga4gh_visa_v1"]["value"])
    assert values == {"aa-Dataset-demo01-slides", "aa-Dataset-demo02-biopsies"}


def test_refresh_tokens_rotate_and_reuse_of_an_old_one_revokes_everything(browser, hub):
    first = tokens_of(browser, hub)
    second = refresh(hub, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert userinfo(hub, second["access_token"]).status_code == 200
    reuse = refresh(hub, first["refresh_token"])
    assert (reuse.status_code, reuse.json()["error"]) == (400, "invalid_grant")
    assert refresh(hub, second["refresh_token"]).status_code == 400
    assert userinfo(hub, second["access_token"]).status_code == 401


def test_a_revoked_token_is_inactive(browser, hub):
    token = tokens_of(browser, hub)["access_token"]
    ask = {"token": token}
    assert hub.post("/oidc/introspect", data=ask, auth=("hub", SECRET)).json()["active"] is True
    assert hub.post("/oidc/revoke", data=ask, auth=("hub", SECRET)).status_code == 200
    assert hub.post("/oidc/introspect", data=ask, auth=("hub", SECRET)).json()["active"] is False


def test_a_second_login_needs_no_choice_and_a_logout_makes_it_need_one_again(browser, hub):
    tokens = tokens_of(browser, hub)
    silent = follow(browser, authorize(browser, pair()[1]))
    assert silent.headers["location"].startswith(CALLBACK)
    page = browser.get(
        "/oidc/endsession",
        params={
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": AFTER_LOGOUT,
            "state": "bye",
        },
    )
    assert "document.getElementById('go').click()" in page.text  # no question with a hint
    gone = submit_logout(browser, page)
    assert gone.headers["location"] == f"{AFTER_LOGOUT}?state=bye"
    assert follow(browser, authorize(browser, pair()[1])).status_code == 200  # the login page


def test_a_logout_without_a_hint_asks_first(browser, hub):
    tokens_of(browser, hub)
    page = browser.get("/oidc/endsession")
    assert "Log out of LS Login?" in page.text
    assert "<script" not in page.text
    done = follow(browser, submit_logout(browser, page))
    assert "You are logged out" in done.text


def test_a_logout_never_goes_to_an_address_that_is_not_registered(browser, hub):
    hint = tokens_of(browser, hub)["id_token"]
    page = browser.get(
        "/oidc/endsession",
        params={"id_token_hint": hint, "post_logout_redirect_uri": "http://evil.localhost/"},
    )
    assert page.status_code == 400


def submit_logout(browser, page):
    action = re.search(r'action="([^"]+)"', page.text)[1]
    return browser.post(
        action, data={"xsrf": re.search(r'name="xsrf" value="([^"]+)"', page.text)[1], "logout": "yes"}
    )


def test_username_hint_skips_the_page(browser):
    back = follow(browser, authorize(browser, pair()[1], username_hint="ivan"))
    assert "code" in parse_qs(urlsplit(back.headers["location"]).query)


def test_cancel_tells_the_client_that_access_was_denied(browser):
    query, _ = log_in(browser, user="")
    assert query["error"] == "access_denied"


def test_an_unknown_user_is_a_400_that_names_the_field(browser):
    page = follow(browser, authorize(browser, pair()[1]))
    action = re.search(r'<form method="post" action="([^"]+)"', page.text)[1]
    answer = browser.post(action, data={"user": "mallory"})
    assert answer.status_code == 400
    assert "field user" in answer.text


def test_a_test_phase_refusal_stays_at_ls_login_and_says_what_to_do(browser):
    page = follow(browser, authorize(browser, pair()[1]))
    action = re.search(r'<form method="post" action="([^"]+)"', page.text)[1]
    refused = follow(browser, browser.post(action, data={"user": "tess"}))
    assert refused.status_code == 403
    assert refused.url.path == "/oidc/unauthorizedEnvVosGroups"
    assert "lifescience_test" in refused.text


def test_a_login_that_was_forgotten_says_to_start_again(browser):
    answer = browser.get("/oidc/interaction/nothing-like-this")
    assert answer.status_code == 400
    assert "log in again" in answer.text


def test_health_needs_no_host_name(port):
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_a_restart_keeps_keys_logins_and_refresh_tokens(tmp_path):
    with (
        lslogin.running(CLIENTS, data=tmp_path) as port,
        browser_on(port) as browser,
        back_channel(port) as hub,
    ):
        tokens = tokens_of(browser, hub)
        keys = hub.get("/oidc/jwk").json()
        cookies = browser.cookies
    with (
        lslogin.running(CLIENTS, data=tmp_path) as port,
        browser_on(port) as browser,
        back_channel(port) as hub,
    ):
        assert hub.get("/oidc/jwk").json() == keys
        assert userinfo(hub, tokens["access_token"]).status_code == 200
        assert refresh(hub, tokens["refresh_token"]).status_code == 200
        browser.cookies = cookies
        assert follow(browser, authorize(browser, pair()[1])).headers["location"].startswith(CALLBACK)


def back_channel(port):
    return httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"host": "lslogin.cytomine.svc"}, timeout=30
    )


def test_a_wrong_setting_is_one_sentence_that_names_it():
    with (
        pytest.raises(Problem, match=r"did not start.*ISSUER must look like"),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(lslogin.running(CLIENTS, issuer="http://login.localhost:8000/oidc"))
