"""The hub's few calls about CytomineStack objects, with time limits and readable errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException
from kubespawner.clients import shared_client
from pydantic import ValidationError

from ..common.redact import by_looks
from ..common.waiting import within
from ..stack.model import GROUP, PLURAL, VERSION, Stack

WATCH_SECONDS = 300


class StackTrouble(Exception):
    """A call that did not succeed; the text is one sentence for people.

    Attributes:
        final: whether trying again is of no use.
        status: the API server's HTTP status; 0 when there was none.
    """

    def __init__(self, sentence: str, *, final: bool, status: int = 0) -> None:
        super().__init__(sentence)
        self.final = final
        self.status = status


class StackApi:
    """Reads, makes, changes and deletes the stacks of one namespace.

    Args:
        namespace: where the stacks are.
        timeout: seconds for one call.
    """

    def __init__(self, namespace: str, timeout: float) -> None:
        self.namespace = namespace
        self.timeout = timeout
        self._objects: Any = shared_client("CustomObjectsApi")
        self._where = (GROUP, VERSION, namespace, PLURAL)

    async def list(self, names: Iterable[str] | None = None) -> list[Stack]:
        """The stacks with these names, or all; without their components and conditions, which are most of them."""
        selector = {}
        if names is not None:
            selector["label_selector"] = f"app.kubernetes.io/instance in ({','.join(sorted(names))})"
        # From the API server's cache: it may be a moment old.
        call = self._objects.list_namespaced_custom_object(*self._where, resource_version="0", **selector)
        stacks = []
        for item in (await self._call(call)).get("items") or []:
            status = item.get("status") or {}
            status.pop("components", None)
            status.pop("conditions", None)
            try:
                stacks.append(Stack.from_object(item))
            except ValidationError:
                continue  # another version's; the service says so where it is shown
        return stacks

    async def get(self, name: str) -> Stack | None:
        """The stack of this name, if there is one."""
        try:
            return _read(await self._call(self._objects.get_namespaced_custom_object(*self._where, name)))
        except StackTrouble as trouble:
            if trouble.status == 404:
                return None
            raise

    async def create(self, stack: Stack) -> Stack | None:
        """Make a stack; None when there is one of its name already."""
        try:
            return _read(
                await self._call(
                    self._objects.create_namespaced_custom_object(*self._where, stack.to_object())
                )
            )
        except StackTrouble as trouble:
            if trouble.status == 409:
                return None
            raise

    async def patch(self, name: str, spec: dict[str, Any]) -> Stack | None:
        """Change fields of a stack's spec; None when it is gone."""
        call = self._objects.patch_namespaced_custom_object(
            *self._where, name, {"spec": spec}, _content_type="application/merge-patch+json"
        )
        try:
            return _read(await self._call(call))
        except StackTrouble as trouble:
            if trouble.status == 404:
                return None
            raise

    async def delete(self, name: str) -> None:
        """Delete a stack; that there is none, or no such kind of object at all, is fine."""
        try:
            await self._call(self._objects.delete_namespaced_custom_object(*self._where, name))
        except StackTrouble as trouble:
            if trouble.status != 404:
                raise

    async def watch(self, name: str) -> AsyncIterator[Stack]:
        """The changes of one stack until it is gone, or the API server ends the watch."""
        response = await self._call(
            self._objects.list_namespaced_custom_object(
                *self._where,
                watch=True,
                field_selector=f"metadata.name={name}",
                timeout_seconds=WATCH_SECONDS,
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(
                    sock_connect=self.timeout, sock_read=WATCH_SECONDS + 30
                ),
            )
        )
        try:
            if response.status != 200:
                raise _explain(response.status, "", self.namespace)
            async for line in response.content:
                event = json.loads(line)
                if event["type"] not in ("ADDED", "MODIFIED"):
                    return
                yield _read(event["object"])
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise StackTrouble(f"The watch ended: {error!r}.", final=False) from error
        finally:
            response.close()

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            return await within(call, self.timeout)
        except ApiException as error:
            raise _explain(error.status, error.body, self.namespace) from error
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise StackTrouble("The cluster does not answer.", final=False) from error


def _read(obj: Any) -> Stack:
    try:
        return Stack.from_object(obj)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise StackTrouble(
            f"This hub cannot read the stack that is there ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "an administrator has to bring the hub and the stacks' service to one version.",
            final=True,
        ) from error


def _explain(status: int | None, body: object, namespace: str) -> StackTrouble:
    message = ""
    with contextlib.suppress(ValueError, AttributeError):  # not every body is a Status
        message = (
            by_looks(str(json.loads(body).get("message") or ""))[:500]
            if isinstance(body, (str, bytes))
            else ""
        )
    if status == 404:
        return StackTrouble(
            "Cytomine is not installed on this cluster: it knows no CytomineStack, or the namespace "
            f"{namespace} does not exist. An administrator has to install it.",
            final=True,
            status=404,
        )
    if status in (401, 403):
        return StackTrouble(
            f"The cluster does not let the hub do this: {message or 'forbidden'}. An administrator has to allow it.",
            final=True,
            status=status,
        )
    if status in (400, 422):
        return StackTrouble(f"The cluster refuses it: {message}", final=True, status=status)
    return StackTrouble(f"The cluster answers with an error ({status}).", final=False, status=status or 0)
