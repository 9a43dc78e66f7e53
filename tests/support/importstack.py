"""A stack of stand-ins for the tests of the import of datasets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.standin.local import Local
from tests.support.importing import Stack
from tests.support.standin import Issuer


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of stand-ins for all tests of a run; each has datasets of its own names."""
    issuer = Issuer()
    try:
        with Local(tmp_path_factory.mktemp("stack"), issuer.issuer, issuer.jwks).running() as local:
            yield Stack(local, issuer)
    finally:
        issuer.close()
