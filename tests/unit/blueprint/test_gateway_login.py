"""The whole gateway: the real oauth2-proxy before the real nginx, with the rendered options of both."""

import json
import os
import re
import socket
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.gateway import resident, websocket
from tests.support.gateway_login import ENDPOINT, MISSING, REASON, Browser, logging_in

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
COOKIE = "cytomine-session"


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with logging_in(tmp_path_factory.mktemp("login")) as found:
        yield found


@pytest.fixture
def login(started):
    started.door.forget()
    started.issuer.claims = {}
    started.issuer.sign = started.issuer._sign
    started.issuer.refreshed = 0
    return started


@pytest.fixture
def browser(login):
    found = login.browser()
    answer = found.log_in(login.issuer)
    assert (answer.status, answer.headers["location"]) == (302, "/")
    return found


def session(browser):
    return {k: v for k, v in browser.cookies.items() if k.startswith(COOKIE) and "csrf" not in k}


# --- without a session


def test_a_page_leads_to_the_issuer_without_a_form_between(login):
    answer = login.browser().ask("/project/1")
    assert answer.status == 302
    where = urlsplit(answer.headers["location"])
    asked = {k: v[0] for k, v in parse_qs(where.query).items()}
    assert answer.headers["location"].startswith(f"{login.issuer.issuer}/protocol/openid-connect/auth?")
    assert where.path == f"{ENDPOINT}/auth"
    assert (asked["client_id"], asked["response_type"]) == ("gateway", "code")
    assert asked["redirect_uri"] == f"{login.url}/oauth2/callback"
    assert asked["code_challenge_method"] == "S256"
    assert "openid" in asked["scope"].split()
    assert len(asked["nonce"]) > 20
    assert login.door.reached() == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/project.json",
        "/api/imageinstance/1/thumb.png?authorization=x",
        "/server/ping",
        "/session/admin/open.json",
        "/upload",
        "/import",
        "/ims/upload",
    ],
)
def test_a_stranger_gets_401_for_what_is_no_page(login, method, path):
    answer = login.browser().ask(path, method, Origin=login.url)
    assert answer.status == 401
    assert "location" not in answer.headers
    assert login.door.reached() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_Access_Token": "aaaa.good.token"},
        {"Authorization": "Bearer aaaa.good.token"},
        {"Authorization": "CYTOMINE 8f5c:c2lnbmVk"},
        {"Cookie": f"{COOKIE}=x"},
        {"Cookie": f"{COOKIE}_0=x; {COOKIE}_1=y"},
        {"X_Forwarded_For": "127.0.0.1", "X_Real_IP": "127.0.0.1"},
        {"X_Forwarded_Uri": "/oauth2/ping", "X_Original_URI": "/oauth2/ping"},
    ],
)
def test_no_header_stands_for_a_session(login, headers):
    assert login.browser().ask("/api/project.json", **headers).status == 401
    assert login.door.reached() == []


@pytest.mark.parametrize(
    "path",
    [
        "//api/x",
        "/oauth2/../api/x",
        "/oauth2/ping/../../api/x",
        "/robots.txt/../api/x",
        "/%61pi/x",
        "/ping",
        "/ready",
    ],
)
def test_no_way_of_writing_a_path_passes_the_login(login, path):
    assert login.browser().ask(path).status in (301, 302, 400, 401, 404)
    assert login.door.reached() == []


def test_a_websocket_needs_a_session(login, browser):
    own = {"Host": urlsplit(login.url).netloc, "Origin": login.url}
    status, sock = websocket(login.port, "/ws/user-position/1", Origin=login.url)
    sock.close()
    assert status == 401
    assert login.door.reached() == []
    status, sock = websocket(login.port, "/ws/user-position/1", Cookie=browser.header(), **own)
    with sock:
        assert status == 101
        sock.sendall(b"\x81\x05hello")
        assert sock.recv(7) == b"\x81\x05hello"
    status, sock = websocket(
        login.port, "/ws/user-position/1", Cookie=browser.header(), Origin="http://cm-evil.stacks.localhost"
    )
    sock.close()
    assert status == 403


