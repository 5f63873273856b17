"""The event clock."""

import time

from stream.sources.pacing import Pace

NS = 1_000_000_000


class FakeClock:
    def __init__(self) -> None:
        self.now_ns = 5 * NS

    def __call__(self) -> int:
        return self.now_ns


def test_event_time_runs_at_the_speed_that_was_asked_for() -> None:
    clock = FakeClock()
    pace = Pace(1_000 * NS, 10.0, clock)
    assert pace.due_ns() == 1_000 * NS
    clock.now_ns += NS // 2
    assert pace.due_ns() == 1_005 * NS
    assert pace.behind_s(1_002 * NS) == 0.3
    assert pace.behind_s(1_006 * NS) == 0.0


async def test_waiting_ends_when_the_event_is_due_and_looks_up_in_long_gaps() -> None:
    pace = Pace(0)
    started_s = time.monotonic()
    await pace.wait_for(20_000_000)
    assert 0.015 < time.monotonic() - started_s < 0.5
    started_s = time.monotonic()
    await pace.wait_for(3600 * NS)
    assert time.monotonic() - started_s < 1.0
