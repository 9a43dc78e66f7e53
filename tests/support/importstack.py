"""A stack of stand-ins for the tests of what speaks to core: the import of datasets, and the keys."""

from __future__ import annotations

import pytest

from dev.standin.local import Local
from tests.support.importing import Stack
from tests.support.standin import Issuer


@pytest.fixture(scope="session")
def stack(standins: tuple[Local, Issuer]) -> Stack:
    """A stack of stand-ins for all tests of a run; each file has datasets or users of its own."""
    return Stack(*standins)
