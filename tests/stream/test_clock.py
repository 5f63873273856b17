"""The wall clock: whole nanoseconds since 1970."""

import time

from stream.clock import NS_PER_MS, NS_PER_S, wall_ns


def test_the_wall_clock_counts_whole_nanoseconds_since_1970() -> None:
    before_s = time.time()
    now_ns = wall_ns()
    after_s = time.time()
    assert isinstance(now_ns, int)
    assert before_s - 0.001 <= now_ns / NS_PER_S <= after_s + 0.001


def test_a_second_has_a_thousand_milliseconds() -> None:
    assert 1000 * NS_PER_MS == NS_PER_S == 10**9
