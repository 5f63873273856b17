"""Ending a task that does not end at once."""

import asyncio

from exporters.waiting import end_task


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    """As a loop around `asyncio.wait_for` does, before Python 3.12, when what it waits for is done just then."""
    lost: list[int] = []

    async def watch() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_task(task, 0.01), 5.0)
    assert task.cancelled()
    assert lost == [1]


async def test_a_task_that_failed_has_ended() -> None:
    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await end_task(task)
    assert task.done()
