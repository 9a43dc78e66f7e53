"""What the operator remembers of the stacks' children: little of each, so that hundreds of stacks fit in memory."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..common.redact import by_looks
from ..stack import model
from ..stack.model import EPOCH, parse_time

# Made once and left alone.
UNCOMPARED = ("PersistentVolumeClaim", "Secret")
_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod.

    ``waiting`` and ``ended`` are Kubernetes' reasons; ``last`` is about the run before the present one.
    """

    name: str
    image: str = ""
    init: bool = False
    ready: bool = False
    started: bool = False
    restarts: int = 0
    waiting: str = ""
    waiting_text: str = ""
    running_since: datetime | None = None
    ended: str = ""
    exit_code: int | None = None
    last_ended: str = ""
    last_exit_code: int | None = None
    last_text: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a component."""

    name: str
    uid: str
    component: str
    created: datetime
    phase: str = ""
    reason: str = ""
    node: str = ""
    deleting: bool = False
    ready_since: datetime | None = None
    unready_since: datetime | None = None
    unschedulable: str = ""
    unschedulable_since: datetime | None = None
    sandbox: bool = False
    containers: tuple[Container, ...] = ()


@dataclass(frozen=True, slots=True)
class Child:
    """Any other object of a stack.

    ``trouble`` is what its controller says of a failure, and ``ended`` how a Job ended: ``Complete`` or ``Failed``.
    """

    kind: str
    name: str
    uid: str
    component: str
    owner: str = ""
    digest: str = ""
    deleting: bool = False
    kept: bool = False
    replicas: int | None = None
    claim_phase: str = ""
    trouble: str = ""
    ended: str = ""
    created: datetime = EPOCH
    # Grows when the content changes, by whom ever; statuses do not count.
    revision: int = 0
    # Somebody else changed its content after us.
    touched: bool = False
    # Of two states of one object the newer; no difference by itself.
    version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - Kubernetes' word
    """The last warning event of a kind about an object."""

    kind: str
    name: str
    reason: str
    text: str
    count: int
    time: datetime


class Warnings:
    """The last warnings of each object, of a bounded number of objects."""

    def __init__(self, most: int = 5000) -> None:
        self._most = most
        self._of: OrderedDict[tuple[str, str], dict[str, Warning]] = OrderedDict()

    def add(self, warning: Warning) -> None:
        """Remember a warning in the place of the one before it."""
        key = (warning.kind, warning.name)
        self._of.setdefault(key, {})[warning.reason] = warning
        self._of.move_to_end(key)
        while len(self._of) > self._most:
            self._of.popitem(last=False)

    def forget(self, kind: str, name: str) -> None:
        """Drop the warnings of an object that is gone."""
        self._of.pop((kind, name), None)

    def find(self, kind: str, name: str, *reasons: str) -> Warning | None:
        """The newest warning about an object, of these reasons if any are named."""
        found = [w for w in self._of.get((kind, name), {}).values() if not reasons or w.reason in reasons]
        return max(found, key=lambda w: w.time, default=None)


@dataclass
class Family:
    """All that is known of one stack's children."""

    pods: dict[str, Pod] = field(default_factory=dict)
    children: dict[tuple[str, str], Child] = field(default_factory=dict)

    def pods_of(self, component: str) -> list[Pod]:
        """The pods of a component: first those that are not being deleted, the newest before the older."""
        pods = [pod for pod in self.pods.values() if pod.component == component]
        return sorted(pods, key=lambda pod: (not pod.deleting, pod.created), reverse=True)

    def workload(self, name: str) -> Child | None:
        """The Deployment or StatefulSet of this name."""
        return self.children.get(("Deployment", name)) or self.children.get(("StatefulSet", name))

    @property
    def empty(self) -> bool:
        """Whether nothing of the stack is left."""
        return not (self.pods or self.children)


