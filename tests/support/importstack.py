"""A stack of stand-ins for the tests of what speaks to core: the import of datasets, and the keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.importing import Stack
from tests.support.standin import local_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of stand-ins for all tests of a run; each file has datasets or users of its own."""
    with local_stack(tmp_path_factory.mktemp("stack")) as (local, issuer):
        yield Stack(local, issuer)
