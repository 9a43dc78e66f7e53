"""What follows from a stack's spec and status."""

from __future__ import annotations

from . import model
from .model import DATASETS_IMPORTED, Phase, Stack, State


def is_going(stack: Stack) -> bool:
    """Whether the stack is being deleted."""
    return stack.deleting or stack.status.phase is Phase.DELETING


def can_retry(stack: Stack) -> bool:
    """Whether something failed and no retry is on its way."""
    failed = stack.status.phase is Phase.FAILED or any(
        c.state is State.FAILED for c in stack.status.components
    )
    found = stack.status.condition(DATASETS_IMPORTED)
    failed = failed or (found is not None and found.reason == "Failed")
    return failed and stack.spec.retry <= (stack.status.observed_retry or 0)


def run_of(stack: Stack) -> str:
    """Names one start of a stack."""
    return model.format_time(stack.status.started_at) if stack.status.started_at else ""


def is_fresh(stack: Stack) -> bool:
    """Whether the status speaks of the present spec."""
    return (stack.status.observed_generation or 0) >= stack.generation
