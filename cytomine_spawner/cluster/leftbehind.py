"""Refuse to go on where an earlier release left its users in the hub's own namespace.

``python -m cytomine_spawner.cluster.leftbehind --namespace HUB --users USERS --release NAME``; the chart's Job runs this before it
makes the Secrets, for tools that render without asking the cluster (Argo CD): Helm itself sees it while it renders.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import aiohttp
from kubernetes_asyncio import client

from .hubsecret import REQUEST_TIMEOUT, find_cluster

# As in stack.model, which would load the spawner's libraries: this runs before each upgrade, in little memory.
GROUP, VERSION, PLURAL = "cytomine-spawner.org", "v1alpha1", "cytominestacks"
MANAGED_BY = "cytomine-stacks"


async def left(core: Any, objects: Any, namespace: str, release: str) -> list[str]:
    """Words for what users have in a namespace; one of each kind is looked for.

    Args:
        core: a ``CoreV1Api``.
        objects: a ``CustomObjectsApi``.
        namespace: the hub's.
        release: the release's name, by which its notebooks are known.
    """
    few = {"limit": 1, "_request_timeout": REQUEST_TIMEOUT}
    ours = {"label_selector": f"cytomine-spawner.org/hub={release}", **few}
    stacks = {"label_selector": f"app.kubernetes.io/managed-by={MANAGED_BY}", **few}
    found = []
    try:
        if (await objects.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, **few))["items"]:
            found.append("stacks")
    except client.ApiException as error:
        if error.status != 404:  # the cluster knows no stacks
            raise
    claims = core.list_namespaced_persistent_volume_claim
    if (await claims(namespace, **ours)).items or (await claims(namespace, **stacks)).items:
        found.append("volumes of users")
    if (await core.list_namespaced_pod(namespace, **ours)).items:
        found.append("notebooks")
    return found


async def _run(options: argparse.Namespace) -> list[str]:
    await find_cluster()
    loop = asyncio.get_running_loop()
    end = loop.time() + options.wait
    async with client.ApiClient() as connection:
        apis = client.CoreV1Api(connection), client.CustomObjectsApi(connection)
        while True:
            try:
                return await left(*apis, options.namespace, options.release)
            except (OSError, asyncio.TimeoutError, aiohttp.ClientError, client.ApiException) as error:
                refused = isinstance(error, client.ApiException) and error.status < 500
                if refused or loop.time() > end:
                    raise
            await asyncio.sleep(min(2.0, options.wait / 10))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if nothing was left."""
    parser = argparse.ArgumentParser(
        prog="python -m cytomine_spawner.cluster.leftbehind", description=__doc__
    )
    parser.add_argument("--namespace", required=True, help="the hub's")
    parser.add_argument("--users", required=True, help="the one that notebooks and stacks are to have")
    parser.add_argument("--release", required=True, help="the release's name")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the API server")
    options = parser.parse_args(arguments)
    try:
        found = asyncio.run(_run(options))
    except (OSError, asyncio.TimeoutError, aiohttp.ClientError, client.ApiException) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        print(  # noqa: T201 - a command
            f"It is not known whether users' notebooks or stacks are in the namespace {options.namespace} ({why}); set "
            "users.namespace to say where they shall be.",
            file=sys.stderr,
        )
        return 1
    if found:
        print(  # noqa: T201
            f"users.namespace is not set, and the namespace {options.namespace} of the hub holds {', '.join(found)} from when "
            f"all was in one namespace: in the new one, {options.users}, nobody would find them. Set users.namespace to "
            f"{options.namespace} to leave all where it is; docs/administrators says how to move it.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
