"""The store over a real API server: one list and one watch, whatever the number of pages."""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import aiohttp
from kubernetes_asyncio import client
from kubernetes_asyncio.client import ApiException
from pydantic import ValidationError

from .model import GROUP, PLURAL, VERSION, Stack
from .store import Conflict, Denied, Invalid, LogQuery, LogSource, NotFound, StoreError, Unavailable, View

CALL_SECONDS = 10
# The API server ends a watch after this time and sends bookmarks meanwhile; a little more is silence.
WATCH_SECONDS = 540
# A watch that lived this long was a working one.
STEADY_SECONDS = 10
# The longest pause between two attempts to reach the API server.
MOST_SECONDS = 30
FOLLOW_SECONDS = 900
LINE_LENGTH = 8192
LOG_BYTES = 1024 * 1024
MERGE_PATCH = "application/merge-patch+json"

NO_ANSWER = "The cluster does not answer at the moment; nothing was changed. Try again in a minute."


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
        async with _errors():
            answer = await self._objects.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, _request_timeout=CALL_SECONDS
            )
        self._unreadable.clear()
        stacks = [stack for stack in map(self._read, answer.get("items") or []) if stack]
        self._heard = datetime.now(timezone.utc)
        self.view.replace(stacks)
        return str(answer["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        async with _errors():
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
                raise _error(response.status, await _message(response))
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
            raise _error(int(obj.get("code") or 500), str(obj.get("message") or ""))
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

    async def patch(self, name: str, change: Callable[[Stack], dict[str, Any]]) -> Stack:
        """Change some fields of a stack's spec; see :class:`~.store.StackStore`."""
        for attempt in range(3):
            obj = await self._get(name)
            stack = Stack.from_object(obj)
            fields = change(stack)
            if not fields:
                return stack
            # With the version in it, the patch fails when somebody was faster, and is thought over again.
            body = {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}, "spec": fields}
            try:
                async with _errors():
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
        async with _errors():
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
        async with _errors():
            obj: dict[str, Any] = await self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=CALL_SECONDS
            )
        return obj

    # -- logs ---------------------------------------------------------------------------------------------

    async def log_sources(self, stack: Stack, component: str) -> list[LogSource]:
        """The containers of a component; see :class:`~.store.StackStore`."""
        selector = f"app.kubernetes.io/instance={stack.name},app.kubernetes.io/component={component}"
        async with _errors():
            pods = await self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, limit=20, _request_timeout=CALL_SECONDS
            )
        newest = sorted(pods.items, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)
        return [source for pod in newest for source in _sources(pod, component)]

    async def logs(self, query: LogQuery) -> AsyncIterator[str]:
        """The lines of a log; see :class:`~.store.StackStore`."""
        total = FOLLOW_SECONDS if query.follow else 2 * CALL_SECONDS
        bounds = {} if query.follow else {"limit_bytes": LOG_BYTES}
        async with _errors():
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
                raise _log_error(response.status, await _message(response))
            async with _errors(ends=query.follow):
                async for line in _lines(response.content.iter_any()):
                    yield line
        finally:
            response.close()


def _sources(pod: Any, component: str) -> list[LogSource]:
    """The containers of one pod: what failed to initialise, then the component's own, then the others."""
    statuses = {s.name: s for s in (pod.status.container_statuses or [])}
    inits = {s.name: s for s in (pod.status.init_container_statuses or [])}
    main = [_source(pod, c.name, statuses.get(c.name)) for c in pod.spec.containers]
    main.sort(key=lambda source: source.container != component)
    init = [_source(pod, c.name, inits.get(c.name)) for c in (pod.spec.init_containers or [])]
    if init and main and not main[0].started:
        running = [s for s in init if s.state not in ("Completed", "waiting", "PodInitializing")]
        return [*running, *main, *(s for s in init if s not in running)]
    return [*main, *init]


def _source(pod: Any, container: str, status: Any) -> LogSource:
    state, started = "waiting", False
    if status is not None and status.state is not None:
        if status.state.running:
            state, started = "running", True
        elif status.state.terminated:
            state, started = status.state.terminated.reason or "ended", True
        elif status.state.waiting:
            state = status.state.waiting.reason or "waiting"
    restarts = status.restart_count if status is not None else 0
    # Between two runs of a crashing container its log is the run before the next: readable as the current one.
    return LogSource(pod.metadata.name, container, state, restarts, started or restarts > 0, restarts > 0)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest, cut = "", False
    async for chunk in chunks:
        rest += decoder.decode(chunk)
        *lines, rest = rest.split("\n")
        for line in lines:
            if not cut:
                yield _cut(line)
            cut = False
        if len(rest) > LINE_LENGTH:
            # A line without an end must not fill the memory.
            if not cut:
                yield _cut(rest)
            rest, cut = "", True
    rest += decoder.decode(b"", final=True)
    if rest and not cut:
        yield _cut(rest)


def _cut(line: str) -> str:
    line = line.rstrip("\r")
    return line if len(line) <= LINE_LENGTH else line[:LINE_LENGTH] + " … (cut)"


# -- errors -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _errors(*, ends: bool = False) -> AsyncIterator[None]:
    """Turn what the client raises into the store's errors.

    Args:
        ends: whether running out of time is a usual end and no error.
    """
    try:
        yield
    except ApiException as error:
        raise _error(error.status, _status_message(error.body) or str(error.reason)) from error
    except asyncio.TimeoutError as error:
        if not ends:
            raise Unavailable(NO_ANSWER) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(NO_ANSWER) from error


def _error(status: int, message: str) -> StoreError:
    if status == 404:
        return NotFound("There is no such stack any more.")
    if status == 409:
        return Conflict("The stack changed at the same moment; look at it and try again.")
    if status in (400, 422):
        return Invalid(f"The cluster refuses the change: {message}")
    if status in (401, 403):
        return Denied(
            f"The service may not do this in the cluster; an administrator has to allow it: {message}"
        )
    return Unavailable(f"{NO_ANSWER} (It said {status}: {message})" if status else NO_ANSWER)


def _log_error(status: int, message: str) -> StoreError:
    if status in (400, 404):
        return NotFound(f"There is no log to read yet: {message or 'the container has not started'}.")
    return _error(status, message)


async def _message(response: aiohttp.ClientResponse) -> str:
    try:
        return _status_message(await asyncio.wait_for(response.text(), CALL_SECONDS))
    except (aiohttp.ClientError, asyncio.TimeoutError, UnicodeDecodeError):
        return ""


def _status_message(body: str | bytes | None) -> str:
    """The message of a Kubernetes Status object, or the text itself, bounded."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        return str(json.loads(text).get("message") or "")[:500]
    except (ValueError, AttributeError):
        return text[:500]
