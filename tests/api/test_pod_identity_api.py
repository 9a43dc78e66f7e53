"""Which pod a token is of, by a real API server that made the token."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from kubernetes_asyncio import client, config

from cytomine_spawner.access.podidentity import PodIdentity, Stranger
from cytomine_spawner.cluster.client import Kube
from cytomine_spawner.stack.model import IMPORT_AUDIENCE
from tests.api.conftest import Api
from tests.support.apiserver import Kubectl

POD = {
    "metadata": {"name": "import"},
    "spec": {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "import",
                "image": "none",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


@pytest.fixture
async def identity(kubectl: Kubectl) -> AsyncIterator[PodIdentity]:
    settings = client.Configuration()
    await config.load_kube_config(str(kubectl.kubeconfig), client_configuration=settings)
    async with client.ApiClient(settings) as api:
        yield PodIdentity(Kube(api, kubectl.namespace))


async def test_a_token_that_the_api_server_bound_to_a_pod_is_that_pods(
    api: Api, namespace: str, identity: PodIdentity
) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.create(accounts, {"metadata": {"name": "imports"}})
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = api.create(pods, {**POD, "spec": {**POD["spec"], "serviceAccountName": "imports"}})

    def token(audience: str) -> str:
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "import", "uid": made["metadata"]["uid"]}
        asked = {"spec": {"audiences": [audience], "boundObjectRef": bound}}
        found: str = api.create(f"{accounts}/imports/token", asked)["status"]["token"]
        return found

    mine = token(IMPORT_AUDIENCE)
    assert (await identity.pod(mine))["metadata"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(Stranger, match="does not hold"):
        await identity.pod(token("https://kubernetes.default.svc"))
    api.delete_now(f"{pods}/import")
    with pytest.raises(Stranger, match="gone"):
        await identity.pod(mine)
