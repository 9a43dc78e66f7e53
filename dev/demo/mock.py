"""The mock dataset in the demo: its folder on this machine as a volume of the cluster, and what the chart hears of it.

Restricted Pod Security forbids pods a folder of the node, but not a claim on a volume that is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dev.kube import Kube

LABEL = "cytomine-spawner.org/mock-dataset"
OFFERED = [
    {
        "name": "mock-skin",
        "title": "Mock skin",
        "description": "A slide in three forms, a large one among them, and a fluorescence image, with annotations",
    },
    {
        "name": "mock-landmarks",
        "title": "Mock landmarks",
        "description": "Sixteen small images with seven landmarks each",
    },
]
# What the tests' hub offers besides: a dataset that the volume lacks.
ABSENT = {"name": "mock-absent", "title": "Mock absent", "description": "It is not on the volume"}


def claim(folder: Path) -> str:
    """The name of the claim on the volume that is this folder."""
    # Of one content: neither a volume nor a claim can be turned to another folder.
    return f"mock-dataset-{folder.name}"


def values(folder: Path | None, *others: dict[str, str]) -> dict[str, Any]:
    """The chart's values below ``stacks``, with others offered beside; none where the dataset is not on the nodes."""
    if folder is None:
        return {}
    volume = {"claimName": claim(folder), "readOnly": True}
    return {"datasets": [*OFFERED, *others], "datasetVolume": {"persistentVolumeClaim": volume}}


def apply(kube: Kube, namespace: str, folder: Path) -> None:
    """Make the volume and the claim; those of another content go when nothing uses them any more."""
    name, labels = claim(folder), {LABEL: namespace}
    common = {
        "accessModes": ["ReadOnlyMany"],
        # None: no provisioner may take it up.
        "storageClassName": "",
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}", "labels": labels},
        "spec": {
            **common,
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": name},
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }
    made = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            **common,
            "volumeName": f"{namespace}-{name}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    _remove(kube, namespace, keep=name)
    kube.apply([volume, made])


def remove(kube: Kube, namespace: str) -> None:
    """Delete the volumes; the folders stay."""
    _remove(kube, namespace)


def _remove(kube: Kube, namespace: str, keep: str = "") -> None:
    for kind, prefix in (("pvc", ""), ("pv", f"{namespace}-")):
        found = kube.get("-n", namespace, kind, "-l", f"{LABEL}={namespace}") or {"items": []}
        for item in found["items"]:
            # A volume that lost its claim is bound to none any more.
            lost = item["status"].get("phase") in ("Released", "Lost", "Failed")
            if item["metadata"]["name"] != f"{prefix}{keep}" or lost:
                kube.kubectl(
                    "-n", namespace, "delete", kind, item["metadata"]["name"], "--wait=false",
                    "--ignore-not-found", what="removing a former mock dataset",
                )  # fmt: skip
