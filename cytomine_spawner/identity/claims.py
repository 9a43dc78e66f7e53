"""What the stacks' tokens say of a person.

Cytomine's core asks for a ``sub`` that is a UUID and for a ``name``; without either it fails. It knows people by
``preferred_username``, looks them up without regard to case and with SQL's wildcards, takes over users of its own
(``admin``, ``ImageServer1``) for whoever bears their name, and removes memberships of projects from people whose
name ends in ``@lifescience-ri.eu``. So nobody's hub name is handed on as it is: see :func:`preferred_username`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..stack.people import HubUser

# Never changes: core finds its users again by what follows from it.
NAMESPACE = uuid.UUID("6d539043-e66b-5aa8-a57e-30eb9b1e0326")
_READABLE = 40


class Role(str, Enum):
    """What somebody is in a stack's core."""

    ADMIN = "ADMIN"
    USER = "USER"


@dataclass(frozen=True)
class Person:
    """Somebody who may use a stack.

    Attributes:
        username: the hub's name of the user.
        name: for people to read; never empty.
        email: empty if the hub knows none.
        role: owners are administrators of their stack, members its users.
    """

    username: str
    name: str
    email: str = ""
    role: Role = Role.USER


def subject(username: str) -> str:
    """The ``sub`` of a user of the hub: the same UUID for ever and in every stack."""
    return str(uuid.uuid5(NAMESPACE, username))


def preferred_username(username: str) -> str:
    """The user's name in Cytomine: the readable part of the hub's name, a dot and twelve letters of its digest.

    Different for different users, the same for ever, and made of nothing but lower-case letters, digits, dots
    and dashes: ``28f7a1@lifescience-ri.eu`` becomes something like ``28f7a1.k3vq2n7xw4ab``.
    """
    local = re.sub(r"[^a-z0-9]+", "-", username.partition("@")[0].lower()).strip("-")[:_READABLE]
    digest = base64.b32encode(hashlib.sha256(username.encode()).digest()).decode().lower()[:12]
    return f"{local.rstrip('-') or 'user'}.{digest}"


def about(person: Person) -> dict[str, Any]:
    """The claims on a person, in every kind of token and in ``userinfo``."""
    given, _, family = person.name.rpartition(" ")
    found = {
        "sub": subject(person.username),
        "preferred_username": preferred_username(person.username),
        "name": person.name,
        "given_name": given or person.name,
        "family_name": family if given else "",
    }
    return {**found, "email": person.email} if person.email else found


def access(person: Person) -> dict[str, Any]:
    """The claims by which core decides what a person may do."""
    roles = [person.role.value]
    return {"typ": "Bearer", "realm_access": {"roles": []}, "resource_access": {"core": {"roles": roles}}}


def readable_name(username: str, model: Mapping[str, Any]) -> tuple[str, str]:
    """Name and address of a user in the hub's words: ``user_info`` where the hub has it (JupyterHub 6)."""
    known = HubUser.from_model({"name": username, **model})
    return (known.full_name or username)[:200], known.email
