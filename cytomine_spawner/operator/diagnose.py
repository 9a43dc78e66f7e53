"""From what the cluster says of a stack's pods to one state and one sentence for each component.

Pure functions. Failures are named as soon as Kubernetes knows them; what only time can tell (a volume that is
never bound, a program that never answers) comes with the moment at which to look again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..common.lines import cut, last_line
from ..common.redact import Redact, by_looks
from ..stack.components import TITLES
from ..stack.model import ComponentStatus, Phase, Reason, State, component_name
from ..stack.sentences import listed, no_node, probe_saw, pull_cause, quota_gap, times
from .observe import Child, Container, Family, Pod, Warnings

PULL = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "ImageInspectError",
    "SignatureValidationFailed",
}
CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreStartHookError"}
# A kubelet is a moment behind the API server with a new pod's objects, and tries again by itself.
PASSING = (
    "no relationship found between node",
    "failed to sync secret cache",
    "failed to sync configmap cache",
)
MOUNT = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
# How a program ends that was told to: by the kubelet, after its probe failed for too long.
TOLD_TO_END = {137, 143}
# Which components a component's first container waits for.
NEEDS = {
    "repository": ("postgis",),
    "core": ("repository", "mongo", "cbir"),
    "app-engine": ("app-engine-db", "registry"),
    "cbir": ("cbir-redis",),
}
# Without these a stack is less, but it serves.
SOFT = {"pims-cache", "cbir-redis", "meilisearch", "sam", "app-engine", "app-engine-db", "registry"}


@dataclass(frozen=True)
class Patience:
    """How long to wait before what may still pass is called a failure."""

    unschedulable: timedelta = timedelta(seconds=3)
    volume: timedelta = timedelta(seconds=20)
    mount: timedelta = timedelta(seconds=8)
    passing: timedelta = timedelta(seconds=60)
    probe: timedelta = timedelta(seconds=240)


@dataclass(frozen=True)
class Finding:
    """The state of one component, and when to look again though nothing happens."""

    status: ComponentStatus
    ready_since: datetime | None = None
    again: datetime | None = None
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The state of a whole stack."""

    phase: Phase
    message: str
    reason: Reason | None
    ready: str
    slowest: str | None
    findings: tuple[Finding, ...]
    again: datetime | None


class _Context:
    def __init__(
        self,
        stack: str,
        family: Family,
        warnings: Warnings,
        now: datetime,
        patience: Patience,
        missing: str,
        redact: Redact,
    ) -> None:
        self.stack, self.family, self.warnings = stack, family, warnings
        self.now, self.patience, self.missing, self.redact = now, patience, missing, redact


def diagnose(
    stack: str,
    components: tuple[str, ...],
    family: Family,
    warnings: Warnings,
    now: datetime,
    *,
    running: bool = True,
    was_ready: bool = False,
    patience: Patience | None = None,
    missing: dict[str, str] | None = None,
    redact: Redact = by_looks,
) -> Diagnosis:
    """Judge a stack.

    Args:
        stack: the stack's name.
        components: the components it should have, in the order of their start.
        family: what is known of its children.
        warnings: the cluster's warnings.
        now: the present time.
        running: whether it should run, or sleep.
        was_ready: whether all components served since the last start.
        patience: see :class:`Patience`.
        missing: for components that fit on no node, how much is missing, as a sentence.
        redact: takes secrets out of what programs said.
    """
    findings = []
    for name in components:
        context = _Context(
            stack, family, warnings, now, patience or Patience(), (missing or {}).get(name, ""), redact
        )
        findings.append(_component(context, name) if running else _stopping(context, name))
    if not running:
        return _asleep(findings, family)
    return _awake(_name_neighbours(findings), was_ready)


def placed(
    stack: str,
    component: str,
    pod: Pod,
    family: Family,
    warnings: Warnings,
    now: datetime,
    patience: Patience,
    redact: Redact = by_looks,
) -> Finding:
    """Judge a single pod that has not ended, on its way to a node and on it; see :func:`diagnose`."""
    return _placed(_Context(stack, family, warnings, now, patience, "", redact), component, pod)


