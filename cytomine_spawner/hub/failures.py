"""Why a notebook's pod does not start, in one sentence for the person who waits.

Pure functions over what Kubernetes reports, so that each sentence can be tested without a cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tornado import web

from ..common.redact import by_looks

try:
    # JupyterHub 6 tells apart a start that was refused (not counted) from a hub that is broken (counted).
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5

    class SpawnException(web.HTTPError):  # type: ignore[no-redef]
        """JupyterHub 6's exception, for JupyterHub 5."""

        def __init__(self, message: str, *, reason: str, status_code: int = 400) -> None:
            super().__init__(status_code, message, reason=reason)


class NotebookFailed(SpawnException):  # type: ignore[misc]
    """The notebook's pod cannot start; `sentence` says why and what to do."""

    def __init__(self, sentence: str, *, reason: str) -> None:
        super().__init__(sentence, reason=reason, status_code=503)
        self.sentence = sentence
        # JupyterHub 5 and 6 show this on the progress page and in the spawn page.
        self.jupyterhub_message = sentence

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Trouble:
    """Something that keeps a pod from starting.

    Attributes:
        reason: a short label: `image`, `unschedulable`, `volume`, `quota`, `policy`, `config`, `crash`, `evicted`.
        sentence: cause and cure.
        final: waiting cannot help.
    """

    reason: str
    sentence: str
    final: bool = False


PULL = {
    "ErrImagePull",
    "ImagePullBackOff",
    "RegistryUnavailable",
    "ImageInspectError",
    "SignatureValidationFailed",
}
PULL_FINAL = {"InvalidImageName", "ErrImageNeverPull"}
CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError"}


def diagnose(pod: Mapping[str, Any] | None, asked: str = "") -> Trouble | None:
    """What is wrong with a pod that is being started, as far as its status says.

    Args:
        pod: the pod as the API's JSON, or None when there is none yet.
        asked: the resources that were asked for, in words.
    """
    if not pod:
        return None
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and status.get("reason"):
        return Trouble(
            "evicted",
            f"The cluster ended the notebook ({status['reason']}): {_clip(status.get('message'))} Start it again; "
            "if it happens again, tell an administrator.",
            final=True,
        )
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            trouble = _unschedulable(condition, asked)
            if trouble:
                return trouble
    for container in _containers(status):
        trouble = _container(container)
        if trouble:
            return trouble
    return None


def _containers(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _unschedulable(condition: Mapping[str, Any], asked: str) -> Trouble | None:
    if condition.get("reason") != "Unschedulable":
        return None
    message = str(condition.get("message") or "")
    if "PersistentVolumeClaim" in message or "volume" in message:
        return Trouble(
            "volume",
            f"The notebook's home volume is not available: {_clip(message)} "
            "Wait and start it again; if it stays so, tell an administrator.",
        )
    needs = f" for this notebook ({asked})" if asked else " for this notebook"
    return Trouble(
        "unschedulable",
        f"No node of the cluster has room{needs}: {_clip(message)} "
        "Choose a smaller size, or try again when others have stopped theirs.",
    )


def _container(container: Mapping[str, Any]) -> Trouble | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), _clip(waiting.get("message"))
    if reason in PULL | PULL_FINAL:
        return Trouble(
            "image",
            f"The image {container.get('image')} cannot be pulled: {message or reason} "
            "Choose another image, or tell an administrator.",
            final=reason in PULL_FINAL,
        )
    if reason in CONFIG:
        return Trouble(
            "config", f"The notebook's container cannot be created: {message} Tell an administrator."
        )
    ended = state.get("terminated") or {}
    if reason == "CrashLoopBackOff":
        ended = (container.get("lastState") or {}).get("terminated") or {}
    if (ended and ended.get("exitCode") != 0) or reason == "CrashLoopBackOff":
        return _crash(container, ended)
    return None


def _crash(container: Mapping[str, Any], ended: Mapping[str, Any]) -> Trouble:
    name = "The notebook" if container.get("name") == "notebook" else f"The container {container.get('name')}"
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            "crash", f"{name} ran out of memory while it started. Choose a larger size.", final=True
        )
    last = _clip(ended.get("message"), end=True)
    return Trouble(
        "crash",
        f"{name} stopped right after its start (exit code {ended.get('exitCode', 'unknown')})."
        + (f" Its last words: {last}" if last else "")
        + " Choose another image, or tell an administrator.",
        final=True,
    )


def denied(status: int, body: str | bytes | None) -> Trouble | None:
    """Why the API server refused to create an object, when it is a refusal that waiting does not change.

    Args:
        status: the HTTP status.
        body: the API's answer.
    """
    if status not in (400, 403, 422):
        return None
    try:
        message = str(json.loads(body or "{}").get("message") or "")
    except (ValueError, AttributeError):
        message = ""
    kinds = {
        "persistentvolumeclaims": "the notebook's home volume",
        "secrets": "the Secret of the notebook's token",
    }
    what = next((words for kind, words in kinds.items() if message.startswith(kind)), "the notebook")
    quota = re.search(r"exceeded quota: ([^,]+), requested: (.+), used: (.+), limited: (.+)$", message)
    if quota:
        name, requested, used, limited = (_readable(part) for part in quota.groups())
        return Trouble(
            "quota",
            f"The quota {name} has no room for {what}: it asks for {requested}; {used} of {limited} is in use. "
            "Choose a smaller size, or stop another server first.",
            final=True,
        )
    policy = re.search(r"violates PodSecurity (.+)$", message)
    if policy:
        return Trouble(
            "policy",
            f"The cluster's security policy refuses {what}: {_clip(policy.group(1))} Tell an administrator.",
            final=True,
        )
    return Trouble(
        "denied", f"The cluster refuses {what}: {_clip(message)} Tell an administrator.", final=True
    )


def _readable(amounts: str) -> str:
    """Amounts of memory and storage that Kubernetes gives in bytes, in GiB."""
    return re.sub(
        r"((?:memory|storage)=)(\d{7,})\b", lambda m: f"{m.group(1)}{int(m.group(2)) / 2**30:.3g}Gi", amounts
    )


def _clip(text: object, limit: int = 300, end: bool = False) -> str:
    """Text on one line without secrets, at most `limit` characters (its end, when `end`), ending like a sentence."""
    # Before the cut, which would part a name from its value.
    line = " ".join(by_looks(str(text or "")).split())
    if len(line) > limit:
        line = "..." + line[3 - limit :] if end else line[: limit - 3] + "..."
    return line if not line or line[-1] in ".!?" else line + "."
