"""When to send: at once when it was quiet; when it is busy, what has gathered in some milliseconds, in one go.

To write to a socket costs about 8 us whatever the size, and there is one write for each client and go. So the fewer
goes, the more messages a gateway can deliver. `Pacer` says when clients of `latest` get theirs; for those of `full`
see `exporters.feed_rounds`.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

# Faster than a screen draws or a person sees. At 100,000 predictions a second of 200 symbols it means that each
# symbol is made into JSON 100 times a second instead of 500.
FLUSH_EVERY_S: Final = 0.010


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
