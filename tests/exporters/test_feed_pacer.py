"""When the feed sends: at once when it is idle, in portions when it works hard."""

import asyncio
import time
from itertools import pairwise

import pytest
import uvloop

from exporters.feed_pacer import FLUSH_EVERY_S, Pacer, Rest, rest_after


@pytest.mark.parametrize(
    ("worked_s", "rest_s"),
    [
        (0.0, 0.0),
        (0.0003, 0.0),
        (0.003, 0.003),
        (0.5 * FLUSH_EVERY_S, 0.5 * FLUSH_EVERY_S),
        (0.8 * FLUSH_EVERY_S, 0.2 * FLUSH_EVERY_S),
        (FLUSH_EVERY_S, 0.0),
        (1.0, 0.0),
    ],
)
def test_a_rest_is_as_long_as_the_work_but_no_portion_waits_longer_than_a_flush(
    worked_s: float, rest_s: float
) -> None:
    assert rest_after(worked_s) == pytest.approx(rest_s)


async def test_work_is_followed_by_rest() -> None:
    rest, loop = Rest(), asyncio.get_running_loop()
    longest_s = 0.0
    for _ in range(10):  # a machine that stops us meanwhile makes the work too long to rest after it
        rest.begin()
        time.sleep(0.004)
        began_s = loop.time()
        await rest.end(messages=100)
        longest_s = max(longest_s, loop.time() - began_s)
    assert longest_s > 0.002


async def test_a_message_that_came_alone_is_followed_by_no_rest() -> None:
    rest = Rest()
    rest.begin()
    time.sleep(0.004)
    with pytest.raises(StopIteration):  # it would yield to the loop if it waited for anything
        rest.end(messages=1).send(None)


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