def test_the_probes_answer_and_metrics_do_not(login):
    own = Browser(login.own)
    for path in ("/oauth2/ping", "/oauth2/ready"):
        assert own.ask(path).status == 200
    assert own.ask("/metrics").status == 302
    assert login.browser().ask("/metrics").status == 302


def test_a_script_that_meets_the_end_of_its_session_is_told_and_not_led_away(login):
    for headers in (
        {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Site": "same-origin"},
        {"Accept": "application/json"},
    ):
        answer = login.browser().ask("/configuration.json", **headers)
        assert (answer.status, answer.headers.get("set-cookie")) == (401, None)


@pytest.mark.parametrize(
    "path",
    ["/oauth2/auth", "/oauth2/userinfo", "/oauth2/ping", "/oauth2/x", "/oauth2", "/_session", "/OAUTH2/auth"],
)
def test_only_what_a_browser_needs_of_the_login_is_open(login, browser, path):
    for one in (browser, login.browser()):
        answer = one.ask(path)
        assert answer.status in (302, 404) or answer.json["who"] == "web-ui"
        assert not [name for name in answer.headers if name.startswith("x-auth")]


# --- the login


def test_after_the_login_core_gets_the_issuers_token_and_no_cookie(login, browser):
    answer = browser.ask(
        "/api/user/current.json", Authorization="Bearer forged", X_Forwarded_Access_Token="forged"
    )
    assert answer.status == 200
    seen = answer.json["headers"]
    token = seen["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(
        token, login.issuer.key.public_key(), algorithms=["RS256"], options={"verify_aud": False}
    )
    assert claims["azp"] == "gateway"
    assert "cookie" not in seen
    assert "forged" not in json.dumps(seen)
    thumb = browser.ask("/api/imageinstance/1/thumb.png?authorization=Bearer%20forged").json["path"]
    assert parse_qs(urlsplit(thumb).query)["authorization"] == [f"Bearer {token}"]


def test_one_comes_back_to_the_page_that_one_asked_for(login):
    assert login.browser().log_in(login.issuer, "/project/1?x=2").headers["location"] == "/project/1?x=2"


def test_the_sessions_cookies_are_for_this_host_alone_and_no_script(login):
    found = login.browser()
    found.ask("/")
    assert all("csrf" in c for c in found.set_cookies)
    found.log_in(login.issuer)
    assert session(found)
    for cookie in found.set_cookies:
        parts = [p.strip().lower() for p in cookie.split(";")[1:]]
        assert "httponly" in parts
        assert "samesite=lax" in parts
        assert "path=/" in parts
        assert not [p for p in parts if p.startswith("domain")]


def test_the_token_is_not_readable_in_the_cookie(login, browser):
    token = browser.ask("/api/x").json["headers"]["authorization"].removeprefix("Bearer ")
    assert token.split(".")[1] not in browser.header()


@pytest.mark.parametrize(
    "where",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "http://cm-evil.stacks.localhost:8000/"],
)
def test_the_login_leads_to_no_other_site(login, where):
    from urllib.parse import quote

    found = login.browser()
    start = found.ask(f"/oauth2/start?rd={quote(where)}", X_Auth_Request_Redirect=where)
    back = urlsplit(login.issuer.authorize(start.headers["location"]))
    assert found.ask(f"{back.path}?{back.query}").headers["location"] == "/"


def test_nobody_can_be_logged_in_as_somebody_else(login):
    """An attacker's answer of the issuer, opened in the victim's browser."""
    attacker, victim = login.browser(), login.browser()
    back = urlsplit(login.issuer.authorize(attacker.ask("/").headers["location"]))
    victim.ask("/")
    assert victim.ask(f"{back.path}?{back.query}").status == 403
    assert not session(victim)


def test_an_answer_of_the_issuer_works_once(login):
    found = login.browser()
    back = urlsplit(login.issuer.authorize(found.ask("/").headers["location"]))
    assert found.ask(f"{back.path}?{back.query}").status == 302
    again = login.browser()
    again.cookies = dict(found.cookies)
    for name in session(again):
        del again.cookies[name]
    assert again.ask(f"{back.path}?{back.query}").status in (403, 500)
    assert not session(again)


def foreign(claims):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k"})


