"""Spawners in one namespace of a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kubernetes_asyncio import config
from kubespawner import KubeSpawner

from cytomine_spawner import CytomineSpawner
from tests.support.kube import make_spawner


@asynccontextmanager
async def spawners(api: Any, namespace: str, monkeypatch: Any) -> AsyncIterator[Callable[..., Any]]:
    """Gives a function that makes spawners in the namespace; each is a new object, as after a restart of the hub."""
    await config.load_kube_config(config_file=str(api.kubeconfig))
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr(KubeSpawner, "reflectors", {})

    def make(user: str = "ada", **settings: Any) -> Any:
        usual = {"start_timeout": 60, "storage_pvc_ensure": True, "storage_capacity": "1Gi"}
        return make_spawner(CytomineSpawner, user=user, namespace=namespace, **{**usual, **settings})

    yield make
    await CytomineSpawner._stop_all_reflectors()
    for pod in api.items(namespace, "pods"):
        api.delete_now(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")


async def start(spawner: Any, **options: Any) -> Any:
    """What the hub does for a start with these options."""
    await spawner._run_apply_user_options(options)
    return await asyncio.wait_for(spawner.start(), 60)


async def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition outside of this process."""

    async def wait() -> Any:
        while not (found := condition()):  # noqa: ASYNC110 - the API server tells no event of ours
            await asyncio.sleep(0.05)
        return found

    return await asyncio.wait_for(wait(), seconds)
