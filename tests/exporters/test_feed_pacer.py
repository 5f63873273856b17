"""When clients of `latest` are sent what has moved."""

import time
from itertools import pairwise

import uvloop

from exporters.feed_pacer import FLUSH_EVERY_S, Pacer


def test_a_poke_just_before_the_next_flush_is_due_waits_for_it_as_any_other() -> None:
    flushed_s: list[float] = []

    def flush() -> float:
        flushed_s.append(time.monotonic())
        return float("inf")

    async def poke_twice_late() -> None:
        pacer = Pacer(flush)
        pacer.poke()
        while time.monotonic() < flushed_s[0] + FLUSH_EVERY_S - 0.0003:
            pass
        # uvloop makes no timer for so short a time.
        pacer.poke()
        pacer.poke()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(poke_twice_late())
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    loop.close()
    assert len(flushed_s) >= 2  # 3 where the machine held us up for longer than that
    assert min(later - before for before, later in pairwise(flushed_s)) > FLUSH_EVERY_S - 0.002
