"""LS Login as an authenticator, against a provider on loopback: who may come in, refresh, outage, logout, logs."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, urlsplit

import pytest
from oauthenticator.oauth2 import _serialize_state
from tornado import web
from traitlets import TraitError
from traitlets.config import Config

from cytomine_spawner import lslogin
from cytomine_spawner.lslogin import LSLoginAuthenticator, display_name
from cytomine_spawner.lslogin_oidc import ProviderError, redacted
from cytomine_spawner.lslogin_pages import LoginProblem
from tests.unit.lslogin_fake import ADA, ADMINS, BY, CLIENT, MARKS, ROOT, SECRET, USERS, VISA, Provider

NAME = ADA["sub"]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log at its most talkative; no test may leave a secret in it."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    for record in caplog.get_records("call"):
        text = record.getMessage() + (record.exc_text or "") + str(record.exc_info or "")
        if record.name != "asyncio":
            assert not [mark for mark in MARKS if mark in text], text


def make(provider: Provider, **traits: Any) -> LSLoginAuthenticator:
    settings = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "oauth_callback_url": "http://hub.localhost/hub/oauth_callback",
        "enable_auth_state": True,
        "request_timeout": 2.0,
        "discovery_timeout": 2.0,
        "allowed_groups": {"cytomine:users"},
        **traits,
    }
    config = Config()
    config.LSLoginAuthenticator.update(settings)
    return LSLoginAuthenticator(config=config, log=logging.getLogger("hub"))


def arriving(provider: Provider) -> Any:
    """A request that comes back from the provider with a code."""
    verifier = "v" * 43
    provider.codes["SECRET-code"] = {
        "person": provider.person,
        "challenge": "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM",
        "scope": "openid",
    }
    handler = Mock(spec=web.RequestHandler)
    handler.get_argument = Mock(return_value="SECRET-code")
    handler.get_state_cookie = Mock(
        return_value=_serialize_state({"state_id": "1", "code_verifier": verifier})
    )
    return handler


async def log_in(authenticator: LSLoginAuthenticator, provider: Provider) -> Any:
    return await authenticator.get_authenticated_user(arriving(provider), None)


class User:
    """As much of the hub's user as the authenticator touches."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.name, self.auth_state = model["name"], model["auth_state"]
        self._auth_refreshed: float | None = 1.0

    async def get_auth_state(self) -> Any:
        return self.auth_state

    async def save_auth_state(self, auth_state: Any) -> None:
        self.auth_state = auth_state


@pytest.mark.parametrize(
    ("traits", "entitlements", "allowed", "admin"),
    [
        ({}, [USERS], True, None),
        ({}, [], False, None),
        ({}, None, False, None),
        ({}, [ADMINS], False, None),
        ({}, [USERS.replace(BY, "#evil.example")], False, None),
        ({}, [f"{ROOT}:cytomine%3Ausers{BY}"], False, None),
        ({}, ["urn:geant:lifescience-ri.eu:group:cytomine:users" + BY], False, None),
        ({}, [f"{ROOT}:cytomine:users:role=guest{BY}"], False, None),
        ({"group_roles": "drop"}, [f"{ROOT}:cytomine:users:role=guest{BY}"], True, None),
        ({"admin_groups": {"cytomine:admins"}}, [USERS, ADMINS], True, True),
        ({"admin_groups": {"cytomine:admins"}}, [ADMINS], True, True),
        ({"admin_groups": {"cytomine:admins"}}, [USERS], True, False),
        ({"admin_users": {NAME}}, [], True, True),
        ({"allowed_groups": set()}, [USERS], False, None),
        ({"allowed_groups": set(), "allowed_users": {NAME}}, [], True, None),
        ({"allowed_groups": set(), "allow_all": True}, [], True, None),
        ({"blocked_users": {NAME}}, [USERS], False, None),
        (
            {"group_prefix": f"{ROOT}:cytomine".split("group:")[1], "allowed_groups": {"users"}},
            [USERS],
            True,
            None,
        ),
    ],
)
async def test_who_may_come_in(
    provider: Provider,
    traits: dict[str, Any],
    entitlements: list[str] | None,
    allowed: bool,
    admin: bool | None,
) -> None:
    provider.person = {**ADA, "eduperson_entitlement": entitlements}
    if entitlements is None:
        del provider.person["eduperson_entitlement"]
    model = await log_in(make(provider, **traits), provider)
    assert (model is not None) == allowed
    if model:
        assert model["name"] == NAME
        assert model["admin"] == admin


