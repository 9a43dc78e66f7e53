"""The operator: kopf watches the stacks and keeps one task for each, which looks at it whenever something changed.

Nothing is polled. A task sleeps until its stack, a child of it or a warning about one changes, or until a deadline
of its own. What a stack's children are is known from one watch a kind (:mod:`.children`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from datetime import datetime, timedelta
from typing import Any

import kopf
from pydantic import ValidationError

from ..blueprint.settings import SECONDS_PER_DAY, StackSettings
from ..cluster.client import Kube, KubeError
from ..stack import model
from ..stack.model import Stack
from . import metrics
from .children import Children
from .clock import Clock
from .reconcile import Reconciler

log = logging.getLogger(__name__)

FINALIZER = f"{model.GROUP}/stack"
ANNOTATION_ORPHANED = f"{model.GROUP}/orphaned-since"
# Changes come in swarms: one look for those of this time, and looks at one stack are this far apart.
SETTLE_SECONDS = 0.1
PACE_SECONDS = 0.5
BACKOFF_SECONDS = (1, 2, 5, 10, 30)
REMOVAL_SECONDS = 45
# After this time a pod whose node does not answer no longer holds the deletion up.
PATIENCE_SECONDS = 600
SWEEP_DELAY_SECONDS = 10


class Operator:
    """Runs until told to stop.

    Args:
        kube: the API server and the namespace.
        settings: the administrator's settings.
        clock: tells the time and waits for it.
    """

    def __init__(self, kube: Kube, settings: StackSettings, clock: Clock | None = None) -> None:
        self.kube, self.settings = kube, settings
        self._clock = clock or Clock()
        self.stacks: dict[str, Stack] = {}
        self.unreadable: dict[str, str] = {}
        self.children = Children(kube, self._child_changed)
        self.reconciler = Reconciler(
            kube, self.children, settings, self.stacks, self._tell, self.wake, self._clock
        )
        self._dirty: dict[str, asyncio.Event] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._removing: set[str] = set()
        metrics.API_CALLS.set_function(lambda: kube.calls)
        self._sweep_due = asyncio.Event()
        # Seconds until a volume without a stack has been kept for its time.
        self._sweep_in = float(SECONDS_PER_DAY)

    @property
    def ready(self) -> bool:
        """Whether all stacks and their children are known."""
        return self.children.synced.is_set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look after the stacks until ``stop`` is set.

        Raises:
            KubeError: the stacks cannot be listed at all: a right or the resource definition is missing.
        """
        await self._adopt()
        watching = asyncio.create_task(self.children.run())
        sweeping = asyncio.create_task(self._sweep_when_due())
        started = asyncio.Event()
        tending = asyncio.create_task(
            kopf.operator(
                registry=self._registry(),
                settings=_kopf_settings(),
                namespaces=[self.kube.namespace],
                standalone=True,
                ready_flag=started,
                stop_flag=stop,
            )
        )
        signals = asyncio.create_task(_take_signals(started, stop))
        ending = asyncio.create_task(_end_with(stop, sweeping))
        try:
            done, _ = await asyncio.wait({watching, tending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            tasks = (watching, sweeping, tending, signals, ending)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, name: str) -> None:
        """Have a stack looked at."""
        event = self._dirty.get(name)
        if event:
            event.set()

    # -- kopf's handlers ----------------------------------------------------------------------------------

    def _registry(self) -> kopf.OperatorRegistry:
        registry: Any = kopf.OperatorRegistry()
        where = (model.GROUP, model.VERSION, model.PLURAL)
        kopf.on.login(registry=registry)(_login)
        kopf.on.event(*where, registry=registry)(self._on_event)
        kopf.on.delete(*where, registry=registry)(self._on_delete)
        kopf.daemon(*where, registry=registry, cancellation_timeout=30)(self._tend)
        return registry  # type: ignore[no-any-return]

    async def _on_event(self, event: Any, body: Any, name: str, **_: Any) -> None:
        if event["type"] == "DELETED":
            self._forget(name, body["metadata"]["uid"])
            return
        try:
            stack = Stack.from_object(body)
        except ValidationError as error:
            first = error.errors()[0]
            self.unreadable[name] = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            log.warning("The stack %s cannot be read: %s", name, self.unreadable[name])
            self.wake(name)
            return
        self.unreadable.pop(name, None)
        old = self.stacks.get(name)
        self.stacks[name] = stack
        metrics.count_stacks(self.stacks.values())
        # Our own words in the status are no reason to look again.
        if old is None or (old.spec, old.uid, old.annotations, old.deleting) != (
            stack.spec,
            stack.uid,
            stack.annotations,
            stack.deleting,
        ):
            self.wake(name)

    def _forget(self, name: str, uid: str) -> None:
        stack = self.stacks.get(name)
        if stack and stack.uid != uid:
            return
        self.stacks.pop(name, None)
        self.unreadable.pop(name, None)
        self._removing.discard(uid)
        self.reconciler.forget(name)
        metrics.count_stacks(self.stacks.values())

    async def _tend(self, name: str, uid: str, stopped: Any, **_: Any) -> None:
        """Look at one stack again and again until it is deleted or the service stops."""
        await self.children.synced.wait()
        dirty = self._dirty[name] = asyncio.Event()
        failures = 0
        try:
            while not stopped:
                began = time.monotonic()
                dirty.clear()
                try:
                    again = await self._look(name, uid)
                    failures = 0
                except Exception as error:
                    metrics.RECONCILE_ERRORS.inc()
                    back_off = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                    failures += 1
                    if isinstance(error, KubeError):
                        log.warning("The stack %s is looked at again in %s s: %s", name, back_off, error)
                    else:
                        log.exception("The stack %s could not be looked at", name)
                    again = self._clock.now() + timedelta(seconds=back_off)
                pause = None if again is None else max(0.5, (again - self._clock.now()).total_seconds())
                with contextlib.suppress(asyncio.TimeoutError):
                    await self._clock.within(dirty.wait(), pause)
                await asyncio.sleep(max(SETTLE_SECONDS, began + PACE_SECONDS - time.monotonic()))
        finally:
            if self._dirty.get(name) is dirty:
                del self._dirty[name]

    async def _look(self, name: str, uid: str) -> datetime | None:
        async with self._lock(uid):
            stack = self.stacks.get(name)
            if name in self.unreadable:
                text = f"The spec cannot be read: {self.unreadable[name]}. Correct it."
                status = {
                    "phase": model.Phase.FAILED.value,
                    "reason": model.Reason.CONFIG.value,
                    "message": text,
                }
                await self.kube.patch(model.KIND, name, {"status": status}, "status")
                return None
            if stack is None or stack.uid != uid or stack.deleting or uid in self._removing:
                return None
            began = time.perf_counter()
            try:
                return await self.reconciler.look(stack)
            finally:
                metrics.RECONCILE_SECONDS.observe(time.perf_counter() - began)

    async def _on_delete(self, body: Any, name: str, uid: str, **_: Any) -> None:
        """Remove all that belongs to a stack; kopf lets the object go when this returns."""
        await self.children.synced.wait()
        self._removing.add(uid)
        keep = bool(body["spec"].get("keepData"))
        stuck = model.parse_time(body["metadata"]["deletionTimestamp"]) or self._clock.seconds()
        deadline = asyncio.get_running_loop().time() + REMOVAL_SECONDS
        async with self._lock(uid):
            text = "It is being deleted; its data is kept." if keep else "It is being deleted with its data."
            with contextlib.suppress(ValidationError, KubeError):
                await self.reconciler.removing(Stack.from_object(body), text)
            dirty = self._dirty[name] = asyncio.Event()
            while left := self._left(name, keep):
                if (self._clock.seconds() - stuck).total_seconds() > PATIENCE_SECONDS:
                    log.warning("The stack %s is deleted though %s is still there", name, left)
                    return
                if asyncio.get_running_loop().time() > deadline:
                    msg = f"{left} of the stack {name} is still there"
                    raise kopf.TemporaryError(msg, delay=5)
                dirty.clear()
                await self.reconciler.applier.remove(name, keep_data=keep, now=self._clock.seconds())
                with contextlib.suppress(asyncio.TimeoutError):
                    await self._clock.within(dirty.wait(), 10)
                await asyncio.sleep(SETTLE_SECONDS)
            # Its place is free now, even if the last word about it is missed.
            self.reconciler.forget(name)
        self._locks.pop(uid, None)

    def _left(self, name: str, keep: bool) -> str:
        family = self.children.family(name)
        for child in family.children.values():
            if not (keep and child.kind == "PersistentVolumeClaim" and child.kept):
                return f"{child.kind} {child.name}"
        return next((f"Pod {pod}" for pod in family.pods), "")

    # -- beside the stacks --------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Count what ran before, so that limits hold over a restart."""
        found = []
        async for page, _ in self.kube.pages(model.KIND):
            for item in page:
                with contextlib.suppress(ValidationError):
                    found.append(Stack.from_object(item))
        self.stacks.update({s.name: s for s in found if s.name not in self.stacks})
        self.reconciler.adopt(found)
        self._sweep_due.set()

    def _child_changed(self, stack: str) -> None:
        if stack in self.stacks or stack in self._dirty:
            self.wake(stack)
        else:
            self._sweep_due.set()

    async def _sweep_when_due(self) -> None:
        """Remove orphans some time after one was seen, when a volume's time is over, and once a day."""
        await self.children.synced.wait()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await self._clock.within(self._sweep_due.wait(), self._sweep_in)
            await self._clock.sleep(SWEEP_DELAY_SECONDS)
            self._sweep_due.clear()
            try:
                await self.sweep()
            except KubeError as error:
                log.warning("Orphans are looked for again later: %s", error)

    async def sweep(self) -> list[str]:
        """Remove children whose stack does not exist; returns their names.

        Volumes that an owner chose to keep stay. Other volumes without a stack are marked and removed only after
        the setting ``orphan_volume_grace``: their stack was not deleted in the usual way.
        """
        with_children, known = self.children.stacks(), dict(self.stacks)
        # Asked after the children were seen: a stack is there before its children.
        items, _ = await self.kube.list(model.KIND, metadata_only=True)
        there = {item["metadata"]["name"] for item in items}
        for name, stack in known.items():
            if name not in there:
                # Its end was missed: the watch was broken at that moment.
                self._forget(name, stack.uid)
        removed = []
        self._sweep_in = float(SECONDS_PER_DAY)
        for name in with_children:
            if name in there:
                continue
            for child in list(self.children.family(name).children.values()):
                if child.deleting or (
                    child.kind == "PersistentVolumeClaim"
                    and (child.kept or not await self._overdue(child.name))
                ):
                    continue
                await self.kube.delete(child.kind, child.name, uid=child.uid)
                removed.append(f"{child.kind} {child.name}")
        if removed:
            log.warning("Removed what belonged to stacks that do not exist: %s", ", ".join(removed))
        return removed

    async def _overdue(self, claim: str) -> bool:
        found = await self.kube.get("PersistentVolumeClaim", claim)
        if found is None:
            return False
        since = model.parse_time((found["metadata"].get("annotations") or {}).get(ANNOTATION_ORPHANED))
        if since is None:
            since = self._clock.seconds()
            body = {"metadata": {"annotations": {ANNOTATION_ORPHANED: model.format_time(since)}}}
            await self.kube.patch("PersistentVolumeClaim", claim, body)
        left = self.settings.orphan_volume_grace - (self._clock.seconds() - since).total_seconds()
        if left > 0:
            self._sweep_in = min(self._sweep_in, left)
        return left <= 0

    # -- below --------------------------------------------------------------------------------------------

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _tell(self, stack: Stack, kind: str, reason: str, text: str) -> None:
        obj: Any = {
            "apiVersion": model.API_VERSION,
            "kind": model.KIND,
            "metadata": {"name": stack.name, "namespace": stack.namespace, "uid": stack.uid},
        }
        kopf.event(obj, type=kind, reason=reason, message=text[:1000])


class _NoDiffs(kopf.DiffBaseStorage):
    """No handler asks what changed in a spec: kopf need not write the last one down, a patch for each change."""

    def fetch(self, *, body: Any) -> None:
        """Nothing is known."""

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Nothing is kept."""


async def _end_with(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Cancel a task at the stop: kopf waits five seconds for whatever else runs in its loop by then."""
    await stop.wait()
    task.cancel()


async def _take_signals(started: asyncio.Event, stop: asyncio.Event) -> None:
    """Take back the process's signals: with kopf's own handlers it ends only after five seconds of waiting for ``stop``."""
    await started.wait()
    if threading.current_thread() is threading.main_thread():
        for sign in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(sign, stop.set)


def _login(**kwargs: Any) -> Any:
    found = kopf.login_with_service_account(**kwargs)
    return found or kopf.login_with_kubeconfig(**kwargs)


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{model.GROUP}")
    settings.persistence.diffbase_storage = _NoDiffs()
    # Rights in one namespace only: no watching of namespaces and resource definitions.
    settings.scanning.disabled = True
    settings.posting.level = logging.CRITICAL
    settings.posting.loggers = False
    settings.networking.request_timeout = 20
    settings.networking.connect_timeout = 10
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 540
    settings.watching.chunk_size = 100
    return settings
