import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.steady_source import Schedule
from stream.records import empty_ticks

START_NS = 1_700_000_000_000_000_000


@given(st.lists(st.integers(0, 50_000_000), max_size=30), st.integers(1, 7), st.sampled_from([100.0, 5e4]))
def test_every_tick_comes_once_when_it_is_due_however_often_one_asks(
    steps_ns: list[int], market_ticks: int, rate_per_s: float
) -> None:
    ticks = empty_ticks(market_ticks)
    ticks["price"] = np.arange(market_ticks)
    schedule = Schedule(ticks, rate_per_s, START_NS)
    now_ns, seen = START_NS, []
    for step_ns in steps_ns:
        now_ns += step_ns
        due = schedule.due(now_ns, 2_000)
        assert np.all(due["recv_ns"] <= now_ns)
        seen.append(due)
    merged = np.concatenate(seen) if seen else ticks[:0]
    assert np.array_equal(merged["source_seq"], np.arange(1, len(merged) + 1))
    assert np.array_equal(merged["price"], np.arange(len(merged)) % market_ticks)
    assert np.all(np.diff(merged["recv_ns"]) >= 0)
    if len(merged) and len(seen[-1]) < 2_000:
        assert len(merged) == int((now_ns - START_NS) / 1e9 * rate_per_s)
