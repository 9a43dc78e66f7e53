"""``python3 -m tests.real.covered``: which ring meets each request that Cytomine's own web interface and the client made.

The tests of this folder write the list, a kind of request a line. What the stand-in has a route for is met in the rings
with stand-ins, and compared with the real answer where an exchange of that route was recorded; the stack's own gateway and
login are the real ones in every ring.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aiohttp import web

from dev.cache import ROOT
from dev.standin import core, pims
from dev.standin.gateway import target
from dev.standin.settings import Settings
from tests.support.recordings import load
from tests.support.requestlist import path_of

LIST = ROOT / ".test-output" / "real-requests.txt"
CONTRACT = "unit: tests/unit/dev/test_standin_contract.py"
# What answers itself, without Cytomine: the same programs in every ring.
OURS = (
    (r"/services/cytomine/STACK/iam/.*", "unit: test_identity_*.py; browser: test_identity.py"),
    (r"/oauth2/.*", "unit: test_gateway_login.py; cluster: test_stack_login.py"),
    (
        r"/api/(meilisearch/.*|app-engine/.*|stores(/.*)?|annotations/[^/]+/refine)",
        "unit: test_gateway_parts.py",
    ),
    (r"/configuration\.json", "unit: test_gateway_parts.py; browser: test_webui.py"),
)
# The real web interface's own: nothing stands in for its files.
FILES = re.compile(
    r"/|/index\.html|/[\w.-]+\.(js|css|ico|png|svg|json|webmanifest)|/(assets|fonts|img|js|css)/.*"
)


@dataclass(frozen=True)
class Asked:
    """A kind of request of the list.

    Attributes:
        who: ``web-ui`` or ``client``.
        method: of HTTP.
        status: the answer's.
        path: with N in the place of numbers.
    """

    who: str
    method: str
    status: int
    path: str


@dataclass(frozen=True)
class Row:
    """What is known of a kind of request.

    Attributes:
        method: of HTTP.
        path: with N in the place of numbers.
        who: who made it.
        statuses: what the real servers answered.
        covered: the rings and tests that meet it; empty if none does.
    """

    method: str
    path: str
    who: str
    statuses: str
    covered: str


def read(lines: Iterable[str]) -> list[Asked]:
    """The list's lines.

    Raises:
        ValueError: a line is none of such a list; the sentence shows it.
    """
    found = []
    for line in filter(None, map(str.strip, lines)):
        parts = line.split(" ", 3)
        if len(parts) != 4 or not parts[2].isdigit():
            raise ValueError(f"This is no line of a list of requests (who, method, status, path): {line}")
        found.append(Asked(parts[0], parts[1], int(parts[2]), parts[3]))
    return found


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Method, pattern of the path and name of each of a stand-in's routes, those without a variable first."""
    settings = Settings(service)
    app = (core if service == "core" else pims).application(settings)
    found: list[tuple[str, re.Pattern[str], str]] = []
    for route in app.router.routes():
        assert isinstance(route.resource, web.Resource)
        told = route.resource.get_info()
        pattern = told.get("pattern") or re.compile(re.escape(told["path"]))
        found.append((route.method, pattern, route.resource.canonical))
    return sorted(found, key=lambda row: "{" in row[2])


def route(method: str, path: str) -> str:
    """The stand-in's route for a request as a browser or the client makes it; empty if there is none."""
    at = target(path, "core:", "pims:", "web-ui:")
    service, _, path = at.partition(":")
    if service == "web-ui":
        return ""
    plain = re.sub(r"\bN\b", "1", path)
    fits = (name for m, pattern, name in _routes(service) if m in (method, "*") and pattern.fullmatch(plain))
    name = next(fits, "")
    return f"{service} {method} {name}" if name else ""


@cache
def recorded() -> dict[str, tuple[str, ...]]:
    """The groups of recorded exchanges by the route that they are of; by the kind of path where there is none."""
    found: dict[str, set[str]] = {}
    for exchange in load():
        # Those that name a service were put to it directly: nobody outside of the stack can.
        if "service" not in exchange.data:
            ask = exchange.data["ask"]
            found.setdefault(_key(ask["method"], path_of(ask["path"])), set()).add(exchange.group)
    return {key: tuple(sorted(groups)) for key, groups in found.items()}


def _key(method: str, path: str) -> str:
    return route(method, path) or f"{method} {path}"


def covered(method: str, path: str) -> str:
    """The rings and tests that meet a kind of request; empty if only Cytomine's own servers do."""
    for pattern, tests in OURS:
        if re.fullmatch(pattern, path):
            return tests
    # A browser's question before the request itself; whoever answers the one answers the other.
    asked = "GET" if method in ("HEAD", "OPTIONS") else method
    if groups := recorded().get(_key(asked, path)):
        return f"{CONTRACT}[{', '.join(groups)}]"
    if name := route(asked, path):
        return f"the stand-in's own answer, not recorded: {name}"
    return ""


def table(asked: Iterable[Asked]) -> list[Row]:
    """A row for each method and path."""
    by_kind: dict[tuple[str, str], list[Asked]] = {}
    for one in asked:
        by_kind.setdefault((one.path, one.method), []).append(one)
    return [
        Row(
            method,
            path,
            ", ".join(sorted({one.who for one in found})),
            ", ".join(map(str, sorted({one.status for one in found}))),
            covered(method, path),
        )
        for (path, method), found in sorted(by_kind.items())
    ]


def written(rows: Sequence[Row]) -> str:
    """The table in Markdown, and below it what no other ring meets."""
    pages = [row for row in rows if not row.covered and row.method == "GET" and FILES.fullmatch(row.path)]
    bare = [row for row in rows if not row.covered and row not in pages]
    lines = ["| request | by | answers | met by |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.method} {row.path} | {row.who} | {row.statuses} | {row.covered or 'the real ring alone'} |"
        for row in rows
        if row not in pages
    ]
    lines += ["", f"Files of the web interface itself, left out here: {len(pages)}."]
    lines.append(f"Met by the real ring alone: {len(bare)} of {len(rows) - len(pages)}.")
    return "\n".join([*lines, *(f"- {row.method} {row.path} ({row.statuses})" for row in bare)])


def main(argv: Sequence[str]) -> int:
    """Print the table; a list that is not there or not readable is one sentence."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.real.covered", description=__doc__)
    parser.add_argument(
        "list", nargs="?", type=Path, default=LIST, help=f"the list ({LIST.relative_to(ROOT)})"
    )
    path: Path = parser.parse_args(argv).list
    try:
        print(written(table(read(path.read_text(encoding="utf-8").splitlines()))))  # noqa: T201
    except FileNotFoundError:
        print(f"There is no list at {path}: run python3 -m dev.real first, which writes it.")  # noqa: T201
        return 1
    except ValueError as error:
        print(f"{path}: {error}")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
