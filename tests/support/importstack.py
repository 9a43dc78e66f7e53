"""A stack of stand-ins for the tests of the import of datasets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.importing import Stack
from tests.support.standin import local_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of stand-ins for all tests of a run; each has datasets of its own names."""
    with local_stack(tmp_path_factory.mktemp("stack")) as (local, issuer):
        yield Stack(local, issuer)
