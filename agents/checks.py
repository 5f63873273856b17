"""Compiled: is a tick to be used, and how odd is it? The policy, with its reasons, is in `agents/validate.py`.

A verdict is a pair: 0 and the bits of `Mark`, where the tick is to be used, else why not and 0.
"""

from typing import Any, Final

import numpy as np
from numba import uint64

from agents.state import MARK_BITS
from agents.validate import CONTROL, DUPLICATE
from stream.clock import NS_PER_S
from stream.compiled import compiled, inlined
from stream.records import Mark, Reject, TickKind

_MIN_PRICE: Final = 1e-12
_MAX_PRICE: Final = 1e15
_MAX_SIZE: Final = 1e18

# No stream skips so many numbers: at a million ticks a second it would take nine years.
_MAX_SKIP: Final = 1 << 48
_AGREEING_NUMBERS: Final = 8

_AGREEING_OUTLIERS: Final = 5
# A lost decimal point is 9 of the lower price away, one lost in one side of a quote 4.5 and 0.8.
_WIDEST_BAND: Final = 4.0
_HOUR_S: Final = 3600.0
_BPS: Final = 1e-4
_SCALE_WEIGHT: Final = 1.0 / 64.0
_SCALE_LIMIT: Final = 4.0  # an accepted distance counts as so many times the mean one, at the most


@compiled
def judge(tick: Any, state: Any, limits: Any) -> Any:
    """Return the verdict on a tick of a symbol that has a row, and note in the row what later ones depend on."""
    same_stream = tick.stream_id == state.stream_id
    # Modulo 2**64: a number that is not above the last one is a very long way above it.
    in_sequence = not same_stream or tick.source_seq - state.source_seq - uint64(1) < uint64(_MAX_SKIP)
    if not in_sequence and tick.kind != TickKind.HALT.value and tick.kind != TickKind.RESUME.value:
        reason = _check_sequence(tick, state)
        if reason != 0:
            return reason, 0
    reason, marks = check_tick(tick, state, limits)
    if _is_sound(reason):
        goes_on = same_stream and in_sequence
        state.source_ns = max(state.source_ns, tick.event_ns) if goes_on else tick.event_ns
        state.stream_id = tick.stream_id
        state.source_seq = tick.source_seq
        state.odd_ticks = uint64(0)
    elif reason == CONTROL:
        if tick.kind == TickKind.HALT.value:
            state.halt_ns = max(state.halt_ns, tick.event_ns)
        else:
            state.resume_ns = max(state.resume_ns, tick.event_ns)
    return reason, marks


@compiled
def makes_a_row(reason: int) -> Any:
    """Whether a symbol without a row gets one for a tick with this verdict."""
    return reason == 0 or reason == Reject.MISSING_SIDE.value or reason == CONTROL


@compiled
def take_note(reason: int, tick: Any, state: Any) -> None:
    """Count a tick that is not used, in its symbol's state; keep the first side of a book for the other to come."""
    if reason == DUPLICATE:
        state.duplicates += uint64(1)
    elif reason != CONTROL:
        state.rejected += uint64(1)
        state.rejects[reason] += np.uint32(1)
    if reason == Reject.MISSING_SIDE.value:
        state.bid, state.bid_size, state.ask, state.ask_size = book_after(tick, state)


@inlined
def count_marks(marks: int, state: Any) -> None:
    if marks != 0:
        for bit in range(MARK_BITS):
            state.marks[bit] += np.uint32((marks >> bit) & 1)


@compiled
def check_tick(tick: Any, state: Any, limits: Any) -> Any:
    """Return the verdict on a tick by its content, and move the symbol's level with it where it is to be used."""
    if tick.event_ns > tick.recv_ns + limits.future_ns:
        return Reject.FUTURE.value, 0
    reason = _check_content(tick)
    if reason != 0:
        return reason, 0
    if tick.event_ns < state.event_ns - limits.lateness_ns:
        return Reject.LATE.value, 0
    if _is_halted(state, tick.event_ns):
        return Reject.HALTED.value, 0
    reason, price, marks = _check_market(tick, state)
    if reason != 0:
        return reason, 0
    if tick.event_ns < state.event_ns:
        marks |= Mark.OUT_OF_ORDER.value
    if tick.event_ns > tick.recv_ns:
        marks |= Mark.CLOCK_SKEW.value
    return _check_level(price, tick.event_ns, state, limits, marks)


@inlined
def _check_content(tick: Any) -> Any:
    if tick.kind == TickKind.TRADE.value:
        return _check_trade(tick)
    if tick.kind == TickKind.QUOTE.value:
        return _check_quote(tick)
    if tick.kind == TickKind.HALT.value or tick.kind == TickKind.RESUME.value:
        return CONTROL
    return Reject.BAD_KIND.value


@inlined
def _check_market(tick: Any, state: Any) -> Any:
    """Return why not or 0, the price that the tick tells, and its marks."""
    if tick.kind == TickKind.TRADE.value:
        return 0, tick.price, Mark.ZERO_SIZE.value if tick.size == 0.0 else 0
    bid, _, ask, _ = book_after(tick, state)
    if bid == 0.0 or ask == 0.0:
        return Reject.MISSING_SIDE.value, 0.0, 0
    if bid > ask:
        return Reject.CROSSED.value, 0.0, 0
    marks = Mark.LOCKED.value if bid == ask else 0
    if np.isnan(tick.bid) or np.isnan(tick.ask):
        marks |= Mark.CARRIED.value
    return 0, 0.5 * (bid + ask), marks


