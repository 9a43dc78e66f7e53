"""LS Login as an authenticator, against a provider on loopback: who may come in, what is kept, settings, logs."""

from __future__ import annotations

import asyncio
import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets import TraitError

from cytomine_spawner.lslogin import authenticator as lslogin
from cytomine_spawner.lslogin.authenticator import LSLoginAuthenticator, display_name
from cytomine_spawner.lslogin.oidc import ProviderError, redacted
from cytomine_spawner.lslogin.pages import LoginProblem
from tests.support.lsloginfake import ADA, ADMINS, BY, MARKS, ROOT, USERS, VISA, Provider
from tests.support.lsloginhub import NAME, log_in, make

pytest_plugins = ["tests.support.lsloginprovider"]


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
        ({"name": "ad\u2066min\u2069 \u200eA"}, "ad min A"),
        # what shows nothing is no name
        ({"name": "\u3164\u2800\u115f", "preferred_username": "ab"}, "ab"),
        ({"name": "A" + "\u0301" * 50 + "b"}, "\u00c1\u0301\u0301\u0301b"),
        ({"name": "\u0928\u092e\u0938\u094d\u0924\u0947"}, "\u0928\u092e\u0938\u094d\u0924\u0947"),
        # nor is what looks like another's account
        ({"name": "1@x", "preferred_username": "2\uff20x", "email": "a@b", "sub": "3@x"}, "a@b"),
        ({"name": "1@x", "sub": "3@x"}, "3@x"),
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


# Logout


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
