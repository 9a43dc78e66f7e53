"""What somebody with an account on the same hub may try at the stacks' login. Each must fail."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cytomine_spawner.identity.keyring import Key
from cytomine_spawner.stack.model import ENDPOINTS, REALM
from tests.support.adapter import Pkce, answer, confused, part
from tests.support.identity import GATEWAY_SECRET, World, unverified, world
from tests.support.stacks import PREFIX, a_stack

ADA, BOB = "cm-ada", "cm-bob"


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    with world() as made:
        made.vault.put("cm-ada-secrets", oidc_client_secret=GATEWAY_SECRET)
        made.vault.put("cm-bob-secrets", oidc_client_secret="bob's own")
        yield made


@pytest.fixture
def w(running: World) -> World:
    running.service.clear()
    running.vault.secrets.pop("cm-ada-sessions", None)
    running.service.do(lambda: running.identity.provider.grants.forget(set()))
    # Bob owns a stack and is a member of Ada's.
    running.service.put(a_stack("ada", members={"users": ("bob",)}), a_stack("bob"))
    for name in ("ada", "bob", "eve"):
        running.person(name)
    return running


@pytest.fixture
def tokens(w: World) -> dict[str, Any]:
    return w.log_in(w.service.browser("ada"), ADA)


@pytest.fixture(scope="module")
def foreign() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def taken(w: World, token: str, stack: str = ADA) -> list[int]:
    """What the places that take access tokens say to one."""
    client, header = w.service.client(), {"Authorization": f"Bearer {token}"}
    places = [w.oidc(stack, "userinfo"), f"{PREFIX}{stack}/verify"]
    return [client.get(place, headers=header).status_code for place in places]


GOOD, BAD = [200, 204], [401, 401]


def current(w: World) -> Key:
    return w.identity.provider.keyring.current


# -- tokens ---------------------------------------------------------------------------------------------------


def test_a_token_of_one_stack_opens_no_other(w: World) -> None:
    bobs = w.log_in(w.service.browser("bob"), BOB)
    assert taken(w, bobs["access_token"], BOB) == GOOD
    assert taken(w, bobs["access_token"], ADA) == BAD
    assert w.refresh(ADA, bobs["refresh_token"]).status_code == 400


def test_being_owner_of_one_stack_makes_nobody_administrator_of_another(w: World) -> None:
    told = unverified(w.log_in(w.service.browser("bob"), ADA)["access_token"])
    assert told["resource_access"]["core"]["roles"] == ["USER"]


def test_an_expired_token_opens_nothing(w: World, tokens: dict[str, Any]) -> None:
    claims = {
        **unverified(tokens["access_token"]),
        "iat": int(time.time()) - 400,
        "exp": int(time.time()) - 1,
    }
    assert taken(w, w.identity.provider.keyring.sign(claims)) == BAD
    assert taken(w, w.identity.provider.keyring.sign({**claims, "exp": int(time.time()) + 60})) == GOOD


@pytest.mark.parametrize("left_out", ["exp", "iat", "iss", "aud", "sub", "typ"])
def test_a_token_that_leaves_something_out_opens_nothing(
    w: World, tokens: dict[str, Any], left_out: str
) -> None:
    claims = {k: v for k, v in unverified(tokens["access_token"]).items() if k != left_out}
    assert taken(w, w.identity.provider.keyring.sign(claims)) == BAD


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE"])
def test_an_unsigned_token_opens_nothing(w: World, tokens: dict[str, Any], algorithm: str) -> None:
    header = {"alg": algorithm, "typ": "JWT", "kid": current(w).kid}
    payload = tokens["access_token"].split(".")[1]
    for signature in ("", tokens["access_token"].split(".")[2]):
        assert taken(w, f"{part(header)}.{payload}.{signature}") == BAD


def test_the_public_key_is_no_password_for_another_algorithm(w: World, tokens: dict[str, Any]) -> None:
    public = current(w).private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(w.service.client().get(w.oidc(ADA, "certs")).json()["keys"][0])
    payload = tokens["access_token"].split(".")[1]
    for secret in (pem, pem.strip(), jwk.encode()):
        token = confused(current(w).kid, payload, secret)
        assert taken(w, token) == BAD
        assert w.refresh(ADA, token).status_code == 400


@pytest.mark.parametrize(
    "header", [{}, {"kid": "unknown"}, {"jku": "http://127.0.0.1/keys"}, {"kid": "../../dev/null"}]
)
def test_a_token_of_a_foreign_key_opens_nothing(
    w: World, tokens: dict[str, Any], foreign: rsa.RSAPrivateKey, header: dict[str, str]
) -> None:
    claims = unverified(tokens["access_token"])
    token = jwt.encode(claims, foreign, "RS256", headers={"kid": current(w).kid, **header})
    assert taken(w, token) == BAD
    embedded = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(foreign.public_key()))
    assert taken(w, jwt.encode(claims, foreign, "RS256", headers={"jwk": embedded})) == BAD


def test_a_changed_token_opens_nothing(w: World, tokens: dict[str, Any]) -> None:
    head, _, signature = tokens["access_token"].split(".")
    claims = {**unverified(tokens["access_token"]), "preferred_username": "admin"}
    assert taken(w, f"{head}.{part(claims)}.{signature}") == BAD
    assert taken(w, tokens["access_token"]) == GOOD


def test_one_kind_of_token_does_not_serve_as_another(w: World, tokens: dict[str, Any]) -> None:
    assert taken(w, tokens["id_token"]) == BAD
    assert taken(w, tokens["refresh_token"]) == BAD
    for other in ("id_token", "access_token"):
        assert w.refresh(ADA, tokens[other]).status_code == 400
    logout = w.service.client().get(w.oidc(ADA, "logout"), params={"id_token_hint": tokens["access_token"]})
    assert logout.status_code == 400
    assert taken(w, tokens["access_token"]) == GOOD


# -- codes ----------------------------------------------------------------------------------------------------


def test_a_code_that_is_used_twice_ends_what_came_of_it(w: World) -> None:
    pkce = Pkce()
    code = w.code(w.service.browser("ada"), ADA, pkce)
    tokens = w.exchange(ADA, code, pkce).json()
    assert taken(w, tokens["access_token"]) == GOOD
    assert w.exchange(ADA, code, pkce).json()["error"] == "invalid_grant"
    assert taken(w, tokens["access_token"]) == BAD
    assert w.refresh(ADA, tokens["refresh_token"]).status_code == 400


@pytest.mark.parametrize("verifier", ["", "x" * 43, "short", "x" * 200, "ü" * 50])
def test_a_stolen_code_is_worth_nothing_without_the_verifier(w: World, verifier: str) -> None:
    pkce = Pkce()
    code = w.code(w.service.browser("ada"), ADA, pkce)
    refused = w.exchange(ADA, code, pkce, code_verifier=verifier)
    assert refused.status_code == 400, refused.text
    assert "access_token" not in refused.text
    # Nor does anybody get a second try.
    assert w.exchange(ADA, code, pkce).status_code == 400


def test_pkce_cannot_be_left_out_or_weakened(w: World) -> None:
    browser, pkce = w.service.browser("ada"), Pkce()
    for changes in (
        {"code_challenge": "", "code_challenge_method": ""},
        {"code_challenge": pkce.challenge, "code_challenge_method": ""},
        {"code_challenge": pkce.verifier, "code_challenge_method": "plain"},
        {"code_challenge": pkce.challenge, "code_challenge_method": "s256"},
        {"code_challenge": "x", "code_challenge_method": "S256"},
    ):
        for client in ("core", "gateway"):
            told = answer(w.ask(browser, ADA, **w.query(ADA, client, **changes)))
            assert told["error"] == "invalid_request"
            assert told["state"] == "a state"
            assert "code" not in told


def test_a_code_of_one_client_is_worth_nothing_to_the_other(w: World) -> None:
    browser = w.service.browser("ada")
    for mine, other in (("core", "gateway"), ("gateway", "core")):
        pkce = Pkce()
        code = w.code(browser, ADA, pkce, mine)
        uri = w.query(ADA, mine)["redirect_uri"]
        assert w.exchange(ADA, code, pkce, other, redirect_uri=uri).json()["error"] == "invalid_grant"
        assert w.exchange(ADA, code, pkce, mine).status_code == 400
    tokens = w.log_in(browser, ADA, "gateway")
    assert w.refresh(ADA, tokens["refresh_token"], "core").status_code == 400


def test_a_code_of_one_stack_is_worth_nothing_at_another(w: World) -> None:
    pkce = Pkce()
    code = w.code(w.service.browser("bob"), BOB, pkce)
    assert w.exchange(ADA, code, pkce).status_code == 400
    assert w.exchange(ADA, code, pkce, redirect_uri=w.origin(BOB) + "/").status_code == 400


def test_a_code_must_come_back_with_the_address_it_was_sent_to(w: World) -> None:
    browser = w.service.browser("ada")
    for uri in (w.origin(ADA) + "/other", w.origin(BOB) + "/", ""):
        pkce = Pkce()
        code = w.code(browser, ADA, pkce)
        assert w.exchange(ADA, code, pkce, redirect_uri=uri).status_code == 400


def test_the_proxys_secret_is_asked_for_and_is_each_stacks_own(w: World) -> None:
    pkce = Pkce()
    code = w.code(w.service.browser("ada"), ADA, pkce, "gateway")
    for secret in ("", "wrong", "bob's own"):
        refused = w.exchange(ADA, code, pkce, "gateway", client_secret=secret)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    w.service.put(a_stack("dan"))
    for secret in ("", "anything"):  # a stack whose own secret is not there yet
        assert w.exchange("cm-dan", code, pkce, "gateway", client_secret=secret).status_code == 401
    both = httpx.BasicAuth("gateway", GATEWAY_SECRET)
    form = {"grant_type": "authorization_code", "client_id": "core", "code": code}
    assert w.service.client().post(w.oidc(ADA, "token"), data=form, auth=both).status_code in (400, 401)


# -- where people are sent --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "http://evil.example/",
        "http://cm-ada.stacks.localhost:8000.evil.example/",
        "http://cm-ada.stacks.localhost:8000@evil.example/",
        "http://evil.example#@cm-ada.stacks.localhost:8000/",
        "http://evil.example\\@cm-ada.stacks.localhost:8000/",
        "http://user:pass@cm-ada.stacks.localhost:8000/",
        "http://@cm-ada.stacks.localhost:8000/",
        "http://cm-bob.stacks.localhost:8000/",
        "http://cm-ada.stacks.localhost/",
        "http://cm-ada.stacks.localhost:8001/",
        "http://cm-ada.stacks.localhost.:8000/",
        "https://cm-ada.stacks.localhost:8000/",
        "//cm-ada.stacks.localhost:8000/",
        "/",
        "javascript:alert(1)",
        "data:text/html,x",
        "http:/cm-ada.stacks.localhost:8000/",
        "http://cm-ada.stacks.localhost:8000//evil.example",
        "http://cm-ada.stacks.localhost:8000/\\evil.example",
        "http://cm-ada.stacks.localhost:8000/%5cevil.example",
        "http://cm-ada.stacks.localhost:8000/%2f%2fevil.example",
        "http://cm-ada.stacks.localhost:8000/x/../api/",
        "http://cm-ada.stacks.localhost:8000/%2e%2e/api/",
        "http://cm-ada.stacks.localhost:8000/%252e%252e/api/",
        "http://cm-ada.stacks.localhost:8000/x;/api",
        "http://cm-ada.stacks.localhost:8000/\r\nSet-Cookie:x=1",
        "http://cm-ada.stacks.localhost:8000/\x00",
        "http://cm-ada.stacks.localhost:8000/oauth2/sign_out?rd=http://evil.example",
        "http://cm-ada.stacks.localhost:8000/oauth2/callback",
        "http://cm-ada.stacks.localhost:8000/api/attachedfile/1/download",
        "http://cm-ada.stacks.localhost:8000/API/attachedfile/1/download",
        "http://cm-ada.stacks.localhost:8000/%61pi/x",
        "http://CM-ADA.stacks.localhost:8000/",
        "http://\N{SMALL ROMAN NUMERAL ONE HUNDRED}m-ada.stacks.localhost:8000/",
        "http://[::1]:8000/",
        "http://[",
        "",
    ],
)
def test_nobody_is_sent_to_an_address_that_is_not_the_user_interfaces(w: World, uri: str) -> None:
    query = {**w.query(ADA, code_challenge=Pkce().challenge), "redirect_uri": uri}
    for browser in (w.service.browser("ada"), w.service.client()):
        page = w.ask(browser, ADA, **query)
        assert page.status_code == 400, page.headers
        assert "Location" not in page.headers
        assert "Open the stack anew" in page.text


@pytest.mark.parametrize(
    "path",
    ["/", "/oauth2/callback/", "/oauth2/callback?x=1", "/oauth2/callback#x", "/oauth2/../oauth2/callback"],
)
def test_the_proxy_has_one_address_and_no_other(w: World, path: str) -> None:
    query = w.query(ADA, "gateway", redirect_uri=w.origin(ADA) + path, code_challenge=Pkce().challenge)
    assert w.ask(w.service.browser("ada"), ADA, **query).status_code == 400


@pytest.mark.parametrize("client", ["other", "CORE", "core ", ""])
def test_no_other_client_is_known(w: World, client: str) -> None:
    query = {**w.query(ADA, code_challenge=Pkce().challenge), "client_id": client}
    assert w.ask(w.service.browser("ada"), ADA, **query).status_code == 400
    assert w.post(ADA, grant_type="authorization_code", client_id=client, code="x").status_code == 401


@pytest.mark.parametrize("twice", ["redirect_uri", "client_id", "code_challenge", "state", "prompt"])
def test_nothing_may_be_said_twice(w: World, twice: str) -> None:
    query = [*w.query(ADA, code_challenge=Pkce().challenge).items(), (twice, "x"), (twice, "y")]
    page = w.service.browser("ada").get(w.oidc(ADA, "auth"), params=query)
    assert page.status_code == 400
    body = "grant_type=refresh_token&grant_type=authorization_code&client_id=core&code=x"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert w.service.client().post(w.oidc(ADA, "token"), content=body, headers=headers).status_code == 400


def test_only_the_code_flow_is_offered(w: World) -> None:
    browser = w.service.browser("ada")
    for kind in ("token", "id_token", "code id_token", "id_token token", "none"):
        told = answer(
            w.ask(browser, ADA, **w.query(ADA, response_type=kind, code_challenge=Pkce().challenge))
        )
        assert told.keys() & {"code", "access_token", "id_token"} == set()
        assert told["error"]
    for grant in (
        "password",
        "client_credentials",
        "implicit",
        "urn:ietf:params:oauth:grant-type:device_code",
    ):
        told = w.post(ADA, grant_type=grant, client_id="core", username="ada", password="x")
        assert (told.status_code, told.json()["error"]) == (400, "unsupported_grant_type")


def test_a_form_cannot_set_what_the_service_knows_itself(w: World, tokens: dict[str, Any]) -> None:
    extra = {
        "extra_credentials": "x",
        "scopes": "x",
        "user": "bob",
        "client": "x",
        "session": "x",
        "expires_in": "9",
    }
    form = {"grant_type": "refresh_token", "client_id": "core", "refresh_token": tokens["refresh_token"]}
    told = w.post(ADA, **form, **extra)
    assert told.status_code == 200, told.text
    assert told.json()["expires_in"] == 300
    assert unverified(told.json()["access_token"])["sub"] == unverified(tokens["access_token"])["sub"]


# -- refresh tokens -----------------------------------------------------------------------------------------------


def test_whoever_shows_an_old_refresh_token_ends_the_session_for_all(
    w: World, tokens: dict[str, Any]
) -> None:
    second = w.refresh(ADA, tokens["refresh_token"]).json()
    third = w.refresh(ADA, second["refresh_token"]).json()
    assert w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert w.refresh(ADA, third["refresh_token"]).json()["error"] == "invalid_grant"
    assert taken(w, third["access_token"]) == BAD


def test_a_refresh_token_cannot_be_made_from_another(w: World, tokens: dict[str, Any]) -> None:
    head, _, signature = tokens["refresh_token"].split(".")
    claims = unverified(tokens["refresh_token"])
    assert w.refresh(ADA, f"{head}.{part({**claims, 'number': 5})}.{signature}").status_code == 400
    signed = w.identity.provider.keyring.sign({**claims, "number": 5})
    assert w.refresh(ADA, signed).status_code == 400
    assert w.refresh(ADA, tokens["refresh_token"]).status_code == 200


# -- other sites and other people -----------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://cm-bob.stacks.localhost:8000", "http://evil.example", "null"])
def test_no_other_sites_page_gets_tokens_or_may_read_them(
    w: World, tokens: dict[str, Any], origin: str
) -> None:
    refused = w.post(
        ADA,
        origin=origin,
        grant_type="refresh_token",
        client_id="core",
        refresh_token=tokens["refresh_token"],
    )
    assert refused.status_code == 403
    assert "Access-Control-Allow-Origin" not in refused.headers
    asked = w.service.client().options(w.oidc(ADA, "token"), headers={"Origin": origin})
    assert asked.status_code == 403
    assert "Access-Control-Allow-Origin" not in asked.headers


def test_the_stacks_own_page_may_read_its_tokens(w: World, tokens: dict[str, Any]) -> None:
    own = w.origin(ADA)
    given = w.post(
        ADA, origin=own, grant_type="refresh_token", client_id="core", refresh_token=tokens["refresh_token"]
    )
    assert given.status_code == 200
    assert given.headers["Access-Control-Allow-Origin"] == own
    assert given.headers["Cache-Control"] == "no-store"
    error = w.post(ADA, origin=own, grant_type="refresh_token", client_id="core", refresh_token="x")
    assert (error.status_code, error.headers["Access-Control-Allow-Origin"]) == (400, own)


def test_the_frames_may_be_framed_by_their_own_stack_alone(w: World) -> None:
    for page in ("3p-cookies/step1.html", "3p-cookies/step2.html", "login-status-iframe.html"):
        shown = w.service.client().get(w.oidc(ADA, page))
        assert shown.status_code == 200
        assert shown.headers["Content-Security-Policy"].endswith(f"frame-ancestors {w.origin(ADA)}")
        assert "X-Frame-Options" not in shown.headers
        assert "unsafe" not in shown.headers["Content-Security-Policy"]


def test_a_link_cannot_log_anybody_out_or_lead_them_away(w: World, tokens: dict[str, Any]) -> None:
    browser = w.service.browser("ada")
    assert browser.get(w.oidc(ADA, "logout")).status_code == 400
    bobs = w.log_in(w.service.browser("bob"), BOB)
    for hint in ("x", bobs["id_token"]):
        assert browser.get(w.oidc(ADA, "logout"), params={"id_token_hint": hint}).status_code == 400
    assert taken(w, tokens["access_token"]) == GOOD
    for uri in ("http://evil.example/", "javascript:alert(1)", w.origin(ADA) + "/oauth2/sign_out?rd=//evil"):
        away = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": uri}
        page = w.service.client().get(w.oidc(ADA, "logout"), params=away, follow_redirects=False)
        assert page.status_code == 200
        assert "evil" not in page.text
        assert "javascript" not in page.text


def test_a_service_of_the_hub_that_is_called_like_the_owner_stays_out(w: World) -> None:
    program = w.service.program("ada", kind="service")
    page = w.ask(program, ADA, **w.query(ADA, code_challenge=Pkce().challenge))
    assert page.status_code == 403


def test_a_token_of_the_hub_without_access_to_the_service_opens_no_stack(w: World) -> None:
    program = w.service.program("ada", scopes=("read:users!user=ada",))
    page = w.ask(program, ADA, **w.query(ADA, code_challenge=Pkce().challenge))
    assert page.status_code == 403


def test_the_hubs_administrators_are_no_members(w: World) -> None:
    w.person("root")
    page = w.ask(w.service.browser("root", admin=True), ADA, **w.query(ADA, code_challenge=Pkce().challenge))
    assert page.status_code == 403


def test_somebody_who_logs_in_without_end_pushes_nobody_else_out(w: World, tokens: dict[str, Any]) -> None:
    browser = w.service.browser("bob")
    for _ in range(45):
        w.code(browser, ADA, Pkce())
    assert w.refresh(ADA, tokens["refresh_token"]).status_code == 200
    ledger = w.wait(w.identity.provider.grants.of(a_stack("ada")))
    assert len(json.loads(w.service.do(ledger.dump))) <= 21


@pytest.mark.parametrize(("name", "longest"), [("nonce", 128), ("state", 512)])
def test_nobody_fills_the_stacks_secret_with_long_values(w: World, name: str, longest: int) -> None:
    browser, challenge = w.service.browser("ada"), Pkce().challenge
    told = answer(w.ask(browser, ADA, **w.query(ADA, code_challenge=challenge, **{name: "x" * longest})))
    assert "code" in told
    told = answer(
        w.ask(browser, ADA, **w.query(ADA, code_challenge=challenge, **{name: "x" * (longest + 1)}))
    )
    assert told["error"] == "invalid_request"


def test_nothing_secret_is_logged(w: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub_token = w.service.hub.token("ada")
    browser, pkce = w.service.client(cookies={"who": hub_token}), Pkce()
    browser.get(PREFIX)
    code = w.code(browser, ADA, pkce)
    tokens = w.exchange(ADA, code, pkce).json()
    second = w.refresh(ADA, tokens["refresh_token"]).json()
    w.refresh(ADA, tokens["refresh_token"])
    w.service.client().get(w.oidc(ADA, "logout"), params={"id_token_hint": tokens["id_token"]})
    said, deadline = "", time.monotonic() + 10
    while "/protocol/openid-connect/logout" not in said:  # which is written after the answer was sent
        assert time.monotonic() < deadline
        # All but the test's own client.
        said = "\n".join(r.getMessage() for r in list(caplog.records) if not r.name.startswith("http"))
    hidden = (pkce.verifier, GATEWAY_SECRET, hub_token, second["refresh_token"], code)
    for secret in (*hidden, tokens["access_token"], tokens["id_token"]):
        assert secret not in said
    assert "PRIVATE KEY" not in said


ASKED = [
    *(
        ("GET", f"{REALM}/{path}")
        for path in (".well-known/openid-configuration", "account", "account/credentials")
    ),
    *(
        ("GET", f"{REALM}{ENDPOINTS}/{path}")
        for path in ("certs", "userinfo", "login-status-iframe.html", "logout")
    ),
    ("GET", f"{REALM}{ENDPOINTS}/login-status-iframe.html/init?client_id=core&session_state=x"),
    ("GET", f"{REALM}{ENDPOINTS}/3p-cookies/step1.html"),
    ("POST", f"{REALM}/account"),
    ("POST", f"{REALM}{ENDPOINTS}/userinfo"),
    ("GET", "/verify"),
]
FORMS = [
    {},
    {"client_id": "core", "grant_type": "authorization_code", "code": "x", "code_verifier": "x" * 43},
    {"client_id": "core", "grant_type": "refresh_token", "refresh_token": "x"},
    {"client_id": "gateway", "client_secret": "wrong", "grant_type": "authorization_code", "code": "x"},
    {"client_id": "gateway", "client_secret": "", "grant_type": "authorization_code", "code": "x"},
    {"client_id": "nobody", "grant_type": "refresh_token", "refresh_token": "x"},
]


def told(answer: httpx.Response, name: str) -> tuple[Any, ...]:
    """All that a stranger can see of an answer, but for the name that they asked for."""
    headers = {k: v.replace(name, "NAME") for k, v in answer.headers.items() if k not in ("date", "etag")}
    sizes = {k: "" for k in ("content-length", "set-cookie") if k in headers}
    location = re.sub(r"(state|code_challenge)=[^&]*", "", headers.get("location", ""))
    shown = {**headers, **sizes, **({"location": location} if location else {})}
    return answer.status_code, shown, unmarked(answer, name)


def unmarked(answer: httpx.Response, name: str) -> str:
    """An answer's text without what each answer has of its own."""
    text = re.sub(r"(state=|ey)[^&\"]*", "", answer.text.replace(name, "NAME"))
    return re.sub(r'name="xsrf" content="[^"]*"', "", text)


