"""A clock of the stack service's that a test moves on, over the border of two processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cytomine_spawner.operator.clock import Clock

T = TypeVar("T")


class MovedClock(Clock):
    """In the service: the machine's clock and what a test added to it. What waits by it wakes when it is moved.

    Args:
        file: has the seconds that were added; read at the start and at each SIGUSR1.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._added = 0.0
        self._moved: asyncio.Event | None = None
        # A test may move it before the service asked for the time once: unheard, the signal would end the process. What
        # was moved until then is read at the first question.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def now(self) -> datetime:
        self._listen()
        return super().now() + timedelta(seconds=self._added)

    async def sleep(self, seconds: float) -> None:
        forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await self.within(forever, seconds)
        except asyncio.TimeoutError:
            return

    async def within(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        self._listen()
        task = asyncio.ensure_future(awaitable)
        end = None if seconds is None else self._time() + seconds
        try:
            while True:
                left = None if end is None else max(0.0, end - self._time())
                assert self._moved
                moved = asyncio.ensure_future(self._moved.wait())
                try:
                    await asyncio.wait({task, moved}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    moved.cancel()
                if task.done():
                    return task.result()
                if end is not None and self._time() >= end:
                    raise asyncio.TimeoutError
        finally:
            task.cancel()

    def _time(self) -> float:
        return time.monotonic() + self._added

    def _listen(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._take)
            self._take()

    def _take(self) -> None:
        text = self._file.read_text()
        self._added = float(text or 0)
        assert self._moved
        woken, self._moved = self._moved, asyncio.Event()
        woken.set()
        self._file.with_suffix(".taken").write_text(text)


class Hand:
    """In the test: moves the clock of a service.

    Args:
        file: the clock's.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.added = file, 0.0
        file.write_text("0")

    def move(self, seconds: float, pid: int, until: Callable[..., object]) -> None:
        """Move it on; what waits by it wakes before this returns or right after it."""
        self.added += seconds
        new = self.file.with_suffix(".new")
        new.write_text(str(self.added))
        # Whole at once: the service may be reading it.
        new.replace(self.file)
        os.kill(pid, signal.SIGUSR1)
        taken = self.file.with_suffix(".taken")
        until(lambda: taken.exists() and taken.read_text() == str(self.added), 60, "the clock to be moved")
