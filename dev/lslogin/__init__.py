"""A stand-in for LS Login in development and tests; never for production.

It is npm's ``oidc-provider`` with LS Login's paths, scopes and claims. This module makes its Kubernetes
objects and runs it as a local process; README.md lists the users and their groups.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dev import cache, proc
from dev.images import node

HERE = Path(__file__).resolve().parent
_PORT = 8080
_LABELS = {
    "app.kubernetes.io/name": "lslogin",
    "app.kubernetes.io/component": "lslogin",
    "app.kubernetes.io/part-of": "cytomine-spawner-dev",
}

USERS_GROUP = "urn:geant:lifescience-ri.eu:group:lifescience:communities_and_projects:cytomine:users#aai.lifescience-ri.eu"
ADMINS_GROUP = "urn:geant:lifescience-ri.eu:group:lifescience:communities_and_projects:cytomine:admins#aai.lifescience-ri.eu"


def clients_file(
    redirect_uris: Sequence[str],
    post_logout_uris: Sequence[str],
    client_id: str,
    client_secret: str,
    name: str = "Cytomine hub",
    users: Sequence[dict[str, Any]] = (),
) -> str:
    """The JSON that tells the stand-in of one client, which gets refresh tokens, and of users beside its own.

    Args:
        redirect_uris: where a login may end.
        post_logout_uris: where a logout may end.
        client_id: the client's id.
        client_secret: its secret.
        name: what the login page calls it.
        users: further users; see :func:`user`.
    """
    client = {
        "client_id": client_id,
        "client_secret": client_secret,
        "redirect_uris": list(redirect_uris),
        "post_logout_redirect_uris": list(post_logout_uris),
        "name": name,
        "refresh": True,
    }
    return json.dumps({"clients": [client], "users": list(users)}, indent=2)


def user(key: str, purpose: str) -> dict[str, Any]:
    """A further user, whom hubs let in.

    Args:
        key: the user's short name, small letters.
        purpose: a line for the login page.
    """
    return {
        "key": key,
        "purpose": purpose,
        "sub": f"{hashlib.sha256(key.encode()).hexdigest()[:40]}@lifescience-ri.eu",
        "preferred_username": key,
        "given_name": key.capitalize(),
        "family_name": "Tester",
        "email": f"{key}@example.org",
        "entitlements": [USERS_GROUP],
        "visas": [],
    }


def objects(
    namespace: str,
    image: str,
    issuer: str,
    redirect_uris: Sequence[str],
    post_logout_uris: Sequence[str],
    client_id: str,
    client_secret: str,
    *,
    ingress_class: str = "local",
    persistent: bool = True,
    users: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The stand-in's Kubernetes objects, accepted under restricted Pod Security.

    Inside the cluster it answers at ``http://lslogin.<namespace>.svc/oidc/…``; its documents and tokens
    always name the public issuer.

    Args:
        namespace: where they go.
        image: name and tag of the image ``lslogin``.
        issuer: public address, ending in ``/oidc/``; its host becomes the Ingress's.
        redirect_uris: where a login may end.
        post_logout_uris: where a logout may end.
        client_id: the hub's client id.
        client_secret: the hub's client secret; it is kept in a Secret, mounted as a file.
        ingress_class: class of the Ingress.
        persistent: keep keys and sessions in a volume claim of the default storage class, so that
            nobody is logged out when the pod is replaced; otherwise they go with the pod.
        users: further users; see :func:`user`.
    """
    host = urlsplit(issuer).hostname
    if not host or not issuer.endswith("/oidc/"):
        raise ValueError(f"issuer must look like http://host/oidc/, with the trailing slash, not {issuer}")
    labels = {**_LABELS, "app.kubernetes.io/instance": "lslogin", "app.kubernetes.io/managed-by": "demo"}
    select = {key: labels[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    clients = clients_file(redirect_uris, post_logout_uris, client_id, client_secret, users=users)

    def thing(api: str, kind: str, **fields: Any) -> dict[str, Any]:
        name = "lslogin-data" if kind == "PersistentVolumeClaim" else "lslogin"
        return {
            "apiVersion": api,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            **fields,
        }

    data = (
        {"persistentVolumeClaim": {"claimName": "lslogin-data"}}
        if persistent
        else {"emptyDir": {"sizeLimit": "16Mi"}}
    )
    probe = {"httpGet": {"path": "/healthz", "port": "http"}}
    container = {
        "name": "lslogin",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "ISSUER", "value": issuer},
            {"name": "CLIENTS_FILE", "value": "/run/clients/clients.json"},
            {"name": "DATA_DIR", "value": "/data"},
            {"name": "PORT", "value": str(_PORT)},
        ],
        "ports": [{"name": "http", "containerPort": _PORT}],
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5},
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "clients", "mountPath": "/run/clients", "readOnly": True},
            {"name": "data", "mountPath": "/data"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "clients", "secret": {"secretName": "lslogin", "defaultMode": 0o440}},
            {"name": "data", **data},
        ],
    }
    # A changed client file must restart the pod, which reads it once. The hash of it tells nothing of the secret.
    template = {
        "metadata": {
            "labels": labels,
            "annotations": {"cytomine-spawner.org/clients": cache.digest([], clients)},
        },
        "spec": pod,
    }
    backend = {"service": {"name": "lslogin", "port": {"name": "http"}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    found = [
        thing(
            "v1", "Secret", type="Opaque", data={"clients.json": base64.b64encode(clients.encode()).decode()}
        ),
        thing(
            "v1",
            "Service",
            spec={"selector": select, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        ),
        thing(
            "apps/v1",
            "Deployment",
            spec={
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": select},
                "template": template,
            },
        ),
        thing("networking.k8s.io/v1", "Ingress", spec={"ingressClassName": ingress_class, "rules": [rule]}),
        thing(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            spec={
                "podSelector": {"matchLabels": select},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"ports": [{"port": "http", "protocol": "TCP"}]}],
                "egress": [],
            },
        ),
    ]
    return [thing("v1", "PersistentVolumeClaim", spec=claim), *found] if persistent else found


def installed() -> tuple[Path, Path]:
    """The node program and a folder with the stand-in and its packages, made unless it is there.

    Raises:
        Problem: the package registry did not answer.
    """
    files = sorted([*HERE.glob("*.js"), *HERE.glob("*.json")])
    return node.program(), node.packages(files, "lslogin", "Installing the LS Login stand-in")


@contextlib.contextmanager
def running(
    clients: str,
    *,
    issuer: str = "http://login.localhost:8000/oidc/",
    port: int = 0,
    data: Path | None = None,
    timeout: float = 30,
    env: dict[str, str] | None = None,
) -> Iterator[int]:
    """Run the stand-in on loopback as a child process, and yield its port.

    Args:
        clients: what ``clients_file`` returns.
        issuer: the public address it names itself by.
        port: port to listen on; 0 takes a free one.
        data: folder for keys and sessions; none forgets them.
        timeout: seconds that it may take to start.
        env: further environment variables, see server.js.

    Raises:
        Problem: it did not start.
    """
    program, folder = installed()
    with tempfile.TemporaryDirectory(prefix="lslogin-") as work:
        file = Path(work) / "clients.json"
        file.touch(mode=0o600)
        file.write_text(clients)
        own = {"ISSUER": issuer, "CLIENTS_FILE": str(file), "PORT": str(port), "HOST": "127.0.0.1"}
        own |= {"DATA_DIR": str(data)} if data else {}
        with proc.serving(
            [program, "server.js"],
            "The LS Login stand-in",
            r"listening on port (\d+)",
            timeout=timeout,
            cwd=folder,
            env={**os.environ, **own, **(env or {})},
        ) as found:
            yield int(found)