@inlined
def _check_level(price: float, event_ns: int, state: Any, limits: Any, marks: int) -> Any:
    level = state.level
    if level > 0.0:
        away = abs(price - level) / min(price, level)
        band = max(limits.outlier_bps * _BPS, limits.outlier_scale * state.level_scale)
        if away <= band:
            limit = _SCALE_LIMIT * state.level_scale + _BPS
            state.level_scale += _SCALE_WEIGHT * (min(away, limit) - state.level_scale)
        else:
            band = _widened(band, event_ns, state)
            if away > band:
                if not _is_new_level(price, band, state):
                    return Reject.OUTLIER.value, 0
                marks |= Mark.LEVEL_SHIFT.value
    state.level = price
    state.outlier_ticks = uint64(0)
    return 0, marks


@compiled
def _widened(band: float, event_ns: int, state: Any) -> Any:
    silence_s = max(event_ns - state.event_ns, 0) / NS_PER_S
    return min(band * (1.0 + np.sqrt(silence_s / _HOUR_S)), max(_WIDEST_BAND, band))


@compiled
def _is_new_level(price: float, band: float, state: Any) -> Any:
    """Note an outlier; return whether enough of them in a row agree, each with the one before."""
    last = state.outlier_level
    agrees = state.outlier_ticks > uint64(0) and abs(price - last) <= band * min(price, last)
    state.outlier_ticks = state.outlier_ticks + uint64(1) if agrees else uint64(1)
    state.outlier_level = price
    return state.outlier_ticks >= uint64(_AGREEING_OUTLIERS)


@compiled
def _check_sequence(tick: Any, state: Any) -> Any:
    """Return what a number is that does not follow the last one, or 0 where enough in a row agree."""
    # Every tick that was counted is no newer than source_ns, and so is its copy.
    if tick.source_seq <= state.source_seq and tick.event_ns <= state.source_ns:
        state.odd_ticks = uint64(0)
        return DUPLICATE
    agrees = state.odd_ticks > uint64(0) and tick.source_seq - state.odd_seq - uint64(1) < uint64(_MAX_SKIP)
    state.odd_ticks = state.odd_ticks + uint64(1) if agrees else uint64(1)
    state.odd_seq = tick.source_seq
    return Reject.BAD_SEQUENCE.value if state.odd_ticks < uint64(_AGREEING_NUMBERS) else 0


@inlined
def _is_sound(reason: int) -> Any:
    return (
        reason == 0
        or reason == Reject.CROSSED.value
        or reason == Reject.LATE.value
        or reason == Reject.MISSING_SIDE.value
        or reason == Reject.OUTLIER.value
        or reason == Reject.HALTED.value
    )


@inlined
def _is_halted(state: Any, event_ns: int) -> Any:
    return state.halt_ns <= event_ns and (event_ns < state.resume_ns or state.resume_ns < state.halt_ns)


@inlined
def _check_trade(tick: Any) -> Any:
    if not (np.isfinite(tick.price) and np.isfinite(tick.size)):
        return Reject.NOT_FINITE.value
    if tick.price <= 0.0:
        return Reject.NOT_POSITIVE.value
    if tick.size < 0.0:
        return Reject.NEGATIVE_SIZE.value
    if not _MIN_PRICE <= tick.price <= _MAX_PRICE or tick.size > _MAX_SIZE:
        return Reject.OUT_OF_RANGE.value
    return 0


@inlined
def _check_quote(tick: Any) -> Any:
    # A comparison with NaN, a side or a size that is not told, is False.
    is_infinite = np.isinf(tick.bid) or np.isinf(tick.ask) or np.isinf(tick.bid_size) or np.isinf(tick.ask_size)
    if is_infinite or (np.isnan(tick.bid) and np.isnan(tick.ask)):
        return Reject.NOT_FINITE.value
    if tick.bid <= 0.0 or tick.ask <= 0.0:
        return Reject.NOT_POSITIVE.value
    if tick.bid_size < 0.0 or tick.ask_size < 0.0:
        return Reject.NEGATIVE_SIZE.value
    if tick.bid < _MIN_PRICE or tick.bid > _MAX_PRICE or tick.ask < _MIN_PRICE or tick.ask > _MAX_PRICE:
        return Reject.OUT_OF_RANGE.value
    if tick.bid_size > _MAX_SIZE or tick.ask_size > _MAX_SIZE:
        return Reject.OUT_OF_RANGE.value
    return 0


@inlined
def book_after(tick: Any, state: Any) -> Any:
    # A missing side keeps its last price and size. A price that is told without a size has the size 0.
    bid, bid_size, ask, ask_size = state.bid, state.bid_size, state.ask, state.ask_size
    if not np.isnan(tick.bid):
        bid = tick.bid
        bid_size = 0.0 if np.isnan(tick.bid_size) else tick.bid_size
    if not np.isnan(tick.ask):
        ask = tick.ask
        ask_size = 0.0 if np.isnan(tick.ask_size) else tick.ask_size
    return bid, bid_size, ask, ask_size