def pod(obj: dict[str, Any]) -> Pod:
    """Read a Pod object."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    waits, is_ready = scheduled.get("status") == "False", ready.get("status") == "True"
    images = {
        c["name"]: c.get("image", "") for c in [*spec.get("initContainers", []), *spec.get("containers", [])]
    }
    return Pod(
        name=meta["name"],
        uid=meta.get("uid", ""),
        component=_word(meta, "app.kubernetes.io/component"),
        created=parse_time(meta.get("creationTimestamp")) or EPOCH,
        phase=sys.intern(status.get("phase", "")),
        reason=status.get("reason", ""),
        node=sys.intern(spec.get("nodeName", "")),
        deleting=bool(meta.get("deletionTimestamp")),
        ready_since=(parse_time(ready.get("lastTransitionTime")) or EPOCH) if is_ready else None,
        unready_since=None if is_ready else parse_time(ready.get("lastTransitionTime")),
        unschedulable=by_looks(str(scheduled.get("message", "")))[:_TEXT] if waits else "",
        unschedulable_since=parse_time(scheduled.get("lastTransitionTime")) if waits else None,
        sandbox=conditions.get("PodReadyToStartContainers", {}).get("status") == "True",
        containers=tuple(
            _container(c, init, images)
            for init, key in ((True, "initContainerStatuses"), (False, "containerStatuses"))
            for c in status.get(key) or []
        ),
    )


def _container(status: dict[str, Any], init: bool, images: dict[str, str]) -> Container:
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated") or {}
    waiting, running, ended = (state.get(k) or {} for k in ("waiting", "running", "terminated"))
    return Container(
        name=sys.intern(status["name"]),
        image=sys.intern(images.get(status["name"], "")),
        init=init,
        ready=bool(status.get("ready")),
        started=bool(status.get("started")),
        restarts=status.get("restartCount", 0),
        waiting=waiting.get("reason", ""),
        waiting_text=by_looks(str(waiting.get("message", "")))[:_TEXT],
        running_since=parse_time(running.get("startedAt")) if running else None,
        ended=ended.get("reason", "") or ("Ended" if ended else ""),
        exit_code=ended.get("exitCode"),
        last_ended=(ended or last).get("reason", ""),
        last_exit_code=(ended or last).get("exitCode"),
        last_text=by_looks(str((ended or last).get("message", "")))[-_TEXT:],
    )


def child(kind: str, obj: dict[str, Any]) -> Child:
    """Read any other object, or its metadata alone."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    true = {c["type"]: c for c in status.get("conditions") or [] if c["status"] == "True"}
    ended = next((word for word in ("Complete", "Failed") if word in true), "") if kind == "Job" else ""
    trouble = true["Failed"].get("reason", "") if ended == "Failed" else ""
    trouble = trouble or by_looks(true.get("ReplicaFailure", {}).get("message", ""))
    annotations = meta.get("annotations") or {}
    return Child(
        kind=kind,
        name=meta["name"],
        uid=meta.get("uid", ""),
        component=_word(meta, "app.kubernetes.io/component"),
        owner=next(
            (sys.intern(o["uid"]) for o in meta.get("ownerReferences") or [] if o["kind"] == model.KIND), ""
        ),
        digest=annotations.get(model.ANNOTATION_DIGEST, ""),
        deleting=bool(meta.get("deletionTimestamp")),
        kept=model.ANNOTATION_KEPT in annotations,
        replicas=spec.get("replicas"),
        claim_phase=status.get("phase", "") if kind == "PersistentVolumeClaim" else "",
        trouble=by_looks(str(trouble))[:_TEXT],
        ended=ended,
        created=parse_time(meta.get("creationTimestamp")) or EPOCH,
        revision=0 if kind in UNCOMPARED else meta.get("generation") or _version(meta),
        version=_version(meta),
        touched=_touched(meta.get("managedFields") or []),
    )


def _word(meta: dict[str, Any], label: str) -> str:
    # The same few words in thousands of objects: kept once.
    return sys.intern(str((meta.get("labels") or {}).get(label, "")))


def _version(meta: dict[str, Any]) -> int:
    # Opaque by the older letter of the API, numbers that grow in every API server there is.
    text = str(meta.get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def _touched(entries: list[dict[str, Any]]) -> bool:
    ours = max((e.get("time", "") for e in entries if e["manager"] == model.MANAGED_BY), default="")
    return any(
        e.get("time", "") >= ours
        and e["manager"] != model.MANAGED_BY
        and e.get("subresource") != "status"
        and set(e.get("fieldsV1") or {}) - {"f:metadata", "f:status"}
        for e in entries
    )


def warning(obj: dict[str, Any]) -> Warning:
    """Read an Event object."""
    about = obj.get("involvedObject") or {}
    series = obj.get("series") or {}
    time = series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime")
    return Warning(
        kind=about.get("kind", ""),
        name=about.get("name", ""),
        reason=obj.get("reason", ""),
        text=by_looks(str(obj.get("message", "")))[:_TEXT],
        count=series.get("count") or obj.get("count") or 1,
        time=parse_time(time) or parse_time(obj["metadata"].get("creationTimestamp")) or EPOCH,
    )
