"""When to send: at once when it was quiet; when it is busy, what has gathered in some milliseconds, in one go.

To write to a socket costs about 8 us whatever the size, and there is one write for each client and go. So the fewer
goes, the more messages a gateway can deliver: `Pacer` says when clients of `latest` get theirs, and `Rest`, for
clients of `full`, when the next messages are taken from Kafka.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

# Faster than a screen draws or a person sees. At 100,000 predictions a second of 200 symbols it means that each
# symbol is made into JSON 100 times a second instead of 500.
FLUSH_EVERY_S: Final = 0.010


# uvloop's timers count milliseconds.
_SHORTEST_REST_S: Final = 0.0005
# Fewer in a portion: whoever rests then makes the next messages wait that would have gone out at once.
_WORTH_A_REST: Final = 4


class Rest:
    """Lets messages gather while the feed works hard.

    After a portion of messages it waits for as long as the portion took, so that a gateway that could be busy all
    the time is busy half of it; but on its account portions never begin more than FLUSH_EVERY_S apart. A portion of
    so few messages that nothing has gathered yet, or that took no time, is followed by no rest.
    """

    def __init__(self) -> None:
        self._began_s = 0.0

    def begin(self) -> None:
        """A portion is taken now."""
        self._began_s = asyncio.get_running_loop().time()

    async def end(self, messages: int) -> None:
        """All ``messages`` of it have been given to the sockets. Cancelling it is safe."""
        if messages < _WORTH_A_REST:
            return
        rest_s = rest_after(asyncio.get_running_loop().time() - self._began_s)
        if rest_s:
            await asyncio.sleep(rest_s)


def rest_after(worked_s: float) -> float:
    """Return for how many seconds to rest after a portion of messages that took so many."""
    rest_s = min(worked_s, FLUSH_EVERY_S - worked_s)
    return rest_s if rest_s > _SHORTEST_REST_S else 0.0


class Pacer:
    """Calls ``flush`` soon after each `poke`, and again in as many seconds as it returns; once in FLUSH_EVERY_S."""

    def __init__(self, flush: Callable[[], float]) -> None:
        self._flush = flush
        self._last_s = 0.0
        self._timer: asyncio.Handle | None = None
        self._due_s = 0.0  # of the timer; uvloop's does not say when it is less than a millisecond away

    def poke(self) -> None:
        """There is something to flush."""
        self._flush_in(0.0)

    def cancel(self) -> None:
        """Flush no more until the next poke."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_in(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        at_s = max(loop.time() + wait_s, self._last_s + FLUSH_EVERY_S)
        if self._timer is not None:
            if self._due_s <= at_s:
                return
            self._timer.cancel()
        self._due_s = at_s
        self._timer = loop.call_at(at_s, self._run) if at_s > loop.time() else None
        if self._timer is None:
            self._run()

    def _run(self) -> None:
        self._timer = None
        self._last_s = asyncio.get_running_loop().time()
        wait_s = self._flush()
        if math.isfinite(wait_s):
            self._flush_in(max(wait_s, FLUSH_EVERY_S))
