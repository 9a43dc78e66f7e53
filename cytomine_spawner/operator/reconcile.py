"""One look at one stack: bring its objects to what they should be, judge them, write the status.

A look is the same whatever happened before: after a restart of the service, a lost watch or a half-done change the
next look ends in the same state. All looks at one stack follow each other; different stacks are looked at in parallel.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ..blueprint import lifecycle, quota, render
from ..blueprint.settings import StackSettings
from ..cluster.client import Kube, KubeError
from ..common.redact import Redact
from ..stack import components, model, notices
from ..stack.grants import Finding
from ..stack.model import EPOCH, ComponentStatus, Condition, Desired, Phase, Reason, Stack, StackStatus, State
from . import metrics
from .apply import Applier, Blocked
from .children import Children
from .clock import Clock
from .diagnose import Diagnosis, Patience, diagnose
from .imports import Imports, news
from .lastwords import LastWords
from .shortage import Shortage

log = logging.getLogger(__name__)

RETRY_SECONDS = (2, 5, 10, 30, 60)
_RUNNING = (Phase.STARTING, Phase.READY, Phase.DEGRADED, Phase.FAILED)
# kind of the event, reason in one word, sentence
Tell = Callable[[Stack, str, str, str], None]


@dataclass
class _Memory:
    """What is remembered of a stack between two looks; all of it can be found anew."""

    written: StackStatus | None = None
    uid: str = ""
    failures: int = 0
    missing: dict[str, tuple[str, str]] | None = None
    seen: datetime | None = None
    noticed: datetime | None = None


class Reconciler:
    """Looks at stacks.

    Args:
        kube: the API server.
        children: the stacks' children.
        settings: the administrator's settings.
        stacks: all stacks as last seen, by name; kept up to date by the owner of the dict.
        tell: posts an event on a stack.
        wake: asks for another look at a stack.
        clock: tells the time.
    """

    def __init__(
        self,
        kube: Kube,
        children: Children,
        settings: StackSettings,
        stacks: dict[str, Stack],
        tell: Tell,
        wake: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._kube, self._children, self._settings = kube, children, settings
        self._stacks, self._tell, self._wake, self._now = stacks, tell, wake, clock.seconds
        # Says why the owner's keys are not there yet, or nothing; absent where nobody makes keys.
        self.connected: Callable[[Stack], Awaitable[str]] | None = None
        # What was found of the archive's grants in this run of a stack, if anything yet; absent where nobody looks.
        self.granted: Callable[[Stack], Finding | None] | None = None
        self.applier = Applier(kube, children, settings, clock)
        self._memories: dict[str, _Memory] = {}
        self._places: set[str] = set()
        self._shortage = Shortage(kube, settings)
        self._patience = Patience(
            unschedulable=timedelta(seconds=settings.unschedulable_grace),
            probe=timedelta(seconds=settings.probe_grace),
        )
        self._words = LastWords(kube, settings)
        self._imports = Imports(kube, children, settings, self.applier, self._patience, self._words)

    def adopt(self, stacks: Iterable[Stack]) -> None:
        """Count the stacks that ran before this process began."""
        self._places |= {s.name for s in quota.holding(stacks) if s.spec.desired_state is Desired.RUNNING}

    def forget(self, name: str) -> None:
        """A stack is gone."""
        self._memories.pop(name, None)
        self.applier.forget(name)
        self._imports.forget(name)
        self._words.forget(name)
        self._leave_place(name)

    async def look(self, stack: Stack) -> datetime | None:
        """Look at a stack; returns when to look again though nothing happens.

        Raises:
            KubeError: the API server does not answer; look again later.
        """
        memory = self._memories.setdefault(stack.name, _Memory())
        if memory.uid != stack.uid:
            self._memories[stack.name] = memory = _Memory(uid=stack.uid)
        if memory.written is not None:
            # The watch may not have brought our own last word yet.
            stack = stack.model_copy(update={"status": memory.written})
        self._pass_on(stack, memory)
        try:
            status, again = await self._look(stack, memory)
        except render.Invalid as error:
            status, again = self._refused(stack, Reason.CONFIG, str(error)), None
        except Blocked as error:
            status, again = self._pending(stack, None, str(error)), self._now() + timedelta(seconds=5)
        except KubeError as error:
            if error.status in (0, 401, 429) or error.status >= 500:
                raise
            status, again = await self._unapplied(stack, memory, error)
        await self._write(stack, memory, status)
        return again

    async def _look(self, stack: Stack, memory: _Memory) -> tuple[StackStatus, datetime | None]:
        time, before = self._now(), stack
        running = stack.spec.desired_state is Desired.RUNNING
        if running and (refusal := self._take_place(stack)):
            return self._pending(stack, Reason.QUOTA, refusal), None
        status = self._started(stack, time) if running else stack.status
        retry = status.observed_retry is not None and stack.spec.retry != status.observed_retry
        if retry:
            await self._end_late_pods(stack)
            memory.missing = None
            # Where only an import failed the stack goes on, and the notebooks keep their keys.
            if status.phase is not Phase.READY:
                status = status.replace(started_at=time, ready_at=None)
        stack = stack.model_copy(update={"status": status})
        if running and self.granted and (finding := self.granted(stack)):
            # Before the imports are looked at: what was deleted and is granted again is imported anew.
            status = finding.applied(stack, time)
            stack = stack.model_copy(update={"status": status})
        importing, later = await self._imports.apply(stack, anew=retry)
        memory.failures = 0
        names = render.components(stack.spec, self._settings)
        redact = await self._words.of(stack, self._said(stack))
        diagnosis = self._diagnose(stack, names, status, memory, time, redact)
        if await self._measure(stack, diagnosis, memory):
            diagnosis = self._diagnose(stack, names, status, memory, time, redact)
        diagnosis = await self._await_keys(stack, status, diagnosis)
        status = self._status(stack, status, diagnosis, time)
        opens = running and status.ready_at is not None and not stack.is_open
        stack = stack.model_copy(update={"status": status})
        if opens and self._settings.entrance:
            # Before anybody is told that it is ready, its address leads there.
            importing, _ = await self._imports.apply(stack)
        status, next_import = await self._imports.judge(stack, importing, time)
        if diagnosis.phase is Phase.HIBERNATED:
            self._leave_place(stack.name)
        again, by = await self._deadlines(stack.model_copy(update={"status": status}), memory, time)
        if by:
            status = status.replace(hibernated_by=by)
        status = status.replace(
            last_activity=again.active,
            hibernates_at=again.hibernates,
            expires_at=again.expires,
            conditions=(*status.conditions, *lifecycle.limited(before, self._settings, again.ends, time)),
        )
        times = (later, diagnosis.again, next_import, again.hibernates, again.ends, again.expires)
        return status, min(filter(None, times), default=None)

    def _pass_on(self, stack: Stack, memory: _Memory) -> None:
        """Tell as events what administrators did; what was done before this process began was told then."""
        acts, known = notices.of(stack), memory.noticed
        for act in acts:
            if known is not None and act.at > known:
                self._tell(stack, "Normal", "Administered", str(act))
        memory.noticed = max((act.at for act in acts), default=known or EPOCH)

    # -- places -------------------------------------------------------------------------------------------

    def _take_place(self, stack: Stack) -> str:
        """Count this stack among those that run; or say why it may not."""
        if stack.name in self._places:
            return ""
        # No await between asking and taking: of two that ask for the last place, one gets it.
        others = [s for name, s in self._stacks.items() if name in self._places]
        refusal = quota.refusal(stack.spec, stack.name, others, self._settings)
        if not refusal:
            self._places.add(stack.name)
        return refusal

    def _leave_place(self, name: str) -> None:
        if name not in self._places:
            return
        self._places.discard(name)
        waiting = [s for s in self._stacks.values() if s.status.reason is Reason.QUOTA and not s.deleting]
        for stack in sorted(waiting, key=lambda s: s.created or self._now()):
            self._wake(stack.name)

    # -- judging ------------------------------------------------------------------------------------------

    async def _await_keys(self, stack: Stack, status: StackStatus, diagnosis: Diagnosis) -> Diagnosis:
        """Ready means that the owner's keys work; but a stack that was ready stays so when this process is new."""
        if self.connected is None or diagnosis.phase is not Phase.READY or status.ready_at is not None:
            return diagnosis
        missing = await self.connected(stack.replace(status=status))
        return replace(diagnosis, phase=Phase.STARTING, message=missing) if missing else diagnosis

    def _said(self, stack: Stack) -> frozenset[str]:
        """All that a stack's programs said, be it shown or not."""
        pods = self._children.family(stack.name).pods.values()
        warned = (self._children.warnings.find("Pod", pod.name, "Unhealthy") for pod in pods)
        texts = (text for pod in pods for c in pod.containers for text in (c.last_text, c.waiting_text))
        return frozenset((*filter(None, texts), *(w.text for w in warned if w)))

    def _diagnose(
        self,
        stack: Stack,
        names: tuple[str, ...],
        status: StackStatus,
        memory: _Memory,
        time: datetime,
        redact: Redact,
    ) -> Diagnosis:
        return diagnose(
            stack.name,
            names,
            self._children.family(stack.name),
            self._children.warnings,
            time,
            running=stack.spec.desired_state is Desired.RUNNING,
            was_ready=status.ready_at is not None,
            patience=self._patience,
            missing={name: text for name, (_, text) in (memory.missing or {}).items()},
            redact=redact,
        )

    async def _measure(self, stack: Stack, diagnosis: Diagnosis, memory: _Memory) -> bool:
        """Find out how much is missing for pods that fit on no node; whether something new is known."""
        family, measured = self._children.family(stack.name), memory.missing or {}
        memory.missing, new = {}, False
        for finding in diagnosis.findings:
            name = finding.status.name
            pods = family.pods_of(name)
            if finding.status.reason is not Reason.UNSCHEDULABLE or not pods:
                continue
            if measured.get(name, ("", ""))[0] == pods[0].uid:
                memory.missing[name] = measured[name]
                continue
            memory.missing[name] = (pods[0].uid, await self._shortage.of(stack.spec.size, name))
            new = True
        return new

    async def _end_late_pods(self, stack: Stack) -> None:
        for pod in list(self._children.family(stack.name).pods.values()):
            if not pod.ready_since and not pod.deleting:
                await self._kube.delete("Pod", pod.name, uid=pod.uid)

    async def _deadlines(
        self, stack: Stack, memory: _Memory, time: datetime
    ) -> tuple[lifecycle.Deadlines, str]:
        """What will happen by itself, and why the stack was sent to sleep just now, if it was."""
        due = lifecycle.deadlines(stack, self._settings, seen=memory.seen)
        if due.expires and due.expires <= time:
            self._tell(stack, "Normal", "Expired", "It slept longer than stacks are kept, and is deleted.")
            await self._kube.delete(model.KIND, stack.name, uid=stack.uid)
        if due.ends and due.ends <= time:
            words = "It ran for as long as stacks may here: it goes to sleep, and can be resumed at once."
            return due, await self._send_to_sleep(stack, "Life", words)
        if due.hibernates and due.hibernates <= time:
            if await self._notebook_runs(stack):
                memory.seen = time
                return lifecycle.deadlines(stack, self._settings, seen=time), ""
            words = "Nobody used it for its idle time: it goes to sleep."
            return due, await self._send_to_sleep(stack, "Idle", words)
        return due, ""

    async def _send_to_sleep(self, stack: Stack, why: str, words: str) -> str:
        self._tell(stack, "Normal", why, words)
        # First the reason, then the deed: a restart between the two must not lose it.
        await self._kube.patch(model.KIND, stack.name, {"status": {"hibernatedBy": why}}, "status")
        await self._kube.patch(model.KIND, stack.name, {"spec": {"desiredState": Desired.HIBERNATED.value}})
        return why

    async def _notebook_runs(self, stack: Stack) -> bool:
        user, server = model.user_label(stack.spec.owner), model.server_label(stack.spec.server_name)
        labels = (
            f"{model.LABEL_NOTEBOOK_USER}={user},{model.LABEL_NOTEBOOK_SERVER}={server},"
            "app.kubernetes.io/component=singleuser-server"
        )
        namespace = self._settings.notebook_namespace or None
        pods, _ = await self._kube.list("Pod", labels=labels, namespace=namespace)
        return any(p["status"].get("phase") in ("Pending", "Running") for p in pods)

    # -- the status ---------------------------------------------------------------------------------------

    def _started(self, stack: Stack, time: datetime) -> StackStatus:
        status = stack.status
        asleep = status.hibernated_at or status.phase in (Phase.HIBERNATING, Phase.HIBERNATED)
        if status.started_at and not asleep:
            return status
        cleared = {"hibernated_at": None, "hibernated_by": None, "expires_at": None, "ready_at": None}
        self._tell(stack, "Normal", "Resuming" if asleep else "Starting", "The stack starts.")
        return status.replace(started_at=time, components=(), **cleared)

    def _status(self, stack: Stack, status: StackStatus, diagnosis: Diagnosis, time: datetime) -> StackStatus:
        before = {c.name: c for c in status.components}
        parts = []
        for finding in diagnosis.findings:
            part, old = finding.status, before.get(finding.status.name)
            seconds = old.ready_seconds if old else None
            if seconds is None and finding.ready_since and status.started_at:
                seconds = max(0.0, (finding.ready_since - status.started_at).total_seconds())
                metrics.READY_SECONDS.labels(part.name).observe(seconds)
            if part.state is State.FAILED and part.reason and (old is None or old.reason is not part.reason):
                metrics.FAILURES.labels(part.name, part.reason.value).inc()
            parts.append(part.replace(ready_seconds=seconds))
        changes: dict[str, Any] = {}
        if diagnosis.phase is Phase.READY and status.ready_at is None:
            changes["ready_at"] = time
            if status.started_at:
                metrics.STACK_READY_SECONDS.observe((time - status.started_at).total_seconds())
        if diagnosis.phase is Phase.HIBERNATED and status.hibernated_at is None:
            changes["hibernated_at"] = time
        if stack.spec.desired_state is Desired.HIBERNATED and status.hibernated_by is None:
            changes["hibernated_by"] = "Owner"
        return self._common(
            stack,
            status.replace(**changes),
            phase=diagnosis.phase,
            message=diagnosis.message,
            reason=diagnosis.reason,
            ready=diagnosis.ready,
            slowest=diagnosis.slowest,
            components=tuple(parts),
        )

    def _pending(self, stack: Stack, reason: Reason | None, text: str) -> StackStatus:
        return self._common(
            stack, stack.status, phase=Phase.PENDING, message=text, reason=reason, ready=None, slowest=None
        )

    def _refused(self, stack: Stack, reason: Reason, text: str) -> StackStatus:
        return self._common(
            stack, stack.status, phase=Phase.FAILED, message=text, reason=reason, ready=None, slowest=None
        )

    async def _unapplied(
        self, stack: Stack, memory: _Memory, error: KubeError
    ) -> tuple[StackStatus, datetime]:
        full = "exceeded quota" in error.message
        reason = Reason.QUOTA if full else Reason.APPLY
        try:
            # It repeats what it refuses, which may be a password.
            said = (await self._words.of(stack, error.message))(error.message).rstrip(".")
        except KubeError:
            said = f"{error.reason}; its words are not shown, for the stack's Secrets cannot be read to take them out"
        text = f"The cluster refuses a part of the stack: {said}. An administrator must look at it."
        seconds = RETRY_SECONDS[min(memory.failures, len(RETRY_SECONDS) - 1)]
        memory.failures += 1
        return self._refused(stack, reason, text), self._now() + timedelta(seconds=seconds)

    def _common(self, stack: Stack, status: StackStatus, **changes: Any) -> StackStatus:
        phase, reason, text = changes["phase"], changes["reason"], changes["message"]
        time = self._now()
        conditions = (
            ("Ready", phase is Phase.READY, reason, text),
            (
                "Failed",
                phase is Phase.FAILED or (phase is Phase.DEGRADED and reason is not None),
                reason,
                text,
            ),
            ("QuotaExceeded", reason is Reason.QUOTA, reason, text if reason is Reason.QUOTA else ""),
            ("Hibernated", phase is Phase.HIBERNATED, None, text if phase is Phase.HIBERNATED else ""),
        )
        return status.replace(
            **changes,
            observed_generation=stack.generation,
            observed_retry=stack.spec.retry,
            url=self._settings.url(stack.name),
            internal_url=model.internal_url(stack.name, stack.namespace),
            conditions=(
                *(_condition(stack, status, *c[:2], c[2], phase, c[3], time) for c in conditions),
                *(
                    c
                    for c in status.conditions
                    if c.type in (model.DATASETS_IMPORTED, model.DATASETS_GRANTED)
                ),
            ),
        )

    async def removing(self, stack: Stack, text: str) -> None:
        """Say that a stack is being deleted."""
        memory = self._memories.setdefault(stack.name, _Memory(uid=stack.uid))
        status = memory.written or stack.status
        parts = tuple(
            ComponentStatus(
                name=c.name,
                state=State.STOPPING,
                message=f"{components.TITLES.get(c.name, c.name)} is stopping.",
            )
            for c in status.components
        )
        changes = {"phase": Phase.DELETING, "message": text, "reason": None, "ready": None, "slowest": None}
        await self._write(stack, memory, self._common(stack, status.replace(components=parts), **changes))

    async def _write(self, stack: Stack, memory: _Memory, status: StackStatus) -> None:
        before = memory.written or stack.status
        if status == before:
            return
        old, new = before.to_dict(), status.to_dict()
        changes = {k: v for k, v in new.items() if old.get(k) != v} | {k: None for k in old if k not in new}
        if not changes:
            return
        await self._kube.patch(model.KIND, stack.name, {"status": changes}, "status")
        memory.written = status
        if ended := news(before, status):
            kind = "Warning" if ended.reason == "Failed" else "Normal"
            self._tell(stack, kind, f"Datasets{ended.reason}", ended.message)
        if before.phase is not status.phase or before.reason is not status.reason:
            bad = status.phase in (Phase.FAILED, Phase.DEGRADED) or status.reason is not None
            word = status.reason.value if status.reason else (status.phase or Phase.PENDING).value
            self._tell(stack, "Warning" if bad else "Normal", word, status.message)


def _condition(
    stack: Stack,
    status: StackStatus,
    kind: str,
    true: bool,
    reason: Reason | None,
    phase: Phase,
    text: str,
    time: datetime,
) -> Condition:
    word, old = "True" if true else "False", status.condition(kind)
    return Condition(
        type=kind,
        status=word,
        reason=reason.value if reason else phase.value,
        message=text,
        last_transition_time=old.last_transition_time if old and old.status == word else time,
        observed_generation=stack.generation,
    )
