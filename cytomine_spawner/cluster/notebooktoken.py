"""The notebook's API token as a Secret, so that reading a pod does not mean reading its token."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from kubernetes_asyncio.client import ApiException, V1EnvVar, V1EnvVarSource, V1SecretKeySelector

KEY = "token"
VARIABLES = frozenset({"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"})


def secret_name(pod_name: str) -> str:
    """Name of the Secret that belongs to a pod."""
    return f"{pod_name}-token"


def by_reference(env: list[Any], pod_name: str) -> list[Any]:
    """A container's environment with the token's value replaced by a reference to the Secret."""
    source = V1EnvVarSource(secret_key_ref=V1SecretKeySelector(name=secret_name(pod_name), key=KEY))
    return [
        V1EnvVar(name=variable.name, value_from=source) if variable.name in VARIABLES else variable
        for variable in env
    ]


def manifest(spawner: Any, owner_uid: str | None) -> dict[str, Any]:
    """The Secret for server-side apply; with the pod's uid it goes when the pod goes."""
    metadata: dict[str, Any] = {
        "name": secret_name(spawner.pod_name),
        "namespace": spawner.namespace,
        "labels": spawner._build_common_labels({"app.kubernetes.io/component": "notebook-token"}),
        "annotations": spawner._build_common_annotations({}),
    }
    if owner_uid:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Pod", "name": spawner.pod_name, "uid": owner_uid}
        ]
    data = {KEY: base64.b64encode(spawner.api_token.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}


async def apply(spawner: Any, owner_uid: str | None = None) -> None:
    """Create the Secret, or bring the one of an earlier start up to date."""
    await asyncio.wait_for(
        spawner.api.patch_namespaced_secret(
            secret_name(spawner.pod_name),
            spawner.namespace,
            manifest(spawner, owner_uid),
            field_manager="cytomine-spawner",
            force=True,
            _content_type="application/apply-patch+yaml",
        ),
        spawner.k8s_api_request_timeout,
    )


async def delete(spawner: Any) -> None:
    """Remove the Secret; that it is gone already is fine, and a failure is not worth a failed stop."""
    try:
        await asyncio.wait_for(
            spawner.api.delete_namespaced_secret(secret_name(spawner.pod_name), spawner.namespace),
            spawner.k8s_api_request_timeout,
        )
    except (ApiException, asyncio.TimeoutError) as error:
        if getattr(error, "status", None) != 404:
            spawner.log.warning("The Secret %s was not removed: %r", secret_name(spawner.pod_name), error)
