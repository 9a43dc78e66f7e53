"""A stack in one line, for the progress of a start and for the options form. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .components import TITLES
from .model import DATASETS_IMPORTED, ComponentStatus, Phase, Stack, State
from .sentences import listed
from .state import is_fresh

# In this order they stand in a line: what went wrong first, what nobody needs to know last.
_DOING = {
    State.FAILED: ("failed", "failed"),
    State.STARTING: ("is starting", "are starting"),
    State.PULLING: ("is fetching its image", "are fetching their images"),
    State.READY: ("is ready", "are ready"),
}


def line(stack: Stack, before: Stack | None = None) -> str:
    """What a stack is doing, in one line that names components.

    Args:
        stack: the stack as it is.
        before: as it was at the last line, so that this one tells what changed.

    Returns:
        The line; "" when nothing changed that is worth one.
    """
    status = stack.status
    if stack.deleting or status.phase is Phase.DELETING:
        return "Cytomine is being deleted."
    if not is_fresh(stack):
        if status.phase in (Phase.HIBERNATED, Phase.HIBERNATING):
            return "Cytomine wakes up; its data are there."
        return "Cytomine waits for its service to take it up."
    if status.phase is Phase.READY:
        datasets = status.condition(DATASETS_IMPORTED)
        unfinished = datasets is not None and datasets.status != "True"
        return f"Cytomine is ready. {datasets.message}" if datasets and unfinished else "Cytomine is ready."
    if status.phase is Phase.STARTING:
        doing = _components(stack, before)
        if not doing and before and before.status.components and _counts(before) == _counts(stack):
            return ""
        return f"Cytomine: {doing or 'its parts are starting'}{_counts(stack)}"
    failed = [c for c in status.components if c.state is State.FAILED and c.message]
    message = status.message or (failed[0].message if failed else "")
    if status.phase in (Phase.FAILED, Phase.DEGRADED):
        doing = "failed" if status.phase is Phase.FAILED else "works in part"
        return f"Cytomine {doing}: {message}" if message else f"Cytomine {doing}."
    return f"Cytomine: {message}" if message else "Cytomine waits for its turn."


def settled(stack: Stack) -> str | None:
    """Whether waiting for this stack has an end: "" when it is ready, a sentence when it will not be soon, else None."""
    status = stack.status
    if stack.deleting:
        return line(stack)
    if not is_fresh(stack):
        return None
    if status.phase is Phase.READY:
        return ""
    # What waits for a place has a reason, too.
    if status.phase in (Phase.FAILED, Phase.DEGRADED) or (status.phase is Phase.PENDING and status.reason):
        return line(stack)
    return None


def _components(stack: Stack, before: Stack | None) -> str:
    was = {c.name: c.state for c in before.status.components} if before else {}
    changed = [c for c in stack.status.components if c.state is not was.get(c.name)]
    if not was:
        changed = [c for c in changed if c.state is not State.READY]
    groups = [
        f"{listed(names)} {words[len(names) > 1]}"
        for state, words in _DOING.items()
        if (names := _names(c for c in changed if c.state is state))
    ]
    return ", ".join(groups)


def _names(components: Iterable[ComponentStatus]) -> list[str]:
    return [TITLES.get(c.name, c.name) for c in components]


def _counts(stack: Stack) -> str:
    parts = []
    ready, _, total = (stack.status.ready or "").partition("/")
    if total:
        parts.append(f"{ready} of {total} parts ready")
    if stack.status.slowest:
        parts.append(f"slowest: {TITLES.get(stack.status.slowest, stack.status.slowest)}")
    return f" ({'; '.join(parts)})" if parts else ""
