"""What Prometheus may ask of the service."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..stack.model import Phase, Stack

REGISTRY = CollectorRegistry()
_BUCKETS = (1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200)

STACKS = Gauge("cytomine_stacks", "Stacks by phase.", ["phase"], registry=REGISTRY)
READY_SECONDS = Histogram(
    "cytomine_stack_component_ready_seconds",
    "Seconds from the start of a stack until a component serves.",
    ["component"],
    buckets=_BUCKETS,
    registry=REGISTRY,
)
STACK_READY_SECONDS = Histogram(
    "cytomine_stack_ready_seconds",
    "Seconds from the start of a stack until all of it serves.",
    buckets=_BUCKETS,
    registry=REGISTRY,
)
FAILURES = Counter(
    "cytomine_stack_failures", "Failures of components by reason.", ["component", "reason"], registry=REGISTRY
)
RECONCILE_SECONDS = Histogram(
    "cytomine_stack_reconcile_seconds",
    "Seconds of one look at a stack with all that follows from it.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30),
    registry=REGISTRY,
)
RECONCILE_ERRORS = Counter(
    "cytomine_stack_reconcile_errors", "Looks at a stack that failed.", registry=REGISTRY
)
API_CALLS = Gauge("cytomine_stack_api_calls", "Calls to the API server since the start.", registry=REGISTRY)


def count_stacks(stacks: Iterable[Stack]) -> None:
    """Set the number of stacks in each phase."""
    tally = Tally(stack.status.phase or Phase.PENDING for stack in stacks)
    for phase in Phase:
        STACKS.labels(phase.value).set(tally[phase])