def confused(issuer):
    """Signed with HMAC, by the public key as the secret."""
    from cryptography.hazmat.primitives import serialization

    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    secret = issuer.key.public_key().public_bytes(*form)

    def sign(claims):
        import base64
        import hashlib
        import hmac

        def part(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=")

        head = part(json.dumps({"alg": "HS256", "kid": "k", "typ": "JWT"}).encode())
        body = head + b"." + part(json.dumps(claims).encode())
        return (body + b"." + part(hmac.digest(secret, body, hashlib.sha256))).decode()

    return sign


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://hub.example.org/services/cytomine/cm-other/iam/realms/cytomine"},
        {"aud": "core"},
        {"aud": ["somebody"]},
        {"exp": 1},
        {"nonce": "another"},
        {"nonce": ""},
        "unsigned",
        "foreign key",
        "confused",
    ],
    ids=str,
)
def test_a_wrong_token_makes_no_session(login, wrong):
    if isinstance(wrong, dict):
        login.issuer.claims = wrong
    else:
        login.issuer.sign = {
            "unsigned": lambda c: jwt.encode(c, None, algorithm="none"),
            "foreign key": foreign,
            "confused": confused(login.issuer),
        }[wrong]
    found = login.browser()
    assert found.log_in(login.issuer).status in (403, 500)
    assert not session(found)
    assert found.ask("/api/x").status == 401


def test_a_session_of_another_stack_is_none_here(login, browser, tmp_path):
    with logging_in(tmp_path) as other:
        stranger = other.browser()
        stranger.cookies = dict(browser.cookies)
        assert stranger.ask("/api/x").status == 401
        assert other.door.reached() == []


def test_a_changed_cookie_is_none(login, browser):
    name, value = next(iter(session(browser).items()))
    at = len(value) // 3
    for changed in (
        value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :],
        value[:-4],
        value + "a",
    ):
        other = login.browser()
        other.cookies = {**browser.cookies, name: changed}
        assert other.ask("/api/x").status == 401


def test_no_secret_and_no_token_is_in_the_log(login, browser):
    token = browser.ask("/api/x").json["headers"]["authorization"].removeprefix("Bearer ")
    log = login.log.read_text()
    assert log
    for secret in (
        token,
        "client-secret\n",
        (login.log.parent / "oauth2-cookie-secret").read_text(),
        "refresh-0",
    ):
        assert secret not in log
    assert not re.search(r"eyJ[\w-]{20}", log)


# --- bytes


def test_a_big_upload_streams_through_the_login_with_flat_memory(login, browser):
    size = 128 * 1024 * 1024
    browser.ask("/api/x")
    before = resident(login.pid), resident(login.door.pid)
    host = urlsplit(login.url).netloc
    with socket.create_connection(("127.0.0.1", login.port), 20) as sock:
        head = (
            f"POST /upload?idStorage=1 HTTP/1.1\r\nHost: {host}\r\nOrigin: {login.url}\r\nCookie: {browser.header()}\r\n"
            "Authorization: CYTOMINE 8f5c:c2lnbmVk\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Connection: close\r\nContent-Length: {size}\r\n\r\n"
        )
        sock.sendall(head.encode() + b"x" * 100_000)
        assert login.door.servers["pims"].started.wait(10)
        left, block, most = size - 100_000, os.urandom(65536), [0, 0]
        while left:
            left -= sock.send(block[: min(left, len(block))])
            most = [max(most[0], resident(login.pid)), max(most[1], resident(login.door.pid))]
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200")
    assert login.door.servers["pims"].seen[0]["length"] == size
    assert most[0] - before[0] < 32 * 1024 * 1024
    assert most[1] - before[1] < 16 * 1024 * 1024


def test_a_path_comes_to_nginx_as_it_was_sent(login, browser):
    assert (
        browser.ask("/api/ontology/a%20b%C3%A9.json?q=a%2Fb").json["path"]
        == "/api/ontology/a%20b%C3%A9.json?q=a%2Fb"
    )
    for path in ("/api/..%2fims/image/x", "/ims/%2e%2e/ims/image/x", "/api/x;y", "/ims/image/x"):
        assert browser.ask(path).status in (301, 400, 404)
    assert "pims" not in [who for who, _ in login.door.reached()]
