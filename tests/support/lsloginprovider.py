"""A provider on loopback for the tests of LS Login, and a log in which no secret may be."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.support.lsloginfake import MARKS, Provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The provider."""
    with Provider() as running:
        yield running


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log at its most talkative; no test may leave a secret in it."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    for record in caplog.get_records("call"):
        text = record.getMessage() + (record.exc_text or "") + str(record.exc_info or "")
        if record.name != "asyncio":
            assert not [mark for mark in MARKS if mark in text], text
