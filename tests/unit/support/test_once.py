"""What the processes of a run of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import ORDER
from tests.support.once import once


def test_what_is_made_once_is_made_by_the_first_and_given_to_all(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"number": len(made)}

    name = tmp_path_factory.mktemp("shared").name
    assert [once(tmp_path_factory, f"{name}-thing", make) for _ in range(3)] == [{"number": 1}] * 3


def test_what_could_not_be_made_is_not_tried_again_and_all_are_told_why(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tries = []

    def make() -> None:
        tries.append(1)
        raise OSError("no room")

    name = tmp_path_factory.mktemp("shared").name
    with pytest.raises(OSError, match="no room"):
        once(tmp_path_factory, f"{name}-thing", make)
    with pytest.raises(pytest.fail.Exception, match=r"could not make .*: OSError: no room"):
        once(tmp_path_factory, f"{name}-thing", make)
    assert len(tries) == 1


def test_each_file_of_the_cluster_ring_has_its_turn() -> None:
    files = list(ORDER)
    there = Path(__file__).parents[2] / "cluster"
    assert sorted(files) == sorted(path.name for path in there.glob("test_*.py"))
