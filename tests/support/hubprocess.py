"""The program of a hub, forked from a process that has imported it: nine tenths of a start are its imports."""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

_IMPORTED = [
    "cytomine_spawner.hub.hubapp",
    "cytomine_spawner.hub.spawner",
    "cytomine_spawner.lslogin.authenticator",
    "tests.support.hubprocess",
]


def start(folder: Path, arguments: list[str], env: dict[str, str], log: Path) -> BaseProcess:
    """Start the command ``cytomine-hub`` in a process of its own.

    Args:
        folder: where it works.
        arguments: of the command.
        env: its environment.
        log: gets what it says.
    """
    log.touch()
    context = multiprocessing.get_context("forkserver")
    # The first process starts the one that all are forked from; it ends with this one.
    context.set_forkserver_preload(_IMPORTED)
    # A daemon in multiprocessing's sense: it ends with the tests, whatever becomes of them.
    started = context.Process(target=_run, args=(str(folder), arguments, env, str(log)), daemon=True)
    started.start()
    return started


def _run(folder: str, arguments: list[str], env: dict[str, str], log: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main = import_module(env.get("TEST_HUB_PROGRAM", "cytomine_spawner.hub.hubapp")).main
    from kubernetes_asyncio.config import kube_config

    # Read when it is imported, which was before this process had an environment of its own.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = env.get("KUBECONFIG", "~/.kube/config")
    sys.argv = ["cytomine-hub", *arguments]
    main()
