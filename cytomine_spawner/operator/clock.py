"""The operator's time: one place that tells it and waits for it.

What waits for hours or minutes by it (idle stacks, orphans, corrections) can be seen to do so in a moment, by a clock
that is moved on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timezone
from typing import TypeVar

from ..common.waiting import within

T = TypeVar("T")


class Clock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present time."""
        return datetime.now(timezone.utc)

    def seconds(self) -> datetime:
        """The present time in whole seconds, as Kubernetes writes it."""
        return self.now().replace(microsecond=0)

    async def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        await asyncio.sleep(seconds)

    async def within(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        """The result of something awaitable; see :func:`cytomine_spawner.common.waiting.within`.

        Raises:
            asyncio.TimeoutError: the time is up.
        """
        return await within(awaitable, seconds)
