"""How many stacks may run: per user, per group and in all."""

from __future__ import annotations

from collections.abc import Iterable

from ..stack.model import Phase, Reason, Stack, StackSpec
from .settings import StackSettings

_ASLEEP = {Phase.HIBERNATED, Phase.DELETING}


def holds_place(stack: Stack) -> bool:
    """Whether a stack counts: it runs or starts, and is not one that waits for a place itself."""
    if stack.deleting or stack.status.phase in _ASLEEP | {None}:
        # Hibernating stacks count until their pods are gone; what nobody has admitted yet does not count.
        return False
    waits = stack.status.phase is Phase.PENDING and stack.status.reason is Reason.QUOTA
    return not waits


def holding(stacks: Iterable[Stack]) -> list[Stack]:
    """The stacks that count."""
    return [stack for stack in stacks if holds_place(stack)]


def refusal(spec: StackSpec, name: str, stacks: Iterable[Stack], settings: StackSettings) -> str:
    """Why one more stack may not run now, as a sentence with the cure; "" if it may.

    The spawner's form and the operator both ask this, so that what the form offers is what happens.

    Args:
        spec: the stack that is to run.
        name: its name; a stack of this name among ``stacks`` does not count.
        stacks: the stacks that count: :func:`holding` of all.
        settings: the limits.
    """
    others = [s for s in stacks if s.name != name]
    cure = "Hibernate or delete one"
    if settings.max_stacks_per_user:
        own = [s for s in others if s.spec.owner == spec.owner]
        if len(own) >= settings.max_stacks_per_user:
            names = ", ".join(sorted(s.spec.display_name or s.name for s in own))
            return f"You may run {_stacks(settings.max_stacks_per_user)} at a time and {names} already runs. {cure}."
    for group in spec.owner_groups:
        limit = _group_limit(group, settings)
        if limit is not None:
            count = sum(group in s.spec.owner_groups for s in others)
            if count >= limit:
                return f"The group {group} may run {_stacks(limit)} at a time and {count} already run. {cure}, or wait."
    if settings.max_stacks and len(others) >= settings.max_stacks:
        return f"All {_stacks(settings.max_stacks)} that may run at a time are in use. Try again later."
    return ""


def left(spec: StackSpec, name: str, stacks: Iterable[Stack], settings: StackSettings) -> int | None:
    """How many more stacks this owner may run now; None if there is no limit. Arguments as of :func:`refusal`."""
    others = [s for s in stacks if s.name != name]
    rooms = []
    if settings.max_stacks_per_user:
        rooms.append(settings.max_stacks_per_user - sum(s.spec.owner == spec.owner for s in others))
    for group in spec.owner_groups:
        limit = _group_limit(group, settings)
        if limit is not None:
            rooms.append(limit - sum(group in s.spec.owner_groups for s in others))
    if settings.max_stacks:
        rooms.append(settings.max_stacks - len(others))
    return max(0, min(rooms)) if rooms else None


def _group_limit(group: str, settings: StackSettings) -> int | None:
    limits = settings.max_stacks_per_group
    limit = limits.get(group, limits.get("*"))
    return None if limit is None else int(limit)


def _stacks(count: int) -> str:
    return "one stack" if count == 1 else f"{count} stacks"
