"""Ways in which a stack may fail: how each is provoked on real pods, and what must be said of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dev.demo import install
from tests.support.person import wait
from tests.support.stackprocess import Place, service

# Between Kubernetes' knowing and our saying.
PROMISE = 15


def pod_says(place: Place, *texts: str) -> bool:
    """Whether the pods' own status names the trouble, in any container or condition."""
    for pod in place.get("pods").get("items", []):
        status = str(pod["status"])
        if all(text in status for text in texts):
            return True
    return False


def event_says(place: Place, reason: str, text: str = "") -> bool:
    events = place.get("events", "--field-selector", f"reason={reason}").get("items", [])
    return any(text in e.get("message", "") for e in events)


def running_for(place: Place, component: str, seconds: float) -> bool:
    """Whether a container runs for so long without having passed its probe."""
    for pod in place.get("pods", "-l", f"app.kubernetes.io/component={component}").get("items", []):
        for status in pod["status"].get("containerStatuses", []):
            if (since := status["state"].get("running", {}).get("startedAt")) and not status["ready"]:
                began = datetime.fromisoformat(since.replace("Z", "+00:00"))
                return (datetime.now(timezone.utc) - began).total_seconds() >= seconds
    return False


def container(name: str, **changes: Any) -> dict[str, Any]:
    kind = "StatefulSet" if name == "postgis" else "Deployment"
    return {
        "kind": kind,
        "name": name,
        "spec": {"template": {"spec": {"containers": [{"name": name, **changes}]}}},
    }


def size(component: str, **resources: Any) -> dict[str, Any]:
    return {"S": {"components": {component: resources}}}


@dataclass
class Case:
    """One cause: how to provoke it, when Kubernetes knows, and what must be said."""

    reason: str
    sentence: str
    knows: Callable[[Place], bool]
    settings: dict[str, Any] = field(default_factory=dict)
    first: tuple[dict[str, Any], ...] = ()


CASES = {
    # takes longest, so it begins
    "a process that lives on without serving": Case(
        "ProbeFailing",
        r"Core.*(health check|answer)",
        lambda p: running_for(p, "core", 40),
        {
            "probe_grace": 40,
            # With a first process that passes on the signal to end: python alone would be waited for.
            "overrides": [container("core", command=["tini", "--", "python3", "-c", "import time\nwhile True: time.sleep(60)"])],
        },
    ),
    "an image that is not there": Case(
        "ImagePullFailed",
        r"Image server.*image.*cannot be (fetched|pulled).*",
        lambda p: pod_says(p, "ErrImage") or pod_says(p, "ImagePullBackOff"),
        {"overrides": [container("pims", image="localhost/cytomine-spawner/no-such-image:1", imagePullPolicy="Never")]},
    ),
    "no node with room": Case(
        "Unschedulable",
        r"Core fits on no node: it needs 900 GiB of memory, .* are missing",
        lambda p: pod_says(p, "Unschedulable", "Insufficient memory"),
        {"sizes": size("core", cpu=["20m", "1"], memory=["900Gi", "900Gi"])},
    ),
    "a quota": Case(
        "QuotaExceeded",
        r"quota.*in use are",
        lambda p: event_says(p, "FailedCreate", "exceeded quota"),
        first=(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "small"},
                "spec": {"hard": {"requests.memory": "200Mi"}},
            },
        ),
    ),
    "a volume that nobody makes": Case(
        "VolumeNotBound",
        r"(Database|PostGIS).*(volume|storage)",
        lambda p: pod_says(p, "Unschedulable", "unbound immediate PersistentVolumeClaims") or event_says(p, "ProvisioningFailed"),
        {"storage_classes": {"postgis": "no-such-class"}},
    ),
    "too little memory": Case(
        "OutOfMemory",
        r"Core.*memory",
        lambda p: pod_says(p, "OOMKilled"),
        {"overrides": [container(
            "core",
            command=["python3", "-c", "b = []\nwhile True: b.append(bytearray(8 * 2**20).replace(b'\\0', b'x'))"],
            resources={"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}},
        )]},
    ),
    "a crash at each start": Case(
        "CrashLoop",
        r"Core.*the licence of this build has run out",
        lambda p: pod_says(p, "'reason': 'Error'", "terminated"),
        {"overrides": [container(
            "core", command=["python3", "-c", "import sys; sys.exit('the licence of this build has run out')"]
        )]},
    ),
}  # fmt: skip


def provoke(target: install.Target, folder: Path, cause: str) -> None:
    """Make a stack fail in a namespace of its own, and see that it says why."""
    case = CASES[cause]
    namespace = f"stack-fails-{install.TEST_WORD}-" + re.sub(r"[^a-z]+", "-", case.reason.lower())
    with service(target, namespace, folder, case.settings, *case.first) as place:
        place.create()
        wait(lambda: case.knows(place), f"Kubernetes to know: {cause}", 120)

        def said() -> bool:
            status = place.status()
            return (
                status.get("phase") == "Failed"
                and status.get("reason") == case.reason
                and bool(re.search(case.sentence, status["message"], re.IGNORECASE))
                and any(c.get("reason") == case.reason for c in status["components"])
            )

        wait(said, f"the stack to say {case.reason}, but it says {place.status()}", PROMISE, promised=True)
