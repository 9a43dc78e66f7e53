"""The store over a real API server: one list and one watch, whatever the number of pages."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime, timezone
from typing import Any

import aiohttp
from kubernetes_asyncio import client
from pydantic import ValidationError

from ..stack import notices
from ..stack.model import GROUP, PLURAL, VERSION, Stack
from ..stack.notices import Notice
from . import logs as kubelogs
from .errors import error_of, errors, log_error, message
from .loglines import lines
from .store import Conflict, LogQuery, LogSource, StoreError, View

CALL_SECONDS = 10
# The API server ends a watch after this time and sends bookmarks meanwhile; a little more is silence.
WATCH_SECONDS = 540
# A watch that lived this long was a working one.
STEADY_SECONDS = 10
# The longest pause between two attempts to reach the API server.
MOST_SECONDS = 30
FOLLOW_SECONDS = 900
LOG_BYTES = 1024 * 1024
MERGE_PATCH = "application/merge-patch+json"


class _Expired(Exception):
    """The watch's starting point is too old: list again."""


class KubeStore:
    """Reads, changes and deletes the CytomineStack objects of one namespace.

    Args:
        api: a client of the API server; it stays its owner's to close.
        namespace: where the stacks are.
        log: where to say what goes wrong.
    """

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        self.view = View()
        self.namespace = namespace
        self.log = log or logging.getLogger(__name__)
        # The stubs know neither forced content types nor answers that are streamed.
        self._objects: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)
        self._unreadable: dict[str, str] = {}
        self._heard = datetime.now(timezone.utc)

    # -- the view -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the view up to date until cancelled."""
        clock = asyncio.get_running_loop().time
        failures, said = 0, ""
        while True:
            listed = None
            try:
                version = await self._list()
                listed = clock()
                while True:
                    version = await self._watch(version)
                    failures, said = 0, ""
            except _Expired:
                self.log.debug("The watch of the stacks is too old and starts anew")
            except Exception as error:
                if not isinstance(error, (aiohttp.ClientError, asyncio.TimeoutError, OSError, StoreError)):
                    self.log.exception("The watch of the stacks failed")
                if listed is not None and clock() - listed > STEADY_SECONDS:
                    failures = 0
                # A watch that breaks is no news while the next list succeeds; what fails again is.
                if failures or not self.view.synced:
                    self.view.lost(self._heard)
                    if said != (said := f"{type(error).__name__}: {error}"):
                        self.log.warning("The list of stacks is not up to date: %s", said)
            failures += 1
            delay = min(0.25 * 2**failures, MOST_SECONDS)
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads load, guards nothing

    async def _list(self) -> str:
        async with errors():
            answer = await self._objects.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, _request_timeout=CALL_SECONDS
            )
        self._unreadable.clear()
        stacks = [stack for stack in map(self._read, answer.get("items") or []) if stack]
        self._heard = datetime.now(timezone.utc)
        self.view.replace(stacks)
        return str(answer["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        async with errors():
            response = await self._objects.list_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(
                    sock_connect=CALL_SECONDS, sock_read=WATCH_SECONDS + 30
                ),
            )
        try:
            if response.status == 410:
                raise _Expired
            if response.status != 200:
                raise error_of(response.status, await message(response))
            async for line in response.content:
                self._heard = datetime.now(timezone.utc)
                version = self._event(json.loads(line))
        finally:
            response.close()
        return version

    def _event(self, event: dict[str, Any]) -> str:
        obj = event["object"]
        if event["type"] == "ERROR":
            if obj.get("code") == 410:
                raise _Expired
            raise error_of(int(obj.get("code") or 500), str(obj.get("message") or ""))
        if event["type"] == "DELETED":
            self.view.remove(obj["metadata"]["name"])
        elif event["type"] in ("ADDED", "MODIFIED") and (stack := self._read(obj)):
            self.view.put(stack)
        return str(obj["metadata"]["resourceVersion"])

    def _read(self, obj: dict[str, Any]) -> Stack | None:
        try:
            return Stack.from_object(obj)
        except ValidationError as error:
            name, first = obj["metadata"]["name"], error.errors()[0]
            sentence = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            if self._unreadable.get(name) != sentence:
                self._unreadable[name] = sentence
                self.log.warning("The stack %s is not shown, its spec cannot be read: %s", name, sentence)
            self.view.remove(name)
            return None

    # -- changes ------------------------------------------------------------------------------------------

    async def patch(
        self, name: str, change: Callable[[Stack], dict[str, Any]], *, notice: Notice | None = None
    ) -> Stack:
        """Change some fields of a stack's spec; see :class:`~.store.StackStore`."""
        for attempt in range(3):
            obj = await self._get(name)
            stack = Stack.from_object(obj)
            fields = change(stack)
            if not fields:
                return stack
            # With the version in it, the patch fails when somebody was faster, and is thought over again.
            meta: dict[str, Any] = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            if notice:
                meta["annotations"] = notices.added(stack, notice)
            body = {"metadata": meta, "spec": fields}
            try:
                async with errors():
                    answer = await self._objects.patch_namespaced_custom_object(
                        GROUP,
                        VERSION,
                        self.namespace,
                        PLURAL,
                        name,
                        body,
                        _content_type=MERGE_PATCH,
                        _request_timeout=CALL_SECONDS,
                    )
            except Conflict:
                if attempt == 2:
                    raise
                continue
            changed = Stack.from_object(answer)
            self.view.put(changed)
            return changed
        raise AssertionError("unreachable")

    async def delete(self, name: str, *, keep_data: bool, uid: str) -> None:
        """Delete a stack, with its volumes or without; see :class:`~.store.StackStore`."""

        def mark(stack: Stack) -> dict[str, Any]:
            if stack.uid != uid:
                raise Conflict(
                    f"The stack {name} was created anew meanwhile; reload the page and look again."
                )
            if stack.deleting:
                if stack.spec.keep_data != keep_data:
                    raise Conflict(
                        f"The stack {name} is being deleted already; it is too late to change what is kept."
                    )
                return {}
            return {} if stack.spec.keep_data == keep_data else {"keepData": keep_data}

        if (await self.patch(name, mark)).deleting:
            return
        async with errors():
            await self._objects.delete_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                name,
                body={"preconditions": {"uid": uid}},
                _request_timeout=CALL_SECONDS,
            )

    async def _get(self, name: str) -> dict[str, Any]:
        async with errors():
            obj: dict[str, Any] = await self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=CALL_SECONDS
            )
        return obj

    # -- logs ---------------------------------------------------------------------------------------------

    async def log_sources(self, stack: Stack, component: str) -> list[LogSource]:
        """The containers of a component; see :class:`~.store.StackStore`."""
        selector = f"app.kubernetes.io/instance={stack.name},app.kubernetes.io/component={component}"
        async with errors():
            pods = await self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, limit=20, _request_timeout=CALL_SECONDS
            )
        newest = sorted(pods.items, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)
        return [source for pod in newest for source in kubelogs.sources(pod, stack.name, component)]

    async def logs(self, query: LogQuery) -> AsyncIterator[str]:
        """The lines of a log; see :class:`~.store.StackStore`."""
        secrets = kubelogs.Values(self._core, self.namespace, query.source, self.log)
        await secrets.read()
        rereading = asyncio.create_task(secrets.keep_reading()) if query.follow else None
        try:
            async with (
                aclosing(self._bytes(query)) as chunks,
                aclosing(lines(chunks, secrets.redactor)) as shown,
            ):
                async for line in shown:
                    yield line
        finally:
            if rereading:
                rereading.cancel()
                await asyncio.gather(rereading, return_exceptions=True)

    async def _bytes(self, query: LogQuery) -> AsyncGenerator[bytes, None]:
        total = FOLLOW_SECONDS if query.follow else 2 * CALL_SECONDS
        bounds = {} if query.follow else {"limit_bytes": LOG_BYTES}
        async with errors():
            response = await self._core.read_namespaced_pod_log(
                query.source.pod,
                self.namespace,
                container=query.source.container,
                follow=query.follow,
                previous=query.previous,
                tail_lines=query.tail,
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(total=total, sock_connect=CALL_SECONDS),
                **bounds,
            )
        try:
            if response.status != 200:
                raise log_error(response.status, await message(response))
            async with errors(ends=query.follow):
                async for chunk in response.content.iter_any():
                    yield chunk
        finally:
            response.close()
