"""How much is missing on the nodes for a pod that fits on none of them."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone
from typing import Any

from ..blueprint.settings import StackSettings
from ..cluster.client import Kube, KubeError
from . import capacity

log = logging.getLogger(__name__)

# So long a list of the nodes and of what runs on them is good: many stacks may ask at the same time.
NODES_SECONDS = 10


class Shortage:
    """Compares what a component asks for with what the nodes have left.

    Args:
        kube: the API server.
        settings: the administrator's settings.
    """

    def __init__(self, kube: Kube, settings: StackSettings) -> None:
        self._kube, self._settings = kube, settings
        self._nodes: tuple[datetime, list[dict[str, Any]], list[dict[str, Any]]] | None = None
        self._listing_nodes = asyncio.Lock()

    async def of(self, size: str, component: str) -> str:
        """How much is missing; "" where the service may not see the nodes, or if it is not a matter of size."""
        try:
            async with self._listing_nodes:
                now = datetime.now(timezone.utc)
                if not self._nodes or (now - self._nodes[0]).total_seconds() > NODES_SECONDS:
                    self._nodes = (now, *await self._list_nodes())
        except KubeError as error:
            log.debug("Nodes cannot be read, sentences say less: %s", error)
            return ""
        part = self._settings.values.sizes[size]["components"][component]
        wanted = {"cpu": part["cpu"][0], "memory": part["memory"][0]}
        return capacity.missing(wanted, self._nodes[1], self._nodes[2])

    async def _list_nodes(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        nodes: list[dict[str, Any]] = []
        async for page, _ in self._kube.pages("Node"):
            nodes += [capacity.of_node(node) for node in page]
        pods: list[dict[str, Any]] = []
        placed = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
        async for page, _ in self._kube.pages("Pod", everywhere=True, fields=placed):
            pods += [capacity.of_pod(pod) for pod in page]
        return nodes, pods
