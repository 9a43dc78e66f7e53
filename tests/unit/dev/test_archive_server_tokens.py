"""The archive's stand-in: tokens of all kinds, sessions, and the causes of an empty list."""

from __future__ import annotations

import time

import pytest

from dev import archive
from tests.support.archiveclient import client

OPEN, OWNED = "aa-Dataset-open", "aa-Dataset-owned"


class Clock:
    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture(scope="module")
def local():
    with archive.running(issuer=archive.Issuer(clock=Clock())) as found:
        found.add(OPEN, "a.txt", archive.Bytes(b"a"), owner="somebody@lifescience-ri.eu")
        found.add(OWNED, "a.txt", archive.Bytes(b"a"), owner="petra@lifescience-ri.eu")
        yield found


@pytest.fixture(autouse=True)
def as_before(local):
    yield
    local.issuer.clock.ahead, local.issuer.down, local.issuer.signed_at_userinfo = 0.0, False, True


def status(made):
    return made.get("/datasets").status_code


@pytest.mark.parametrize("kind", ["opaque", "at+jwt", "JWT"])
@pytest.mark.parametrize(
    ("model", "granted"), [("ownership", [OWNED]), ("visa", [OPEN]), ("combined", [OPEN, OWNED])]
)
def test_the_permission_model_says_what_counts(local, kind, model, granted):
    petra = local.someone("petra", OPEN)
    with local.archive(permission_model=model) as server, client(local, server, petra, kind) as made:
        assert made.granted() == granted


def bad_tokens(local):
    petra, issuer, now = local.someone("petra", OPEN), local.issuer, int(local.issuer.clock())
    return {
        "of another key": issuer.token(petra, "at+jwt", key=issuer.other_key),
        "expired": issuer.token(petra, "at+jwt", exp=now - 1),
        "not valid yet": issuer.token(petra, "at+jwt", nbf=now + 60),
        "of another issuer": issuer.token(petra, "at+jwt", iss="https://elsewhere.example.org/oidc/"),
        "of no issuer": issuer.token(petra, "at+jwt", iss=""),
        "unknown": "opaque-and-unknown",
    }


def test_tokens_that_are_not_good_are_401_and_userinfo_helps_no_signed_one(local):
    tokens = bad_tokens(local)
    with local.archive() as server, client(local, server) as made:
        for why, token in tokens.items():
            answer = made.get("/datasets", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401, why


def test_the_issuers_slash_makes_no_difference_and_opaque_tokens_can_be_shut_out(local):
    petra = local.someone("petra", OPEN)
    token = local.issuer.token(petra, "JWT", iss=local.issuer.url.rstrip("/"))
    with local.archive(allow_opaque=False) as server, client(local, server, petra) as made:
        assert status(made) == 401
        assert made.get("/datasets", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_signed_token_that_userinfo_does_not_know_brings_no_visas_and_no_error(local):
    local.issuer.signed_at_userinfo = False
    petra = local.someone("petra", OPEN)
    with local.archive() as combined, client(local, combined, petra, "JWT") as made:
        assert made.granted() == [OWNED]
    with local.archive(permission_model="visa") as strict, client(local, strict, petra, "JWT") as made:
        assert status(made) == 401


def test_a_list_without_visas_is_not_kept(local):
    petra = local.someone("petra", OPEN)
    with local.archive() as server, client(local, server, petra, "at+jwt") as made:
        local.issuer.down = True
        assert made.granted() == [OWNED]
        local.issuer.down = False
        assert made.granted() == [OPEN, OWNED]


def test_visas_may_be_in_the_signed_token_itself(local):
    petra = local.someone("petra")
    token = local.issuer.token(petra, "JWT", ga4gh_passport_v1=[local.issuer.visa(petra, OPEN)])
    with local.archive(visa_source="token") as server, client(local, server) as made:
        made.headers["Authorization"] = f"Bearer {token}"
        assert made.granted() == [OPEN, OWNED]


def test_a_session_outlives_the_token_and_the_grant_until_its_time_is_over(local):
    petra = local.someone("petra", OPEN)
    with local.archive(permission_model="visa", session_ttl=300) as server:
        token = local.issuer.token(petra)
        with client(local, server) as made:
            made.headers["Authorization"] = f"Bearer {token}"
            assert made.granted() == [OPEN]
            petra.visas.clear()
            local.issuer.revoke(token)
            local.issuer.clock.ahead = 299
            assert made.granted() == [OPEN]
            local.issuer.clock.ahead = 301
            assert status(made) == 401


@pytest.mark.parametrize(
    ("kind", "token", "visa"), [("JWT", 100, 500), ("JWT", 500, 100), ("opaque", 500, 100)]
)
def test_a_session_ends_with_the_first_of_token_and_visa(local, kind, token, visa):
    petra = local.someone("petra")
    petra.visas = [local.issuer.visa(petra, OPEN, exp=int(local.issuer.clock()) + visa)]
    with local.archive() as server, client(local, server) as made:
        made.headers["Authorization"] = f"Bearer {local.issuer.token(petra, kind, token)}"
        asked = local.issuer.asked
        made.granted()
        local.issuer.clock.ahead = 90
        made.granted()
        assert local.issuer.asked == asked + 1
        local.issuer.clock.ahead = 140
        answer = made.get("/datasets")
        assert local.issuer.asked > asked + 1 or answer.status_code == 401


@pytest.mark.parametrize("name", ["sda_session", "sda_session_key"])
def test_the_cookie_of_a_session_is_enough_under_its_old_name_too(local, name):
    petra = local.someone("petra", OPEN)
    with local.archive() as server, client(local, server, petra) as made:
        answer = made.get("/datasets")
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("sda_session=")
        assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
        session = cookie.split(";")[0].partition("=")[2]
        del made.headers["Authorization"]
        assert status(made) == 401
        assert made.get("/datasets", headers={"Cookie": f"{name}={session}"}).status_code == 200


def test_the_same_token_is_known_again_without_its_cookie(local):
    petra = local.someone("petra", OPEN)
    with local.archive() as server, client(local, server, petra) as made:
        made.granted()
        asked = local.issuer.asked
        made.cookies.clear()
        made.granted()
        assert local.issuer.asked == asked


def test_userinfo_is_found_by_discovery(local):
    petra = local.someone("petra", OPEN)
    with local.archive(userinfo="") as server, client(local, server, petra) as made:
        assert made.granted() == [OPEN, OWNED]
