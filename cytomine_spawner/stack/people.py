"""The people of a stack: who they are at the hub, and why they may use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..common.names import plain
from .model import Stack

# (owner, server name) of a server that is shared with somebody
Server = tuple[str, str]


class Role(str, Enum):
    """Why somebody may use a stack."""

    OWNER = "owner"
    USER = "user"
    GROUP = "group"
    SHARE = "share"

    @property
    def in_core(self) -> str:
        """The role that Cytomine is told: only owners administer their Cytomine."""
        return "ADMIN" if self is Role.OWNER else "USER"


@dataclass(frozen=True)
class HubUser:
    """A user as the hub tells.

    Attributes:
        name: what the hub calls the user.
        groups: the user's groups.
        full_name: for people to read; empty where the hub knows none.
        email: empty where the hub knows none.
    """

    name: str
    groups: frozenset[str] = frozenset()
    full_name: str = ""
    email: str = ""

    @classmethod
    def from_model(cls, model: Mapping[str, Any]) -> HubUser:
        """Read the hub's model of a user; from JupyterHub 6 on it knows names for people."""
        info = model.get("user_info") or {}
        full_name = next((plain(str(info[k])) for k in ("display_name", "name") if info.get(k)), "")
        groups = frozenset(model.get("groups", ()))
        return cls(model["name"], groups, full_name[:200], str(info.get("email") or "")[:200])


@dataclass(frozen=True)
class Share:
    """Somebody with whom the owner shared the server that the stack belongs to.

    Attributes:
        kind: ``user`` or ``group``.
        name: the user's or the group's name.
    """

    kind: str
    name: str


def role(
    stack: Stack, name: str, groups: frozenset[str] = frozenset(), shared: frozenset[Server] = frozenset()
) -> Role | None:
    """Why a user may use a stack; None if they may not.

    Args:
        stack: the stack.
        name: the user's name at the hub.
        groups: the user's groups.
        shared: the servers of others that are shared with the user.
    """
    spec = stack.spec
    if name == spec.owner:
        return Role.OWNER
    if name in spec.members.users:
        return Role.USER
    if groups & set(spec.members.groups):
        return Role.GROUP
    if (spec.owner, spec.server_name) in shared:
        return Role.SHARE
    return None
