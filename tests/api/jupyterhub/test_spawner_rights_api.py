"""The rights that the chart gives the hub suffice for the spawner, on a real API server."""

from __future__ import annotations

import asyncio

from kubernetes_asyncio.client import Configuration

from cytomine_spawner import CytomineSpawner
from tests.support.chartaccounts import connection, hub_account
from tests.support.kube import make_spawner


async def test_the_hubs_account_suffices_to_start_and_stop_a_notebook_and_to_delete_its_volume(
    kubectl, monkeypatch
):
    users = hub_account(kubectl)
    hub = connection(kubectl, "hub-hub")
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: Configuration.set_default(hub))
    monkeypatch.setattr(CytomineSpawner, "reflectors", {})
    spawner = make_spawner(
        CytomineSpawner,
        namespace=users.namespace,
        image="example/singleuser:1",
        cmd=["jupyterhub-singleuser"],
        storage_pvc_ensure=True,
        storage_capacity="1Gi",
        start_timeout=60,
    )
    try:
        await asyncio.wait_for(spawner.start(), 60)
        (pod,) = users.get("pods")["items"]
        assert pod["status"]["phase"] == "Running"
        assert len(users.get("pvc")["items"]) == 1
        assert await spawner.poll() is None
        await asyncio.wait_for(spawner.stop(now=True), 60)
        assert users.get("pods,secrets")["items"] == []
        await asyncio.wait_for(spawner.delete_forever(), 60)
        (claim,) = users.get("pvc")["items"] or [None]
        assert claim is None or claim["metadata"]["deletionTimestamp"]
    finally:
        for reflector in CytomineSpawner.reflectors.values():
            await reflector.stop()
        await spawner.api.api_client.close()
