"""The state of the stack beside a notebook, in few words."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from ..connection_service import SERVICE_PATH, NotNow, Service, StackInfo, public_address
from ..errors import NoStack, ServiceUnreachable

KEPT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
WORDS = {
    "Pending": "waiting",
    "Starting": "starting",
    "Ready": "ready",
    "Degraded": "partly working",
    "Hibernating": "hibernating",
    "Hibernated": "hibernated",
    "Failed": "failed",
    "Deleting": "being deleted",
}
CHANGING = ("Pending", "Starting", "Hibernating", "Deleting")
NONE = "no stack"
UNKNOWN = "state unknown"
HINT = "Tick Cytomine in the options when you start your server to have one."


@dataclass(frozen=True)
class Look:
    """What JupyterLab shows of a stack.

    Attributes:
        name: the stack's name; None if there is none, or none that is meant.
        phase: where it is in its life, such as ``Ready``; None if that is not known.
        ready: parts that serve, of all that should, such as ``5/7``.
        message: one sentence for people.
        url: where a browser opens the stack; None while it cannot be opened.
        page: the page of the stack, else of all stacks, at the hub; an address, or a path on the notebook's own host.
        state: the state in a few words, such as ``core is starting (4/7)``.
        changing: whether it is likely to be another one in some seconds.
    """

    name: str | None
    phase: str | None
    ready: str | None
    message: str
    url: str | None
    page: str | None
    state: str
    changing: bool


def page(name: str | None = None) -> str | None:
    """Where the hub shows a stack, or all; None if this notebook belongs to no hub."""
    path = os.environ.get("JUPYTERHUB_BASE_URL", "")
    service = public_address() or (f"{path.rstrip('/')}/{SERVICE_PATH}" if path else "")
    if not service:
        return None
    return service + (f"stacks/{quote(name, safe='')}" if name else "")


def words(info: StackInfo) -> str:
    """The state of a stack, such as ``ready`` or ``core is starting (4/7)``."""
    said = WORDS.get(info.phase, info.phase.lower())
    if info.phase not in ("Starting", "Degraded"):
        return said
    if info.slowest:
        part = info.slowest[:1].lower() + info.slowest[1:]
        said = f"{part} is starting" if info.phase == "Starting" else f"{said}, waiting for {part}"
    return f"{said} ({info.ready})" if info.ready else said


def ask() -> Look:
    """Ask the service for the stack beside this notebook, else for the only one of one's own. Blocks."""
    mine = os.environ.get("CYTOMINE_STACK", "")
    try:
        service = Service.from_environment()
        if mine:
            return _of(service.stack(mine))
        own = [s for s in service.stacks() if s.role == "owner"]
    except NoStack as error:
        return _none(str(error))
    except (ServiceUnreachable, NotNow) as error:
        return _unknown(str(error), mine or None)
    if len(own) == 1:
        return _of(own[0])
    if own:
        return _none(f"None of your {len(own)} stacks is this notebook's own.", f"{len(own)} stacks")
    return _none(f"There is no Cytomine beside this notebook. {HINT}")


def _of(info: StackInfo) -> Look:
    serves = info.phase in ("Ready", "Degraded") and not info.asleep
    # What was asked for and has not begun yet.
    turning = info.asleep != (info.phase in ("Hibernating", "Hibernated")) and info.phase != "Failed"
    return Look(
        name=info.name,
        phase=info.phase,
        ready=info.ready,
        message=info.message,
        url=info.url if serves else None,
        page=page(info.name),
        state=words(info),
        changing=info.phase in CHANGING or turning,
    )


def _none(message: str, state: str = NONE) -> Look:
    return Look(None, None, None, message, None, page(), state, False)


def _unknown(message: str, name: str | None) -> Look:
    return Look(name, None, None, message, None, page(name), UNKNOWN, False)


class Lookout:
    """Looks at most once in ``KEPT_SECONDS``, one question at a time, and never in the server's own thread.

    Args:
        question: gives the look; may block.
        log: where what went wrong is told.
    """

    def __init__(self, question: Callable[[], Look] = ask, log: logging.Logger | None = None) -> None:
        self._question = question
        self._log = log or logging.getLogger(__name__)
        self._seen: Look | None = None
        self._at = 0.0
        self._asking: asyncio.Task[Look] | None = None

    async def look(self) -> Look:
        """The state, at most ``KEPT_SECONDS`` old; after ``ANSWER_SECONDS`` that the service does not answer."""
        if self._seen and time.monotonic() - self._at < KEPT_SECONDS:
            return self._seen
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        try:
            # Shielded: others wait for the same answer, and a thread cannot be stopped.
            return await asyncio.wait_for(asyncio.shield(self._asking), ANSWER_SECONDS)
        except asyncio.TimeoutError:
            return _unknown(
                "The hub's service of the stacks has not answered yet.", os.environ.get("CYTOMINE_STACK")
            )

    async def _ask(self) -> Look:
        try:
            seen = await asyncio.to_thread(self._question)
        except Exception:
            self._log.exception("The state of the Cytomine stack could not be read")
            seen = _unknown(
                "The state of the stack could not be read; the notebook server's log says why.",
                os.environ.get("CYTOMINE_STACK"),
            )
        finally:
            self._asking = None
        self._seen, self._at = seen, time.monotonic()
        return seen
