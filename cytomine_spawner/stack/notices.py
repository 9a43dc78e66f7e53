"""What administrators did to somebody else's stack: noted on the stack, so that its owner reads it, and in the log."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime

from .model import GROUP, Stack, parse_time

# A logger of its own, so that it can be kept elsewhere and longer than the rest.
audit = logging.getLogger("cytomine_spawner.stacks.audit")

ANNOTATION = f"{GROUP}/notices"
# More would crowd out other annotations; the log has all.
MOST = 20
LONGEST = 200


@dataclass(frozen=True)
class Notice:
    """One act.

    Attributes:
        at: when.
        who: the administrator's name at the hub.
        what: the act, as a sentence goes on after the name: ``invited the user bob``.
    """

    at: datetime
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.who}, an administrator of the hub, {self.what}."


def of(stack: Stack) -> tuple[Notice, ...]:
    """The last acts of administrators on a stack, the oldest first; none where the annotation cannot be read."""
    try:
        entries = json.loads(stack.annotations.get(ANNOTATION) or "[]")
        found = [(parse_time(one["at"]), str(one["who"]), str(one["what"])) for one in entries]
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()
    return tuple(Notice(at, who, what) for at, who, what in found if at)


def added(stack: Stack, notice: Notice) -> dict[str, str]:
    """The stack's annotation with one act more."""
    kept = [*of(stack), notice][-MOST:]
    entries = [{"at": n.at.isoformat(), "who": n.who[:LONGEST], "what": n.what[:LONGEST]} for n in kept]
    return {ANNOTATION: json.dumps(entries)}


def log(who: str, action: str, stack: Stack, request: str) -> None:
    """Put one line into the log of what administrators do, reading included.

    Args:
        who: the administrator's name at the hub.
        action: what was asked for; whether it came to pass is said by what follows.
        stack: whose owner is somebody else.
        request: method and path, without the query.
    """
    # As JSON: nobody's name can look like another line.
    entry = {
        "administrator": who,
        "action": action,
        "stack": stack.name,
        "owner": stack.spec.owner,
        "request": request,
    }
    audit.info("%s", json.dumps(entry))
