"""A session that ends takes everything with it; one that does not end takes nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, MS, Feed, cut, random_market

from agents.periods import Periods
from agents.windows import Windows
from stream.records import Records, Reject

HOUR_NS = 3600 * 1000 * MS
GAP = Periods(session_gap_s=600.0)


def run(ticks: Records, periods: Periods = GAP, cuts: list[int] | None = None) -> tuple[np.ndarray, Any, Windows]:
    """Return feature rows, reasons and the windows."""
    windows = Windows(LATENESS_NS, FUTURE_NS, 16, periods=periods, outlier_bps=np.inf)
    rows, reasons = [], []
    for offset, block in enumerate(cut(ticks, cuts or [])):
        step = windows.step(block, np.full(len(block), offset, np.int64))
        rows.append(step.features.copy())
        reasons.append(step.reason.copy())
    return np.concatenate(rows), np.concatenate(reasons), windows


def later(ticks: Records, by_ns: int, number: int) -> Records:
    moved = ticks.copy()
    moved["event_ns"] += by_ns
    moved["recv_ns"] += by_ns
    moved["source_seq"] += number
    return moved


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), first=st.integers(1, 400), cuts=st.lists(st.integers(1, 799), max_size=6))
def test_after_a_gap_every_row_is_that_of_a_new_symbol(seed: int, first: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    evening, morning = random_market(rng, first, symbols=1), random_market(rng, 400, symbols=1)
    morning = later(morning, 9 * HOUR_NS, first)
    rows, reasons, windows = run(np.concatenate([evening, morning]), cuts=cuts)
    fresh, fresh_reasons, _ = run(morning)
    assert reasons[first:].tolist() == fresh_reasons.tolist()
    assert rows[len(rows) - len(fresh) :].tobytes() == fresh.tobytes()
    assert windows.states["seq"][0] == len(rows)  # the numbers go on


def test_without_the_setting_a_night_is_a_long_pause() -> None:
    rng = np.random.default_rng(1)
    evening, morning = (
        random_market(rng, 300, symbols=1),
        later(random_market(rng, 300, symbols=1), 9 * HOUR_NS, 300),
    )
    rows, _, windows = run(np.concatenate([evening, morning]), Periods())
    fresh, _, _ = run(morning, Periods())
    assert rows[-len(fresh) :].tobytes() != fresh.tobytes()
    assert windows.states["session_seq"][0] == 0


@pytest.mark.parametrize("silence_s", [599.0, 600.0, 600.001])
def test_a_session_ends_only_after_more_than_the_gap(silence_s: float) -> None:
    feed = Feed()
    first = feed.trade("X", 1.0)
    now_ns = int(first["event_ns"][0]) + round(silence_s * 1e9)
    _, _, windows = run(np.concatenate([first, feed.trade("X", 2.0, event_ns=now_ns, recv_ns=now_ns)]))
    assert windows.states["session_seq"][0] == (1 if silence_s > 600 else 0)


def test_garbage_begins_no_session() -> None:
    feed = Feed()
    now_ns = feed.now_ns + HOUR_NS
    morning = {"event_ns": now_ns, "recv_ns": now_ns}
    ticks = [
        feed.quote("X", 99.0, 101.0),
        feed.trade("X", 100.0),
        feed.trade("X", np.nan, **morning),
        feed.trade("X", -1.0, **morning),
        feed.trade("X", 1.0, **morning, kind=77),
        feed.quote("X", 102.0, 101.0, **morning),
    ]
    rows, reasons, windows = run(np.concatenate(ticks))
    assert reasons.tolist()[2:] == [Reject.NOT_FINITE, Reject.NOT_POSITIVE, Reject.BAD_KIND, Reject.CROSSED]
    state = windows.states[0]
    assert (state["session_seq"], state["bid"], state["ask"], state["last_price"]) == (0, 99.0, 101.0, 100.0)
    assert len(rows) == 2


def test_the_book_of_the_evening_does_not_complete_the_first_quote_of_the_morning() -> None:
    feed = Feed()
    evening = feed.quote("X", 99.0, 101.0)
    now_ns = feed.now_ns + HOUR_NS
    one_sided = feed.quote("X", np.nan, 131.0, event_ns=now_ns, recv_ns=now_ns)
    other = feed.quote("X", 129.0, np.nan, event_ns=now_ns + 1, recv_ns=now_ns + 1)
    _, reasons, windows = run(np.concatenate([evening, one_sided, other]))
    assert reasons.tolist() == [0, Reject.MISSING_SIDE, 0]
    assert windows.states["ref"][0] == 130.0
    assert (windows.states["seq"][0], windows.states["session_seq"][0]) == (2, 1)
