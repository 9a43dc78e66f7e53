"""Sessions of a stack: one use of a code, one chain of refresh tokens, one Secret that stays small."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.identity import grants
from cytomine_spawner.identity.grants import Grants, Ledger, Limits, Reused, Session
from tests.support.identity import Clock, FakeVault
from tests.support.stacks import a_stack

SECRET = "cm-ada-sessions"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "SOON", 0.01)
    monkeypatch.setattr(grants, "LATER", 0.02)


def ledger(clock: Clock, **limits: Any) -> Ledger:
    return Ledger([], Limits(**limits), lambda _: None, clock)


def begin(book: Ledger, user: str = "ada", login: str = "a login") -> tuple[Session, str]:
    return book.begin(
        seal=lambda id_: f"sealed for {id_}",
        client="core",
        user=user,
        login=login,
        scopes=["openid"],
        nonce="n",
        redirect=grants.digest("https://cm-ada.stacks.example.org/"),
        challenge="c" * 43,
    )


def begun(book: Ledger, user: str = "ada", login: str = "a login") -> Session:
    session, _ = begin(book, user, login)
    book.advance(session)
    return session


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> None:
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), 10)


def test_a_code_lives_for_a_minute(clock: Clock) -> None:
    book = ledger(clock)
    session, code = begin(book)
    assert book.by_code(code) is session
    assert book.get(session.id) is None
    clock.now += 60
    assert book.by_code(code) is None


def test_a_code_that_is_shown_again_ends_its_session(clock: Clock) -> None:
    book = ledger(clock)
    session, code = begin(book)
    book.advance(session)
    assert book.get(session.id) is session
    with pytest.raises(Reused):
        book.by_code(code)
    assert book.get(session.id) is None


def test_the_number_before_the_last_is_good_for_some_seconds_and_changes_nothing(clock: Clock) -> None:
    book = ledger(clock)
    session = begun(book)
    book.advance(session, 1)
    clock.now += grants.GRACE_SECONDS
    book.check(session, 1)
    book.advance(session, 1)
    assert session.number == 2
    clock.now += 1
    with pytest.raises(Reused):
        book.check(session, 1)
    assert book.get(session.id) is None


def test_a_number_that_a_crash_made_the_service_forget_is_taken_up(clock: Clock) -> None:
    book = ledger(clock)
    session = begun(book)
    book.check(session, 7)
    book.advance(session, 7)
    assert session.number == 8


def test_a_session_ends_by_its_age_and_by_idleness(clock: Clock) -> None:
    book = ledger(clock, lifetime=1000, idle=300)
    session = begun(book)
    for number in (1, 2, 3):
        clock.now += 299
        assert book.get(session.id)
        book.advance(session, number)
    clock.now += 103
    assert book.get(session.id) is None
    other = begun(book)
    clock.now += 300
    assert book.get(other.id) is None


def test_the_oldest_of_a_user_gives_way_and_never_another_users(clock: Clock) -> None:
    book = ledger(clock, per_user=3)
    adas = begun(book, "ada")
    bobs = []
    for _ in range(5):
        clock.now += 1
        bobs.append(begun(book, "bob"))
    assert [bool(book.get(s.id)) for s in bobs] == [False, False, True, True, True]
    assert book.get(adas.id)


def test_in_a_full_stack_whoever_has_most_gives_way(clock: Clock) -> None:
    book = ledger(clock, per_user=50, per_stack=20)
    few = [begun(book, f"user{n}") for n in range(5)]
    for _ in range(40):
        clock.now += 1
        begun(book, "bob")
    assert all(book.get(s.id) for s in few)
    assert len(json.loads(book.dump())) == 20


def test_even_a_full_stack_fits_into_a_secret(clock: Clock) -> None:
    book = ledger(clock)
    for n in range(Limits().per_stack):
        session, _ = book.begin(
            seal=lambda _: "k" * 43 + "." + "x" * 100,
            client="gateway",
            # No name of the hub is longer, and no character longer than this one.
            user=f"{n:0240d}" + "\N{GRINNING FACE}" * 15,
            login="l" * 64,
            scopes=["openid", "profile", "email"],
            nonce="n" * 128,
            redirect=grants.digest(""),
            challenge="c" * 43,
        )
        book.advance(session)
    assert len(json.loads(book.dump())) == Limits().per_stack
    assert len(book.dump().encode()) < 500_000


def test_a_logout_ends_what_came_from_the_same_login_only(clock: Clock) -> None:
    book = ledger(clock)
    one, same, other = begun(book), begun(book), begun(book, login="another")
    pending, code = begin(book)
    bobs = begun(book, "bob")
    assert book.end_login(one) == 3
    assert [bool(book.get(s.id)) for s in (one, same, other, bobs)] == [False, False, True, True]
    assert book.by_code(code) is None
    assert pending.pending


async def test_what_changes_is_written_in_one_go_and_read_again() -> None:
    vault, stack = FakeVault(), a_stack("ada")
    books = Grants(vault)
    book = await books.of(stack)
    sessions = [begun(book) for _ in range(5)]
    await until(lambda: vault.writes > 0)
    assert vault.writes == 1
    assert vault.owners[SECRET] is stack
    again = await Grants(vault).of(stack)
    assert again.get(sessions[0].id) == sessions[0]
    book.end(sessions[0])
    await books.flush()
    assert (await Grants(vault).of(stack)).get(sessions[0].id) is None


async def test_an_outage_of_the_api_server_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "MOST_PAUSE", 0.01)
    vault, stack = FakeVault(), a_stack("ada")
    books = Grants(vault)
    book = await books.of(stack)
    vault.silent = True
    before, session = vault.asked, begun(book)
    await until(lambda: vault.asked > before)
    with pytest.raises(KubeError):
        await Grants(vault).of(stack)
    vault.silent = False
    await books.flush()
    assert (await Grants(vault).of(stack)).get(session.id)


async def test_two_processes_of_an_update_keep_each_others_sessions_and_ends() -> None:
    vault, stack = FakeVault(), a_stack("ada")
    old, new = Grants(vault), Grants(vault)
    one = await old.of(stack)
    ended, kept = begun(one), begun(one)
    await old.flush()
    other = await new.of(stack)
    late = begun(one)
    one.end(ended)
    await old.flush()
    fresh = begun(other)
    other.advance(other.get(kept.id), 1)
    other.end(other.get(ended.id))
    await new.flush()
    final = await Grants(vault).of(stack)
    assert final.get(late.id)
    assert final.get(fresh.id)
    assert final.get(kept.id).number == 2
    assert final.get(ended.id) is None


async def test_a_deleted_secret_is_made_anew_and_a_damaged_one_read_as_empty() -> None:
    vault, stack = FakeVault(), a_stack("ada")
    books = Grants(vault)
    book = await books.of(stack)
    first = begun(book)
    await books.flush()
    del vault.secrets[SECRET]
    second = begun(book)
    await books.flush()
    read = await Grants(vault).of(stack)
    assert read.get(first.id)
    assert read.get(second.id)
    vault.put(SECRET, **{"sessions.json": "nonsense", "stack-uid": stack.uid})
    assert (await Grants(vault).of(stack)).get(first.id) is None


async def test_a_stack_that_was_made_anew_starts_without_sessions() -> None:
    vault = FakeVault()
    books = Grants(vault)
    session = begun(await books.of(a_stack("ada")))
    await books.flush()
    young = a_stack("ada", uid="another")
    assert (await books.of(young)).get(session.id) is None
    assert (await Grants(vault).of(young)).get(session.id) is None
