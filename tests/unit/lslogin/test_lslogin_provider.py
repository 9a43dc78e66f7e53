"""The authenticator against a certified OpenID provider's software, set up like LS Login, over its internal address."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from oauthenticator.oauth2 import OAuthLoginHandler, _serialize_state
from tornado import web
from traitlets.config import Config

from cytomine_spawner.lslogin.authenticator import LSLoginAuthenticator
from dev import lslogin
from tests.support.lsloginhub import User

HUB = "http://hub.localhost:8000/hub"
PUBLIC = "http://login.localhost:8000"
SECRET = "a-secret-of-this-test-only"


@pytest.fixture(scope="module")
def inside() -> Iterator[str]:
    """The provider's address as a hub in the cluster has it."""
    clients = lslogin.clients_file([f"{HUB}/oauth_callback"], [f"{HUB}/logout"], "hub", SECRET)
    with lslogin.running(clients) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def browser(inside: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(headers={"accept": "text/html"}, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
def authenticator(inside: str) -> LSLoginAuthenticator:
    config = Config()
    config.LSLoginAuthenticator.update(
        issuer=f"{PUBLIC}/oidc/",
        internal_issuer=f"{inside}/oidc/",
        client_id="hub",
        client_secret=SECRET,
        oauth_callback_url=f"{HUB}/oauth_callback",
        enable_auth_state=True,
        allowed_groups={"cytomine:users"},
        admin_groups={"cytomine:admins"},
        keep_visas=True,
    )
    return LSLoginAuthenticator(config=config, log=logging.getLogger("hub"))


async def go(browser: httpx.AsyncClient, inside: str, url: str, **kwargs: Any) -> httpx.Response:
    """Ask for an address, and follow while it stays at the provider; the ingress is left out."""
    method = "POST" if "data" in kwargs else "GET"
    while True:
        at = urlsplit(url)
        answer = await browser.request(
            method,
            f"{inside}{at.path}?{at.query}",
            headers={"host": "login.localhost:8000", "x-forwarded-proto": "http"},
            **kwargs,
        )
        if not answer.is_redirect:
            return answer
        url, method, kwargs = answer.headers["location"], "GET", {}
        if urlsplit(url).netloc not in {"", "login.localhost:8000"}:
            return answer


async def log_in(
    authenticator: LSLoginAuthenticator, browser: httpx.AsyncClient, inside: str, person: str
) -> dict[str, Any] | None:
    verifier, challenge = OAuthLoginHandler._generate_pkce_params(None)
    asked = {
        "client_id": "hub",
        "response_type": "code",
        "redirect_uri": f"{HUB}/oauth_callback",
        "scope": " ".join(authenticator.scope),
        "state": "s",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    page = await go(browser, inside, str(httpx.URL(authenticator.authorize_url, params=asked)))
    action = re.search(r'<form method="post" action="([^"]+)"', page.text)
    assert action, page.text
    back = await go(browser, inside, action[1], data={"user": person})
    code = parse_qs(urlsplit(back.headers["location"]).query)["code"][0]
    handler = Mock(spec=web.RequestHandler)
    handler.get_argument = Mock(return_value=code)
    state = {"state_id": "s", "code_verifier": verifier}
    handler.get_state_cookie = Mock(return_value=_serialize_state(state))
    model: dict[str, Any] | None = await authenticator.get_authenticated_user(handler, None)
    return model


@pytest.mark.parametrize(
    ("person", "groups", "admin"),
    [
        ("ada", ["cytomine:admins", "cytomine:users"], True),
        ("petra", ["Digital Pathology", "cytomine:reviewers:role=manager", "cytomine:users"], False),
        ("ivan", ["cytomine:users"], False),
        ("gina", None, False),
    ],
)
async def test_people_get_the_groups_their_entitlements_say(
    authenticator: LSLoginAuthenticator,
    browser: httpx.AsyncClient,
    inside: str,
    person: str,
    groups: list[str] | None,
    admin: bool,
) -> None:
    model = await log_in(authenticator, browser, inside, person)
    if groups is None:
        assert model is None
        return
    assert model is not None
    assert re.fullmatch(r"[0-9a-f]{40}@lifescience-ri\.eu", model["name"])
    assert (model["groups"], model["admin"]) == (groups, admin)


async def test_its_discovery_document_is_as_the_authenticator_is_configured(
    authenticator: LSLoginAuthenticator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await authenticator.compare_discovery() == []
    assert "is as this hub is configured" in caplog.text


async def test_refresh_rotates_the_tokens_and_parallel_requests_do_not_end_the_login(
    authenticator: LSLoginAuthenticator, browser: httpx.AsyncClient, inside: str
) -> None:
    model = await log_in(authenticator, browser, inside, "petra")
    assert model is not None
    for _ in range(2):
        before = model["auth_state"]
        before["token_response"]["expires_at"] = 0
        models = await asyncio.gather(*(authenticator.refresh_user(User(model)) for _ in range(4)))
        assert all(models)
        model = models[0]
        assert model["auth_state"]["refresh_token"] != before["refresh_token"]
        assert "cytomine:users" in model["groups"]


async def test_visas_come_with_the_login(
    authenticator: LSLoginAuthenticator, browser: httpx.AsyncClient, inside: str
) -> None:
    model = await log_in(authenticator, browser, inside, "petra")
    assert model is not None
    visas = [jwt.decode(visa, options={"verify_signature": False}) for visa in model["auth_state"]["visas"]]
    assert {visa["ga4gh_visa_v1"]["value"] for visa in visas} == {
        "aa-Dataset-demo01-slides",
        "aa-Dataset-demo02-biopsies",
    }


async def test_logout_ends_the_session_there_and_the_tokens_are_revoked(
    authenticator: LSLoginAuthenticator, browser: httpx.AsyncClient, inside: str
) -> None:
    model = await log_in(authenticator, browser, inside, "petra")
    assert model is not None
    tokens = model["auth_state"]
    left = await authenticator.forget(User(model))
    await asyncio.gather(*authenticator._background)
    url = authenticator.provider_logout_url(None, left["id_token"])
    page = await go(browser, inside, url)
    assert "getElementById('go').click()" in page.text, "LS Login asks, although it knows who leaves"
    action, xsrf = (
        re.search(what, page.text) for what in (r'action="([^"]+)"', r'name="xsrf" value="([^"]+)"')
    )
    assert action
    assert xsrf
    back = await go(browser, inside, action[1], data={"xsrf": xsrf[1], "logout": "yes"})
    assert back.headers["location"].startswith(f"{HUB}/logout?state=")
    assert await authenticator.refresh_user(User({"name": model["name"], "auth_state": tokens})) is False
