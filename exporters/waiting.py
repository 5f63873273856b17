"""Waiting that ends early when the process is told to stop, and ending what waits."""

import asyncio
import contextlib
from typing import Any, Final

BROKER_PATIENCE_S: Final = 5.0  # a broker that takes longer than this counts as away
_FIRST_S: Final = 0.1
_AGAIN_S: Final = 0.2


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait ``seconds``, or until ``stop`` is set. Cancelling it is safe."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def end_task(task: asyncio.Task[Any], again_s: float = _AGAIN_S) -> None:
    """Cancel a task every ``again_s`` until it has ended; what it raised is nobody's business any more.

    Once is not enough before Python 3.12: `asyncio.wait_for`, ours or that of a library below, swallows a
    cancellation that comes just when what it waits for is done, and a loop around it would go on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=again_s)
    await asyncio.gather(task, return_exceptions=True)


class Backoff:
    """Delays that double from 0.1 s to a limit."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._next_s = _FIRST_S

    def next_s(self) -> float:
        """Return the delay before the next try, in s."""
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._limit_s)
        return delay_s
