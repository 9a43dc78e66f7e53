"""Waiting on a condition, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable

from dev.console import Problem


def until(
    condition: Callable[[], object], what: str, seconds: float, *, cure: str, every: float = 0.2
) -> None:
    """Return when ``condition()`` is true; raise Problem after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Problem(f"Waited {seconds:.0f} s in vain for {what}", cure)
        time.sleep(every)
