"""The import of datasets into a stack: what is due, and how it stands.

Each dataset has a Job of its own, and they take turns: one that fails holds up no other, and what it needs too much of,
memory or time, is its own loss alone. What was imported is written in the stack's status, so nothing is imported twice,
and so is what failed, until the next start or a retry. Jobs are there once the stack serves and its owner's keys are
there; they go when their dataset is in, when the stack goes to sleep, and when another try takes their place. That of a
dataset that failed stays until then, for its log.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..blueprint.settings import StackSettings
from ..cluster.client import Kube, KubeError
from ..common.lines import LEFT_OUT, cut, last_line
from ..common.redact import Redact
from ..stack.components import DATASETS
from ..stack.model import (
    DATASETS_IMPORTED,
    Condition,
    DatasetNote,
    DatasetProject,
    Desired,
    FailedDataset,
    Import,
    Stack,
    StackStatus,
    State,
)
from ..stack.sentences import listed, quota_gap
from .apply import Applier
from .children import Children
from .diagnose import Patience, placed
from .lastwords import LastWords
from .observe import Child, Pod, pod

log = logging.getLogger(__name__)

# How often a running import is asked how far it is.
PROGRESS_SECONDS = 5
# How an import says at its end where it put its dataset; what the dataset calls itself stands before it.
_ENDED = re.compile(r".*: project (\d{1,15}), \d+ images, \d+ annotations\b")
# Of so many failures is said why; the rest is named.
_TOLD = 3
# A sentence with its cure at the end must not be cut before it.
_WORDS = 600
_ADMINISTRATOR = "An administrator must look at it."


@dataclass(frozen=True)
class _Verdict:
    reason: str
    message: str
    again: datetime | None = None


def due(stack: Stack, settings: StackSettings) -> Import | None:
    """Whose Jobs are to be there now; none before the stack serves."""
    if not stack.is_open:
        return None
    names = (*(f.name for f in _failed(stack, settings)), *_waiting(stack, settings)[:1])
    return Import(names, _run(stack)) if names else None


def news(before: StackStatus, after: StackStatus) -> Condition | None:
    """How an import ended, if it did so between two statuses."""
    old, new = (status.condition(DATASETS_IMPORTED) for status in (before, after))
    ended = new is not None and new.reason in ("Imported", "Failed")
    return new if ended and new and (old is None or old.reason != new.reason) else None


def _run(stack: Stack) -> str:
    # After another start the stack's keys are others.
    return f"{stack.status.started_at} {stack.spec.retry}"


def _missing(stack: Stack) -> list[str]:
    return [name for name in stack.spec.datasets if name not in stack.status.imported_datasets]


def _offered(stack: Stack, settings: StackSettings) -> list[str]:
    return [name for name in _missing(stack) if settings.offers(name)]


def _failed(stack: Stack, settings: StackSettings) -> list[FailedDataset]:
    """Those that failed in the present try."""
    wanted = _offered(stack, settings)
    return [f for f in stack.status.failed_datasets if f.run == _run(stack) and f.name in wanted]


def _waiting(stack: Stack, settings: StackSettings) -> list[str]:
    """Those whose turn is now or comes later in the present try."""
    failed = [f.name for f in _failed(stack, settings)]
    return [name for name in _offered(stack, settings) if name not in failed]


class Imports:
    """Says how the imports of stacks stand.

    Args:
        kube: the API server.
        children: the stacks' children.
        settings: the administrator's settings.
        applier: brings a stack's objects to what they should be.
        patience: how long to wait before what may still pass is called a failure.
        words: takes secrets out of what the Jobs said.
    """

    def __init__(
        self,
        kube: Kube,
        children: Children,
        settings: StackSettings,
        applier: Applier,
        patience: Patience,
        words: LastWords,
    ) -> None:
        self._kube, self._children, self._settings = kube, children, settings
        self._applier, self._patience, self._words = applier, patience, words
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
        jobs = self._jobs(stack, importing)
        if not stack.spec.datasets:
            others = tuple(c for c in stack.status.conditions if c.type != DATASETS_IMPORTED)
            return stack.status.replace(conditions=others, failed_datasets=(), dataset_notes=()), None
        stack = stack.replace(status=await self._noted(stack, jobs))
        verdict = await self._verdict(stack, importing, jobs, now)
        others = tuple(c for c in stack.status.conditions if c.type != DATASETS_IMPORTED)
        condition = _condition(stack, verdict, now)
        # What became due, or no longer is, is for the next look to apply.
        again = now if due(stack, self._settings) != importing else verdict.again
        return stack.status.replace(conditions=(*others, condition)), again

    def _jobs(self, stack: Stack, importing: Import | None) -> dict[str, str]:
        """The names of the Jobs by those of the datasets."""
        jobs = [p.name for p in self._applier.plan(stack, importing) if p.kind == "Job"]
        return dict(zip(importing.names, jobs, strict=True)) if importing else {}

    async def _noted(self, stack: Stack, jobs: dict[str, str]) -> StackStatus:
        """The status with what the Jobs that ended made of their datasets."""
        # Of datasets that were chosen and are no longer nothing is told.
        notes = [n for n in stack.status.dataset_notes if n.name in stack.spec.datasets]
        status = stack.status
        children = self._children.family(stack.name).children
        failed = {f.name: f for f in _failed(stack, self._settings)}
        for name, job in jobs.items():
            child = children.get(("Job", job))
            if child and child.ended == "Complete":
                failed.pop(name, None)
                project, note = await self._told_at_end(stack, child)
                if note:
                    notes = [*(n for n in notes if n.name != name), DatasetNote(name=name, message=note)]
                if project:
                    others = (p for p in status.dataset_projects if p.name != name)
                    status = status.replace(
                        dataset_projects=(*others, DatasetProject(name=name, project=project))
                    )
                status = status.replace(imported_datasets=(*status.imported_datasets, name))
            elif child and child.ended and name not in failed:
                message = f"{self._named([name])} could not be imported{await self._cause(stack, child)}"
                failed[name] = FailedDataset(name=name, message=message, run=_run(stack))
        return status.replace(failed_datasets=tuple(failed.values()), dataset_notes=tuple(notes))

    async def _told_at_end(self, stack: Stack, job: Child) -> tuple[int, str]:
        """The project into which an import that ended well put its dataset, and what it left out; 0 and "" if not known."""
        pods = self._pods(stack, job.name)
        if not pods:
            return 0, ""
        text = ""
        with contextlib.suppress(KubeError):
            text = await self._kube.log(pods[0].name, lines=2)
        if not text.strip():
            return 0, ""
        redact = await self._words.of(stack, (text,))
        said = redact(text).strip().splitlines()
        # The Job goes with its log: how fast it went is for the administrator to read here.
        for line in said:
            log.info("The import into %s says at its end: %s", stack.name, cut(line, _WORDS))
        note = f"{last_line(said[-1], _WORDS)}." if said[-1].startswith(LEFT_OUT) else ""
        ended = _ENDED.match(said[-2] if note and len(said) > 1 else said[-1])
        return int(ended[1]) if ended else 0, note

    async def _verdict(
        self, stack: Stack, importing: Import | None, jobs: dict[str, str], now: datetime
    ) -> _Verdict:
        if not _missing(stack):
            revoked = [name for name in stack.spec.datasets if name in stack.status.revoked_datasets]
            told = [self._say(revoked, "not granted any more")] if revoked else []
            if inside := [name for name in stack.spec.datasets if name not in revoked]:
                told = [self._say(inside, "in Cytomine"), *told, *self._lacking(stack)]
            return _Verdict("Imported", " ".join(told))
        failed, waiting = _failed(stack, self._settings), _waiting(stack, self._settings)
        notes = [*self._told(failed), *self._strange(stack)]
        if not stack.is_open and (waiting := _offered(stack, self._settings)):
            when = "at the next start" if _sleeps(stack) else "as soon as the stack is ready"
            notes = [self._say(waiting, f"imported {when}"), *self._strange(stack)]
            return _Verdict("Waiting", " ".join(notes))
        refused = self._refused.get(stack.name)
        if waiting and refused and refused[0] == importing:
            text = f"{self._named(waiting)} could not be imported. The cluster refuses it: {cut(refused[1])}"
            return _Verdict("Failed", " ".join([f"{text}. {_ADMINISTRATOR}", *notes]))
        if waiting:
            turn = await self._under_way(stack, waiting[0], jobs.get(waiting[0]), now)
            if rest := waiting[1:]:
                notes.insert(0, f"{self._named(rest)} {'follows' if len(rest) == 1 else 'follow'}.")
            return replace(turn, message=" ".join([turn.message, *notes]))
        gone = stack.status.revoked_datasets
        imported = [name for name in stack.spec.datasets if name in stack.status.imported_datasets]
        if inside := [name for name in imported if name not in gone]:
            notes += [self._say(inside, "in Cytomine"), *self._lacking(stack)]
        return _Verdict("Failed" if failed else "NotOffered", " ".join(notes))

    def _told(self, failed: list[FailedDataset]) -> list[str]:
        told = [f.message for f in failed[:_TOLD]]
        if rest := [f.name for f in failed[_TOLD:]]:
            told.append(f"{self._named(rest)} could not be imported either.")
        return told

    def _lacking(self, stack: Stack) -> list[str]:
        """What was left out of those that are in; of which, where there are several."""
        notes = stack.status.dataset_notes
        if len(stack.spec.datasets) == 1:
            return [n.message for n in notes]
        told = [f"Of {self._named([n.name])}: {n.message[:1].lower()}{n.message[1:]}" for n in notes[:_TOLD]]
        if rest := [n.name for n in notes[_TOLD:]]:
            told.append(f"Of {self._named(rest)} something was left out, too.")
        return told

    def _strange(self, stack: Stack) -> list[str]:
        names = [name for name in _missing(stack) if not self._settings.offers(name)]
        if not names:
            return []
        subject = f"The dataset {names[0]} is" if len(names) == 1 else f"The datasets {listed(names)} are"
        return [f"{cut(subject)} not offered here. Choose others in the options or ask an administrator."]

    def _say(self, names: Sequence[str], what: str) -> str:
        return f"{self._named(names)} {'is' if len(names) == 1 else 'are'} {what}."

    def _named(self, names: Sequence[str]) -> str:
        return cut(listed([self._settings.dataset_title(name) for name in names]))

    async def _cause(self, stack: Stack, job: Child) -> str:
        """Why a Job failed: how its dataset's sentence goes on."""
        if job.trouble == "DeadlineExceeded":
            hours = self._settings.dataset_deadline / 3600
            return f": it took more than {hours:.3g} hours. Try again: it goes on from where it ended."
        pods = self._pods(stack, job.name)
        with contextlib.suppress(KubeError):
            # The watch may bring the Job's end before that of its pods.
            found, _ = await self._kube.list("Pod", labels=f"batch.kubernetes.io/job-name={job.name}")
            pods = sorted((pod(obj) for obj in found), key=lambda p: p.created, reverse=True)
        redact = await self._words.of(stack, _said(pods))
        words = (w for p in pods if (w := _last_words(p, redact)))
        return f". {next(words, f'The cluster ended it. {_ADMINISTRATOR}')}"

    def _pods(self, stack: Stack, job: str) -> list[Pod]:
        pods = self._children.family(stack.name).pods_of(DATASETS)
        return [p for p in pods if p.name.startswith(f"{job}-")]

    async def _under_way(self, stack: Stack, name: str, job: str | None, now: datetime) -> _Verdict:
        text = self._say([name], "being imported")
        if job is None:
            return _Verdict("Importing", text)
        pods = [p for p in self._pods(stack, job) if not p.deleting]
        if not pods:
            warned = self._children.warnings.find("Job", job, "FailedCreate")
            if not warned:
                return _Verdict("Importing", text)
            full = "exceeded quota" in warned.text
            why = f"the cluster's quota is used up: {quota_gap(warned.text)}" if full else cut(warned.text)
            return _Verdict("Importing", f"{text} It is not allowed to start: {why}. {_ADMINISTRATOR}")
        newest = pods[0]
        redact = await self._words.of(stack, _said([newest]))
        if newest.phase == "Failed":
            return _Verdict("Importing", f"{text} It is tried again. {_last_words(newest, redact)}".strip())
        if newest.phase == "Succeeded":
            return _Verdict("Importing", text)
        family, warnings = self._children.family(stack.name), self._children.warnings
        finding = placed(stack.name, DATASETS, newest, family, warnings, now, self._patience, redact)
        if finding.status.state is State.FAILED:
            return _Verdict("Importing", finding.status.message, finding.again)
        if not any(c.running_since for c in newest.containers):
            return _Verdict("Importing", text, finding.again)
        line = ""
        with contextlib.suppress(KubeError):
            redact = await self._words.of(stack, newest.uid)
            line = last_line(redact(await self._kube.log(newest.name, lines=1)), _WORDS)
        progress = f"{text[:-1]}: {line}." if line else text
        return _Verdict("Importing", progress, now + timedelta(seconds=PROGRESS_SECONDS))


def _sleeps(stack: Stack) -> bool:
    return stack.spec.desired_state is Desired.HIBERNATED


def _said(pods: Sequence[Pod]) -> tuple[str, ...]:
    return tuple(c.last_text for p in pods for c in p.containers if c.last_text)


def _last_words(pod: Pod, redact: Redact) -> str:
    container = next((c for c in pod.containers if c.last_ended), None)
    if container is None:
        return ""
    if container.last_ended == "OOMKilled":
        return (
            "It was ended because it needs more memory than it may have. An administrator must give it more."
        )
    line = last_line(redact(container.last_text), _WORDS)
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
