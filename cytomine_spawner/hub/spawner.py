"""CytomineSpawner: notebooks on Kubernetes with checked options, readable failures and safe defaults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from kubernetes_asyncio.client import ApiException
from traitlets import Bool, Integer, default

from ..cluster import notebooktoken
from .failures import NotebookFailed, Trouble, denied, diagnose
from .stack_spawner import CompanionSpawner


class CytomineSpawner(CompanionSpawner):
    """Starts a person's notebook on Kubernetes, as they chose it, and beside it, if they want, a Cytomine stack.

    A subclass of KubeSpawner: its settings apply, except `profile_list`, whose place `notebook_images` and
    `notebook_sizes` take. The pod passes the restricted Pod Security Standard unless its defaults are changed.
    """

    unschedulable_grace = Integer(
        60,
        min=0,
        help="""
        Seconds to wait for a node with room, or for a volume, before the start fails with the reason.

        Set it above the time that the cluster's autoscaler needs for a new node, and below `start_timeout`.
        """,
    ).tag(config=True)

    failure_grace = Integer(
        10,
        min=0,
        help="""
        Seconds that an image must fail to be pulled, or a container to be created, before the start fails with
        the reason. A registry that hiccups once is thus forgiven.
        """,
    ).tag(config=True)

    token_in_secret = Bool(
        True,
        help="""
        Keep the notebook's API token in a Secret that the pod refers to, not in the pod's own description.

        The hub then needs the rights to create, patch and delete Secrets in the notebooks' namespace.
        """,
    ).tag(config=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._notices: list[dict[str, Any]] = []

    @default("uid")
    def _default_uid(self) -> int:
        return 1000

    @default("fs_gid")
    def _default_fs_gid(self) -> int:
        return 1000

    @default("automount_service_account_token")
    def _default_automount(self) -> bool:
        return False

    @default("pod_security_context")
    def _default_pod_security(self) -> dict[str, Any]:
        return {
            "runAsNonRoot": True,
            "fsGroup": self.fs_gid if isinstance(self.fs_gid, int) else 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    @default("container_security_context")
    def _default_container_security(self) -> dict[str, Any]:
        return {"capabilities": {"drop": ["ALL"]}}

    # The pod

    def _build_common_labels(self, extra_labels: Mapping[str, str]) -> dict[str, str]:
        labels: dict[str, str] = super()._build_common_labels(extra_labels)
        # The person's name stands in an annotation only.
        labels.pop("hub.jupyter.org/username", None)
        ours = {
            "app.kubernetes.io/instance": self.pod_name,
            "app.kubernetes.io/part-of": "cytomine-hub",
            "app.kubernetes.io/managed-by": "cytomine-spawner",
        }
        return {**labels, **ours, **extra_labels}

    async def get_pod_manifest(self) -> Any:
        """KubeSpawner's pod, with the token by reference and the last log lines kept when it crashes."""
        pod = await super().get_pod_manifest()
        for container in pod.spec.containers:
            if container.name == "notebook":
                container.termination_message_policy = "FallbackToLogsOnError"
                if self.token_in_secret:
                    container.env = notebooktoken.by_reference(container.env, self.pod_name)
        return pod

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        if self.token_in_secret:
            await notebooktoken.apply(self)
        created: bool = await super()._make_create_pod_request(pod, request_timeout)
        return created

    # Start, stop, poll

    async def _start(self) -> Any:
        self._notices = [{"message": sentence} for sentence in self._told]
        began = time.monotonic()
        await self._begin_companion()
        await self._revive_reflectors()
        start = asyncio.ensure_future(super()._start())
        watch = asyncio.ensure_future(self._watch_for_trouble())
        try:
            await asyncio.wait({start, watch}, return_when=asyncio.FIRST_COMPLETED)
            trouble = watch.result() if watch.done() and not start.done() else None
            if trouble:
                raise NotebookFailed(trouble.sentence, reason=trouble.reason)
            url = await start
            if self.token_in_secret:
                await notebooktoken.apply(self, owner_uid=self.pod_id)
            await self._await_companion(began)
        except ApiException as error:
            self._forgive()
            refusal = denied(error.status, error.body)
            if refusal is None:
                raise
            raise NotebookFailed(refusal.sentence, reason=refusal.reason) from error
        except NotebookFailed:
            self._forgive()
            raise
        finally:
            start.cancel()
            watch.cancel()
            await asyncio.gather(start, watch, return_exceptions=True)
            if self._companion:
                self._companion.leave()
        return url

    async def _watch_for_trouble(self) -> Trouble | None:
        """Follow the pod's status until something keeps it from starting for longer than its grace.

        Reads the reflector's cache, so that it costs the API server nothing.
        """
        began = time.monotonic()
        # Before the hub's own timeout, which knows no reason.
        patience = max(self.start_timeout - 5, self.start_timeout / 2)
        since: dict[str, float] = {}
        asked = self._asked()
        try:
            while True:
                now = time.monotonic()
                pods = self.pod_reflector.pods if self.pod_reflector else {}
                trouble = diagnose(pods.get(f"{self.namespace}/{self.pod_name}"), asked)
                # A kubelet goes back and forth between two states of one cause; the clock runs by cause.
                since = {trouble.reason: since.get(trouble.reason, now)} if trouble else {}
                if trouble:
                    grace = self._grace(trouble)
                    if now - since[trouble.reason] >= grace:
                        return trouble
                    self._notify(f"{trouble.sentence} (Waiting up to {grace} s for this to change.)")
                if now - began >= patience:
                    return trouble or self._timed_out(patience)
                await asyncio.sleep(0.5)
        except Exception:
            self.log.exception("Could not follow the start of pod %s", self.pod_name)
            return None

    def _grace(self, trouble: Trouble) -> int:
        if trouble.final:
            return 0
        grace = (
            self.unschedulable_grace if trouble.reason in ("unschedulable", "volume") else self.failure_grace
        )
        return int(grace)

    def _timed_out(self, seconds: float) -> Trouble:
        events = self.events
        last = f" The cluster's last word: {events[-1]['message']}" if events else ""
        return Trouble("timeout", f"The notebook was not ready within {seconds:.0f} s.{last}", final=True)

    def _asked(self) -> str:
        parts = [f"{self.cpu_guarantee:g} cores" if self.cpu_guarantee else ""]
        parts.append(f"{self.mem_guarantee / 2**30:.3g} GiB of memory" if self.mem_guarantee else "")
        return ", ".join(part for part in parts if part)

    def _notify(self, message: str) -> None:
        if not any(notice["message"] == message for notice in self._notices):
            self._notices.append({"message": message})

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The pod's events, our notices and the stack's; never raises, because the hub's page would break."""
        events = super().progress()
        step: asyncio.Future[dict[str, Any]] | None = None
        told = 0
        ended = False
        try:
            while not ended:
                step = step or asyncio.ensure_future(anext(events))
                await asyncio.wait({step}, timeout=1)
                # Also after the last event: what kept the stack from starting is said as the notebook is ready. Asked for
                # once: the events can end while the notices below are told.
                came = step.done()
                over = came and isinstance(step.exception(), StopAsyncIteration)
                ended = over and (self._start_future is None or self._start_future.done())
                for notice in self._notices[told:]:
                    yield dict(notice)
                told = len(self._notices)
                if over and not ended:
                    # KubeSpawner has no events to show, but the stack may have.
                    await asyncio.wait({self._start_future}, timeout=1)
                elif came and not ended:
                    done, step = step, None
                    yield done.result()
        except Exception:
            self.log.exception("The progress of %s cannot be shown", self._log_name)
            yield {"message": "The progress cannot be shown; the start goes on."}
        finally:
            if step:
                step.cancel()

    async def poll(self) -> int | None:
        """Whether the server runs (None) or not (its exit code); what cannot be known counts as running.

        JupyterHub forgets a server that is said to be stopped, and its next start removes the pod. A dead reflector
        or an API server that does not answer must not cost anybody their work.
        """
        if self._refused:
            return 0  # nothing was started; the hub cleans up without asking the API server
        try:
            await self._revive_reflectors()
            status: int | None = await super().poll()
        except Exception as error:
            self.log.warning("Cannot tell whether %s runs, taken as running: %r", self._log_name, error)
            return None
        return status

    async def stop(self, now: bool = False) -> None:
        """Remove the pod and the Secret with its token."""
        # KubeSpawner waits for the pod to leave the reflector's cache, which a dead reflector never updates.
        await self._revive_reflectors()
        await super().stop(now)
        if self.token_in_secret:
            await notebooktoken.delete(self)

    async def _revive_reflectors(self) -> None:
        """Replace a reflector whose watch has ended: KubeSpawner would go on reading its last, or empty, cache."""
        if _is_dead(self.pod_reflector):
            await self._start_watching_pods(replace=True)
        if _is_dead(self.event_reflector):
            await self._start_watching_events(replace=True)

    async def _start_reflector(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._start_reflector(*args, **kwargs)
        finally:
            # A failed first list is raised to who asked for it; asyncio need not report it once more, much later.
            for reflector in self.reflectors.values():
                if reflector.first_load_future.done() and not reflector.first_load_future.cancelled():
                    reflector.first_load_future.exception()


def _is_dead(reflector: Any) -> bool:
    if reflector is None or not reflector.first_load_future.done():
        return False
    return reflector.watch_task is None or reflector.watch_task.done()
