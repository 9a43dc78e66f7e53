"""Which unit tests run once for each version of JupyterHub, and what several files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from dev.rings.groups import HUB_CONTRACT
from dev.standin.local import Local
from tests.support.examples import THOROUGH, examples
from tests.support.gateway import Door, running
from tests.support.standin import Issuer, local_stack

CONTRACT = Path(__file__).parent / HUB_CONTRACT
# How long an example takes says how busy the machine is, where tests run side by side. A usual run tries the same examples
# each time: whoever changes something else must not meet a new one. A thorough one looks for new ones.
hypothesis.settings.register_profile(
    "unit",
    max_examples=examples(200),
    derandomize=not THOROUGH,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unit")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what is not wanted: it takes ten seconds."""
    if config.option.markexpr != "hub_contract" or collection_path.is_dir():
        return None
    return None if collection_path.is_relative_to(CONTRACT) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        if item.path.is_relative_to(CONTRACT):
            item.add_marker(pytest.mark.hub_contract)


@pytest.fixture(scope="session")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Local, Issuer]]:
    """A stack of stand-ins for all tests that make what they need in projects of their own."""
    with local_stack(tmp_path_factory.mktemp("standins")) as found:
        yield found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A gateway's real nginx, for the tests of one file."""
    with running(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture
def door(gateway: Door) -> Door:
    """The gateway as if nobody had come yet."""
    gateway.forget()
    return gateway
