"""Compiled: is a tick to be used? The policy, with its reasons, is the table in `agents/validate.py`."""

from typing import Any, Final

import numpy as np
from numba import uint64

from agents.validate import DUPLICATE
from stream.compiled import compiled, inlined
from stream.records import Reject

_MIN_PRICE: Final = 1e-12
_MAX_PRICE: Final = 1e15
_MAX_SIZE: Final = 1e18


@compiled
def check_new_symbol(words: Any, count: int, room: int) -> Any:
    """Return 0 where a symbol may have a row, else a `Reject`: the rule of ``encode_symbol``."""
    ended = False
    for position in range(24):
        byte = (words[position >> 3] >> uint64(8 * (position & 7))) & uint64(0xFF)
        if byte == 0 and position > 0:
            ended = True
        elif ended or byte < 33 or byte > 126:
            return Reject.BAD_SYMBOL.value
    return 0 if count < room else Reject.TOO_MANY_SYMBOLS.value


@compiled
def judge(tick: Any, state: Any, lateness_ns: int, future_ns: int) -> Any:
    """Return 0 where a tick of a known symbol is to be used, else why not."""
    if tick.stream_id == state.stream_id and tick.source_seq <= state.source_seq:
        return DUPLICATE
    state.stream_id = tick.stream_id
    state.source_seq = tick.source_seq
    return check_tick(tick, state, lateness_ns, future_ns)


@compiled
def take_note(reason: int, tick: Any, state: Any) -> None:
    """Count a tick that is not used, in its symbol's state; keep the first side of a book for the other to come."""
    if reason == DUPLICATE:
        state.duplicates += uint64(1)
    else:
        state.rejected += uint64(1)
    if reason == Reject.MISSING_SIDE.value:
        state.bid, state.bid_size, state.ask, state.ask_size = book_after(tick, state)


@compiled
def check_tick(tick: Any, state: Any, lateness_ns: int, future_ns: int) -> Any:
    if tick.kind == 1:
        reason = _check_trade(tick)
    elif tick.kind == 2:
        reason = _check_quote(tick, state)
    else:
        reason = Reject.BAD_KIND.value
    if reason == 0 or reason == Reject.MISSING_SIDE.value:
        if tick.event_ns > tick.recv_ns + future_ns:
            return Reject.FUTURE.value
        if tick.event_ns < state.event_ns - lateness_ns:
            return Reject.LATE.value
    return reason


@compiled
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


@compiled
def _check_quote(tick: Any, state: Any) -> Any:
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
    bid, _, ask, _ = book_after(tick, state)
    if bid == 0.0 or ask == 0.0:
        return Reject.MISSING_SIDE.value
    return Reject.CROSSED.value if bid > ask else 0


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
