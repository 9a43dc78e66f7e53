"""Bringing a stack's objects to what they should be: only what is missing or different is sent."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..blueprint import render, secretdata
from ..blueprint.settings import StackSettings
from ..cluster.client import Kube
from ..stack import model
from ..stack.model import ANNOTATION_DIGEST, ANNOTATION_KEPT, Import, Stack
from . import observe
from .children import Children
from .clock import Clock
from .observe import Child

log = logging.getLogger(__name__)

# Stacks whose objects are sent at the same time. The API server takes no more at a time anyway, and so each stack
# is there as a whole early on, not all of them in pieces until the last moment.
TURNS = 4
# Somebody who changes the same object again and again is answered only this often.
CORRECTION_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Planned:
    """One object that should be there."""

    kind: str
    name: str
    digest: str


class Blocked(Exception):
    """Something must go before the stack can be brought up; the text is for its owner."""


class Applier:
    """Creates, updates and removes the children of stacks."""

    def __init__(
        self, kube: Kube, children: Children, settings: StackSettings, clock: Clock | None = None
    ) -> None:
        self._kube, self._children, self._settings = kube, children, settings
        self._clock = clock or Clock()
        self._plans: dict[str, tuple[tuple[Any, ...], list[Planned]]] = {}
        self._seen: dict[str, dict[tuple[str, str], tuple[str, int]]] = {}
        self._corrected: dict[str, dict[tuple[str, str], datetime]] = {}
        self._turns = asyncio.Semaphore(TURNS)

    def plan(self, stack: Stack, importing: Import | None = None) -> list[Planned]:
        """What should be there, with digests; remembered until the spec, what is imported or whether it serves changes.

        Raises:
            render.Invalid: the spec asks for what is not offered.
        """
        key = (stack.uid, stack.spec, importing, stack.is_open)
        known = self._plans.get(stack.name)
        if known and known[0] == key:
            return known[1]
        objects = render.render(stack, self._settings, importing)
        plan = [Planned(o["kind"], o["metadata"]["name"], render.digest(o)) for o in objects]
        self._plans[stack.name] = (key, plan)
        return plan

    def forget(self, name: str) -> None:
        """Drop the plan of a stack that is gone."""
        self._plans.pop(name, None)
        self._seen.pop(name, None)
        self._corrected.pop(name, None)

    async def apply(
        self, stack: Stack, importing: Import | None = None, *, anew: bool = False
    ) -> datetime | None:
        """Bring all objects to what they should be, also what others changed by hand.

        Args:
            stack: the stack.
            importing: the datasets that are to be put into it now, if any.
            anew: send everything, even what seems to be in place.

        Returns:
            When to come again, if something was left for later.

        Raises:
            Blocked: children of a former stack of this name are still there.
            kube.KubeError: the API server refuses an object.
            render.Invalid: the spec asks for what is not offered.
        """
        plan = self.plan(stack, importing)
        family = self._children.family(stack.name)
        await self._clear_way(stack)
        secret = model.component_name(stack.name, "secrets")
        due = [p for p in plan if anew or self._differs(p, family.children.get((p.kind, p.name)))]
        strayed, later = self._strayed(stack.name, [p for p in plan if p not in due])
        due += strayed
        if due or ("Secret", secret) not in family.children:
            async with self._turns:
                await self._send_all(stack, importing, due)
        await self._remove_others(stack, plan)
        return later

    async def _send_all(self, stack: Stack, importing: Import | None, due: list[Planned]) -> None:
        await self._make_secret(stack)
        if due:
            wanted = {(p.kind, p.name): p.digest for p in due}
            objects = [
                o
                for o in render.render(stack, self._settings, importing)
                if (o["kind"], o["metadata"]["name"]) in wanted
            ]
            for obj in objects:
                digest = wanted[obj["kind"], obj["metadata"]["name"]]
                obj["metadata"].setdefault("annotations", {})[ANNOTATION_DIGEST] = digest
            # What makes pods last: these look their neighbours' names up at once.
            for makers in (False, True):
                batch = [o for o in objects if (o["kind"] in render.POD_MAKERS) is makers]
                await _all(*(self._send(stack.name, obj) for obj in batch))

    def _differs(self, planned: Planned, child: Child | None) -> bool:
        if child is None:
            return True
        if planned.kind in render.CREATE_ONCE:
            return child.kept
        return child.digest != planned.digest

    def _strayed(self, stack: str, plan: list[Planned]) -> tuple[list[Planned], datetime | None]:
        """Objects that others changed since we sent them, and when to come again for those that must wait."""
        family, time = self._children.family(stack), self._clock.now()
        seen, corrected = self._seen.setdefault(stack, {}), self._corrected.setdefault(stack, {})
        found, later = [], []
        for planned in plan:
            key = (planned.kind, planned.name)
            child = family.children.get(key)
            if child is None or planned.kind in render.CREATE_ONCE:
                continue
            uid, revision = seen.get(key, ("", 0))
            if uid != child.uid:
                # The first sight after a start of the service.
                if not child.touched:
                    seen[key] = (child.uid, child.revision)
                    continue
            elif child.revision <= revision:
                continue
            due = corrected.get(key, model.EPOCH) + timedelta(seconds=CORRECTION_SECONDS)
            if due > time:
                later.append(due)
                continue
            corrected[key] = time
            found.append(planned)
        if found:
            log.warning(
                "Others changed %s; it is set back to what the settings say",
                ", ".join(f"{p.kind} {p.name}" for p in found),
            )
        return found, min(later, default=None)

    async def _send(self, stack: str, obj: dict[str, Any]) -> None:
        kind, name = obj["kind"], obj["metadata"]["name"]
        if kind not in render.CREATE_ONCE:
            made = await self._kube.apply(obj)
            child = observe.child(kind, made)
            self._seen.setdefault(stack, {})[kind, name] = (child.uid, child.revision)
            self._children.put(kind, made)
        elif not await self._kube.create(obj):
            # A volume that was kept comes back to use.
            body = {"metadata": {"annotations": {ANNOTATION_KEPT: None}}}
            found = await self._kube.patch(kind, name, body)
            if found:
                self._children.put(kind, found)

    async def _make_secret(self, stack: Stack) -> None:
        """Made once and completed by what later versions need, but never changed."""
        new = secretdata.generate()
        obj = render.secret(stack, new)
        if await self._kube.create(obj):
            return
        name = obj["metadata"]["name"]
        there = await self._kube.get("Secret", name)
        missing = {k: v for k, v in new.items() if k not in ((there or {}).get("data") or {})}
        if there and missing:
            await self._kube.patch("Secret", name, {"stringData": missing})

    async def _clear_way(self, stack: Stack) -> None:
        """Remove what a former stack of this name left, and wait for it to be gone."""
        family = self._children.family(stack.name)
        strange = [c for c in family.children.values() if c.owner and c.owner != stack.uid]
        ending = [
            c
            for c in family.children.values()
            if c.deleting and c.kind in ("PersistentVolumeClaim", "StatefulSet")
        ]
        await _all(*(self._kube.delete(c.kind, c.name, uid=c.uid) for c in strange if not c.deleting))
        if strange or ending:
            raise Blocked("Waits until the former stack of this name is gone.")

    async def _remove_others(self, stack: Stack, plan: list[Planned]) -> None:
        """Remove what the spec no longer asks for; volumes stay until the stack is deleted."""
        wanted = {(p.kind, p.name) for p in plan}
        family = self._children.family(stack.name)
        others = [
            c
            for key, c in family.children.items()
            if key not in wanted and c.kind not in render.CREATE_ONCE and not c.deleting
        ]
        await _all(*(self._kube.delete(c.kind, c.name, uid=c.uid) for c in others))

    async def remove(self, name: str, *, keep_data: bool, now: datetime) -> None:
        """Ask for the removal of all children, the volumes included unless they are to be kept."""
        family = self._children.family(name)
        jobs = []
        for child in family.children.values():
            if child.kind == "PersistentVolumeClaim" and keep_data:
                if not child.kept:
                    body = {"metadata": {"annotations": {ANNOTATION_KEPT: model.format_time(now)}}}
                    jobs.append(self._mark(child, body))
            elif not child.deleting:
                jobs.append(self._kube.delete(child.kind, child.name, uid=child.uid))
        await _all(*jobs)

    async def _mark(self, child: Child, body: dict[str, Any]) -> None:
        found = await self._kube.patch(child.kind, child.name, body)
        if found:
            self._children.put(child.kind, found)


async def _all(*jobs: Any) -> None:
    """Run all; after all have ended, raise the first error. None is left running behind an error."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
