"""Looks at a cluster's objects through one ``kubectl proxy``: a kubectl for each look keeps a core busy while a test waits."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from dev.console import Problem
from dev.kube import Kube
from dev.wait import until

# Where the kinds are that tests wait for; kubectl itself is asked for all others.
GROUPS = {
    "api/v1": "pods services configmaps secrets persistentvolumeclaims events",
    "apis/apps/v1": "deployments statefulsets replicasets",
    "apis/batch/v1": "jobs",
    "apis/networking.k8s.io/v1": "networkpolicies ingresses",
    "apis/cytomine-spawner.org/v1alpha1": "cytominestacks",
}
PLACES = {plural: group for group, plurals in GROUPS.items() for plural in plurals.split()}
SELECTORS = {"-l": "labelSelector", "--field-selector": "fieldSelector"}


@dataclass(frozen=True)
class Look:
    """What a ``kubectl get`` asks for.

    Attributes:
        namespace: where.
        plurals: the kinds.
        name: one object's; all if empty.
        query: the selectors.
    """

    namespace: str
    plurals: tuple[str, ...]
    name: str
    query: dict[str, str]

    def path(self, plural: str) -> str:
        """The address of a kind's objects, or of the one."""
        path = f"/{PLACES[plural]}/namespaces/{self.namespace}/{plural}"
        return f"{path}/{self.name}" if self.name else path


def parse(args: tuple[str, ...]) -> Look | None:
    """The meaning of kubectl's arguments; none if it is more than namespace, kinds, name and selectors."""
    namespace, words, query = "", [], {}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "-n" and rest:
            namespace = rest.pop(0)
        elif word in SELECTORS and rest:
            query[SELECTORS[word]] = rest.pop(0)
        elif (option := word.partition("=")) and option[0] in SELECTORS and option[1]:
            query[SELECTORS[option[0]]] = option[2]
        elif word.startswith("-"):
            return None
        else:
            words.append(word)
    if not namespace or len(words) not in (1, 2):
        return None
    plurals = tuple(kind if kind in PLACES else f"{kind}s" for kind in words[0].split(","))
    name = words[1] if len(words) == 2 else ""
    if set(plurals) - set(PLACES) or (name and (len(plurals) > 1 or query)):
        return None
    return Look(namespace, plurals, name, query)


@dataclass(frozen=True)
class LookingKube(Kube):
    """kubectl and helm, but for looks at objects.

    Attributes:
        http: the way through the proxy.
    """

    http: httpx.Client = field(default_factory=httpx.Client)

    def get(self, *args: str) -> dict[str, Any] | None:
        """As kubectl does it: an object, a list of objects, or None where the object is not there."""
        look = parse(args)
        if look is None:
            return super().get(*args)
        if look.name:
            return self._fetch(look.path(*look.plurals), {})
        items = []
        for plural in look.plurals:
            found = self._fetch(look.path(plural), look.query)
            if found is None:
                raise Problem(f"the cluster knows no {plural}", "See whether they are defined")
            common = {
                "apiVersion": PLACES[plural].partition("/")[2],
                "kind": found["kind"].removesuffix("List"),
            }
            items += [{**common, **item} for item in found["items"]]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def _fetch(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        try:
            answer = self.http.get(path, params=query)
        except httpx.TransportError as error:
            raise Problem(f"looking at {path} failed: {error!r}", "See whether the cluster answers") from None
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise Problem(
                f"looking at {path} failed: {answer.text[-300:]}", "See whether the cluster answers"
            )
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def looking(kube: Kube) -> Iterator[LookingKube]:
    """The same cluster with quick looks, until the block ends.

    The proxy listens on a socket that only this user reaches.
    """
    with tempfile.TemporaryDirectory(prefix="looks-") as folder:
        socket = Path(folder) / "proxy"
        command = [kube.kubectl_path, "proxy", f"--unix-socket={socket}"]
        env = {**os.environ, **kube.env}
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as proxy:
            try:
                until(socket.exists, "kubectl proxy", 30, cure="Look at what it said")
                transport = httpx.HTTPTransport(uds=str(socket), retries=1)
                with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as http:
                    yield LookingKube(kube.kubeconfig, kube.kubectl_path, kube.helm_path, http)
            finally:
                proxy.terminate()
