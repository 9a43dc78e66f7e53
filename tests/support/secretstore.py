"""The API server as far as Secrets and NetworkPolicies go, in memory."""

from __future__ import annotations

import copy
from typing import Any

from cytomine_spawner.cluster.client import KubeError


class FakeSecrets:
    """Keeps Secrets by name, and NetworkPolicies.

    Attributes:
        there: the Secrets.
        policies: the NetworkPolicies.
        refuses: when set, every call fails with this status.
    """

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.patched: list[tuple[str, str, dict[str, Any]]] = []
        self.refuses = 0

    def _check(self) -> None:
        if self.refuses:
            raise KubeError(self.refuses, "Forbidden", "secrets is forbidden")

    async def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        self._check()
        place = {"Secret": self.there, "NetworkPolicy": self.policies}[obj["kind"]]
        place[obj["metadata"]["name"]] = copy.deepcopy(obj)
        return obj

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        self._check()
        place = {"Secret": self.there, "NetworkPolicy": self.policies}[kind]
        return copy.deepcopy(place.get(name))

    async def delete(self, kind: str, name: str, **_: Any) -> None:
        self._check()
        {"Secret": self.there, "NetworkPolicy": self.policies}[kind].pop(name, None)

    async def list(self, kind: str, *, labels: str) -> tuple[list[dict[str, Any]], str]:
        self._check()
        assert kind == "Secret"
        wanted = dict(pair.split("=") for pair in labels.split(","))
        found = [o for o in self.there.values() if wanted.items() <= o["metadata"]["labels"].items()]
        return copy.deepcopy(found), "1"

    async def patch(self, kind: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check()
        self.patched.append((kind, name, body))
        return body
