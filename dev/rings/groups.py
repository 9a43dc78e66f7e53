"""The groups of the unit ring: files that import and start the same run in one process, one after the other.

To import what all of them need takes longer than most of the tests, as do the start of a hub, of an nginx and of a stack
of stand-ins: with groups each is paid once or twice, and not once for every worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dev.cache import ROOT

UNIT = "tests/unit"
# What JupyterHub, KubeSpawner and HubOAuth do for us could differ from one version to the next in what lies here: a real hub
# runs, or the classes that a hub makes and calls are ours. All else knows the hub by its REST API at most, and runs once.
HUB_CONTRACT = "jupyterhub"
# Patterns of files below the ring's folder; what fits no other is the service's.
PATTERNS = {
    "notebook": ("notebook/*",),
    "data": (
        "datasets/test_datasets*",
        "dev/test_dataset*",
        "dev/test_standin*",
        "access/test_projects.py",
        "blueprint/test_gateway_client.py",
        "access/test_keys.py",
    ),
    "hub": (f"{HUB_CONTRACT}/*", "hub/test_hub_hosts.py"),
    "service": ("*",),
}
# The longest first, so that none is left over for one processor at the end.
ORDER = ("service", "data", "notebook", "hub")


def groups(tests: Sequence[str], root: Path = ROOT) -> dict[str, list[str]]:
    """The files of each group that has some, in the order in which the groups begin.

    Args:
        tests: files or folders of the ring, from the top of the checkout.
        root: the checkout.
    """
    files: list[str] = []
    for test in tests:
        path = root / test
        found = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
        files += [file.relative_to(root).as_posix() for file in found]
    sorted_out: dict[str, list[str]] = {name: [] for name in PATTERNS}
    for file in dict.fromkeys(files):
        below = file.removeprefix(f"{UNIT}/")
        name = next(n for n, patterns in PATTERNS.items() if any(fnmatchcase(below, p) for p in patterns))
        sorted_out[name].append(file)
    return {name: sorted_out[name] for name in ORDER if sorted_out[name]}


def contract(tests: Sequence[str], root: Path = ROOT) -> list[str]:
    """Those files of the ring that run with each version of JupyterHub."""
    below = f"{UNIT}/{HUB_CONTRACT}/"
    return [file for found in groups(tests, root).values() for file in found if file.startswith(below)]
