"""What can be done to a stack from outside, each checked against the stack as it is at that moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from ..cluster.store import Conflict, StackStore
from ..common.names import is_plain
from ..stack.model import Access, Desired, Members, Stack
from ..stack.notices import Notice
from ..stack.rights import Action
from ..stack.state import can_retry, is_going

# The lists of members, and what each names.
KINDS = {"users": "user", "groups": "group"}
# What the resource definition allows.
MOST_MEMBERS = {"users": 200, "groups": 50}


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError("a name has no line breaks, marks of direction, or other signs that are not seen")
    return name


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
    display_name: Annotated[str, StringConstraints(max_length=200), AfterValidator(_plain)] = Field(
        "", description="How pages call the stack; empty for a name made of the server's."
    )


def action(patch: StackPatch) -> Action:
    """What a change is: some need less of a token than others."""
    if patch.model_fields_set == {"desired_state"}:
        return Action.RESUME if patch.desired_state is Desired.RUNNING else Action.HIBERNATE
    return Action.EDIT


async def edit(store: StackStore, name: str, patch: StackPatch, notice: Notice | None = None) -> Stack:
    """Change some fields; nothing happens to those that have the value already.

    Args:
        store: the stacks.
        name: the stack's name.
        patch: the fields.
        notice: what is left on the stack when it changes, for its owner to read.

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

    return await store.patch(name, change, notice=notice)


async def resume(store: StackStore, name: str, notice: Notice | None = None) -> Stack:
    """Start a hibernated stack; nothing for one that runs. See :func:`edit`."""
    return await edit(store, name, StackPatch.model_validate({"desiredState": "Running"}), notice)


async def hibernate(store: StackStore, name: str, notice: Notice | None = None) -> Stack:
    """Stop a stack and keep its data; nothing for one that is hibernated. See :func:`edit`."""
    return await edit(store, name, StackPatch.model_validate({"desiredState": "Hibernated"}), notice)


async def retry(store: StackStore, name: str, notice: Notice | None = None) -> Stack:
    """Start what failed anew. See :func:`edit`.

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

    return await store.patch(name, change, notice=notice)


async def add_member(
    store: StackStore,
    name: str,
    kind: str,
    member: str,
    access: Access | None = None,
    notice: Notice | None = None,
) -> Stack:
    """Let a user or a group use a stack; nothing for one who is in already and keeps the same projects.

    Args:
        store: the stacks.
        name: the stack's name.
        kind: ``users`` or ``groups``.
        member: the hub's name of the user or the group; that there is one is for the caller to know.
        access: to which projects they are added; as before, or as is usual, without it.
        notice: what is left on the stack when it changes, for its owner to read.

    Raises:
        Conflict: if the stack is being deleted or has as many members as there may be.
    """

    def change(stack: Stack) -> dict[str, Any]:
        _stays(stack)
        members = stack.spec.members
        present: tuple[str, ...] = getattr(members, kind)
        if kind == "users" and member == stack.spec.owner:
            return {}
        if member not in present:
            if len(present) >= MOST_MEMBERS[kind]:
                raise Conflict(
                    f"A stack can have {MOST_MEMBERS[kind]} {kind} as members; invite a group instead."
                )
            present = (*present, member)
        others = tuple(one for one in members.access if not _is(one, kind, member))
        known = tuple(one for one in members.access if _is(one, kind, member))
        wanted = members.replace(**{kind: present, "access": (*others, *((access,) if access else known))})
        return {} if _same(wanted, members) else _members(wanted)

    return await store.patch(name, change, notice=notice)


async def remove_member(
    store: StackStore, name: str, kind: str, member: str, notice: Notice | None = None
) -> Stack:
    """Let a user or a group no longer use a stack; nothing for one who is out already. See :func:`add_member`."""

    def change(stack: Stack) -> dict[str, Any]:
        _stays(stack)
        members = stack.spec.members
        present = getattr(members, kind)
        if member not in present:
            return {}
        rest = {
            kind: tuple(one for one in present if one != member),
            "access": tuple(one for one in members.access if not _is(one, kind, member)),
        }
        return _members(members.replace(**rest))

    return await store.patch(name, change, notice=notice)


def _is(access: Access, kind: str, member: str) -> bool:
    return (access.kind, access.name) == (KINDS[kind], member)


def _same(one: Members, other: Members) -> bool:
    return (one.users, one.groups, set(one.access)) == (other.users, other.groups, set(other.access))


def _members(members: Members) -> dict[str, Any]:
    # All lists, the empty ones too: a merge keeps what is left out.
    return {"members": members.to_dict()}


def _stays(stack: Stack) -> None:
    if is_going(stack):
        raise Conflict("The stack is being deleted.")


# The buttons of the page that need no more than a click.
CLICKS: dict[str, Callable[[StackStore, str, Notice | None], Any]] = {
    "resume": resume,
    "hibernate": hibernate,
    "retry": retry,
}
# What an administrator did, as the owner reads it behind the name.
WORDS = {
    Action.RESUME: "resumed it",
    Action.HIBERNATE: "hibernated it",
    Action.RETRY: "had what failed tried again",
    Action.EDIT: "changed its settings",
}
