"""Compiled: where a symbol was silent for longer than ``session_gap_s``, its next good tick finds it as if new."""

from typing import Any

from numba import uint64

from agents.checks import judge
from stream.compiled import compiled
from stream.records import Reject


@compiled
def judge_in_session(tick: Any, state: Any, limits: Any, gap_ns: int) -> Any:
    """As `judge`; a good tick that comes more than ``gap_ns`` (0: never) after the newest begins a session.

    It is judged without the book and the price level of the one before. Garbage begins none: it would wipe out all
    that is known.
    """
    if gap_ns == 0 or state.seq == state.session_seq or tick.event_ns - state.event_ns <= gap_ns:
        return judge(tick, state, limits)
    bid, ask, bid_size, ask_size = state.bid, state.ask, state.bid_size, state.ask_size
    level, scale, outlier, outliers = state.level, state.level_scale, state.outlier_level, state.outlier_ticks
    state.bid, state.ask, state.bid_size, state.ask_size = 0.0, 0.0, 0.0, 0.0
    state.level, state.level_scale, state.outlier_level, state.outlier_ticks = 0.0, 0.0, 0.0, uint64(0)
    reason, marks = judge(tick, state, limits)
    if reason == 0 or reason == Reject.MISSING_SIDE.value:
        _begin_session(state)
    else:
        state.bid, state.ask, state.bid_size, state.ask_size = bid, ask, bid_size, ask_size
        state.level, state.level_scale = level, scale
        state.outlier_level, state.outlier_ticks = outlier, outliers
    return reason, marks


@compiled
def _begin_session(state: Any) -> None:
    # Rings, windows and bars start by themselves with the first tick of a session.
    state.session_seq = uint64(state.seq)
    state.trade_ns, state.bid_ns, state.ask_ns = 0, 0, 0
    state.ref, state.last_price, state.last_side = 0.0, 0.0, 0.0
    state.macd_signal, state.gain, state.loss = 0.0, 0.0, 0.0
    state.flow, state.depth, state.signed_size, state.size = 0.0, 0.0, 0.0, 0.0
