"""LS Login as an authenticator after the login: refresh, outage and logout, against a provider on loopback."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from cytomine_spawner.lslogin.authenticator import display_name
from tests.support.lsloginfake import ADA, ADMINS, BY, CLIENT, MARKS, ROOT, USERS, Provider
from tests.support.lsloginhub import NAME, User, logged_in, make

pytest_plugins = ["tests.support.lsloginprovider"]


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
    user.auth_state = {**user.auth_state, "checked_at": time.time() - 3601}
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
