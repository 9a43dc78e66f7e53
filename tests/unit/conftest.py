"""Which unit tests need not run once for each version of JupyterHub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from dev.standin.local import Local
from tests.support.gateway import Door, running
from tests.support.standin import Issuer, local_stack

# How long an example takes says how busy the machine is, where tests run side by side.
hypothesis.settings.register_profile(
    "unit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unit")

# Nothing of JupyterHub, KubeSpawner or HubOAuth runs in them: the chart's text, the gateway's nginx, the stand-ins, the
# development commands, the notebook's library, and the pure functions of the stacks.
HUB_INDEPENDENT = (
    "notebook/",
    "test_chart",
    "test_dataset",
    "test_dev_",
    "test_diagnose",
    "test_gateway.py",
    "test_gateway_attacks",
    "test_gateway_client",
    "test_gateway_login",
    "test_images",
    "test_looks",
    "test_render",
    "test_stack_kube",
    "test_standin",
)


def is_independent(path: Path) -> bool:
    """Whether a file's tests are the same with every version of JupyterHub."""
    return str(path).rpartition("tests/unit/")[2].startswith(HUB_INDEPENDENT)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what is not wanted: it takes ten seconds."""
    wanted = {"hub_independent": True, "not hub_independent": False}.get(config.option.markexpr)
    if wanted is None or collection_path.is_dir():
        return None
    return None if is_independent(collection_path) == wanted else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        if is_independent(item.path):
            item.add_marker(pytest.mark.hub_independent)


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
