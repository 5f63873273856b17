"""Waiting that ends early when the process is told to stop."""

import asyncio
import contextlib
from typing import Final

BROKER_PATIENCE_S: Final = 5.0  # a broker that takes longer than this counts as away
_FIRST_S: Final = 0.1


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait ``seconds``, or until ``stop`` is set. Cancelling it is safe."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class Backoff:
    """Delays that double from 0.1 s to a limit."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._next_s = _FIRST_S

    def next_s(self) -> float:
        """Return the delay before the next try, in s."""
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._limit_s)
        return delay_s
