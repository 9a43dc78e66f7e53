"""What can be done to a stack from outside, each checked against the stack as it is at that moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from .model import Desired, Stack
from .present import can_retry, is_going
from .store import Conflict, StackStore

# What the resource definition allows.
MOST_MEMBERS = {"users": 200, "groups": 50}


class StackPatch(BaseModel):
    """The fields of a stack that its owner may change. At least one; what is left out stays."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    desired_state: Annotated[
        Desired,
        Field(strict=False, description="Running resumes the stack, Hibernated stops it and keeps its data."),
    ] = Desired.RUNNING
    idle_timeout: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        None,
        description="Seconds without activity before it hibernates; 0 for never; null for the service's setting.",
    )
    display_name: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = Field(
        "", description="How pages call the stack; empty for a name made of the server's."
    )


async def edit(store: StackStore, name: str, patch: StackPatch) -> Stack:
    """Change some fields; nothing happens to those that have the value already.

    Raises:
        Conflict: if the stack is being deleted.
    """
    wanted = {field: getattr(patch, field) for field in patch.model_fields_set}

    def change(stack: Stack) -> dict[str, Any]:
        _stays(stack)
        return {
            to_camel(field): value.value if isinstance(value, Desired) else value
            for field, value in wanted.items()
            if getattr(stack.spec, field) != value
        }

    return await store.patch(name, change)


async def resume(store: StackStore, name: str) -> Stack:
    """Start a hibernated stack; nothing for one that runs."""
    return await edit(store, name, StackPatch.model_validate({"desiredState": "Running"}))


async def hibernate(store: StackStore, name: str) -> Stack:
    """Stop a stack and keep its data; nothing for one that is hibernated."""
    return await edit(store, name, StackPatch.model_validate({"desiredState": "Hibernated"}))


async def retry(store: StackStore, name: str) -> Stack:
    """Start what failed anew.

    Raises:
        Conflict: if nothing failed, or the stack is hibernated or being deleted.
    """

    def change(stack: Stack) -> dict[str, Any]:
        _stays(stack)
        if stack.spec.desired_state is Desired.HIBERNATED:
            raise Conflict("The stack is hibernated; resume it instead.")
        if stack.spec.retry > (stack.status.observed_retry or 0):
            raise Conflict("Another try was asked for already and begins in a moment.")
        if not can_retry(stack):
            raise Conflict("Nothing failed, so there is nothing to try again.")
        return {"retry": stack.spec.retry + 1}

    return await store.patch(name, change)


async def add_member(store: StackStore, name: str, kind: str, member: str) -> Stack:
    """Let a user or a group use a stack; nothing for one who is in already.

    Args:
        store: the stacks.
        name: the stack's name.
        kind: ``users`` or ``groups``.
        member: the hub's name of the user or the group; that there is one is for the caller to know.

    Raises:
        Conflict: if the stack is being deleted or has as many members as there may be.
    """

    def change(stack: Stack) -> dict[str, Any]:
        _stays(stack)
        present = getattr(stack.spec.members, kind)
        if member in present or (kind == "users" and member == stack.spec.owner):
            return {}
        if len(present) >= MOST_MEMBERS[kind]:
            raise Conflict(
                f"A stack can have {MOST_MEMBERS[kind]} {kind} as members; invite a group instead."
            )
        return _members(stack, **{kind: (*present, member)})

    return await store.patch(name, change)


async def remove_member(store: StackStore, name: str, kind: str, member: str) -> Stack:
    """Let a user or a group no longer use a stack; nothing for one who is out already. See :func:`add_member`."""

    def change(stack: Stack) -> dict[str, Any]:
        _stays(stack)
        present = getattr(stack.spec.members, kind)
        if member not in present:
            return {}
        return _members(stack, **{kind: tuple(one for one in present if one != member)})

    return await store.patch(name, change)


def _members(stack: Stack, **changes: tuple[str, ...]) -> dict[str, Any]:
    # Both lists, the empty one too: a merge keeps what is left out.
    found = stack.spec.members.replace(**changes)
    return {"members": {"users": list(found.users), "groups": list(found.groups)}}


def _stays(stack: Stack) -> None:
    if is_going(stack):
        raise Conflict("The stack is being deleted.")


# The buttons of the page that need no more than a click.
CLICKS: dict[str, Callable[[StackStore, str], Any]] = {
    "resume": resume,
    "hibernate": hibernate,
    "retry": retry,
}
