"""Stands in for the Bigpicture archive in development and tests; never what production runs.

What is known of one request while it is answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .content import Entry
from .faults import Count, Fault
from .tokens import Person


@dataclass
class Call:
    """One request.

    Attributes:
        faults: those whose turn it is.
        headers: further headers of the answer.
        person: who asks, once known.
        file: which file, once known.
        correlation: the request's id (version 2).
        status: of the head that was sent, if a body broke off behind it.
        sent: counts the body.
    """

    faults: list[Fault]
    headers: dict[str, str] = field(default_factory=dict)
    person: Person | None = None
    file: Entry | None = None
    correlation: str = ""
    status: int = 0
    sent: Count = field(default_factory=Count)

    def fault(self, *kinds: str) -> Fault | None:
        """The fault of one of these kinds whose turn it is."""
        return next((fault for fault in self.faults if fault.kind in kinds), None)


# Newer releases of aiohttp want a key of this kind, older ones have none.
_KEY: Any = web.RequestKey("call", Call) if hasattr(web, "RequestKey") else "call"


def begin(request: web.Request, faults: list[Fault]) -> Call:
    """Note a request."""
    request[_KEY] = made = Call(faults)
    return made


def of(request: web.Request) -> Call:
    """What is known of a request."""
    found: Call = request[_KEY]
    return found
