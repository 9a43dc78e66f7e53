"""How long what fails for a moment is tried again."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import aiohttp
import pytest

from cytomine_spawner.archive import Unreachable, http, patience
from cytomine_spawner.archive.errors import Temporary
from cytomine_spawner.archive.patience import Patience

AWAY, FAULT = Temporary("the archive answers 503"), Temporary("the archive answers 500", tries=4)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have been waited."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    return found


async def test_a_fault_after_a_long_outage_has_all_of_its_own_tries(pauses: list[float]) -> None:
    """An archive that starts anew answers so."""
    waits = Patience(3600, "Reading")
    for failure in (*[AWAY] * 20, *[FAULT] * 3, AWAY, *[FAULT] * 3):
        await waits.pause(failure)
    with pytest.raises(Unreachable, match="28 tries"):
        await waits.pause(FAULT)


async def test_an_archive_that_asks_to_be_asked_again_at_once_is_not_asked_all_the_time(
    pauses: list[float],
) -> None:
    waits = Patience(3600, "Reading")
    for _ in range(10):
        await waits.pause(Temporary("the archive answers 503", retry_after=0.0))
    assert min(pauses[-5:]) >= 0.5


def test_a_server_of_names_that_is_away_is_waited_for_and_a_name_that_is_none_is_not() -> None:
    key = SimpleNamespace(host="archive.example.org", port=443, ssl=True)
    for number, tries in ((socket.EAI_AGAIN, 1000), (socket.EAI_NONAME, 5)):
        error = aiohttp.ClientConnectorDNSError(key, socket.gaierror(number, "no answer"))  # type: ignore[arg-type]
        assert http._temporary(error).tries == tries


@pytest.mark.parametrize("form", ["{}", '{{"detail": "{}"}}'])
def test_no_part_of_a_token_is_told_though_what_was_answered_is_cut_within_it(form: str) -> None:
    token = "5a7325318b53438da6201174bd11405d"
    body = form.format(f"{'x' * 190} {token}").encode()
    assert token[:4] not in http._detail(body, token)
