"""Where the time of a run went: by ring, by test, by fixture, computing apart from waiting."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.console import Console, duration

_TICK = os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """Seconds that all processors of this machine have worked since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICK


@dataclass
class Phase:
    """One part of a run.

    Attributes:
        name: a ring's, or ``preparation``.
        wall: seconds that passed.
        busy: seconds that the machine's processors worked meanwhile, whoever for.
    """

    name: str
    wall: float
    busy: float


@dataclass
class Times:
    """The phases of a run, and what the plugin of pytest measured in each of its processes.

    Attributes:
        folder: where the plugin's files are, one for each process: ``RUN.json``, or ``RUN-WORKER.json``.
    """

    folder: Path
    phases: list[Phase] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block as a phase; blocks of one name are one phase."""
        began, before = time.monotonic(), busy()
        try:
            yield
        finally:
            self.phases.append(Phase(name, time.monotonic() - began, busy() - before))

    def measured(self) -> list[dict[str, Any]]:
        """What the plugin wrote, one dictionary a process; its ``run`` is the run's name."""
        return [
            {**json.loads(path.read_text()), "run": path.stem} for path in sorted(self.folder.glob("*.json"))
        ]

    def say(self, console: Console, whole: bool) -> None:
        """Print the time by ring and the ten slowest tests; or, as a whole, tables of all that takes long.

        Args:
            console: where to.
            whole: whether to print all tables.
        """
        console.say("\nTime by ring (processors: how many of this machine's worked, on the mean)")
        rows: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for phase in self.phases:
            rows[phase.name][0] += phase.wall
            rows[phase.name][1] += phase.busy
        for name, (wall, used) in rows.items():
            console.say(f"  {name:<14}{duration(wall):>14}   {used / max(wall, 0.001):4.1f} processors")
        found = self.measured()
        tests = [(sum(p[0] for p in phases.values()), sum(p[1] for p in phases.values()), name, phases)
                 for one in found for name, phases in one["tests"].items()]  # fmt: skip
        tests.sort(key=lambda row: -row[0])
        console.say("\nSlowest tests (of this, computing)")
        for wall, cpu, name, _ in tests[: 40 if whole else 10]:
            console.say(f"  {wall:7.1f} s {cpu:7.1f} s  {name}")
        if whole:
            self._say_files(console, found)
            self._say_fixtures(console, found)

    def _say_files(self, console: Console, found: list[dict[str, Any]]) -> None:
        console.say("\nRuns of pytest: start and collection, all")
        for one in found:
            console.say(f"  {one['collected']:7.1f} s {one['wall']:7.1f} s  {one['run']}")
        files: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0])
        for one in found:
            for name, phases in one["tests"].items():
                row = files[name.partition("::")[0]]
                row[0] += sum(p[0] for p in phases.values())
                row[1] += sum(p[1] for p in phases.values())
                row[2] += phases.get("call", [0.0])[0]
                row[3] += 1
        console.say("\nFiles: time, of this computing, of this in fixtures, tests")
        for name, (wall, cpu, call, number) in sorted(files.items(), key=lambda f: -f[1][0])[:40]:
            console.say(f"  {wall:7.1f} s {cpu:7.1f} s {wall - call:7.1f} s {number:5.0f}  {name}")

    def _say_fixtures(self, console: Console, found: list[dict[str, Any]]) -> None:
        fixtures: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        for one in found:
            for name, entry in one["fixtures"].items():
                row = fixtures[f"{name.strip(':')} ({entry['scope']})"]
                for place, key in enumerate(("wall", "cpu", "times")):
                    row[place] += entry[key]
        console.say("\nFixtures: time, of this computing, how often made")
        for name, (wall, cpu, number) in sorted(fixtures.items(), key=lambda f: -f[1][0])[:30]:
            console.say(f"  {wall:7.1f} s {cpu:7.1f} s {number:5.0f}  {name}")
