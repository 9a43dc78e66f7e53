"""Secrets of the cluster, as the identity keeps its keys and sessions in them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Protocol

from ..stack.model import Stack, stack_labels
from .client import Kube, KubeError

# Not the operator's: these objects are not rendered, and must neither be tidied up nor wake a reconcile.
MANAGED_BY = "cytomine-identity"


def of_others(stack: str) -> str:
    """The selector of a stack's Secrets but the identity's own, in which what the hub gave it is sealed."""
    return f"app.kubernetes.io/instance={stack},app.kubernetes.io/managed-by!={MANAGED_BY}"


@dataclass(frozen=True)
class Record:
    """A Secret as it was read.

    Attributes:
        data: its values as text.
        version: for :meth:`Vault.replace`.
    """

    data: dict[str, str]
    version: str


class Vault(Protocol):
    """Reads and writes Secrets of one namespace. Every method may raise :class:`KubeError`."""

    async def read(self, name: str) -> Record | None:
        """A Secret; None if there is none of this name."""

    async def create(self, name: str, data: dict[str, str], owner: Stack | None = None) -> bool:
        """Make a Secret, which dies with its owner; False if there is one already."""

    async def replace(self, name: str, data: dict[str, str], version: str) -> str | None:
        """Set values of a Secret that nobody changed since it was read.

        Returns:
            The new version; None if it was changed or deleted meanwhile.
        """


class KubeVault:
    """A vault in a namespace.

    Args:
        kube: the API server and the namespace.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def read(self, name: str) -> Record | None:
        """See :class:`Vault`."""
        found = await self._kube.get("Secret", name)
        if found is None:
            return None
        data = {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}
        return Record(data, found["metadata"]["resourceVersion"])

    async def create(self, name: str, data: dict[str, str], owner: Stack | None = None) -> bool:
        """See :class:`Vault`."""
        labels = stack_labels(owner.name) if owner else {"app.kubernetes.io/name": "cytomine-identity"}
        meta: dict[str, Any] = {
            "name": name,
            "labels": {
                **labels,
                "app.kubernetes.io/component": "identity",
                "app.kubernetes.io/managed-by": MANAGED_BY,
            },
        }
        if owner:
            meta["ownerReferences"] = [owner.owner_reference]
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": meta}
        return await self._kube.create({**secret, "data": _encoded(data)})

    async def replace(self, name: str, data: dict[str, str], version: str) -> str | None:
        """See :class:`Vault`."""
        body = {"metadata": {"resourceVersion": version}, "data": _encoded(data)}
        try:
            changed = await self._kube.patch("Secret", name, body)
        except KubeError as error:
            if error.status == 409:
                return None
            raise
        return str(changed["metadata"]["resourceVersion"]) if changed else None


def _encoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
