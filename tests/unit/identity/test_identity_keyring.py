"""The keys of the stacks' tokens: made once, rotated without a gap, readable by nobody else."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cytomine_spawner.identity.keyring import InvalidToken, Keyring, KeyringError
from tests.support.identity import Clock, FakeVault

NAME = "keys"
AGE, OVERLAP = 10_000.0, 600.0
ISSUER = "https://hub.example.org/services/cytomine/cm-ada/iam/realms/cytomine"


STOCK: list[rsa.RSAPrivateKey] = []


@pytest.fixture(autouse=True)
def _from_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test the keys that others have had, no key twice: to make one takes a tenth of a second."""
    numbers, make = itertools.count(), rsa.generate_private_key

    def generate(**settings: int) -> rsa.RSAPrivateKey:
        number = next(numbers)
        while len(STOCK) <= number:
            STOCK.append(make(**settings))
        return STOCK[number]

    monkeypatch.setattr(rsa, "generate_private_key", generate)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ring(vault: FakeVault, clock: Clock) -> Keyring:
    return Keyring(vault, NAME, age=AGE, overlap=OVERLAP, clock=clock)


def kids(keyring: Keyring) -> list[str]:
    return [key["kid"] for key in keyring.jwks()["keys"]]


async def test_the_keys_are_made_once_and_found_again(clock: Clock) -> None:
    vault = FakeVault()
    first, again = ring(vault, clock), ring(vault, clock)
    assert not first.ready
    await first.load()
    await again.load()
    assert first.ready
    assert kids(first) == kids(again)
    assert vault.writes == 1


async def test_processes_that_start_together_agree_on_one_key(clock: Clock) -> None:
    vault = FakeVault()
    rings = [ring(vault, clock) for _ in range(3)]
    await asyncio.gather(*(each.load() for each in rings))
    assert len({kids(each)[0] for each in rings}) == 1
    assert vault.writes == 1


async def test_a_new_key_is_known_to_all_before_it_signs_and_the_old_one_after(clock: Clock) -> None:
    keyring = ring(FakeVault(), clock)
    await keyring.load()
    first = keyring.current.kid
    clock.now += AGE
    assert keyring.due() == 0
    await keyring.load()
    assert len(kids(keyring)) == 2
    assert keyring.current.kid == first
    clock.now += OVERLAP
    second = keyring.current.kid
    assert second != first
    assert set(kids(keyring)) == {first, second}
    clock.now += AGE
    await keyring.load()
    assert first not in kids(keyring)
    assert second in kids(keyring)


async def test_processes_that_rotate_together_agree_on_one_key(clock: Clock) -> None:
    vault = FakeVault()
    rings = [ring(vault, clock) for _ in range(3)]
    await asyncio.gather(*(each.load() for each in rings))
    clock.now += AGE
    await asyncio.gather(*(each.load() for each in rings))
    assert len({tuple(kids(each)) for each in rings}) == 1
    assert vault.writes == 2


async def test_what_was_sealed_is_read_in_its_context_until_its_key_is_gone(clock: Clock) -> None:
    keyring = ring(FakeVault(), clock)
    await keyring.load()
    sealed = keyring.seal("a token of the hub", "stack session")
    assert "hub" not in sealed
    assert keyring.unseal(sealed, "stack session") == "a token of the hub"
    assert keyring.unseal(sealed, "another session") is None
    # Not the last letter: some of its bits say nothing.
    changed = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for broken in ("", "x", sealed[:-2], changed, sealed.replace(".", ".A"), "kid." + sealed):
        assert keyring.unseal(broken, "stack session") is None
    clock.now += AGE
    await keyring.load()
    assert keyring.unseal(sealed, "stack session") == "a token of the hub"
    clock.now += AGE
    await keyring.load()
    assert keyring.unseal(sealed, "stack session") is None


async def test_private_tokens_serve_one_purpose_and_are_no_public_ones(clock: Clock) -> None:
    keyring = ring(FakeVault(), clock)
    await keyring.load()
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": ISSUER, "sub": "x", "iat": now, "exp": now + 60}
    token = keyring.sign_private(claims, "refresh")
    assert keyring.verify_private(token, "refresh", issuer=ISSUER)["sub"] == "x"
    with pytest.raises(InvalidToken):
        keyring.verify_private(token, "other", issuer=ISSUER)
    with pytest.raises(InvalidToken):
        keyring.verify_private(token, "refresh", issuer=ISSUER + "x")
    with pytest.raises(InvalidToken):
        keyring.verify(token, issuer=ISSUER, audience=ISSUER)
    with pytest.raises(InvalidToken):
        keyring.verify_private(keyring.sign(claims), "refresh", issuer=ISSUER)


async def test_an_expired_token_is_read_only_where_that_is_asked_for(clock: Clock) -> None:
    keyring = ring(FakeVault(), clock)
    await keyring.load()
    token = keyring.sign({"iss": ISSUER, "aud": "core", "sub": "x", "iat": 1, "exp": 2})
    with pytest.raises(InvalidToken):
        keyring.verify(token, issuer=ISSUER, audience="core")
    assert keyring.verify(token, issuer=ISSUER, audience=None, expired=True)["sub"] == "x"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nonsense", '[{"private": "x", "created": 1}]', '[{"created": 1}]']
)
async def test_a_damaged_secret_is_told_of_with_the_cure_and_without_its_contents(
    clock: Clock, text: str
) -> None:
    vault = FakeVault()
    vault.put(NAME, **{"keys.json": text})
    with pytest.raises(KeyringError, match="Delete it") as caught:
        await ring(vault, clock).load()
    assert caught.value.__cause__ is None


async def test_nothing_published_or_logged_is_private(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keyring = ring(FakeVault(), clock)
    await keyring.load()
    clock.now += AGE
    await keyring.load()
    for key in keyring.jwks()["keys"]:
        assert key.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    assert "rotate" in caplog.text
    assert "PRIVATE" not in caplog.text + json.dumps(keyring.jwks()) + repr(keyring.current)
    assert str(keyring.current.private.private_numbers().d) not in repr(keyring.current)


def test_before_the_keys_are_read_nothing_is_signed(clock: Clock) -> None:
    with pytest.raises(KeyringError):
        ring(FakeVault(), clock).sign({})
