"""When to flush: at once when it was quiet, else 10 ms after the last time."""

import asyncio
from collections.abc import Callable
from typing import Final

# Faster than a screen draws or a person sees. At 100,000 predictions a second of 200 symbols it means that each
# symbol is made into JSON 100 times a second instead of 500.
FLUSH_EVERY_S: Final = 0.010


class Pacer:
    """Calls ``flush`` soon after each `poke`, at most once in FLUSH_EVERY_S; again while it returns True."""

    def __init__(self, flush: Callable[[], bool]) -> None:
        self._flush = flush
        self._last_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def poke(self) -> None:
        """There is something to flush."""
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._last_s + FLUSH_EVERY_S - loop.time()
        if wait_s > 0:
            self._timer = loop.call_later(wait_s, self._run)
        else:
            self._run()

    def cancel(self) -> None:
        """Flush no more until the next poke."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        self._last_s = asyncio.get_running_loop().time()
        if self._flush():
            self.poke()
