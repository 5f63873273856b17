"""When recorded or simulated ticks are due: event time mapped onto our clock, in steps of a millisecond."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from stream.clock import NS_PER_S

# The shortest sleep that an event loop does well (uvloop counts in milliseconds), and the longest that leaves a
# source responsive to its stop event.
_SHORTEST_S: Final = 0.001
_LONGEST_S: Final = 0.05


class Pace:
    """An event clock that runs ``speed`` times as fast as ours, from ``first_event_ns`` on."""

    def __init__(
        self, first_event_ns: int, speed: float = 1.0, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._event_ns = first_event_ns
        self._started_ns = clock()

    def due_ns(self) -> int:
        """Return the event time of now: what happened until then is to be sent."""
        return self._event_ns + int((self._clock() - self._started_ns) * self._speed)

    def behind_s(self, sent_ns: int) -> float:
        """Return how long the event ``sent_ns`` has been due already, in seconds of our clock."""
        return max(0.0, (self.due_ns() - sent_ns) / self._speed / NS_PER_S)

    async def wait_for(self, next_ns: int) -> None:
        """Sleep until an event is due, but no longer than 50 ms: look at the stop event in between."""
        wait_s = (next_ns - self.due_ns()) / self._speed / NS_PER_S
        await asyncio.sleep(min(max(wait_s, _SHORTEST_S), _LONGEST_S))
