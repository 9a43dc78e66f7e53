"""How much is missing on the best node for a pod that fits on none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..common.quantity import cores, gib, number


def missing(wanted: dict[str, str], nodes: Iterable[dict[str, Any]], pods: Iterable[dict[str, Any]]) -> str:
    """A part of a sentence: what the pod needs and what the emptiest node has; "" if one has it all.

    Args:
        wanted: the pod's requests, ``{"cpu": "200m", "memory": "1Gi"}``.
        nodes: the cluster's Node objects; those that are closed or not ready do not count.
        pods: all Pod objects of the cluster.
    """
    used: dict[str, dict[str, float]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            requests = pod_requests(pod["spec"])
            of = used.setdefault(node, {"cpu": 0, "memory": 0})
            for kind in of:
                of[kind] += requests[kind]
    free = []
    for node in nodes:
        if (node.get("spec") or {}).get("unschedulable") or not _ready(node):
            continue
        allocatable = node["status"].get("allocatable") or {}
        of = used.get(node["metadata"]["name"], {"cpu": 0, "memory": 0})
        free.append({kind: float(number(allocatable.get(kind, 0))) - of[kind] for kind in of})
    if not free:
        return "no node is ready"
    needs = {"cpu": cores(wanted.get("cpu", 0)), "memory": float(number(wanted.get("memory", 0)))}
    parts = []
    for kind, name in (("memory", "memory"), ("cpu", "processor cores")):
        best = max(node[kind] for node in free)
        if best < needs[kind]:
            short, need, has = (_amount(kind, n) for n in (needs[kind] - best, needs[kind], max(best, 0.0)))
            parts.append(
                f"it needs {need} of {name}, the emptiest node has {has} left, so {short} are missing"
            )
    return " and ".join(parts)


def of_node(node: dict[str, Any]) -> dict[str, Any]:
    """As much of a Node object as counts here: a cluster may have thousands."""
    status = node["status"]
    ready = [c for c in status.get("conditions") or [] if c["type"] == "Ready"]
    return {
        "metadata": {"name": node["metadata"]["name"]},
        "spec": {"unschedulable": (node.get("spec") or {}).get("unschedulable")},
        "status": {"allocatable": status.get("allocatable"), "conditions": ready},
    }


def of_pod(pod: dict[str, Any]) -> dict[str, Any]:
    """As much of a Pod object as counts here."""
    spec = pod["spec"]
    lists = {
        key: [{"resources": c.get("resources")} for c in spec.get(key) or []]
        for key in ("containers", "initContainers")
    }
    phase = (pod.get("status") or {}).get("phase")
    return {"spec": {"nodeName": spec.get("nodeName"), **lists}, "status": {"phase": phase}}


def pod_requests(spec: dict[str, Any]) -> dict[str, float]:
    """What a pod reserves: the sum of its containers, or its largest first container if that is more."""
    total = {}
    for kind in ("cpu", "memory"):
        main = sum(_request(c, kind) for c in spec.get("containers") or [])
        first = max((_request(c, kind) for c in spec.get("initContainers") or []), default=0.0)
        total[kind] = max(main, first)
    return total


def _request(container: dict[str, Any], kind: str) -> float:
    return float(number(((container.get("resources") or {}).get("requests") or {}).get(kind, 0)))


def _ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _amount(kind: str, number_: float) -> str:
    return gib(int(number_)) if kind == "memory" else f"{number_:.2f}".rstrip("0").rstrip(".")
