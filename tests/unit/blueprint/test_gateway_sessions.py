"""The life of a session at the gateway: how long the login's answer holds, renewal, and the end."""

import time

import pytest

from tests.support.gateway import GOOD, SESSION, TOKEN, running
from tests.support.gateway_login import MISSING, REASON, logging_in

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
OTHER = ("X-Auth-Request-Access-Token", "bbbb.other.token")


@pytest.fixture
def door(tmp_path):
    with running(tmp_path) as found:
        yield found


def asked(door):
    return len(door.servers["login"].seen)


def token(door, **headers):
    answer = door.public("/api/x", **headers)
    return answer.json["headers"]["authorization"].removeprefix("Bearer ") if answer.status == 200 else None


def test_the_logins_answer_holds_for_two_seconds_and_no_longer(door):
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert token(door) == GOOD
    assert 1 <= asked(door) <= 2
    door.servers["login"].reply = lambda _: (401, "text/plain", b"", [])
    start = time.monotonic()
    wait_until(lambda: token(door) is None)
    assert time.monotonic() - start < 3


def test_it_holds_for_the_same_cookies_alone(door):
    assert token(door) == GOOD
    door.servers["login"].reply = lambda _: (202, "text/plain", b"", [OTHER])
    assert token(door) == GOOD
    assert token(door, Cookie="one=more") == OTHER[1]
    door.servers["login"].reply = lambda _: (401, "text/plain", b"", [])
    assert door.ask(8080, "/api/x", Cookie=f"{SESSION}x").status == 401
    assert door.ask(8080, "/api/x").status == 401


def test_a_refusal_does_not_hold(door):
    stranger = {"Cookie": "cytomine-session=strange"}
    for n in range(3):
        assert door.ask(8080, "/api/x", **stranger).status == 401
        assert asked(door) == n + 1
    door.servers["login"].reply = lambda _: (202, "text/plain", b"", [TOKEN])
    assert door.ask(8080, "/api/x", **stranger).status == 200


def test_an_answer_that_renews_a_session_does_not_hold_and_all_of_it_goes_to_the_browser(door):
    cookies = [("Set-Cookie", f"cytomine-session_{n}={'x' * 3900}; Path=/; HttpOnly") for n in range(4)]
    door.servers["login"].reply = lambda _: (202, "text/plain", b"", [TOKEN, *cookies])
    for n, path in enumerate(("/api/x", "/", "/api/user/5.json")):
        with door.open(path) as response:
            assert response.status == 200
            got = response.headers.get_all("set-cookie")
        assert [c.partition("=")[0] for c in got] == [f"cytomine-session_{i}" for i in range(4)]
        assert asked(door) == n + 1


def test_a_login_that_cannot_ask_its_service_takes_nobodys_cookies_away(door):
    # One that has just started has no keys yet: while the service restarts beside it, it gives every session up.
    gone = ("Set-Cookie", "cytomine-session_0=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly")
    door.servers["login"].reply = lambda _: (401, "text/plain", b"", [gone])
    for path in ("/api/x", "/upload"):
        with door.open(path) as response:
            assert response.status == 401
            assert response.headers.get_all("set-cookie") is None


def test_a_login_that_does_not_answer_lets_nobody_in(door):
    door.servers["login"].reply = lambda _: (500, "text/plain", b"", [])
    for path in ("/", "/api/x", "/upload"):
        answer = door.public(path)
        assert answer.status == 503
        assert "cannot be checked" in answer.json["errors"]
    assert door.reached() == []


# --- with the real login


@pytest.fixture(scope="module")
def login(tmp_path_factory):
    with logging_in(tmp_path_factory.mktemp("login")) as found:
        yield found


def session(browser):
    return {k: v for k, v in browser.cookies.items() if k.startswith("cytomine-session") and "csrf" not in k}


def wait_until(check):
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def short(tmp_path):
    with logging_in(tmp_path, cookie_refresh="1s") as found:
        yield found


def test_leaving_ends_a_session(login):
    browser = login.browser()
    browser.log_in(login.issuer)
    assert browser.ask("/api/x").status == 200
    assert (
        browser.ask("/oauth2/sign_out?rd=https://evil.example/", Sec_Fetch_Site="none").headers["location"]
        == "/"
    )
    assert not session(browser)
    assert browser.ask("/api/x").status == 401


def test_a_session_of_several_cookies_is_renewed_as_a_whole(short):
    found = short.browser()
    found.log_in(short.issuer)
    first = session(found)
    assert len(first) > 1
    wait_until(lambda: found.ask("/api/x").status == 200 and found.set_cookies)
    assert {c.partition("=")[0] for c in found.set_cookies} == set(first)
    for cookie in found.set_cookies:
        assert {"httponly", "samesite=lax"} <= {p.strip().lower() for p in cookie.split(";")}
    assert found.ask("/api/x").status == 200


def test_a_session_is_renewed_and_core_gets_the_new_token(short):
    found = short.browser()
    found.log_in(short.issuer)
    first = found.ask("/api/x").json["headers"]["authorization"]
    wait_until(lambda: found.ask("/api/x").json["headers"]["authorization"] != first)
    assert short.issuer.asked[-1]["grant_type"] == "refresh_token"
    assert short.issuer.refreshed >= 1


def test_one_who_may_no_longer_is_out_at_the_next_refresh(short):
    found = short.browser()
    found.log_in(short.issuer)
    assert found.ask("/api/x").status == 200
    short.issuer.refused = True
    wait_until(lambda: found.ask("/api/x").status == 401)
    count = len(short.door.reached())
    assert found.ask("/").status == 302
    assert len(short.door.reached()) == count


def test_a_restart_of_the_login_service_logs_nobody_out(short):
    found = short.browser()
    found.log_in(short.issuer)
    wait_until(lambda: found.ask("/api/x").status == 200 and short.issuer.refreshed)
    short.issuer.server.shutdown()
    short.issuer.server.server_close()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert found.ask("/api/x").status == 200
        time.sleep(0.2)
