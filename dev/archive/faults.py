"""Stands in for the Bigpicture archive in development and tests; never what production runs.

What goes wrong on request, and what was counted.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from .storage import Reads

KINDS = {
    "slow": "wait `seconds` before the answer, and send no more than `rate` bytes a second",
    "cut": "close the connection after `after` bytes of the body",
    "status": "answer `status` instead",
    "expired": "take the token of the request for expired, from now on",
    "shift": "serve other bytes, `after` bytes further on, and say so in Content-Range",
    "lie": "serve other bytes, `after` bytes further on, under the Content-Range that was asked for",
    "whole": "ignore Range and answer 200 with the whole file",
    "flip": "flip a bit of the body's byte `at`, as it is stored",
    "revoke": "serve the dataset `dataset` to nobody, from now on and in running sessions, too",
    "stale": "refuse every page token that was made before",
    "forget": "end all sessions and drop what is cached",
}
# They change the server once, at the request that they fit.
ONCE = {"expired", "revoke", "stale", "forget"}


@dataclass
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: one of ``KINDS``.
        path: pattern that the request's path must have somewhere.
        method: the request's method; empty fits all.
        times: how often; 0 is without end.
        skip: how many requests that fit pass before.
        seconds: see the kind.
        rate: see the kind.
        after: see the kind.
        status: see the kind.
        at: see the kind.
        dataset: see the kind.
    """

    kind: str
    path: str = ""
    method: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 0
    rate: float = 0
    after: int = 0
    status: int = 503
    at: int = 0
    dataset: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind}")
        if self.kind in ONCE:
            self.times = 1
        re.compile(self.path)
        self._left = self.times

    def due(self, method: str, path: str) -> bool:
        """Whether it is this request's turn; counts it."""
        if (
            (self.times and not self._left)
            or self.method not in ("", method)
            or not re.search(self.path, path)
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self._left -= 1
        return True

    @property
    def spent(self) -> bool:
        """Whether it has happened as often as it was to."""
        return bool(self.times) and self._left <= 0


@dataclass
class Count(Reads):
    """What was counted of one file, or of all.

    Attributes:
        requests: requests that came.
        sent: bytes of bodies that left.
    """

    requests: int = 0
    sent: int = 0


@dataclass
class Counters:
    """What was counted since the start or the last reset.

    Attributes:
        total: all requests, those that were refused included.
        files: by file id, the requests that reached a file.
        statuses: answers by their status.
        audit: the last records, one a request, as upstream writes them.
    """

    total: Count = field(default_factory=Count)
    files: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    statuses: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    audit: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))

    def reset(self) -> None:
        """Begin anew."""
        self.total = Count()
        self.files.clear()
        self.statuses.clear()
        self.audit.clear()

    def told(self) -> dict[str, Any]:
        """All of it as JSON knows it."""
        return {
            "total": asdict(self.total),
            "files": {name: asdict(count) for name, count in self.files.items()},
            "statuses": {str(status): number for status, number in self.statuses.items()},
            "audit": list(self.audit),
        }


class Cut(Exception):
    """The connection was closed on purpose."""


class Body:
    """The body of one answer as it leaves: counted, slowed, cut.

    Args:
        request: what is answered.
        response: its head, not sent yet.
        faults: those whose turn it is.
        counts: each of these is told of every byte.
    """

    def __init__(
        self, request: web.Request, response: web.StreamResponse, faults: list[Fault], counts: list[Count]
    ) -> None:
        self._request, self._response, self._counts = request, response, counts
        self._rate = next((f.rate for f in faults if f.kind == "slow"), 0.0)
        self._left = next((f.after for f in faults if f.kind == "cut"), None)

    async def start(self) -> None:
        """Send the head."""
        await self._response.prepare(self._request)
        # What is cut after no bytes still has a head.
        if self._left == 0:
            self._cut()

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body.

        Raises:
            Cut: the connection was closed by a fault.
        """
        if self._left is not None:
            piece = piece[: self._left]
        step = max(1024, int(self._rate / 20)) if self._rate else len(piece) or 1
        for at in range(0, len(piece), step):
            part = piece[at : at + step]
            await self._response.write(part)
            for count in self._counts:
                count.sent += len(part)
            if self._rate:
                await asyncio.sleep(len(part) / self._rate)
        if self._left is not None:
            self._left -= len(piece)
            if not self._left:
                self._cut()

    def _cut(self) -> None:
        if self._request.transport is not None:
            # What was written leaves before the end, so that a client sees the bytes that the fault promises.
            self._request.transport.close()
        raise Cut