@pytest.mark.parametrize("who", ["", "eve"])
def test_strangers_cannot_tell_a_stack_from_one_that_is_not_there(w: World, who: str) -> None:
    def browser() -> httpx.Client:
        return w.service.browser(who) if who else w.service.client()

    clients = {name: browser() for name in ("cm-ada", "cm-nob")}
    bearer = {"Authorization": f"Bearer {w.service.hub.token('eve')}"}

    def both(method: str, path: str, **more: Any) -> None:
        seen = []
        for name, client in clients.items():
            answer = client.request(method, f"{PREFIX}{name}{path}", follow_redirects=False, **more)
            seen.append(told(answer, name))
        assert seen[0] == seen[1], (method, path)

    for method, path in ASKED:
        both(method, path)
        both(method, path, headers=bearer)
        both(method, path, headers={"Origin": "http://evil.example.org"})
    for form in FORMS:
        both("POST", f"{REALM}{ENDPOINTS}/token", data=form)
        both("POST", f"{REALM}{ENDPOINTS}/revoke", data={**form, "token": "x"})
    for extra in ({}, {"prompt": "none"}):
        seen = []
        for name, client in clients.items():
            query = {**w.query(name), "state": "s", "nonce": "n", "code_challenge": "c" * 43, **extra}
            answer = client.get(w.oidc(name, "auth"), params=query, follow_redirects=False)
            seen.append(told(answer, name))
        assert seen[0] == seen[1], extra
    for path in ("stacks/{}", "stacks/{}/members", "api/stacks/{}", "api/stacks/{}/connection"):
        seen = []
        for name, client in clients.items():
            answer = client.get(PREFIX + path.format(name), follow_redirects=False)
            seen.append((answer.status_code, unmarked(answer, name)))
        assert seen[0] == seen[1], path
    asked = w.vault.asked
    for n in range(20):
        w.service.client().post(w.oidc(f"cm-nobody{n}", "token"), data=FORMS[3])
    assert w.vault.asked == asked, "the names that somebody tries are not looked up in the cluster"


@pytest.mark.parametrize("name", ["stacks", "cm-ada%2f..%2fx", "CM-ADA"])
def test_there_is_no_issuer_for_what_is_no_stack(w: World, name: str) -> None:
    client = w.service.program("ada")
    assert client.get(f"{w.issuer(name)}/.well-known/openid-configuration").status_code == 404
    assert client.post(w.oidc(name, "token"), data={"client_id": "core"}).status_code == 404
