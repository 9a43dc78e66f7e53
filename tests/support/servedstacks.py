"""The stack service on loopback, with a store in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stacks import Service, serving


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    """The service, for the tests of one file."""
    with serving() as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    """The service as if nobody had a stack."""
    running.clear()
    return running
