"""When a stack goes to sleep and when a sleeping one is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .model import Desired, Phase, Stack
from .settings import StackSettings


@dataclass(frozen=True)
class Deadlines:
    """What will happen by itself.

    Attributes:
        active: the last sign of use.
        hibernates: when the stack hibernates unless it is used.
        expires: when the hibernated stack is deleted.
    """

    active: datetime | None = None
    hibernates: datetime | None = None
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
    limit = settings.idle_timeout if stack.spec.idle_timeout is None else stack.spec.idle_timeout
    starting = status.phase in (None, Phase.PENDING, Phase.STARTING)
    if not limit or active is None or starting:
        return Deadlines(active=active)
    return Deadlines(active=active, hibernates=active + timedelta(seconds=limit))
