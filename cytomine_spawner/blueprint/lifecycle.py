"""When a stack goes to sleep and when a sleeping one is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..stack.model import LIMITED, Condition, Desired, Phase, Stack, StackSpec
from .settings import StackSettings


@dataclass(frozen=True)
class Limits:
    """How long stacks may run, whatever their owners want.

    Attributes:
        idle: the most seconds without activity before a stack hibernates; 0 for no limit.
        life: the most seconds from a start to the next hibernation; 0 for no limit.
    """

    idle: int = 0
    life: int = 0

    @classmethod
    def of(cls, settings: StackSettings) -> Limits:
        """Those of an administrator's settings."""
        return cls(settings.max_idle_timeout, settings.max_life)

    def refusal(self, idle_timeout: int | None) -> str:
        """Why a stack may not have an idle time of its own; empty if it may."""
        if not self.exceeded(idle_timeout):
            return ""
        return (
            f"Here stacks hibernate after {length(self.idle)} without use at the latest: give at most {self.idle} seconds"
            f"{', and not 0 for never' if idle_timeout == 0 else ''}, or null for the usual time."
        )

    def exceeded(self, idle_timeout: int | None) -> bool:
        """Whether an idle time is longer than is allowed; 0 stands for never."""
        return bool(self.idle) and idle_timeout is not None and not 0 < idle_timeout <= self.idle

    def idle_of(self, spec: StackSpec, usual: int) -> int:
        """Seconds without activity after which a stack hibernates; 0 for never."""
        wanted = usual if spec.idle_timeout is None else spec.idle_timeout
        if not self.idle:
            return wanted
        return min(wanted, self.idle) if wanted else self.idle


# Where administrators have set none.
NO_LIMITS = Limits()


def length(seconds: int) -> str:
    """A length of time as people say it, exactly: ``8 hours``, ``90 minutes``, ``45 seconds``."""
    for unit, long in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds % long == 0:
            return f"{seconds // long} {unit}{'' if seconds == long else 's'}"
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class Deadlines:
    """What will happen by itself.

    Attributes:
        active: the last sign of use.
        hibernates: when the stack hibernates unless it is used.
        ends: when it hibernates though it is used, because it has run for as long as stacks may.
        expires: when the hibernated stack is deleted.
    """

    active: datetime | None = None
    hibernates: datetime | None = None
    ends: datetime | None = None
    expires: datetime | None = None


def deadlines(stack: Stack, settings: StackSettings, *, seen: datetime | None = None) -> Deadlines:
    """The deadlines of a stack.

    Args:
        stack: the stack; its status tells when it started or went to sleep.
        settings: the administrator's limits.
        seen: when the owner's notebook was last seen to run, if it was.
    """
    status = stack.status
    if stack.spec.desired_state is Desired.HIBERNATED:
        if status.hibernated_at is None or not settings.retention:
            return Deadlines(active=status.last_activity)
        expires = status.hibernated_at + timedelta(seconds=settings.retention)
        return Deadlines(active=status.last_activity, expires=expires)
    signs = [stack.activity, status.started_at, status.ready_at, status.last_activity, seen]
    active = max((sign for sign in signs if sign), default=None)
    limits = Limits.of(settings)
    limit = limits.idle_of(stack.spec, settings.idle_timeout)
    starting = status.phase in (None, Phase.PENDING, Phase.STARTING)
    ends = status.started_at + timedelta(seconds=limits.life) if limits.life and status.started_at else None
    if not limit or active is None or starting:
        return Deadlines(active=active, ends=ends)
    return Deadlines(active=active, hibernates=active + timedelta(seconds=limit), ends=ends)


def sentence(stack: Stack, settings: StackSettings, ends: datetime | None) -> str:
    """What the administrator's limits mean for a running stack, for its owner; empty where they change nothing.

    Args:
        stack: the stack.
        settings: the administrator's limits.
        ends: when it hibernates though it is used, if it does.
    """
    limits, said = Limits.of(settings), []
    if limits.exceeded(stack.spec.idle_timeout):
        own = length(stack.spec.idle_timeout) if stack.spec.idle_timeout else "never"
        said.append(
            f"It hibernates after {length(limits.idle)} without use, for more is not allowed here (its own setting: {own})."
        )
    if ends:
        said.append(
            f"It hibernates on {ends:%-d %b %Y, %H:%M} UTC at the latest, also while it is used: stacks run for "
            f"{length(limits.life)} at most. Its data stay, and you can resume it at once."
        )
    return " ".join(said)


def limited(
    stack: Stack, settings: StackSettings, ends: datetime | None, time: datetime
) -> tuple[Condition, ...]:
    """The condition that tells the owner of the limits, where they change anything; see :func:`sentence`.

    Args:
        stack: the stack; with the condition of before, if there was one.
        settings: the administrator's limits.
        ends: when it hibernates though it is used, if it does.
        time: now.
    """
    running = stack.spec.desired_state is Desired.RUNNING
    text = sentence(stack, settings, ends) if running else ""
    if not text:
        return ()
    old = stack.status.condition(LIMITED)
    condition = Condition(
        type=LIMITED,
        status="True",
        reason="Limited",
        message=text,
        last_transition_time=old.last_transition_time if old else time,
        observed_generation=stack.generation,
    )
    return (condition,)
