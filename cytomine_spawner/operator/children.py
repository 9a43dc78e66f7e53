"""The stacks' children in memory, kept up to date by one watch a kind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..cluster.client import Kube
from ..stack.model import MANAGED_BY
from . import observe
from .observe import Child, Family, Pod, Warnings

log = logging.getLogger(__name__)

LABEL = f"app.kubernetes.io/managed-by={MANAGED_BY}"
WHOLE = ("Pod", "Deployment", "StatefulSet", "PersistentVolumeClaim", "Job")
METADATA = ("ConfigMap", "Ingress", "NetworkPolicy", "Secret", "Service")
KINDS = WHOLE + METADATA


class Children:
    """What belongs to the stacks, by stack.

    Args:
        kube: the API server.
        changed: called with a stack's name when anything of it changed.
    """

    def __init__(self, kube: Kube, changed: Callable[[str], None]) -> None:
        self.warnings = Warnings()
        self.synced = asyncio.Event()
        self._kube = kube
        self._changed = changed
        self._families: dict[str, Family] = {}
        self._stack_of: dict[tuple[str, str], str] = {}
        self._listed: set[str] = set()

    def family(self, stack: str) -> Family:
        """The children of a stack; empty if none are known."""
        return self._families.get(stack) or Family()

    def stacks(self) -> list[str]:
        """The names of all stacks that have children."""
        return [name for name, family in self._families.items() if not family.empty]

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.gather(*(self._watch(kind) for kind in KINDS), self._watch_warnings())

    async def _watch(self, kind: str) -> None:
        async for event, obj in self._kube.watch(kind, labels=LABEL, metadata_only=kind in METADATA):
            if event == "LISTED":
                self._keep_only(kind, obj["names"])
                self._listed.add(kind)
                if self._listed >= set(KINDS):
                    self.synced.set()
            elif event == "DELETED":
                self.remove(kind, obj["metadata"]["name"])
            else:
                self.put(kind, obj)

    async def _watch_warnings(self) -> None:
        async for event, obj in self._kube.watch("Event", fields="type=Warning"):
            # An event's own deletion, an hour later, says nothing of what it was about.
            if event in ("LISTED", "DELETED"):
                continue
            found = observe.warning(obj)
            self.warnings.add(found)
            stack = self._stack_of.get((found.kind, found.name))
            if stack:
                self._changed(stack)

    def _keep_only(self, kind: str, names: set[str]) -> None:
        for known, name in list(self._stack_of):
            if known == kind and name not in names:
                self.remove(kind, name)

    def put(self, kind: str, obj: dict[str, Any]) -> None:
        """Remember an object as it is now."""
        meta = obj["metadata"]
        stack = (meta.get("labels") or {}).get("app.kubernetes.io/instance")
        if not stack:
            return
        family = self._families.setdefault(stack, Family())
        self._stack_of[kind, meta["name"]] = stack
        old: Pod | Child | None
        new: Pod | Child
        if kind == "Pod":
            new = observe.pod(obj)
            old, family.pods[new.name] = family.pods.get(new.name), new
        else:
            new = observe.child(kind, obj)
            old = family.children.get((kind, new.name))
            if old and old.uid == new.uid and old.version > new.version:
                # The watch is behind the answer to our own apply.
                return
            family.children[kind, new.name] = new
        if new != old:
            self._changed(stack)

    def remove(self, kind: str, name: str) -> None:
        """Forget an object that is gone."""
        stack = self._stack_of.pop((kind, name), None)
        family = self._families.get(stack) if stack else None
        if stack is None or family is None:
            return
        self.warnings.forget(kind, name)
        if kind == "Pod":
            family.pods.pop(name, None)
        else:
            family.children.pop((kind, name), None)
        if family.empty:
            del self._families[stack]
        self._changed(stack)