def _asleep(findings: list[Finding], family: Family) -> Diagnosis:
    left = [f.status.name for f in findings if f.status.state is State.STOPPING]
    phase = Phase.HIBERNATING if left or family.pods else Phase.HIBERNATED
    message = (
        "Hibernated: nothing runs, the data is kept." if phase is Phase.HIBERNATED else "Going to sleep."
    )
    return Diagnosis(phase, message, None, f"0/{len(findings)}", None, tuple(findings), None)


def _awake(findings: list[Finding], was_ready: bool) -> Diagnosis:
    states = {f.status.name: f.status for f in findings}
    ready = [s for s in states.values() if s.state is State.READY]
    count = f"{len(ready)}/{len(findings)}"
    again = min((f.again for f in findings if f.again), default=None)
    late = _slowest(findings)
    if late is None:
        return Diagnosis(Phase.READY, "Ready.", None, count, None, tuple(findings), again)
    failed = [s for s in states.values() if s.state is State.FAILED]
    hard = [s for s in states.values() if s.state is not State.READY and s.name not in SOFT]
    if was_ready or not hard:
        phase = Phase.DEGRADED
    else:
        phase = Phase.FAILED if any(s.name not in SOFT for s in failed) else Phase.STARTING
    message = late.message
    if phase is Phase.STARTING and len(findings) - len(ready) > 1:
        message = f"{message} {len(ready)} of {len(findings)} components serve."
    return Diagnosis(phase, message, late.reason, count, late.name, tuple(findings), again)


def _slowest(findings: list[Finding]) -> ComponentStatus | None:
    """The component that holds the others up: one that failed, or one that waits for no other."""
    late = [f for f in findings if f.status.state is not State.READY]
    if not late:
        return None
    failed = [f for f in late if f.status.state is State.FAILED]
    roots = [f for f in late if not f.waits_for]
    # of those at work, the one with the longest way behind it starts last: core and repository before the rest
    order = {"repository": 0, "core": 1, "pims": 2, "postgis": 3}
    candidates = failed or roots or late
    return min(candidates, key=lambda f: (f.status.name in SOFT, order.get(f.status.name, 9))).status


def _name_neighbours(findings: list[Finding]) -> list[Finding]:
    """Say of each component that waits which of its neighbours it waits for."""
    ready = {f.status.name for f in findings if f.status.state is State.READY}
    present = {f.status.name for f in findings}
    named = []
    for finding in findings:
        late = tuple(n for n in NEEDS.get(finding.status.name, ()) if n in present and n not in ready)
        if finding.waits_for and late:
            text = f"{TITLES[finding.status.name]} waits for {listed([TITLES[n].lower() for n in late])}."
            finding = replace(finding, waits_for=late, status=finding.status.replace(message=text))
        elif finding.waits_for:
            text = f"{TITLES[finding.status.name]} is about to start."
            finding = replace(finding, waits_for=(), status=finding.status.replace(message=text))
        named.append(finding)
    return named


def _stopping(context: _Context, name: str) -> Finding:
    if context.family.pods_of(name):
        return Finding(
            ComponentStatus(name=name, state=State.STOPPING, message=f"{TITLES[name]} is stopping.")
        )
    return Finding(ComponentStatus(name=name, state=State.STOPPED, message=f"{TITLES[name]} is stopped."))


def _component(context: _Context, name: str) -> Finding:
    title = TITLES[name]
    workload = context.family.workload(component_name(context.stack, name))
    pods = context.family.pods_of(name)
    if workload is None:
        return _finding(name, State.WAITING, f"{title} is about to be created.")
    if not pods or pods[0].deleting:
        return _without_pod(context, name, workload, pods)
    pod = pods[0]
    if pod.ready_since:
        restarts = sum(c.restarts for c in pod.containers)
        text = f"{title} serves."
        if restarts:
            text = f"{title} serves; it was started anew {times(restarts)}."
        status = ComponentStatus(name=name, state=State.READY, message=text, restarts=restarts)
        return Finding(status, ready_since=pod.ready_since)
    return _volume(context, name, pod) or _placed(context, name, pod)


