"""The archive's stand-in behind LS Login's: the tokens and visas of its users open what its users.json says."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from dev import archive, lslogin
from dev.archive.mock import MOCK
from tests.support.archiveclient import Client

ISSUER, PUBLIC = "http://login.localhost:8000/oidc/", "http://login.localhost:8000"
CALLBACK = "http://hub.localhost:8000/hub/oauth_callback"
CLIENTS = lslogin.clients_file([CALLBACK], [], "hub", "a-secret-of-this-test-only")


@pytest.fixture(scope="module")
def provider():
    with lslogin.running(CLIENTS) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        for name in (*MOCK, "aa-Dataset-of-nobody"):
            found.add(name, "a.txt", archive.Bytes(b"a"))
        yield found


def token(provider, user):
    """An access token as the hub gets one: code flow with PKCE, the user picked by a hint."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    asked = {
        "client_id": "hub",
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid profile ga4gh_passport_v1",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "username_hint": user,
    }
    with httpx.Client(headers={"Host": "login.localhost:8000"}, timeout=30) as browser:
        answer = browser.get(f"{provider}/oidc/authorize", params=asked)
        while not answer.headers["location"].startswith(CALLBACK):
            path = answer.headers["location"].removeprefix(PUBLIC)
            # The cookies are of the public name, which leads nowhere here.
            cookies = "; ".join(f"{c.name}={c.value}" for c in browser.cookies.jar)
            answer = browser.get(f"{provider}{path}", headers={"Cookie": cookies})
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        back = browser.post(
            f"{provider}/oidc/token",
            data={**form, "code_verifier": verifier},
            auth=("hub", "a-secret-of-this-test-only"),
        )
    assert back.status_code == 200, back.text
    return back.json()["access_token"]


@pytest.mark.parametrize("version", [1, 2])
def test_users_of_ls_logins_stand_in_see_what_their_visas_grant(provider, local, version):
    granted = {"ada": [], "petra": sorted(MOCK), "ivan": ["aa-Dataset-demo01-slides"]}
    broker = ISSUER.replace("/oidc/", "/ga4gh-broker/")
    given = {
        "issuer": ISSUER,
        "userinfo": f"{ISSUER}userinfo",
        "jwks": f"{ISSUER}jwk",
        "trusted": [(broker, f"{broker}jwk")],
        "instead": {PUBLIC: provider},
    }
    with local.archive(version=version, **given) as server:
        for user, datasets in granted.items():
            with Client(server, token(provider, user)) as made:
                assert made.granted() == datasets, user


def test_the_mock_datasets_names_are_those_of_ls_logins_users():
    named = set(re.findall(r"aa-Dataset-[a-z0-9-]+", (lslogin.HERE / "users.json").read_text()))
    assert named == set(MOCK)
