"""Waiting with a time limit that no cancellation gets lost in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float | None) -> T:
    """The result of something awaitable, as :func:`asyncio.wait_for` gives it.

    Before Python 3.12 ``wait_for`` loses a cancellation that comes together with the result: a loop around it goes on,
    and who cancelled it waits for ever.

    Args:
        awaitable: what is waited for; it is cancelled when the time is up or the waiting is.
        seconds: the limit; None for none.

    Raises:
        asyncio.TimeoutError: the time is up.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise asyncio.TimeoutError
    finally:
        task.cancel()
