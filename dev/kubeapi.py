"""Objects of a cluster over HTTPS, without kubectl: each start of it costs a quarter of a second of a processor.

Whoever waits for a pod looks many times. Only looks go this way, and only where the cluster's file holds all that they
take (a client's certificate or a token, as kind, k3d and ``dev/cluster`` write it); otherwise kubectl does it.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT = 60
# Where the kinds are that are looked for most; others are asked for at their own groups.
CERTIFICATE = ("client-certificate-data", "client-key-data")
GROUPS = ("api/v1", "apis/apps/v1", "apis/batch/v1", "apis/networking.k8s.io/v1")


class Unknown(Exception):
    """What is asked for is nothing that can be asked this way."""


@dataclass(frozen=True)
class Asked:
    """What ``kubectl get`` would be told.

    Attributes:
        kinds: as kubectl knows them: ``pods``, ``pod``, ``po``.
        name: of one object; empty for all.
        namespace: empty for what has none.
        query: selectors.
    """

    kinds: tuple[str, ...]
    name: str
    namespace: str
    query: str

    @classmethod
    def read(cls, args: tuple[str, ...]) -> Asked:
        """From the arguments of ``kubectl get``.

        Raises:
            Unknown: there is something among them that only kubectl knows.
        """
        names = {"-n": "", "-l": "labelSelector", "--field-selector": "fieldSelector"}
        rest, namespace, query = list(args), "", {}
        words = []
        while rest:
            word = rest.pop(0)
            if word in names and rest:
                value = rest.pop(0)
                if word == "-n":
                    namespace = value
                else:
                    query[names[word]] = value
            elif word.startswith("-") or "/" in word:
                raise Unknown(word)
            else:
                words.append(word)
        if len(words) not in (1, 2):
            raise Unknown(" ".join(args))
        return cls(tuple(words[0].split(",")), "".join(words[1:]), namespace, urlencode(query))


@dataclass(frozen=True)
class _Kind:
    group: str
    plural: str
    kind: str
    namespaced: bool


class Api:
    """The API server that a cluster's file names.

    Args:
        server: its address.
        trust: its certificate, and the client's.
        headers: of each request.
    """

    def __init__(self, server: str, trust: ssl.SSLContext, headers: dict[str, str]) -> None:
        self._server, self._trust, self._headers = urlsplit(server), trust, headers
        self._kinds: dict[str, _Kind] = {}

    def get(self, asked: Asked) -> dict[str, Any] | None:
        """One object, or a list; None where there is no such object.

        Raises:
            Unknown: the API server does not know such a kind, or not for us.
            OSError: it does not answer.
        """
        if asked.name:
            (kind,) = asked.kinds
            return self._ask(f"{self._path(kind, asked.namespace)}/{asked.name}")
        items: list[dict[str, Any]] = []
        for name in asked.kinds:
            path = self._path(name, asked.namespace)
            found = self._ask(path + (f"?{asked.query}" if asked.query else ""))
            if found is None:
                raise Unknown(path)
            same = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
            items += [{**same, **item} for item in found["items"]]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def _path(self, name: str, namespace: str) -> str:
        kind = self._kinds.get(name) or self._find(name)
        if kind.namespaced and not namespace:
            raise Unknown(f"{name} of the namespace that kubectl would choose")
        inside = f"/namespaces/{namespace}" if kind.namespaced else ""
        return f"/{kind.group}{inside}/{kind.plural}"

    def _find(self, name: str) -> _Kind:
        others = (self._ask("/apis") or {}).get("groups", [])
        groups = [*GROUPS, *(f"apis/{group['preferredVersion']['groupVersion']}" for group in others)]
        for group in groups:
            for found in (self._ask(f"/{group}") or {}).get("resources", []):
                names = {found["name"], found["singularName"], *found.get("shortNames", [])}
                if name in names and "/" not in found["name"]:
                    kind = _Kind(group, found["name"], found["kind"], found["namespaced"])
                    self._kinds[name] = kind
                    return kind
        raise Unknown(name)

    def _ask(self, path: str) -> dict[str, Any] | None:
        # A connection for each: it costs little, and none is left open in a program that waits for something else.
        with closing(
            http.client.HTTPSConnection(
                self._server.hostname or "", self._server.port or 443, timeout=TIMEOUT, context=self._trust
            )
        ) as connection:
            connection.request("GET", self._server.path.rstrip("/") + path, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Unknown(f"{answer.status} {path}")
        found: dict[str, Any] = json.loads(body)
        return found


def of(kubeconfig: Path, kubectl: str) -> Api | None:
    """The API server of a cluster's file; None where kubectl has to be asked."""
    try:
        return _made(kubeconfig, kubectl, kubeconfig.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=8)
def _made(kubeconfig: Path, kubectl: str, _changed: int) -> Api | None:
    command = [
        kubectl,
        "--kubeconfig",
        str(kubeconfig),
        "config",
        "view",
        "--raw",
        "--minify",
        "--flatten",
        "-o",
        "json",
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if said.returncode:
        return None
    content = json.loads(said.stdout)
    target, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    if set(target) - {"server", "certificate-authority-data"} or not target["server"].startswith("https://"):
        return None
    if set(user) not in ({"token"}, set(CERTIFICATE)):
        return None
    authority = target.get("certificate-authority-data")
    return Api(target["server"], *login(base64.b64decode(authority).decode() if authority else None, user))


def login(authority: str | None, user: Mapping[str, str]) -> tuple[ssl.SSLContext, dict[str, str]]:
    """Whom we trust and who we are: a TLS context, and headers for each request.

    Args:
        authority: the API server's certificate authority; that of this machine if absent.
        user: from a cluster's file; what it has beside a token and a client's certificate is not used.
    """
    trust = ssl.create_default_context(cadata=authority)
    if "client-certificate-data" in user:
        # ssl reads these from files only; the folder is nobody else's.
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("cert", "key")]
            for file, key in zip(files, CERTIFICATE, strict=True):
                file.touch(mode=0o600)
                file.write_bytes(base64.b64decode(user[key]))
            trust.load_cert_chain(*files)
    return trust, {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
