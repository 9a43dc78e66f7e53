"""What the stack service asks of the API server, from the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

# What a stack consists of; the rest is written about it, not made for it.
CHILDREN = {
    "configmaps",
    "deployments",
    "ingresses",
    "networkpolicies",
    "persistentvolumeclaims",
    "secrets",
    "services",
    "statefulsets",
}


@dataclass(frozen=True)
class Call:
    """One request of the service, from the API server's audit log. Times are seconds since the epoch."""

    verb: str
    resource: str
    name: str
    began: float
    ended: float
    code: int

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.verb not in ("get", "list", "watch")


class Requests:
    """What one user asked, read from a growing audit log.

    Args:
        log: the audit log.
        user: the user's name.
    """

    def __init__(self, log: Path, user: str) -> None:
        self.calls: list[Call] = []
        self.records: dict[str, float] = {}
        self._log, self._user, self._at, self._rest = log, user, 0, b""

    def read(self) -> None:
        """Read on."""
        if not self._log.exists():
            return
        with self._log.open("rb") as file:
            file.seek(self._at)
            new = file.read()
            self._at = file.tell()
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            if self._user.encode() in line or b'"cytominestacks"' in line:
                self._take(json.loads(line))

    def _take(self, entry: dict[str, Any]) -> None:
        about = entry.get("objectRef") or {}
        resource = about.get("resource", entry["requestURI"].split("?")[0])
        if about.get("subresource"):
            resource += f"/{about['subresource']}"
        # A watch is written down when it begins, and once more when it ends.
        if entry["stage"] != ("ResponseStarted" if entry["verb"] == "watch" else "ResponseComplete"):
            return
        code = (entry.get("responseStatus") or {}).get("code", 0)
        ended = _seconds(entry["stageTimestamp"])
        if entry["user"]["username"] == self._user:
            began = _seconds(entry["requestReceivedTimestamp"])
            self.calls.append(Call(entry["verb"], resource, about.get("name", ""), began, ended, code))
        elif resource == "cytominestacks" and entry["verb"] == "create" and code == 201:
            self.records.setdefault(about["name"], ended)

    def since(self, time_: float) -> list[Call]:
        """The calls that began after a time."""
        return [c for c in self.calls if c.began >= time_]

    def made(self, stack: str) -> list[Call]:
        """The calls that made a stack's objects."""
        return [
            c
            for c in self.calls
            if c.resource in CHILDREN
            and c.verb in ("create", "patch")
            and (c.name == stack or c.name.startswith(f"{stack}-"))
        ]

    def creation(self, stacks: Iterable[str]) -> dict[str, dict[str, float]]:
        """For each stack the seconds from its first object to its last, and from its record to its last."""
        found = {}
        for name in stacks:
            made = self.made(name)
            last = max(c.ended for c in made)
            first = min(c.began for c in made)
            found[name] = {"first_to_last": last - first, "record_to_last": last - self.records[name]}
        return found

    def inside(self, stacks: Iterable[str]) -> list[float]:
        """Seconds that each call that made an object took inside the API server."""
        return [c.ended - c.began for name in stacks for c in self.made(name)]

    def objects(self, stacks: Iterable[str]) -> float:
        """How many objects a stack has, on average, its record not counted."""
        counts = [len({(c.resource, c.name) for c in self.made(name)}) for name in stacks]
        return sum(counts) / len(counts)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
