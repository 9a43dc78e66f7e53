"""What the rings run in and start: Python environments, and the programs of the rings without a cluster."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev import cluster, host, oauth2proxy, venv
from dev.cache import ROOT
from dev.console import Console
from dev.standin.local import ensure_postgis

# The newest and the oldest JupyterHub that the package works with.
NEWEST, OLDEST = "jupyterhub-6", "jupyterhub-5"
HUBS = {NEWEST: "jupyterhub>=6.1,<6.2", OLDEST: "jupyterhub>=5.5.1,<5.6"}


def pythons(console: Console, names: Collection[str] = tuple(HUBS)) -> dict[str, Path]:
    """The Python of each environment, by name.

    Args:
        console: told of the step.
        names: keys of ``HUBS``.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    meta = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = meta["optional-dependencies"]
    with console.step("Python environments of the tests") as step:
        base = [r for r in meta["dependencies"] if not r.startswith("jupyterhub>")]
        more = [
            r
            for name in ("hub", "stacks", "notebook", "archive", "mount", "slides", "storage", "test", "lint")
            for r in extras.get(name, [])
        ]
        return {
            name: venv.ensure(name, [HUBS[name], *base, *more], [ROOT / "tests" / "constraints.txt"], step)
            for name in HUBS
            if name in names
        }


def enter(argv: list[str], *needed: str) -> None:
    """Start this program anew in the newest environment, where a package is missing.

    Args:
        argv: of the program, as Python is told it.
        needed: packages that the program imports.
    """
    if all(importlib.util.find_spec(name) for name in needed):
        return
    python = pythons(Console(), {NEWEST})[NEWEST]
    os.execve(python, [str(python), *argv], {**os.environ, "PYTHONPATH": str(ROOT)})  # noqa: S606 - no shell


def programs(console: Console, rings: Collection[str]) -> dict[str, str]:
    """What the unit and api rings start on this machine (helm, an API server, a database): their environment."""
    # The one waits for a registry or compiles while the other does.
    with ThreadPoolExecutor(2) as pool:
        compiled = pool.submit(_compiled, console, rings)
        installed = pool.submit(_installed, console, rings)
        return {**compiled.result(), **installed.result()}


def _compiled(console: Console, rings: Collection[str]) -> dict[str, str]:
    cluster.build(console)
    if "api" in rings:
        cluster.build_kwok(console)
    return {"OAUTH2_PROXY_PROGRAM": str(oauth2proxy.program(console))} if "unit" in rings else {}


def _installed(console: Console, rings: Collection[str]) -> dict[str, str]:
    if "unit" not in rings:
        return {}
    ensure_postgis(console)
    with console.step("nginx, for the gateway's tests") as step:
        modules = host.unpacked("libnginx-mod-http-js", step.detail) / "usr/lib/nginx/modules"
        nginx = host.unpacked("nginx", step.detail) / "usr/sbin/nginx"
    return {"NGINX_PROGRAM": str(nginx), "NGINX_MODULES": str(modules)}
