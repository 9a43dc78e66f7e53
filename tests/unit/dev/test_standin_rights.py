"""Who may read an ontology of the stand-in: as upstream, by its number alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from dev.standin import ontologies


@dataclass
class Someone:
    id: int = 7
    admin: bool = False


@pytest.mark.parametrize(
    ("who", "number", "may"),
    [(Someone(), 2, True), (Someone(), 1, False), (Someone(admin=True), 1, True)],
    ids=["another", "the first of all, whose number is a storage's", "the first, an administrator"],
)
async def test_a_member_of_a_project_reads_its_ontology_but_not_the_first_of_all(
    monkeypatch: pytest.MonkeyPatch, who: Any, number: int, may: bool
) -> None:
    async def one(_: Any, statement: str, *values: Any) -> dict[str, int] | None:
        return {"?column?": 1} if statement.startswith(ontologies.MEMBER) else None

    monkeypatch.setattr(ontologies, "one", one)
    conn: Any = None
    assert await ontologies.readable(conn, who, number) is may
