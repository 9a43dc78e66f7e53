"""The list of requests that Cytomine's own web interface and the Python client make: each kind once, with the answer's status."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# Names of stacks and of uploads, and what a bundler adds to its files' names, differ from run to run.
_VARYING = (
    (re.compile(r"^/services/cytomine/[^/]+/iam/"), "/services/cytomine/STACK/iam/"),
    (re.compile(r"^(/assets/.+)-[\w-]{8}(\.\w+)$"), r"\1-HASH\2"),
    (re.compile(r"(?<=/)\d+(?:,\d+)*(?=[/.]|$)"), "N"),
    (re.compile(r"(?<=/window-)[\d-]+(?=\.)"), "N-N-N-N"),
)


def path_of(url: str) -> str:
    """The kind of an address: its path, with N in the place of each number."""
    path = re.sub(r"^https?://[^/]+|[?#].*", "", url) or "/"
    for pattern, instead in _VARYING:
        path = pattern.sub(instead, path)
    return path


def kinds(who: str, seen: Iterable[tuple[str, int, str]]) -> list[str]:
    """A line for each kind of request: who asked, method, status and kind of path.

    Args:
        who: ``web-ui`` or ``client``.
        seen: method, status and address of each.
    """
    return sorted({f"{who} {method} {status} {path_of(url)}" for method, status, url in seen})


def keep(lines: Iterable[str], path: Path) -> None:
    """Add lines to the list, unless they are in it."""
    there = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in sorted({*there, *lines})), encoding="utf-8")
