"""Which dataset a pod imports, and the token of its stack's owner for it."""

from __future__ import annotations

from typing import Any

from ..cluster.client import Kube
from ..common.storageurls import SCHEME
from ..stack import model
from ..stack.components import DATASETS
from .hubapi import Hub
from .podidentity import PodIdentity, Stranger


class ImportTokens:
    """Gives imports the tokens of their stacks' owners.

    Args:
        kube: the API server.
        hub: the hub's API.
    """

    def __init__(self, kube: Kube, hub: Hub) -> None:
        self._identity, self._hub = PodIdentity(kube), hub

    async def dataset(self, stack: str, token: str) -> str:
        """The dataset that a pod imports into a stack.

        Raises:
            Stranger: it does no such thing.
            KubeError: the API server does not answer.
        """
        pod = await self._identity.pod(token)
        meta, wanted = pod["metadata"], model.child_labels(stack, DATASETS)
        labels = meta.get("labels") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            raise Stranger("the token is of another pod than one that imports into this stack")
        if (pod.get("status") or {}).get("phase") not in ("Pending", "Running"):
            raise Stranger("the import has ended")
        dataset = str((meta.get("annotations") or {}).get(model.ANNOTATION_DATASET) or "")
        if not dataset.startswith(SCHEME):
            raise Stranger("the import is of no dataset of the archive")
        return dataset

    async def token(self, stack: model.Stack, dataset: str, refused: str) -> tuple[int, dict[str, Any]]:
        """The hub's answer, for the owner of a stack.

        Raises:
            StoreError: the hub does not answer.
        """
        return await self._hub.archive_token(stack, dataset, refused)
