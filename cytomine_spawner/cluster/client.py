"""The API server, as the operator uses it: plain dicts, one pool of connections, a time-out on every call."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes_asyncio import client, config

from ..common.redact import by_looks
from ..stack.model import API_VERSION, KIND, MANAGED_BY, PLURAL

log = logging.getLogger(__name__)

# kind: (path of the API, plural)
RESOURCES = {
    "ConfigMap": ("api/v1", "configmaps"),
    "Event": ("api/v1", "events"),
    "Node": ("api/v1", "nodes"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Pod": ("api/v1", "pods"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "Job": ("apis/batch/v1", "jobs"),
    "Ingress": ("apis/networking.k8s.io/v1", "ingresses"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    KIND: (f"apis/{API_VERSION}", PLURAL),
}
_METADATA_ONLY = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"
_RETRIED = {429, 500, 502, 503, 504}
_ATTEMPTS = 5
# Small pages: a whole pod is fifty times its text in memory until it is reduced to what is remembered of it.
_PAGE = 200
_WATCH_SECONDS = 540
# The API server says a word a minute on an idle watch; after this time without one the connection may be dead.
_SILENCE_SECONDS = 90
# Kinds that the API server does not cache: their watches are silent while nothing happens.
_SILENT = {"Event"}


class KubeError(Exception):
    """The API server refused or did not answer.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
        reason: Kubernetes' word for it, such as ``Forbidden``.
        message: the API server's sentence, without what looks like a credential: it repeats values that it refuses.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0) -> None:
        self.message = by_looks(message)
        super().__init__(self.message)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class Kube:
    """One namespace of one cluster.

    Args:
        api: a configured client; it brings the login and the connections, and stays its owner's to close.
        namespace: of all calls that do not name another.
        timeout: seconds for one call.
        parallel: calls at the same time; more only queue up in the API server.
    """

    def __init__(
        self, api: client.ApiClient, namespace: str, *, timeout: float = 15, parallel: int = 20
    ) -> None:
        self.namespace = namespace
        self.timeout = timeout
        self.calls = 0
        self._api: Any = api
        self._gate = asyncio.Semaphore(parallel)

    @staticmethod
    async def connect() -> client.ApiClient:
        """A client for the pod's service account, or for the kubeconfig of a developer."""
        try:
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await config.load_kube_config()
        return client.ApiClient()

    # -- single objects -----------------------------------------------------------------------------------

    async def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply; what others changed of our fields is set back."""
        path = self._path(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"])
        query = {"fieldManager": MANAGED_BY, "force": "true"}
        return await self._call("PATCH", path, query, obj, "application/apply-patch+yaml")

    async def create(self, obj: dict[str, Any]) -> bool:
        """Create an object; False if one of this name is there already."""
        path = self._path(obj["kind"], obj["metadata"].get("namespace"))
        try:
            await self._call("POST", path, {"fieldManager": MANAGED_BY}, obj)
        except KubeError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return False
            raise
        return True

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return await self._call("GET", self._path(kind, None, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def patch(
        self, kind: str, name: str, body: dict[str, Any], subresource: str = ""
    ) -> dict[str, Any] | None:
        """JSON merge patch; None if the object is gone."""
        path = self._path(kind, None, name) + (f"/{subresource}" if subresource else "")
        try:
            return await self._call("PATCH", path, {}, body, "application/merge-patch+json")
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, kind: str, name: str, *, uid: str = "", grace: int | None = None) -> None:
        """Delete an object and, in the background, what it owns; nothing happens if it is gone or another one."""
        body: dict[str, Any] = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
        }
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", self._path(kind, None, name), {}, body)
        except KubeError as error:
            if error.status != 404 and not (error.status == 409 and uid):
                raise

    async def log(self, pod: str, *, lines: int) -> str:
        """The last lines that a pod's only container wrote."""
        query = {"tailLines": str(lines), "limitBytes": "4096"}
        path = f"{self._path('Pod', None, pod)}/log"
        async with self._gate:
            return str(await self._once("GET", path, query, None, "application/json", "*/*"))

    async def signing_keys(self) -> dict[str, Any]:
        """The public keys of the API server's tokens, as a set of JWKs."""
        # Asked for plain JSON, it refuses (406).
        return await self._call("GET", "/openid/v1/jwks", accept="application/jwk-set+json")

    # -- many objects -------------------------------------------------------------------------------------

    async def pages(
        self,
        kind: str,
        *,
        labels: str = "",
        fields: str = "",
        namespace: str | None = None,
        everywhere: bool = False,
        metadata_only: bool = False,
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """The objects of a kind page by page, and the version from which a watch goes on."""
        path = self._path(kind, namespace, everywhere=everywhere)
        query = {"limit": str(_PAGE), **_selectors(labels, fields)}
        while True:
            page = await self._call("GET", path, query, accept=_accept(metadata_only, "List"))
            meta = page["metadata"]
            yield page.get("items") or [], meta["resourceVersion"]
            del page  # not two pages at a time
            if not meta.get("continue"):
                return
            query["continue"] = meta["continue"]

    async def list(
        self,
        kind: str,
        *,
        labels: str = "",
        fields: str = "",
        namespace: str | None = None,
        everywhere: bool = False,
        metadata_only: bool = False,
    ) -> tuple[list[dict[str, Any]], str]:
        """As :meth:`pages`, all at once: where there are few."""
        items: list[dict[str, Any]] = []
        version = ""
        async for page, at in self.pages(
            kind,
            labels=labels,
            fields=fields,
            namespace=namespace,
            everywhere=everywhere,
            metadata_only=metadata_only,
        ):
            items += page
            version = at
        return items, version

    async def watch(
        self, kind: str, *, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What is there and what happens, for ever.

        First ``("ITEM", obj)`` for each object that is there, then ``("LISTED", {"names": {...}})``, then single
        changes. ITEMs and LISTED come again whenever changes may have been missed. Never raises but when
        cancelled; pauses between attempts grow to half a minute.
        """
        failures = 0
        while True:
            try:
                names: set[str] = set()
                version = ""
                async for page, at in self.pages(
                    kind, labels=labels, fields=fields, metadata_only=metadata_only
                ):
                    version = at
                    for item in page:
                        names.add(item["metadata"]["name"])
                        yield "ITEM", item
                    page.clear()  # not kept for as long as the watch lasts
                yield "LISTED", {"names": names}
                while True:
                    began = time.monotonic()
                    try:
                        async for event, obj in self._stream(kind, version, labels, fields, metadata_only):
                            failures = 0
                            version = obj["metadata"]["resourceVersion"]
                            if event != "BOOKMARK":
                                yield event, obj
                    except aiohttp.SocketTimeoutError:
                        # Taken up where it fell silent: nothing is missed, and nothing need be listed.
                        log.debug("The watch of %ss was silent and is started anew", kind)
                    # Usually minutes later; what ends each watch at once must not make a storm of them.
                    await asyncio.sleep(0.05 if time.monotonic() - began > 5 else 1)
            except KubeError as error:
                if error.status != 410:
                    failures += 1
                    log.warning("The watch of %ss is interrupted: %s", kind, error)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
                failures += 1
                log.warning("The watch of %ss is interrupted: %s", kind, type(error).__name__)
            if failures:
                pause = min(0.2 * 2**failures, 30)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads load, guards nothing

    async def _stream(
        self, kind: str, version: str, labels: str, fields: str, metadata_only: bool
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(_WATCH_SECONDS // 2, _WATCH_SECONDS)),  # noqa: S311
            **_selectors(labels, fields),
        }
        silence = _WATCH_SECONDS + 30 if kind in _SILENT else _SILENCE_SECONDS
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=silence)
        response = await self._send(
            "GET",
            self._path(kind, None),
            query,
            None,
            "application/json",
            timeout,
            _accept(metadata_only, ""),
        )
        try:
            if response.status != 200:
                raise await _error(response)
            _keep_alive(response)
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise KubeError(
                        status.get("code", 500), status.get("reason", ""), status.get("message", "")
                    )
                yield event["type"], event["object"]
        finally:
            response.close()

    # -- below --------------------------------------------------------------------------------------------

    def _path(self, kind: str, namespace: str | None, name: str = "", *, everywhere: bool = False) -> str:
        prefix, plural = RESOURCES[kind]
        scope = "" if kind == "Node" or everywhere else f"/namespaces/{quote(namespace or self.namespace)}"
        return f"/{prefix}{scope}/{plural}" + (f"/{quote(name)}" if name else "")

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._gate:
                    return dict(await self._once(method, path, query or {}, body, content_type, accept))
            except KubeError as error:
                # A create that failed half-way may have happened: its second attempt says AlreadyExists.
                if attempt == _ATTEMPTS or error.status not in _RETRIED | {0}:
                    raise
                pause = error.retry_after or 0.1 * 2**attempt
            await asyncio.sleep(min(pause, 5) * random.uniform(0.5, 1))  # noqa: S311

    async def _once(
        self, method: str, path: str, query: dict[str, str], body: Any, content_type: str, accept: str
    ) -> Any:
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        try:
            response = await self._send(method, path, query, body, content_type, timeout, accept)
            async with response:
                if response.status >= 300:
                    raise await _error(response)
                return await (response.json() if "json" in accept else response.text(errors="replace"))
        except (aiohttp.ClientError, asyncio.TimeoutError, ssl.SSLError, OSError) as error:
            raise KubeError(0, type(error).__name__, "The API server does not answer") from error

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
        accept: str,
    ) -> aiohttp.ClientResponse:
        self.calls += 1
        headers = {"Accept": accept, "Content-Type": content_type}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self._api.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        # Not preloaded: the client would write each answer, secrets too, into its debug log.
        response: aiohttp.ClientResponse = await self._api.rest_client.request(
            method, url, headers=headers, body=body, _preload_content=False, _request_timeout=timeout
        )
        return response


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Have the system notice within a minute that the other end is gone: a watch only listens."""
    transport = response.connection.transport if response.connection else None
    raw = transport.get_extra_info("socket") if transport else None
    if raw is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Linux' names; elsewhere the system's own time holds.
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}


def _accept(metadata_only: bool, suffix: str) -> str:
    return _METADATA_ONLY.format(list=suffix) if metadata_only else "application/json"


async def _error(response: aiohttp.ClientResponse) -> KubeError:
    text = await response.text(errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text[:500]}
    after = response.headers.get("Retry-After", "")
    return KubeError(
        response.status,
        str(status.get("reason") or response.reason),
        str(status.get("message") or response.reason),
        float(after) if after.isdigit() else 0,
    )
