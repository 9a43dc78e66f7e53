"""The containers whose logs can be read, and what must not be shown of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from ..common.redact import Redactor, secret_values
from .errors import errors
from .secretstore import of_others
from .store import Denied, LogSource, NotFound, StoreError, Unavailable

CALL_SECONDS = 10
# How often the Secrets are read while a log is followed, and how old what is known of them may become.
REREAD_SECONDS = 60
STALE_SECONDS = 180
_NOT_ALLOWED = (
    "The log is not shown, because the service may not read the Secrets whose values it takes out of logs. An "
    "administrator has to allow its account to list and get Secrets."
)
_NOT_SHOWN_NOW = (
    "The log is not shown, because the Secrets whose values are taken out of it cannot be read at the moment. Try again "
    "in a minute; if it stays so, tell an administrator."
)


def sources(pod: Any, stack: str, component: str) -> list[LogSource]:
    """The containers of one pod: what failed to initialise, then the component's own, then the others."""
    statuses = {s.name: s for s in (pod.status.container_statuses or [])}
    inits = {s.name: s for s in (pod.status.init_container_statuses or [])}
    main = [_source(pod, stack, c.name, statuses.get(c.name)) for c in pod.spec.containers]
    main.sort(key=lambda source: source.container != component)
    init = [_source(pod, stack, c.name, inits.get(c.name)) for c in (pod.spec.init_containers or [])]
    if init and main and not main[0].started:
        running = [s for s in init if s.state not in ("Completed", "waiting", "PodInitializing")]
        return [*running, *main, *(s for s in init if s not in running)]
    return [*main, *init]


def _source(pod: Any, stack: str, container: str, status: Any) -> LogSource:
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
    return LogSource(
        pod.metadata.name,
        container,
        state,
        restarts,
        started or restarts > 0,
        restarts > 0,
        stack=stack,
        secrets=_secrets(pod, optional=False),
        optional_secrets=_secrets(pod, optional=True),
    )


def _secrets(pod: Any, *, optional: bool) -> tuple[str, ...]:
    """The names of the Secrets that a pod names, be they the stack's own or an administrator's."""
    containers = [*pod.spec.containers, *(pod.spec.init_containers or [])]
    volumes = pod.spec.volumes or []
    references = [
        *(e.value_from.secret_key_ref for c in containers for e in c.env or [] if e.value_from),
        *(e.secret_ref for c in containers for e in c.env_from or []),
        *(p.secret for v in volumes if v.projected for p in v.projected.sources or []),
    ]
    named = [(r.name, r.optional) for r in references if r]
    named += [(v.secret.secret_name, v.secret.optional) for v in volumes if v.secret]
    return tuple(dict.fromkeys(name for name, may_lack in named if bool(may_lack) is optional))


class Values:
    """What must not be shown of one container's log: the values of its stack's Secrets.

    Args:
        core: the API server's own objects.
        namespace: where the stack is.
        source: the container.
        log: where to say what goes wrong.
    """

    def __init__(
        self, core: Any, namespace: str, source: LogSource, log: logging.Logger | logging.LoggerAdapter[Any]
    ) -> None:
        if not source.stack:
            raise ValueError("a log is read of a container of a stack")
        self._core, self._namespace, self._source, self._log = core, namespace, source, log
        self._redactor = Redactor()
        self._read_at = 0.0

    def redactor(self) -> Redactor:
        """Takes out what is known now.

        Raises:
            Unavailable: if that is too old.
        """
        if asyncio.get_running_loop().time() - self._read_at > STALE_SECONDS:
            raise Unavailable(_NOT_SHOWN_NOW)
        return self._redactor

    async def read(self) -> None:
        """Read the Secrets. What was known before stays, for the log may still hold it.

        Raises:
            Unavailable: if one of them cannot be read; the log must not be shown then.
        """
        at = asyncio.get_running_loop().time()
        try:
            values = self._redactor.values | {v for data in await self._data() for v in secret_values(data)}
        except StoreError as error:
            self._log.warning("A log of the stack %s is not shown: %s", self._source.stack, error)
            raise Unavailable(_NOT_ALLOWED if isinstance(error, Denied) else _NOT_SHOWN_NOW) from error
        if not values <= self._redactor.values:
            self._redactor = Redactor(values)
        self._read_at = at

    async def keep_reading(self) -> None:
        """Read the Secrets again and again: keys are made while a log is followed."""
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            with suppress(Unavailable):
                await self.read()

    async def _data(self) -> list[dict[str, str] | None]:
        selector = of_others(self._source.stack)
        async with errors():
            listed = await self._core.list_namespaced_secret(
                self._namespace, label_selector=selector, _request_timeout=CALL_SECONDS
            )
        found = {item.metadata.name: item.data for item in listed.items}
        for name in self._source.secrets:
            if name not in found:
                found[name] = await self._one(name)
        for name in self._source.optional_secrets:
            with suppress(NotFound):
                if name not in found:
                    found[name] = await self._one(name)
        return list(found.values())

    async def _one(self, name: str) -> dict[str, str] | None:
        async with errors():
            item = await self._core.read_namespaced_secret(
                name, self._namespace, _request_timeout=CALL_SECONDS
            )
        data: dict[str, str] | None = item.data
        return data
