"""The notebooks that teach against Cytomine's own servers, twice: the second run removes what the first one stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.test_notebooks import EXPECTED
from tests.real.covered import LIST
from tests.support import podbooks, requestlist
from tests.support.lab import Lab
from tests.support.notebooks import paths


@pytest.mark.parametrize("turn", ["first", "second"])
@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in paths()])
def test_a_notebook_runs_and_is_as_right_as_on_the_stand_in(analyst: Lab, path: Path, turn: str) -> None:
    done = podbooks.execute(analyst, path, noted=True)
    # Beside Cytomine they ask the hub and the archive, which are ours.
    asked = [one for one in done.requests if f"//{analyst.name}-gateway" in one[2]]
    requestlist.keep(requestlist.kinds("client", asked), LIST)
    print(f"\n{path.stem}, {turn} run: {done.seconds:.0f} s, {done.peak_mib:.0f} MiB: {done.result}")  # noqa: T201
    EXPECTED[path.name[:2]](done.result)
