"""The archive's stand-in in the demo: a pod with the mock dataset, which asks LS Login's stand-in for its users' visas."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dev.archive.mock import MOCK
from dev.demo import mock

PORT = 8100
_SELECT = {"app.kubernetes.io/name": "archive", "app.kubernetes.io/instance": "archive"}


def values(namespace: str) -> dict[str, Any]:
    """The chart's values for it."""
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": _SELECT},
    }
    return {
        "enabled": True,
        "url": f"http://archive.{namespace}.svc:{PORT}",
        "allowHttp": True,
        # Many start at once on two processors.
        "timeout": 8,
        "networkPolicy": {"peers": [peer], "port": PORT},
    }


def objects(namespace: str, users: str, image: str, issuer: str, folder: Path) -> list[dict[str, Any]]:
    """Its Kubernetes objects, accepted under restricted Pod Security.

    Args:
        namespace: where it goes: that of LS Login's stand-in and of the hub.
        users: the namespace of notebooks and imports, which may reach it.
        image: name and tag of the image ``archive``.
        issuer: LS Login's stand-in, as browsers know it.
        folder: the mock dataset, whose claim is there.
    """
    public = "{0.scheme}://{0.netloc}".format(urlsplit(issuer))
    labels = {**_SELECT, "app.kubernetes.io/managed-by": "demo"}
    place = "/datasets"
    command = [f"--issuer={issuer}", f"--instead={public}=http://lslogin.{namespace}.svc"]
    command += [f"--dataset={name}={place}/{part}" for name, part in MOCK.items()]

    def thing(api: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        meta = {"name": "archive", "namespace": namespace, "labels": labels}
        return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}

    container = {
        "name": "archive",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": command,
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "384Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "datasets", "mountPath": place, "readOnly": True}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {
                "name": "datasets",
                "persistentVolumeClaim": {"claimName": mock.claim(folder), "readOnly": True},
            }
        ],
    }
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": _SELECT},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    service = {"selector": _SELECT, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}
    inside = {"kubernetes.io/metadata.name": users}
    hub = {"app.kubernetes.io/name": "cytomine-hub", "app.kubernetes.io/component": "hub"}
    policy = {
        "podSelector": {"matchLabels": _SELECT},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    {"podSelector": {"matchLabels": hub}},
                    {"namespaceSelector": {"matchLabels": inside}},
                ],
                "ports": [{"port": "http"}],
            }
        ],
    }
    return [
        thing("apps/v1", "Deployment", deployment),
        thing("v1", "Service", service),
        thing("networking.k8s.io/v1", "NetworkPolicy", policy),
    ]
