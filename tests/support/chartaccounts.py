"""The accounts that the chart makes, on a real API server, and clients that log in as they."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from kubernetes_asyncio.client import Configuration

from tests.support.chart import render


def in_namespace(kubectl, values=None, *more):
    return render(values, "--namespace", kubectl.namespace, *more)


def connection(kubectl, account=None) -> Configuration:
    """The API server as the administrator, or as a service account of the namespace."""
    # JSON, as the tests' API server writes it, which is YAML too.
    content = json.loads(Path(kubectl.kubeconfig).read_text())
    target, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    authority = Path(kubectl.kubeconfig).parent / f"ca-{kubectl.namespace}.crt"
    authority.write_bytes(base64.b64decode(target["certificate-authority-data"]))
    made = Configuration(host=target["server"], ssl_ca_cert=str(authority))
    if account:
        made.api_key["BearerToken"] = "Bearer " + kubectl("create", "token", account).stdout.strip()
    elif "token" in user:
        made.api_key["BearerToken"] = "Bearer " + user["token"]
    return made


def hub_account(kubectl):
    objects = in_namespace(kubectl)
    parts = [
        o
        for o in objects
        if o["metadata"]["name"] == "hub-hub" and o["kind"] in ("ServiceAccount", "Role", "RoleBinding")
    ]
    assert len(parts) == 3
    done = kubectl.apply(*parts)
    assert done.returncode == 0, done.stderr