def _without_pod(context: _Context, name: str, workload: Child, pods: list[Pod]) -> Finding:
    title = TITLES[name]
    if pods:
        return _finding(name, State.STOPPING, f"{title} is being started anew: its former run ends.")
    trouble = workload.trouble
    if not trouble and workload.kind == "StatefulSet":
        warned = context.warnings.find("StatefulSet", workload.name, "FailedCreate")
        trouble = warned.text if warned else ""
    if not trouble:
        return _finding(name, State.WAITING, f"{title} is about to be created.")
    if "exceeded quota" in trouble or "failed quota" in trouble:
        text = (
            f"{title} is not allowed to start, because the cluster's quota is used up: {quota_gap(trouble)}"
        )
        return _failed(name, Reason.QUOTA, f"{text}. Stop something else or ask an administrator for more.")
    text = f"{title} is not allowed to start: {cut(trouble)}. An administrator must correct the settings."
    return _failed(name, Reason.FORBIDDEN, text)


def _volume(context: _Context, name: str, pod: Pod) -> Finding | None:
    """A pod whose volume does not come, seen from the claim."""
    if pod.node:
        return None
    claims = [
        claim
        for (kind, _), claim in context.family.children.items()
        if kind == "PersistentVolumeClaim" and claim.component == name and claim.claim_phase != "Bound"
    ]
    for claim in claims:
        gone = "The disk of its data is lost" if claim.claim_phase == "Lost" else ""
        warned = context.warnings.find(
            "PersistentVolumeClaim", claim.name, "ProvisioningFailed", "FailedBinding"
        )
        because = gone or (f"Its disk cannot be made: {cut(warned.text)}" if warned else "")
        if because:
            text = f"{TITLES[name]} cannot start. {because}. An administrator must look at the storage."
            return _failed(name, Reason.VOLUME, text)
        due = pod.created + context.patience.volume
        unbound = "unbound immediate" in pod.unschedulable or not pod.unschedulable
        if unbound and context.now >= due:
            text = f"{TITLES[name]} cannot start: its disk {claim.name} is not made. "
            return _failed(name, Reason.VOLUME, text + "An administrator must look at the storage.")
        if unbound:
            return _finding(name, State.WAITING, f"{TITLES[name]} waits for its disk.", again=due)
    return None


def _placed(context: _Context, name: str, pod: Pod) -> Finding:
    title = TITLES[name]
    if not pod.node:
        return _unplaced(context, name, pod)
    if pod.phase == "Failed":
        text = f"{title} was ended by its node ({cut(pod.reason or 'no reason given')}) and is started anew."
        return _failed(name, Reason.EVICTED, text)
    for container in pod.containers:
        failure = _container_failure(context, name, pod, container)
        if failure:
            return failure
    mount = context.warnings.find("Pod", pod.name, *MOUNT)
    if mount and not pod.sandbox and not any(c.running_since for c in pod.containers):
        passing = any(clue in mount.text for clue in PASSING)
        due = pod.created + (context.patience.passing if passing else context.patience.mount)
        if context.now < due:
            return _finding(name, State.WAITING, f"{title} waits for its volumes.", again=due)
        text = f"{title} cannot start: a volume cannot be attached: {cut(mount.text)}."
        return _failed(name, Reason.MOUNT, text)
    return _under_way(context, name, pod)


def _unplaced(context: _Context, name: str, pod: Pod) -> Finding:
    title = TITLES[name]
    if not pod.unschedulable:
        return _finding(name, State.WAITING, f"{title} is about to be placed on a node.")
    due = (pod.unschedulable_since or pod.created) + context.patience.unschedulable
    if context.now < due:
        return _finding(name, State.WAITING, f"{title} looks for a node.", again=due)
    why = context.missing or no_node(pod.unschedulable)
    text = f"{title} fits on no node: {why}. It starts as soon as there is room"
    return _failed(name, Reason.UNSCHEDULABLE, f"{text}; choose a smaller size or stop something else.")


