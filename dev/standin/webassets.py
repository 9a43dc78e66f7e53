"""Stand-in for Cytomine's web-ui: its libraries from npm, for runs without an image. Standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dev import cache
from dev.images import node
from dev.proc import run

HERE = Path(__file__).resolve().parent / "web"


def node_modules() -> Path:
    """The folder ``node_modules`` with what package-lock.json names, fetched unless it is there.

    Raises:
        Problem: the package registry did not answer.
    """
    program = node.program()
    files = sorted(HERE.glob("package*.json"))

    def build(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        path = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
        command = [program.parent / "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
        run(command, "Fetching the page's libraries", log="standin-web", timeout=300, cwd=folder, env=path)

    return cache.built("standin-web", cache.digest(files), build) / "node_modules"