async def test_a_login_keeps_who_it_was_and_the_groups_by_short_name(provider: Provider) -> None:
    model = await log_in(make(provider), provider)
    assert model["groups"] == ["cytomine:users"]
    state = model["auth_state"]
    assert state["account"] == {
        "sub": NAME,
        "preferred_username": "ada",
        "name": "Ada Lovelace",
        "email": "ada@example.org",
        "display_name": "Ada Lovelace",
    }
    assert {"access_token", "refresh_token", "id_token", "checked_at", "oauth_user"} <= set(state)
    assert model["user_info"] == {"name": "Ada Lovelace", "display_name": "Ada Lovelace"}
    assert display_name(state) == "Ada Lovelace"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"name": "A B", "preferred_username": "ab"}, "A B"),
        ({"name": " ", "preferred_username": "ab"}, "ab"),
        ({"email": "a@b"}, "a@b"),
        ({"sub": "1@x"}, "1@x"),
        ({"name": "a\x00\nb\u202e"}, "a b"),
        ({"name": "x" * 500}, "x" * 100),
        ({"name": 5}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_display_name_is_short_and_printable(claims: dict[str, Any] | None, expected: str) -> None:
    assert display_name(claims) == expected


async def test_hub_pages_can_show_the_name(provider: Provider) -> None:
    authenticator = make(provider)
    assert authenticator.display_name_of(SimpleNamespace(name=NAME)) == NAME
    await log_in(authenticator, provider)
    assert authenticator.display_name_of(SimpleNamespace(name=NAME)) == "Ada Lovelace"
    assert authenticator.display_name_of(None) == ""


@pytest.mark.parametrize("keep", [True, False])
async def test_visas_are_kept_only_if_asked(
    provider: Provider, keep: bool, log: pytest.LogCaptureFixture
) -> None:
    provider.person = {**ADA, "ga4gh_passport_v1": [VISA, 7, "x" * 20000]}
    authenticator = make(provider, keep_visas=keep)
    assert ("ga4gh_passport_v1" in authenticator.scope) == keep
    state = (await log_in(authenticator, provider))["auth_state"]
    assert state.get("visas") == ([VISA] if keep else None)
    assert "ga4gh_passport_v1" not in state["oauth_user"]


async def test_an_answer_about_another_person_than_the_id_token_is_refused(provider: Provider) -> None:
    provider.sub_of_id_token = "somebody-else"
    with pytest.raises(ProviderError, match="another person"):
        await log_in(make(provider), provider)


# Refresh


async def logged_in(provider: Provider, **traits: Any) -> tuple[LSLoginAuthenticator, User]:
    authenticator = make(provider, **traits)
    return authenticator, User(await log_in(authenticator, provider))


async def test_refresh_brings_new_groups(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    provider.claims = {"eduperson_entitlement": [USERS, f"{ROOT}:cytomine:pathologists{BY}"]}
    model = await authenticator.refresh_user(user)
    assert model["groups"] == ["cytomine:pathologists", "cytomine:users"]
    assert provider.requests["token"] == 1


async def test_a_person_taken_out_of_the_group_loses_the_hub(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    provider.claims = {"eduperson_entitlement": []}
    assert await authenticator.refresh_user(user) is False


async def test_an_administrator_is_one_no_longer_once_out_of_the_group(provider: Provider) -> None:
    provider.person = {**ADA, "eduperson_entitlement": [USERS, ADMINS]}
    authenticator, user = await logged_in(provider, admin_groups={"cytomine:admins"})
    provider.claims = {"eduperson_entitlement": [USERS]}
    assert (await authenticator.refresh_user(user))["admin"] is False


async def test_a_token_that_has_run_out_is_renewed_and_the_id_token_kept(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    before = user.auth_state
    provider.end_tokens()
    state = (await authenticator.refresh_user(user))["auth_state"]
    assert state["access_token"] in provider.access
    assert state["refresh_token"] in provider.refresh
    assert state["refresh_token"] != before["refresh_token"]
    assert state["id_token"] == before["id_token"]


async def test_a_token_about_to_run_out_is_renewed_before_it_does(provider: Provider) -> None:
    provider.lifetime = 300
    authenticator, user = await logged_in(provider, renew_before=600)
    state = (await authenticator.refresh_user(user))["auth_state"]
    assert state["access_token"] != user.auth_state["access_token"]
    assert provider.requests["token"] == 2


async def test_parallel_and_late_requests_spend_a_refresh_token_once(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    provider.end_tokens()
    models = await asyncio.gather(*(authenticator.refresh_user(user) for _ in range(8)))
    models.append(await authenticator.refresh_user(user))  # the database still holds the old token
    assert len({model["auth_state"]["refresh_token"] for model in models}) == 1
    assert provider.requests["token"] == 2
    user.auth_state = models[0]["auth_state"]
    provider.end_tokens()
    assert (await authenticator.refresh_user(user))["auth_state"]["access_token"] in provider.access


async def test_a_refresh_token_that_is_not_rotated_can_be_used_again(provider: Provider) -> None:
    provider.rotate = False
    authenticator, user = await logged_in(provider)
    for _ in range(3):
        provider.end_tokens()
        user.auth_state = (await authenticator.refresh_user(user))["auth_state"]
        assert user.auth_state["access_token"] in provider.access
    assert provider.requests["token"] == 4


async def test_a_revoked_login_needs_a_new_one(provider: Provider, log: pytest.LogCaptureFixture) -> None:
    authenticator, user = await logged_in(provider)
    provider.revoke_grants()
    assert await authenticator.refresh_user(user) is False
    assert await authenticator.refresh_user(user) is False


async def test_without_refresh_tokens_the_end_of_the_access_token_needs_a_new_login(
    provider: Provider,
) -> None:
    provider.refresh_tokens = False
    authenticator, user = await logged_in(provider)
    assert await authenticator.refresh_user(user)
    provider.end_tokens()
    assert await authenticator.refresh_user(user) is False


@pytest.mark.parametrize("broken", [500, 502, 503, 429, "hang", "garbage", "gone"])
@pytest.mark.parametrize("path", ["userinfo", "token"])
async def test_an_outage_logs_nobody_out_for_a_bounded_time(
    provider: Provider, path: str, broken: int | str, log: pytest.LogCaptureFixture
) -> None:
    authenticator, user = await logged_in(provider, outage_grace=3600, request_timeout=0.3)
    if path == "token":
        provider.end_tokens()
    if broken == "gone":
        authenticator.token_url = authenticator.userdata_url = "http://127.0.0.1:9/"
    else:
        provider.broken = {path: broken}
    assert await authenticator.refresh_user(user) is True
    user.auth_state["checked_at"] = time.time() - 3601
    assert await authenticator.refresh_user(user) is False


async def test_after_an_outage_the_refresh_goes_on(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    provider.end_tokens()
    provider.broken = {"token": 503}
    assert await authenticator.refresh_user(user) is True
    provider.broken = {}
    assert (await authenticator.refresh_user(user))["auth_state"]["access_token"] in provider.access


async def test_a_wrong_client_secret_logs_nobody_out(
    provider: Provider, log: pytest.LogCaptureFixture
) -> None:
    authenticator, user = await logged_in(provider)
    provider.end_tokens()
    authenticator.client_secret = "SECRET-wrong"
    assert await authenticator.refresh_user(user) is True
    assert "invalid_client" in log.text


async def test_tokens_of_another_person_end_the_login(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    provider.claims = {"sub": "f" * 40 + "@lifescience-ri.eu"}
    assert await authenticator.refresh_user(user) is False


async def test_without_auth_state_nothing_is_refreshed(provider: Provider) -> None:
    authenticator, user = await logged_in(provider, enable_auth_state=False)
    provider.broken = {"userinfo": 500}
    assert await authenticator.refresh_user(user) is True


async def test_programs_of_a_user_without_tokens_go_on_and_browsers_log_in(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    await authenticator.forget(user)
    assert await authenticator.refresh_user(user, SimpleNamespace(_token_authenticated=False)) is False
    by_program = await authenticator.refresh_user(user, SimpleNamespace(_token_authenticated=True))
    # JupyterHub has decided so by itself since 6.1.
    assert by_program is (not hasattr(authenticator, "auth_refresh_strict"))
    if by_program:
        await asyncio.sleep(0)
        assert user._auth_refreshed is None, "a browser's next request would not be asked to log in"


# Logout


async def test_logout_revokes_the_tokens_and_takes_them_out_of_the_database(provider: Provider) -> None:
    authenticator, user = await logged_in(provider)
    before = user.auth_state
    assert await authenticator.forget(user) == before
    await asyncio.gather(*authenticator._background)
    assert set(provider.revoked) == {before["access_token"], before["refresh_token"]}
    assert not [mark for mark in MARKS if mark in str(user.auth_state)]
    assert display_name(user.auth_state) == "Ada Lovelace"


async def test_logout_does_not_wait_for_a_provider_that_hangs(
    provider: Provider, log: pytest.LogCaptureFixture
) -> None:
    authenticator, user = await logged_in(provider, request_timeout=0.3)
    provider.broken = {"revoke": "hang"}
    began = time.monotonic()
    await authenticator.forget(user)
    assert time.monotonic() - began < 0.2
    await asyncio.gather(*authenticator._background)
    assert "was not revoked" in log.text


async def test_logout_without_auth_state_works(provider: Provider) -> None:
    authenticator = make(provider)
    assert await authenticator.forget(User({"name": NAME, "auth_state": None})) == {}
    url = urlsplit(authenticator.provider_logout_url(None, None))
    assert parse_qs(url.query) == {
        "client_id": [CLIENT],
        "post_logout_redirect_uri": ["http://hub.localhost/hub/logout"],
        "state": ["left"],
    }


async def test_logout_address_carries_the_id_token_and_the_configured_return(provider: Provider) -> None:
    authenticator = make(provider, post_logout_redirect_url="https://example.org/bye")
    query = parse_qs(urlsplit(authenticator.provider_logout_url(None, "a.b.c")).query)
    assert query["id_token_hint"] == ["a.b.c"]
    assert query["post_logout_redirect_uri"] == ["https://example.org/bye"]
    assert "id_token_hint" not in authenticator.provider_logout_url(None, "x" * 7000)
    assert make(provider, end_session_url="").provider_logout_url(None, "a.b.c") == ""


# Discovery


@pytest.mark.parametrize(
    ("discovery", "traits", "expected"),
    [
        ({}, {}, []),
        ({"issuer": "http://elsewhere/oidc"}, {}, ["issuer is http://elsewhere/oidc"]),
        (
            {"token_endpoint": None, "userinfo_endpoint": "http://x/u"},
            {},
            ["token_endpoint is missing", "userinfo_endpoint is http://x/u"],
        ),
        ({"end_session_endpoint": None}, {"end_session_url": ""}, []),
        ({"scopes_supported": ["openid"]}, {"scope": ["openid", "email"]}, ["the scope email is asked for"]),
        (
            {"code_challenge_methods_supported": ["plain"]},
            {},
            ["code_challenge_methods_supported lacks S256"],
        ),
    ],
)
async def test_each_difference_from_the_discovery_document_is_one_warning(
    provider: Provider,
    discovery: dict[str, Any],
    traits: dict[str, Any],
    expected: list[str],
    log: pytest.LogCaptureFixture,
) -> None:
    provider.discovery = discovery
    found = await make(provider, **traits).compare_discovery()
    warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == len(found) == len(expected)
    for sentence, part in zip(found, expected, strict=True):
        assert sentence.startswith(part)


@pytest.mark.parametrize("broken", [500, 404, "hang", "garbage"])
async def test_an_unreachable_discovery_document_is_one_warning(
    provider: Provider, broken: int | str, log: pytest.LogCaptureFixture
) -> None:
    provider.broken = {".well-known/openid-configuration": broken}
    assert await make(provider, discovery_timeout=0.3).compare_discovery() == []
    assert [record.levelname for record in log.records if record.name == "hub" and record.levelno > 20] == [
        "WARNING"
    ]


async def test_with_an_internal_address_either_address_is_fine(
    provider: Provider, log: pytest.LogCaptureFixture
) -> None:
    public = "http://login.localhost:8000/oidc/"
    authenticator = make(provider, issuer=public, internal_issuer=provider.issuer)
    assert authenticator.authorize_url == f"{public}authorize"
    assert authenticator.token_url == f"{provider.issuer}token"
    provider.discovery = {"issuer": public, "authorization_endpoint": f"{public}authorize"}
    provider.discovery |= {"end_session_endpoint": f"{public}endsession", "token_endpoint": f"{public}token"}
    assert await authenticator.compare_discovery() == []
    assert await log_in(authenticator, provider)


@pytest.mark.parametrize("broken", [503, "hang"])
async def test_a_login_during_an_outage_ends_on_the_outage_page(
    provider: Provider, broken: int | str
) -> None:
    provider.broken = {".well-known/openid-configuration": broken}
    authenticator = make(provider, discovery_timeout=0.3)
    results = await asyncio.gather(
        *(authenticator.require_reachable() for _ in range(5)), return_exceptions=True
    )
    assert [getattr(result, "kind", None) for result in results] == ["down"] * 5
    assert provider.requests[".well-known/openid-configuration"] == 1


@pytest.mark.parametrize("broken", [404, "garbage", None])
async def test_an_odd_discovery_document_stops_no_login(provider: Provider, broken: Any) -> None:
    provider.broken = {".well-known/openid-configuration": broken}
    authenticator = make(provider)
    for _ in range(3):
        await authenticator.require_reachable()
    assert provider.requests[".well-known/openid-configuration"] == 1


# Secrets and settings


@pytest.mark.parametrize("path", ["token", "userinfo"])
@pytest.mark.parametrize("broken", [400, 401, 403, 500, "garbage"])
async def test_a_gossiping_provider_puts_no_secret_into_log_or_error(
    provider: Provider, path: str, broken: int | str, log: pytest.LogCaptureFixture
) -> None:
    provider.broken = {path: broken}
    with pytest.raises(ProviderError) as caught:
        await log_in(make(provider), provider)
    error: BaseException | None = caught.value
    while error is not None:
        assert not [mark for mark in MARKS if mark in f"{error} {error!r} {error.args}"]
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("claims", [{"sub": None}, {"sub": ""}, {"sub": 7}])
async def test_userinfo_without_a_name_is_told_without_its_claims(
    provider: Provider, claims: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    provider.person = {**ADA, "ga4gh_passport_v1": [VISA]}
    provider.claims = claims
    authenticator = make(provider)
    with pytest.raises(ProviderError) as caught:
        await log_in(authenticator, provider)
    assert LoginProblem.from_provider(caught.value).kind == "unusable"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the secret hunter22 is wrong", "the secret [hidden] is wrong"),
        ("see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "see [hidden]"),
        ("two\nlines\x1b[0m", "two lines [0m"),
        ("client is disabled", "client is disabled"),
        ("x " * 500, ("x " * 100)),
    ],
)
def test_a_providers_words_are_made_fit_for_the_log(text: str, expected: str) -> None:
    assert redacted(text, ["hunter22"]) == expected


@pytest.mark.parametrize(
    ("traits", "told"),
    [
        ({"username_claim": "preferred_username"}, "another person can take over"),
        ({"username_claim": "email"}, "another person can take over"),
        ({"issuer": "login.example.org"}, "must be a web address"),
        ({"internal_issuer": "ftp://x/"}, "must be a web address"),
        ({"group_prefix": "a%zz"}, "group_prefix"),
        ({"scope": ["email"]}, "openid"),
        ({"group_roles": "perhaps"}, "group_roles"),
    ],
)
def test_wrong_settings_are_refused_with_a_reason(
    provider: Provider, traits: dict[str, Any], told: str
) -> None:
    with pytest.raises(TraitError, match=told):
        make(provider, **traits)


def test_defaults_are_ls_login_in_production() -> None:
    authenticator = LSLoginAuthenticator()
    base = "https://login.aai.lifescience-ri.eu/oidc"
    assert authenticator.issuer == f"{base}/"
    assert authenticator.authorize_url == f"{base}/authorize"
    assert authenticator.token_url == f"{base}/token"
    assert authenticator.userdata_url == f"{base}/userinfo"
    assert authenticator.end_session_url == f"{base}/endsession"
    assert authenticator.revocation_url == f"{base}/revoke"
    assert authenticator.username_claim == "sub"
    assert authenticator.manage_groups
    assert authenticator.enable_pkce
    assert authenticator.basic_auth
    assert not authenticator.userdata_from_id_token
    assert authenticator.login_service == "LS Login"


def test_the_secret_can_come_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "secret"
    path.write_text(" from-file\n")
    assert LSLoginAuthenticator(client_secret_file=str(path)).client_secret == "from-file"
    path.write_text("\n")
    with pytest.raises(TraitError, match="is empty"):
        LSLoginAuthenticator(client_secret_file=str(path)).client_secret  # noqa: B018
    with pytest.raises(TraitError, match="cannot be read: No such file"):
        LSLoginAuthenticator(client_secret_file=str(tmp_path / "none")).client_secret  # noqa: B018


def test_a_hub_without_client_id_does_not_start() -> None:
    with pytest.raises(TraitError, match="client_id is empty"):
        LSLoginAuthenticator(client_id="").get_handlers(None)


def test_the_docstring_lists_settings_that_exist() -> None:
    listed = re.findall(
        r"``(\w+)``", str(lslogin.__doc__).partition("Traits to set")[2].partition("Two addresses")[0]
    )
    listed = [name for name in listed if name.islower()]
    assert len(listed) > 30
    assert set(listed) <= set(LSLoginAuthenticator.class_trait_names(config=True))
