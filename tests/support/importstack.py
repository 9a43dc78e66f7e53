"""A stack of stand-ins for the tests of the import of datasets."""

from __future__ import annotations

import pytest

from dev.standin.local import Local
from tests.support.importing import Stack
from tests.support.standin import Issuer


@pytest.fixture(scope="session")
def stack(standins: tuple[Local, Issuer]) -> Stack:
    """A stack of stand-ins for all tests of a run; each has datasets of its own names."""
    return Stack(*standins)
