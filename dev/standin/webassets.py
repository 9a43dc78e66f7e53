"""Stand-in for Cytomine's web-ui: its libraries from npm, for runs without an image. Standard library only."""

from __future__ import annotations

from pathlib import Path

from dev.images import node

HERE = Path(__file__).resolve().parent / "web"


def node_modules() -> Path:
    """The folder ``node_modules`` with what package-lock.json names, fetched unless it is there.

    Raises:
        Problem: the package registry did not answer.
    """
    files = sorted(HERE.glob("package*.json"))
    return node.packages(files, "standin-web", "Fetching the page's libraries") / "node_modules"
