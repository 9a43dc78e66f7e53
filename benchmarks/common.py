"""What the benchmarks share: tables, raw numbers, the environment that they run in."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dev.cache import ROOT
from dev.rings import environments


def in_test_environment(argv: list[str]) -> None:
    """Start this program anew in the tests' Python environment where its packages are missing."""
    environments.enter(argv, "httpx", "bs4")


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """``median (minimum to maximum)``, in the unit of the values; a single value alone."""
    if not values:
        return "none"
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table in Markdown."""
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}\n")
    for n, row in enumerate([head, *rows]):
        print("| " + " | ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)) + " |")
        if n == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def keep(name: str, numbers: Any) -> Path:
    """Keep the raw numbers, with the machine that they were measured on."""
    folder = ROOT / ".benchmarks"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    machine = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "system": platform.platform(),
        "python": sys.version,
    }
    path.write_text(json.dumps({"machine": machine, "numbers": numbers}, indent=1))
    return path
