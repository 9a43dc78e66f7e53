"""The stand-in for Cytomine answers as the real one was recorded to answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.playing import in_order
from tests.support.recordings import Exchange, Player, load
from tests.support.standin import local_stack, slides

README = Path(__file__).resolve().parents[3] / "dev" / "standin" / "README.md"
EXCHANGES = load()
GROUPS = sorted({e.group for e in EXCHANGES})
# Answers that are compared but for these fields, and why; README.md lists them, too.
WAIVED = {
    "health: pims: formats": {"body.items", "body.size"},  # fewer formats than upstream
    "projects: create: missing name": {"body.errors"},  # upstream shows text of its database
    "annotation-terms: fetch after delete": {
        "body.errors.message"
    },  # upstream dumps an object of its language
}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """What differs, by the exchange's name, after all exchanges were played in their order."""
    folder = tmp_path_factory.mktemp("contract")
    files = folder / "files"
    files.mkdir()
    with local_stack(folder) as (stack, issuer):
        services = {role: f"http://127.0.0.1:{port}" for role, port in stack.ports.items()}
        player = Player(stack.url, services, issuer, slides(files))
        found = {e.name: player.play(e) for e in in_order(player)}
        for role in ("core", "repository", "pims"):
            assert "Traceback" not in stack.log(role), stack.log(role)[-4000:]
        yield found


def open_problems(exchange: Exchange, found: list[str]) -> list[str]:
    """What differs, but for what is waived."""
    waived = WAIVED.get(exchange.name, set())
    return [text for text in found if text.split(":", 1)[0] not in waived]


def test_the_recordings_are_all_there() -> None:
    assert len(EXCHANGES) == 665
    assert len({e.name for e in EXCHANGES}) == 665
    assert [e.data["n"] for e in EXCHANGES] == list(range(665))


@pytest.mark.parametrize("group", GROUPS)
def test_answers_have_the_recorded_status_headers_shape_types_and_values(
    group: str, differences: dict[str, list[str]]
) -> None:
    bad = []
    for exchange in (e for e in EXCHANGES if e.group == group):
        bad += [f"{exchange.name}: {text}" for text in open_problems(exchange, differences[exchange.name])]
    assert not bad, "\n".join(bad)


def test_a_waiver_is_needed_where_it_stands(differences: dict[str, list[str]]) -> None:
    for name, fields in WAIVED.items():
        found = {text.split(":", 1)[0] for text in differences[name]}
        assert found, name
        assert found <= fields, name


def test_the_readme_counts_what_is_compared() -> None:
    rows = re.findall(r"^\| ([a-z-]+) \| (\d+) \| (\d+) \| (\d+) \|", README.read_text(), re.MULTILINE)
    stated = {name: tuple(int(n) for n in numbers) for name, *numbers in rows}
    total = Counter(e.group for e in EXCHANGES)
    part = Counter(e.group for e in EXCHANGES if e.name in WAIVED)
    faults = Counter(e.group for e in EXCHANGES if "fault" in e.data)
    assert stated == {g: (total[g], part[g], faults[g]) for g in GROUPS}


def test_the_recordings_hold_no_key_or_token() -> None:
    text = "".join(
        path.read_text() for path in (Path(__file__).parents[1] / "standin_recordings").glob("*.jsonl")
    )
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", text)
    assert not re.search(r"eyJ[\w-]{10,}", text)
