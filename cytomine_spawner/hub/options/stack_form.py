"""The options form's block about Cytomine: what is there, what may be chosen and what it costs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...stack.model import Phase, Stack
from ...stack.state import is_fresh
from ...stack.times import date
from .errors import Attempt
from .notebook import FORM_FIELDS, flatten, several
from .stack import CytomineOffer, StackPart


@dataclass(frozen=True)
class Standing:
    """What is known of a person's stack at this moment.

    Attributes:
        stack: the stack of this server, if there is one.
        refusal: why it may not run now, as a sentence; "" if it may.
        left: how many more stacks the person may run; None without a limit.
        absent: why there are no stacks at all, as a sentence; "" if there are.
        unknown: why nothing is known, as a sentence; "" if it is.
    """

    stack: Stack | None = None
    refusal: str = ""
    left: int | None = None
    absent: str = ""
    unknown: str = ""


@dataclass(frozen=True)
class CytomineBlock:
    """The block as the template shows it.

    Attributes:
        refusal: why there is nothing to choose; "" if there is.
        status: what this server's stack does at the moment; "" if there is none.
        room: how many more stacks the person may run; "" without a limit.
        notices: what else they should know.
        error, error_field: the message of a refused form, and the option at fault.
        wanted: whether a stack is preselected.
        label, text: the choice of a stack, and what it means.
        running: whether the stack runs already.
        size: the preselected size.
        components, datasets: what is ticked.
    """

    offer: CytomineOffer
    refusal: str = ""
    status: str = ""
    room: str = ""
    notices: tuple[str, ...] = ()
    error: str = ""
    error_field: str = ""
    wanted: bool = False
    label: str = ""
    text: str = ""
    running: bool = False
    size: str = ""
    components: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()

    @property
    def fields(self) -> tuple[str, ...]:
        """The options whose messages this block shows."""
        return (self.error_field,) if self.error_field else ()


def cytomine_block(
    offer: CytomineOffer, standing: Standing, previous: object, attempt: Attempt | None
) -> CytomineBlock:
    """Work out the block.

    Args:
        offer: what this person may choose.
        standing: what the cluster knows.
        previous: the options of this server's last start, in whatever state the hub's database has them.
        attempt: the refused form, when it is shown again, or the link that led to it; its choices win.
    """
    error = attempt.error if attempt else None
    if error and error.field.split(".")[0] != "cytomine":
        error = None
    stack = standing.stack
    shown: dict[str, Any] = {
        "status": _status(stack) if stack else "",
        "error": error.sentence if error else "",
        "error_field": error.field if error else "",
    }
    refusal = offer.refusal or standing.refusal or standing.absent
    if refusal:
        return CytomineBlock(offer, refusal=refusal, **shown)
    stored = _stored(previous)
    asked = attempt is not None and _says_something(attempt.form)
    chosen = _attempted(attempt.form) if attempt and asked else stored
    names = [part.name for part in offer.sizes]
    kept = stack.spec if stack else None
    # A form that was refused or a link, then the stack as it is, then the last start.
    sources = [chosen or {}] if asked else []
    if kept:
        sources.append(
            {"size": kept.size, "components": [c.value for c in kept.components], "datasets": kept.datasets}
        )
    sources.append(stored or {})
    size = _first(sources, "size")
    notices = []
    if isinstance(size, str) and size not in names and not error:
        notices.append(offer.size_gone(size))
    if standing.unknown:
        notices.append(f"{standing.unknown} What runs at present is not known; you may choose all the same.")
    label, text = _choice(stack)
    return CytomineBlock(
        offer,
        **shown,
        room=_room(standing),
        notices=tuple(notices),
        wanted=chosen is not None,
        label=label,
        text=text,
        running=stack is not None and not _asleep(stack),
        size=size if size in names else offer.default_size,
        components=_ticked(_first(sources, "components"), offer.components),
        datasets=_ticked(_first(sources, "datasets"), (*offer.datasets, *offer.granted)),
    )


def _stored(previous: object) -> Mapping[str, Any] | None:
    """The choice of the last start; None for no stack."""
    raw = previous.get("cytomine") if isinstance(previous, Mapping) else None
    if raw is True:
        return {}
    return raw if isinstance(raw, Mapping) else None


def _says_something(form: Mapping[str, Any]) -> bool:
    """Whether a form, or a link that names some fields only, chooses anything about Cytomine."""
    return not form.keys().isdisjoint(("cytomine", *FORM_FIELDS))


def _attempted(form: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The choice of a form as it was sent; None for no stack."""
    flat = flatten(form)
    if flat.get("cytomine") != "stack":
        return None
    return {
        key: flat[field] if key == "size" else several(flat[field])
        for field, key in FORM_FIELDS.items()
        if field in flat
    }


def _first(sources: list[Mapping[str, Any]], key: str) -> Any:
    return next((source[key] for source in sources if source.get(key) is not None), None)


def _ticked(names: Any, offered: tuple[StackPart, ...]) -> frozenset[str]:
    wanted = names if isinstance(names, (list, tuple)) else ()
    return frozenset(part.name for part in offered if part.name in wanted)


def _asleep(stack: Stack) -> bool:
    return stack.status.phase in (Phase.HIBERNATED, Phase.HIBERNATING)


def _room(standing: Standing) -> str:
    if standing.left is None:
        return ""
    more = "one more stack" if standing.left == 1 else f"{standing.left} more stacks"
    return f"There is room for {more} now."


def _choice(stack: Stack | None) -> tuple[str, str]:
    if stack is None or stack.deleting:
        return "My own Cytomine", "Starts beside the notebook and is ready some time after it."
    if _asleep(stack):
        return "Resume my Cytomine", "It starts beside the notebook, with all its data."
    if stack.status.phase is Phase.FAILED:
        return "Try my Cytomine again", "It is started anew, with all its data."
    return "Use my Cytomine", "The notebook joins it."


def _status(stack: Stack) -> str:
    status = stack.status
    if stack.deleting or status.phase is Phase.DELETING:
        return "Your earlier Cytomine is being deleted. A new one is made when it is gone."
    if status.phase in (Phase.HIBERNATED, Phase.HIBERNATING) and is_fresh(stack):
        since = f" since {date(status.hibernated_at)}" if status.hibernated_at else ""
        until = f" It is kept until {date(status.expires_at)}." if status.expires_at else ""
        return f"Your Cytomine hibernates{since}: it uses no memory, and its data are kept.{until}"
    if status.phase is Phase.READY:
        return "Your Cytomine is running."
    if status.phase in (Phase.FAILED, Phase.DEGRADED):
        doing = "has failed" if status.phase is Phase.FAILED else "works in part"
        return f"Your Cytomine {doing}: {status.message}" if status.message else f"Your Cytomine {doing}."
    if status.phase is Phase.PENDING and status.message:
        return f"Your Cytomine waits: {status.message}"
    return "Your Cytomine is starting."
