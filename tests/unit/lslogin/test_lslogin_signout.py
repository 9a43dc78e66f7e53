"""Who signs out, or in anew, in the very moment in which their tokens are renewed: the last word is theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.crypto import CryptKeeper

from cytomine_spawner.common.usertokens import NoToken
from cytomine_spawner.lslogin.authenticator import LSLoginAuthenticator
from cytomine_spawner.lslogin.oidc import ProviderError
from tests.support.lsloginfake import MARKS, Provider
from tests.support.lsloginhub import User, log_in, logged_in

pytest_plugins = ["tests.support.lsloginprovider"]


class Gate:
    """Holds whoever comes while something holds for what they bring."""

    def __init__(self, holds: Callable[[Any], bool]) -> None:
        self.holds, self.reached, self.go = holds, asyncio.Event(), asyncio.Event()

    async def through(self, brought: Any = None) -> None:
        if self.holds(brought):
            self.reached.set()
            await self.go.wait()


def writing(monkeypatch: pytest.MonkeyPatch, holds: Callable[[Any], bool]) -> Gate:
    """Holds an auth state before it is encrypted for the database."""
    gate, encrypt = Gate(holds), CryptKeeper.encrypt

    async def held(keeper: CryptKeeper, state: Any) -> bytes:
        await gate.through(state)
        return bytes(await encrypt(keeper, state))

    monkeypatch.setattr(CryptKeeper, "encrypt", held)
    return gate


def answering(monkeypatch: pytest.MonkeyPatch, authenticator: LSLoginAuthenticator) -> Gate:
    """Holds the answer of LS Login to a renewal."""
    gate, ask = Gate(lambda _: True), authenticator.get_token_info

    async def held(*args: Any) -> Any:
        found = await ask(*args)
        await gate.through()
        return found

    monkeypatch.setattr(authenticator, "get_token_info", held)
    return gate


async def to_renew(provider: Provider) -> tuple[LSLoginAuthenticator, User, dict[str, Any]]:
    """A user whose token is to be renewed, and what is kept of them."""
    authenticator, user = await logged_in(provider)
    state = user.auth_state
    state["token_response"]["expires_at"] = time.time() + 10
    user.auth_state = state
    return authenticator, user, state


def is_out(user: User) -> bool:
    return not [mark for mark in MARKS if mark in str(user.auth_state)]


async def all_revoked(authenticator: LSLoginAuthenticator, provider: Provider) -> bool:
    while authenticator._background:
        await asyncio.gather(*authenticator._background)
    return not (provider.refresh.keys() | provider.access.keys()) - {*provider.revoked, *provider.spent}


async def test_who_signs_out_while_a_renewed_token_is_written_stays_out(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, user, before = await to_renew(provider)
    gate = writing(
        monkeypatch, lambda state: state.get("access_token", before["access_token"]) != before["access_token"]
    )
    asking = asyncio.create_task(authenticator.archive.of(user))
    await asyncio.wait_for(gate.reached.wait(), 30)
    await authenticator.forget(user)
    gate.go.set()
    with pytest.raises(NoToken, match="You signed out of the hub"):
        await asking
    assert is_out(user)
    assert await all_revoked(authenticator, provider), "a login that nobody knows of goes on"


async def test_a_newer_login_is_not_overwritten_by_the_renewal_of_a_former_one(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, user, before = await to_renew(provider)
    newer = (await log_in(authenticator, provider))["auth_state"]
    gate = writing(
        monkeypatch,
        lambda state: state["access_token"] not in {before["access_token"], newer["access_token"]},
    )
    asking = asyncio.create_task(authenticator.archive.of(user))
    await asyncio.wait_for(gate.reached.wait(), 30)
    await user.save_auth_state(newer)
    gate.go.set()
    assert (await asking).value == newer["access_token"]
    assert user.auth_state == newer


async def test_a_sign_out_that_meets_a_renewal_ends_the_renewed_login_too(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, user, _ = await to_renew(provider)
    gate = writing(monkeypatch, lambda state: "access_token" not in state)
    leaving = asyncio.create_task(authenticator.forget(user))
    await asyncio.wait_for(gate.reached.wait(), 30)
    renewed = await authenticator.archive.of(user)
    gate.go.set()
    assert (await leaving)["access_token"] == renewed.value
    assert is_out(user)
    await asyncio.gather(*authenticator._background)
    assert {renewed.value, *provider.refresh} - provider.spent <= {*provider.revoked}


@pytest.mark.parametrize("by_program", [False, True])
async def test_the_hub_is_given_nothing_to_write_for_who_signed_out_while_ls_login_was_asked(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, by_program: bool
) -> None:
    """JupyterHub writes down what a refresh gives, without another look."""
    authenticator, user, _ = await to_renew(provider)
    gate = answering(monkeypatch, authenticator)
    handler = SimpleNamespace(_token_authenticated=by_program)
    asking = asyncio.create_task(authenticator.refresh_user(user, handler))
    await asyncio.wait_for(gate.reached.wait(), 30)
    await authenticator.forget(user)
    gate.go.set()
    assert await asking in (True, False)
    assert is_out(user)
    assert await all_revoked(authenticator, provider), "a login that nobody knows of goes on"


async def test_what_the_hub_writes_down_after_a_sign_out_opens_nothing(provider: Provider) -> None:
    """It encrypts what a refresh gave before it writes: a sign-out may come in between."""
    authenticator, user, _ = await to_renew(provider)
    model = await authenticator.refresh_user(user, SimpleNamespace(_token_authenticated=False))
    await authenticator.forget(user)
    await user.save_auth_state(model["auth_state"])
    assert await all_revoked(authenticator, provider), "a login that nobody knows of goes on"


async def test_a_renewal_that_could_not_be_looked_at_ends_with_the_sign_out(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, user, _ = await to_renew(provider)

    async def away(_: Any) -> Any:
        raise ProviderError(599, "LS Login does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(authenticator, "_token_to_auth_model", away)
        assert await authenticator.refresh_user(user) is True
    await authenticator.forget(user)
    assert await all_revoked(authenticator, provider), "a login that nobody knows of goes on"


async def test_the_hub_is_given_nothing_to_write_over_a_newer_login(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, user, _ = await to_renew(provider)
    newer = (await log_in(authenticator, provider))["auth_state"]
    gate = answering(monkeypatch, authenticator)
    asking = asyncio.create_task(
        authenticator.refresh_user(user, SimpleNamespace(_token_authenticated=False))
    )
    await asyncio.wait_for(gate.reached.wait(), 30)
    await user.save_auth_state(newer)
    gate.go.set()
    assert await asking is True
    # Programs get the newer one, too, though it was a former one that was renewed for them.
    assert (await authenticator.archive.of(user)).value == newer["access_token"]


async def renewing(
    authenticator: Any, user: Any, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch, unless: str
) -> tuple[Any, asyncio.Task[Any]]:
    """A token is asked for, and waits before the renewed tokens are written; tokens with that mark do not wait."""
    gate = writing(
        monkeypatch, lambda state: state["access_token"] != before["access_token"] and unless not in state
    )
    asking = asyncio.create_task(authenticator.archive.of(user))
    await asyncio.wait_for(gate.reached.wait(), 30)
    return gate, asking


async def test_what_the_hub_itself_has_renewed_meanwhile_is_given_and_nobody_is_signed_out(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator, user, before = await to_renew(provider)
    gate, asking = await renewing(authenticator, user, before, monkeypatch, "hub")
    model = await authenticator.refresh_user(user)
    await user.save_auth_state({**model["auth_state"], "hub": True})
    gate.go.set()
    assert (await asking).value == model["auth_state"]["access_token"] == user.auth_state["access_token"]
    assert user.auth_state["hub"]


async def test_a_renewed_token_is_kept_though_the_hub_noted_something_else_meanwhile(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh token is spent: the former tokens are worth nothing."""
    authenticator, user, before = await to_renew(provider)
    gate, asking = await renewing(authenticator, user, before, monkeypatch, "noted")
    await user.save_auth_state({**before, "noted": True})
    gate.go.set()
    renewed = await asking
    assert renewed.value == user.auth_state["access_token"] != before["access_token"]
