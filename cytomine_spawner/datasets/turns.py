"""Who may change a project now: the annotations of one image, or the import of the next.

While core stores annotations it keeps the project's row for itself and asks the image server for a picture of each. The image
server's worker that imports a slide answers nobody meanwhile, and waits for that row to enter the slide into the project. If
the picture is asked of the same worker, each waits for the other until the worker is ended. So an upload is on its way while
annotations are stored, but its last line, with which the import begins, waits until nothing else is asked of the project.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp


class Turn:
    """One's turn at a lock, taken by the task that sends and given back by the one that waits for the answer.

    Args:
        lock: which both sides hold while they change the project.

    Attributes:
        waited: seconds until it was one's turn.
    """

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock, self._taken, self._over = lock, False, False
        self.waited = 0.0

    async def take(self) -> None:
        """Wait for one's turn."""
        began = time.monotonic()
        await self._lock.acquire()
        self.waited += time.monotonic() - began
        # The request may have failed meanwhile; nobody would give back what is taken after that.
        if self._over or self._taken:
            self._lock.release()
        else:
            self._taken = True

    def give_back(self) -> None:
        """It is over, taken or not."""
        self._over = True
        if self._taken:
            self._taken = False
            self._lock.release()


class LateForm(aiohttp.MultipartWriter):
    """A form whose last line waits: until then its receiver has no whole form, and begins nothing.

    Args:
        before_end: awaited before the last line.
        boundary: between the parts.
    """

    def __init__(self, before_end: Callable[[], Awaitable[None]], boundary: str) -> None:
        super().__init__("form-data", boundary=boundary)
        self._before_end = before_end

    async def write(self, writer: Any, close_boundary: bool = True) -> None:
        """Send the form."""
        await super().write(writer, close_boundary=False)
        # What was written is on its way, and not in a buffer here, while the last line waits.
        await writer.drain()
        await self._before_end()
        if close_boundary:
            await writer.write(f"--{self.boundary}--\r\n".encode())
