"""The accounts that the chart makes, on a real API server, and clients that log in as they."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from kubernetes_asyncio.client import Configuration

from tests.support.apiserver import Kubectl
from tests.support.chart import Object, find, render


def in_namespace(kubectl, values=None, *more):
    return render(values, "--namespace", kubectl.namespace, *more)


def everywhere(kubectl) -> Kubectl:
    """The same API server without a namespace: for what the chart renders, which says where each object goes."""
    return Kubectl(kubectl.kubeconfig)


def users_of(kubectl, objects: list[Object]) -> Kubectl:
    """The namespace of notebooks and stacks, made as the chart makes it."""
    name = f"{kubectl.namespace}-users"
    account = {
        # A controller makes it some time later, and pods are refused until then.
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name},
    }  # fmt: skip
    done = everywhere(kubectl).apply(find(objects, "Namespace", name), account)
    assert done.returncode == 0, done.stderr
    return Kubectl(kubectl.kubeconfig, name)


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


def config_of(kubectl, account, folder) -> Path:
    """A kubeconfig for an account."""
    made = connection(kubectl, account)
    path = folder / f"{account}.json"
    target = {"server": made.host, "certificate-authority": made.ssl_ca_cert}
    user = {"token": made.api_key["BearerToken"].removeprefix("Bearer ")}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": target}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


def accounts(kubectl, values=None, *names: str) -> Kubectl:
    """Make accounts of the release with their rights; kubectl where these are: in the namespace of notebooks and stacks."""
    objects = in_namespace(kubectl, values)
    users = users_of(kubectl, objects)
    parts = [
        o
        for o in objects
        if o["metadata"]["name"] in names and o["kind"] in ("ServiceAccount", "Role", "RoleBinding")
    ]
    assert len(parts) == 3 * len(names)
    done = everywhere(kubectl).apply(*parts)
    assert done.returncode == 0, done.stderr
    return users


def hub_account(kubectl) -> Kubectl:
    """Make the hub's account with its rights; kubectl where these are."""
    return accounts(kubectl, None, "hub-hub")
