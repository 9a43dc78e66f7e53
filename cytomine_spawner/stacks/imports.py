"""The import of datasets into a stack: what is due, and how it stands.

What was imported is written in the stack's status, so nothing is imported twice. A Job does the work once the stack
serves and its owner's keys are there; it goes when all is in, when the stack goes to sleep, and when another try or
another choice takes its place.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from .apply import Applier
from .children import Children
from .diagnose import Patience, placed
from .kube import Kube, KubeError
from .model import DATASETS_IMPORTED, Condition, Desired, Import, Stack, StackStatus, State
from .observe import Child, Pod
from .render import DATASETS
from .sentences import cut, last_line, listed, quota_gap
from .settings import StackSettings

# How often a running import is asked how far it is.
PROGRESS_SECONDS = 5
_ADMINISTRATOR = "An administrator must look at it."


@dataclass(frozen=True)
class _Verdict:
    reason: str
    message: str
    again: datetime | None = None


def due(stack: Stack, settings: StackSettings) -> Import | None:
    """What is to be imported now; nothing before the stack serves, or while one is named that is not offered."""
    missing = _missing(stack)
    serves = stack.spec.desired_state is Desired.RUNNING and stack.status.ready_at is not None
    if not missing or not serves or _not_offered(missing, settings):
        return None
    return Import(missing, f"{stack.status.started_at} {stack.spec.retry}")


def news(before: StackStatus, after: StackStatus) -> Condition | None:
    """How an import ended, if it did so between two statuses."""
    old, new = (status.condition(DATASETS_IMPORTED) for status in (before, after))
    ended = new is not None and new.reason in ("Imported", "Failed")
    return new if ended and new and (old is None or old.reason != new.reason) else None


def _missing(stack: Stack) -> tuple[str, ...]:
    return tuple(name for name in stack.spec.datasets if name not in stack.status.imported_datasets)


def _not_offered(names: tuple[str, ...], settings: StackSettings) -> list[str]:
    return [name for name in names if name not in settings.dataset_titles]


class Imports:
    """Says how the imports of stacks stand.

    Args:
        kube: the API server.
        children: the stacks' children.
        settings: the administrator's settings.
        applier: brings a stack's objects to what they should be.
        patience: how long to wait before what may still pass is called a failure.
    """

    def __init__(
        self, kube: Kube, children: Children, settings: StackSettings, applier: Applier, patience: Patience
    ) -> None:
        self._kube, self._children, self._settings = kube, children, settings
        self._applier, self._patience = applier, patience
        self._refused: dict[str, tuple[Import, str]] = {}

    def forget(self, name: str) -> None:
        """A stack is gone."""
        self._refused.pop(name, None)

    async def apply(self, stack: Stack, *, anew: bool = False) -> tuple[Import | None, datetime | None]:
        """Apply the stack's objects, those of an import that is due among them; see :meth:`.Applier.apply`.

        An import that the cluster refuses is no fault of the stack: the rest is applied without it.

        Returns:
            What is due, and when to come again, if something was left for later.
        """
        importing = due(stack, self._settings)
        if importing and self._refused.get(stack.name, (None,))[0] != importing:
            try:
                return importing, await self._applier.apply(stack, importing, anew=anew)
            except KubeError as error:
                if error.status not in (400, 403, 422):
                    raise
                self._refused[stack.name] = (importing, error.message)
        return importing, await self._applier.apply(stack, anew=anew)

    async def judge(
        self, stack: Stack, importing: Import | None, now: datetime
    ) -> tuple[StackStatus, datetime | None]:
        """The stack's status with what is imported and its condition, and when to look again.

        Args:
            stack: the stack, with the status that is to be written.
            importing: what was due when its objects were applied.
            now: the present time.
        """
        plan = self._applier.plan(stack, importing)
        job = next((p.name for p in plan if p.kind == "Job"), "")
        child = self._children.family(stack.name).children.get(("Job", job))
        if importing and child and child.ended == "Complete":
            imported = (*stack.status.imported_datasets, *importing.names)
            stack = stack.replace(status=stack.status.replace(imported_datasets=imported))
        others = tuple(c for c in stack.status.conditions if c.type != DATASETS_IMPORTED)
        if not stack.spec.datasets:
            return stack.status.replace(conditions=others), None
        verdict = await self._verdict(stack, importing, job, child, now)
        condition = _condition(stack, verdict, now)
        # What became due, or no longer is, is for the next look to apply.
        again = now if due(stack, self._settings) != importing else verdict.again
        return stack.status.replace(conditions=(*others, condition)), again

    async def _verdict(
        self, stack: Stack, importing: Import | None, job: str, child: Child | None, now: datetime
    ) -> _Verdict:
        missing = _missing(stack)
        if not missing:
            return _Verdict("Imported", self._say(stack.spec.datasets, "in Cytomine"))
        if strange := _not_offered(missing, self._settings):
            word = "dataset" if len(strange) == 1 else "datasets"
            verb = "is" if len(strange) == 1 else "are"
            text = f"The {word} {cut(listed(strange))} {verb} not offered here. Choose others in the options"
            return _Verdict("NotOffered", f"{text} or ask an administrator.")
        if importing is None:
            when = "at the next start" if _sleeps(stack) else "as soon as the stack is ready"
            return _Verdict("Waiting", self._say(missing, f"imported {when}"))
        refused = self._refused.get(stack.name)
        if refused and refused[0] == importing:
            text = f"{self._named(missing)} could not be imported. The cluster refuses it: {cut(refused[1])}"
            return _Verdict("Failed", f"{text}. {_ADMINISTRATOR}")
        if child and child.ended:
            return _Verdict("Failed", self._failed(missing, stack, child))
        return await self._under_way(stack, missing, job, now)

    def _say(self, names: tuple[str, ...], what: str) -> str:
        return f"{self._named(names)} {'is' if len(names) == 1 else 'are'} {what}."

    def _named(self, names: tuple[str, ...]) -> str:
        return cut(listed([self._settings.dataset_titles.get(name, name) for name in names]))

    def _failed(self, names: tuple[str, ...], stack: Stack, child: Child) -> str:
        text = f"{self._named(names)} could not be imported"
        if child.trouble == "DeadlineExceeded":
            hours = self._settings.dataset_deadline / 3600
            return f"{text}: it took more than {hours:.3g} hours. Try again: it goes on from where it ended."
        pods = self._children.family(stack.name).pods_of(DATASETS)
        words = next(
            (w for pod in pods if (w := _last_words(pod))), f"The cluster ended it. {_ADMINISTRATOR}"
        )
        return f"{text}. {words}"

    async def _under_way(self, stack: Stack, names: tuple[str, ...], job: str, now: datetime) -> _Verdict:
        text = self._say(names, "being imported")
        pods = [p for p in self._children.family(stack.name).pods_of(DATASETS) if not p.deleting]
        if not pods:
            warned = self._children.warnings.find("Job", job, "FailedCreate")
            if not warned:
                return _Verdict("Importing", text)
            full = "exceeded quota" in warned.text
            why = f"the cluster's quota is used up: {quota_gap(warned.text)}" if full else cut(warned.text)
            return _Verdict("Importing", f"{text} It is not allowed to start: {why}. {_ADMINISTRATOR}")
        pod = pods[0]
        if pod.phase == "Failed":
            return _Verdict("Importing", f"{text} It is tried again. {_last_words(pod)}".strip())
        if pod.phase == "Succeeded":
            return _Verdict("Importing", text)
        family, warnings = self._children.family(stack.name), self._children.warnings
        finding = placed(stack.name, DATASETS, pod, family, warnings, now, self._patience)
        if finding.status.state is State.FAILED:
            return _Verdict("Importing", finding.status.message, finding.again)
        if not any(c.running_since for c in pod.containers):
            return _Verdict("Importing", text, finding.again)
        line = ""
        with contextlib.suppress(KubeError):
            line = last_line(await self._kube.log(pod.name, lines=1))
        progress = f"{text[:-1]}: {line}." if line else text
        return _Verdict("Importing", progress, now + timedelta(seconds=PROGRESS_SECONDS))


def _sleeps(stack: Stack) -> bool:
    return stack.spec.desired_state is Desired.HIBERNATED


def _last_words(pod: Pod) -> str:
    container = next((c for c in pod.containers if c.last_ended), None)
    if container is None:
        return ""
    if container.last_ended == "OOMKilled":
        return (
            "It was ended because it needs more memory than it may have. An administrator must give it more."
        )
    line = last_line(container.last_text)
    return f"{line}." if line else ""


def _condition(stack: Stack, verdict: _Verdict, now: datetime) -> Condition:
    old = stack.status.condition(DATASETS_IMPORTED)
    word = "True" if verdict.reason == "Imported" else "False"
    return Condition(
        type=DATASETS_IMPORTED,
        status=word,
        reason=verdict.reason,
        message=verdict.message,
        last_transition_time=old.last_transition_time if old and old.status == word else now,
        observed_generation=stack.generation,
    )