def _container_failure(context: _Context, name: str, pod: Pod, container: Container) -> Finding | None:
    title, restarts = TITLES[name], container.restarts
    if container.waiting in PULL:
        cause = pull_cause(container.waiting_text or container.waiting)
        text = f"{title} cannot start: its image {container.image} cannot be fetched ({cause})."
        return _failed(
            name, Reason.IMAGE_PULL, f"{text} An administrator must correct the image or the login."
        )
    if container.waiting in CONFIG and any(clue in container.waiting_text for clue in PASSING):
        due = max(pod.created, pod.unready_since or pod.created) + context.patience.passing
        if context.now < due:
            return _finding(name, State.WAITING, f"{title} is being set up on its node.", again=due)
    if container.waiting in CONFIG:
        text = f"{title} cannot start: {cut(context.redact(container.waiting_text) or container.waiting)}."
        return _failed(name, Reason.CONFIG, text, restarts)
    broken = container.waiting == "CrashLoopBackOff" or (
        container.ended and container.exit_code not in (0, None)
    )
    again = restarts > 0 and not container.started and not (container.init and container.ended)
    if not (broken or again):
        return None
    anew = f" and is started anew ({times(restarts)})" if restarts else ""
    if container.last_ended == "OOMKilled":
        text = f"{title} was ended because it needs more memory than it may have{anew}."
        cure = "Choose a larger size or ask an administrator for a higher limit."
        return _failed(name, Reason.OUT_OF_MEMORY, f"{text} {cure}", restarts)
    unhealthy = context.warnings.find("Pod", pod.name, "Unhealthy")
    if container.last_exit_code in TOLD_TO_END or (container.last_exit_code == 0 and unhealthy):
        said = f" ({probe_saw(context.redact(unhealthy.text))})" if unhealthy else ""
        text = f"{title} did not answer its health check in time{said}{anew}."
        return _failed(name, Reason.PROBE, f"{text} Look at its log.", restarts)
    text = f"{title} ends at once with code {container.last_exit_code}{anew}"
    line = last_line(context.redact(container.last_text))
    return _failed(
        name,
        Reason.CRASH_LOOP,
        f"{text}. {f'Its last words: {line}' if line else 'Look at its log'}.",
        restarts,
    )


def _under_way(context: _Context, name: str, pod: Pod) -> Finding:
    title = TITLES[name]
    running = next((c for c in pod.containers if not c.init and c.running_since), None)
    if running and running.running_since:
        unhealthy = context.warnings.find("Pod", pod.name, "Unhealthy")
        since = max(running.running_since, pod.unready_since or running.running_since)
        due = since + context.patience.probe
        if context.now >= due:
            waited = int((context.now - since).total_seconds())
            long = f"{waited} seconds" if waited < 120 else f"{waited // 60} minutes"
            said = f" ({probe_saw(context.redact(unhealthy.text))})" if unhealthy else ""
            text = f"{title} has not answered its health check for {long}{said}. Look at its log."
            return _failed(name, Reason.PROBE, text, running.restarts)
        text = (
            f"{title} is busy and does not answer."
            if running.started and running.restarts
            else f"{title} is starting."
        )
        return _finding(name, State.STARTING, text, again=due)
    waiting = [c for c in pod.containers if c.init and c.running_since]
    if any(c.name.startswith("wait-") for c in waiting):
        finding = _finding(name, State.WAITING, f"{title} waits for its neighbours.")
        return replace(finding, waits_for=NEEDS.get(name, ("?",)))
    if waiting:
        return _finding(name, State.STARTING, f"{title} prepares its files.")
    if pod.sandbox:
        return _finding(name, State.PULLING, f"{title}: its image is being fetched.")
    return _finding(name, State.WAITING, f"{title} is being set up on its node.")


def _finding(name: str, state: State, text: str, again: datetime | None = None) -> Finding:
    return Finding(ComponentStatus(name=name, state=state, message=text), again=again)


def _failed(name: str, reason: Reason, text: str, restarts: int = 0) -> Finding:
    status = ComponentStatus(name=name, state=State.FAILED, message=text, reason=reason, restarts=restarts)
    return Finding(status)
