"""A time limit must neither lose a cancellation nor what was waited for."""

from __future__ import annotations

import asyncio

import pytest

from cytomine_spawner.common.waiting import within


async def test_what_comes_in_time_is_given():
    assert await within(asyncio.sleep(0, "here"), 10) == "here"
    assert await within(asyncio.sleep(0, "here"), None) == "here"


async def test_an_error_is_raised():
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await within(fails(), 10)


async def test_what_comes_too_late_is_cancelled():
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(asyncio.TimeoutError):
        await within(future, 0.01)
    assert future.cancelled()


async def test_a_cancellation_that_comes_with_the_result_is_not_lost():
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(within(future, 10))
    await asyncio.sleep(0)
    future.set_result("here")
    # The result wakes the waiting task; the cancellation comes before it runs.
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_who_is_cancelled_cancels_what_it_waits_for():
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(within(future, 10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert future.cancelled()
