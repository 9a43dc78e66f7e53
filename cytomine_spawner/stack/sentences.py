"""What Kubernetes says, in words for people."""

from __future__ import annotations

import re

from ..common.lines import cut


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def times(count: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def pull_cause(text: str) -> str:
    """Why an image cannot be fetched."""
    lower = text.lower()
    for clue, cause in (
        ("not found", "not found"),
        ("does not exist", "not found"),
        ("unauthorized", "the registry refuses the login"),
        ("denied", "the registry refuses the login"),
        ("invalid reference", "its name is not valid"),
        ("couldn't parse", "its name is not valid"),
        ("no such host", "the registry's name is not known"),
        ("timeout", "the registry does not answer"),
        ("refused", "the registry does not answer"),
        ("toomanyrequests", "the registry limits the number of downloads"),
        ("errimageneverpull", "it is not on the node and may not be fetched"),
        ("is not present with pull policy of never", "it is not on the node and may not be fetched"),
    ):
        if clue in lower:
            return cause
    return cut(text)


def quota_gap(text: str) -> str:
    """What a quota lacks."""
    found = re.search(r"exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: (\S+)", text)
    if not found:
        return cut(text)
    _, requested, used, limited = (part.rstrip(",") for part in found.groups())
    return f"it needs {requested}, in use are {used} of {limited}"


def no_node(text: str) -> str:
    """Why no node fits, as the scheduler says."""
    lacks = re.findall(r"(\d+) Insufficient ([a-z./-]+)", text)
    if lacks:
        kinds = {"cpu": "processor time", "memory": "memory", "pods": "room for pods"}
        return f"no node has enough {listed([kinds.get(kind, kind) for _, kind in lacks])}"
    if "didn't match Pod's node affinity/selector" in text:
        return "no node has the labels that the settings ask for"
    if "untolerated taint" in text:
        return "the nodes are closed to stacks (a taint)"
    return cut(text.split("preemption:")[0])


def probe_saw(text: str) -> str:
    """What a failing probe saw."""
    return cut(re.sub(r"^(Startup|Readiness|Liveness) probe failed: ", "", text), 160)
