"""What the loggers say while a run goes on: of several at the same time each gets its own lines."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

LIMIT = 1_000_000
Answer = TypeVar("Answer")
# The runs inside of which code runs, the outermost first; a thread has none unless it is told (see `within`).
_INSIDE: ContextVar[tuple[Log, ...]] = ContextVar("cytomine_runs", default=())
_LOCK = threading.Lock()
# The same of all runs that go on in this process.
_RUNNING: list[tuple[Log, ...]] = []


class Log(logging.Handler):
    """Keeps what was logged inside a run; the first million characters."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []
        self.size = 0
        self.left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, if it is of this run."""
        # Each request of the client is a line; they would drown the rest.
        if record.name.startswith(("cytomine.client", "urllib3")) or self.size > LIMIT:
            return
        inside = _INSIDE.get()
        if self not in inside:
            if inside:
                return
            if not _alone():
                self.left_out += 1
                return
        self.add(self.format(record))

    def add(self, line: str) -> None:
        """Keep a line."""
        self.size += len(line)
        self.lines.append(line)

    def text(self) -> str:
        """All lines."""
        more = (
            f"({self.left_out} lines of threads that belong to no run are left out: several runs went on. Start such "
            "threads by contextvars.copy_context().run.)"
        )
        return "\n".join([*self.lines, more] if self.left_out else self.lines)


def _alone() -> bool:
    """Whether all that goes on is one run, and runs inside of it: then it is the one of every thread."""
    with _LOCK:
        longest = max(_RUNNING, key=len, default=())
        return all(longest[: len(one)] == one for one in _RUNNING)


@contextlib.contextmanager
def logged() -> Iterator[Log]:
    """Keep what is logged inside the ``with``."""
    log, root = Log(), logging.getLogger()
    inside = (*_INSIDE.get(), log)
    token = _INSIDE.set(inside)
    with _LOCK:
        _RUNNING.append(inside)
    root.addHandler(log)
    try:
        yield log
    finally:
        root.removeHandler(log)
        with _LOCK:
            _RUNNING.remove(inside)
        # A ``with`` that is left elsewhere than it was entered, as a generator's may be, has nothing to take back.
        with contextlib.suppress(ValueError):
            _INSIDE.reset(token)


def within(call: Callable[..., Answer]) -> Callable[..., Answer]:
    """A function that belongs to the run that goes on here, whatever thread calls it."""
    inside = _INSIDE.get()

    def called(*args: Any) -> Answer:
        def there() -> Answer:
            _INSIDE.set(inside)
            return call(*args)

        # A context of its own each time: one cannot be entered by two threads.
        return copy_context().run(there)

    return called
