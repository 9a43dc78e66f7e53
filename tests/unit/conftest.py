"""Which unit tests need not run once for each version of JupyterHub."""

from __future__ import annotations

import pytest

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
    "test_render",
    "test_stack_kube",
    "test_standin",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    for item in items:
        place = str(item.path).rpartition("tests/unit/")[2]
        if place.startswith(HUB_INDEPENDENT):
            item.add_marker(pytest.mark.hub_independent)
