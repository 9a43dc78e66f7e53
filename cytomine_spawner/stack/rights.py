"""Who may do what with a stack, and with which scope of the hub: one table, asked by every page and every address.

A stack's owner, and those whom the owner let in, may do what the table gives their role, with a token that is meant for
it. What somebody else's stack is concerned, it takes a token that is meant to administer: that its user is an
administrator of the hub is not enough, or each notebook of an administrator could do all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from . import people
from .model import Stack
from .people import Role, Server

MANAGE_SCOPE = "custom:cytomine-stacks:manage"
ADMIN_SCOPE = "custom:cytomine-stacks:admin"
# The hub's role admin cannot be given a scope of ours. This one of its scopes opens no more than a page of the hub, and
# servers' tokens do not have it: with it a token of one of the hub's administrators is meant to administer.
HUB_ADMIN_SCOPE = "admin-ui"


class Scope(str, Enum):
    """What a token is for, the least first."""

    ACCESS = "access"
    MANAGE = "manage"
    ADMIN = "admin"


class Action(str, Enum):
    """What one may want to do with a stack."""

    SEE = "see"
    OPEN = "open"
    RESUME = "resume"
    HIBERNATE = "hibernate"
    RETRY = "retry"
    EDIT = "edit"
    LOGS = "read the logs of"
    DELETE = "delete"
    CONNECT = "connect to"
    MEMBERS = "change the members of"
    PROJECTS = "list the projects of"
    LEAVE = "leave"


@dataclass(frozen=True)
class Right:
    """Who has a right.

    Attributes:
        roles: the roles in a stack that have it.
        scope: what a token of theirs must be for.
        admins: whether a token that is meant to administer has it, whoever owns the stack.
    """

    roles: frozenset[Role]
    scope: Scope
    admins: bool


_OWNER, _ALL = frozenset({Role.OWNER}), frozenset(Role)

# Notebooks' tokens reach the service and have no further scope: they see, resume and connect.
RIGHTS: dict[Action, Right] = {
    Action.SEE: Right(_ALL, Scope.ACCESS, admins=True),
    # A stack itself knows only its own people.
    Action.OPEN: Right(_ALL, Scope.ACCESS, admins=False),
    Action.CONNECT: Right(_ALL, Scope.ACCESS, admins=False),
    Action.RESUME: Right(_OWNER, Scope.ACCESS, admins=True),
    Action.HIBERNATE: Right(_OWNER, Scope.MANAGE, admins=True),
    Action.RETRY: Right(_OWNER, Scope.MANAGE, admins=True),
    Action.EDIT: Right(_OWNER, Scope.MANAGE, admins=True),
    Action.LOGS: Right(_OWNER, Scope.MANAGE, admins=True),
    Action.DELETE: Right(_OWNER, Scope.MANAGE, admins=True),
    Action.MEMBERS: Right(_OWNER, Scope.MANAGE, admins=True),
    Action.PROJECTS: Right(_OWNER, Scope.MANAGE, admins=False),
    # It takes an invitation of one's own.
    Action.LEAVE: Right(frozenset({Role.USER}), Scope.MANAGE, admins=False),
}


@dataclass(frozen=True)
class Person:
    """A user or a service of the hub, as the hub tells, with what their token is for.

    Attributes:
        name: the hub's name of the user or the service.
        kind: ``user`` or ``service``; a service never owns a stack, whatever its name.
        scopes: what the token is for.
        groups: the hub's groups of a user.
        shared: the servers of others that are shared with a user.
    """

    name: str
    kind: str = "user"
    scopes: frozenset[Scope] = frozenset({Scope.ACCESS})
    groups: frozenset[str] = frozenset()
    shared: frozenset[Server] = frozenset()

    @classmethod
    def from_model(cls, model: Mapping[str, Any], shared: frozenset[Server] = frozenset()) -> Person:
        """Read the hub's answer to "whose token is this?", with what is shared with them."""
        return cls(
            name=model["name"],
            kind=model.get("kind", "user"),
            scopes=scopes_of(model),
            groups=frozenset(model.get("groups", ())),
            shared=shared,
        )

    @property
    def admin(self) -> bool:
        """Whether all stacks are theirs to manage, with this token."""
        return Scope.ADMIN in self.scopes

    def role(self, stack: Stack) -> Role | None:
        """Why this user may use a stack; None for others, and for all services."""
        if self.kind != "user":
            return None
        return people.role(stack, self.name, self.groups, self.shared)

    def owns(self, stack: Stack) -> bool:
        """Whether the stack is this user's own."""
        return self.kind == "user" and self.name == stack.spec.owner


def scopes_of(model: Mapping[str, Any]) -> frozenset[Scope]:
    """What a token is for that reached the service, from the hub's answer to "whose token is this?"."""
    held = set(model.get("scopes", ()))
    found = {Scope.ACCESS}
    if MANAGE_SCOPE in held:
        found.add(Scope.MANAGE)
    # Both: others than administrators may be given the hub's page.
    if ADMIN_SCOPE in held or (model.get("admin") and HUB_ADMIN_SCOPE in held):
        found |= {Scope.MANAGE, Scope.ADMIN}
    return frozenset(found)


def may(person: Person, stack: Stack, action: Action) -> bool:
    """Whether a person may do something with a stack: the one place that decides."""
    return by_role(person, stack, action) or (RIGHTS[action].admins and person.admin)


def by_role(person: Person, stack: Stack, action: Action) -> bool:
    """Whether a person may do something with a stack for being its owner, or for being let in."""
    right = RIGHTS[action]
    return person.role(stack) in right.roles and right.scope in person.scopes


def why_not(person: Person, stack: Stack, action: Action) -> str:
    """One sentence for somebody who may see a stack, but may not do this with it."""
    if person.role(stack) in RIGHTS[action].roles:
        return (
            f"You may {action.value} this stack, but not with this token: it lacks the hub's scope {MANAGE_SCOPE}. In a "
            "browser, log out of the hub and in again; for a program, make a token with it at the hub."
        )
    return f"You may not {action.value} this stack."
