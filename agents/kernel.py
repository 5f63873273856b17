"""The compiled loop over ticks: it validates each tick and advances its symbol's `STATE` row.

Everything that is compiled stands in this one file, because numba's cache on disk does not see an edit of another
one: with a function imported from elsewhere, an upgrade would go on running the old code. What is decided about a
tick, and why, is told in `agents/validate.py`; the formulas of the features in `agents/features.py`.
"""

from typing import Any, Final

import numpy as np
from numba import njit, uint64

from agents.state import RECENT_ROWS, RING, STATE_VERSION
from agents.validate import DUPLICATE, SKIPPED
from stream.clock import NS_PER_S
from stream.records import Reject

EMPTY_SLOT: Final = -1
_MIN_PRICE: Final = 1e-12
_MAX_PRICE: Final = 1e15
_MAX_SIZE: Final = 1e18
# No market moves a feature that far; a tick with a wrong price would, and would saturate the model's state.
_FEATURE_LIMIT: Final = 1e6
_RING_MASK: Final = RING - 1
_EMA_12: Final = 2.0 / 13.0
_EMA_26: Final = 2.0 / 27.0
_EMA_9: Final = 2.0 / 10.0
_EMA_32: Final = 2.0 / 33.0
_MAX_SINCE_TRADE_S: Final = 3600.0


@njit(cache=True, nogil=True, error_model="numpy")
def apply_ticks(
    ticks: Any,
    words: Any,
    states: Any,
    keys: Any,
    slots: Any,
    touched: Any,
    rounds: Any,
    dirty: Any,
    outcomes: Any,
    count: int,
    serial: int,
    offsets: Any,
    lateness_ns: int,
    future_ns: int,
    out: Any,
    out_words: Any,
    out_int: Any,
    out_seq: Any,
    out_ref: Any,
    reasons: Any,
) -> tuple[int, int, bool]:
    """Apply ticks in order; return how many were accepted, how many symbols there are, and if all is finite."""
    accepted, finite = 0, True
    for index in range(len(ticks)):
        tick = ticks[index]
        slot = _find_slot(words[index], keys, slots)
        row = slots[slot]
        is_new = row == EMPTY_SLOT
        if is_new:
            row = count
            reason = _check_new_symbol(words[index], count, len(keys))
            if reason == 0:
                reason = _check_tick(tick, states[row], lateness_ns, future_ns)
            if reason != 0 and reason != Reject.MISSING_SIDE.value:
                reasons[index] = reason
                outcomes[reason] += 1
                continue
            count += 1
            slots[slot] = row
            keys[row, 0], keys[row, 1], keys[row, 2] = words[index, 0], words[index, 1], words[index, 2]
            _start(states[row], tick)
        state = states[row]
        is_first = touched[row] != serial
        if is_first or state.offset != offsets[index]:  # the symbol's first tick of this block
            if state.offset >= offsets[index]:  # recovery: this row has seen the block
                reasons[index] = SKIPPED
                outcomes[SKIPPED] += 1
                continue
            state.offset = offsets[index]
            touched[row], dirty[row] = serial, True
            if is_first:
                rounds[row] = 0
        if not is_new:
            reason = _judge(tick, state, lateness_ns, future_ns)
        reasons[index] = reason
        outcomes[reason] += 1
        if reason != 0:
            _take_note(reason, tick, state)
            continue
        _update(tick, state, out[accepted])
        finite &= _limit(out[accepted])
        state.recent[int(state.seq % uint64(RECENT_ROWS))] = out[accepted]
        state.seq += uint64(1)
        out_int[0, accepted] = row
        out_int[1, accepted] = rounds[row]
        out_int[2, accepted] = index
        out_seq[0, accepted] = state.seq
        out_seq[1, accepted] = _fnv1a(out_words[accepted])
        out_ref[accepted] = state.ref
        rounds[row] += 1
        accepted += 1
    return accepted, count, finite


@njit(cache=True)
def index_symbols(keys: Any, slots: Any, count: int) -> None:
    """Fill the hash table of empty ``slots`` with the first ``count`` keys."""
    for row in range(count):
        slots[_find_slot(keys[row], keys, slots)] = row


@njit(cache=True, inline="always")
def _find_slot(words: Any, keys: Any, slots: Any) -> Any:
    """Return the slot that holds the row of a symbol, or where it belongs if it is new."""
    mask = uint64(len(slots) - 1)
    value = words[0] ^ (words[1] * uint64(0x9E3779B97F4A7C15)) ^ (words[2] * uint64(0xC2B2AE3D27D4EB4F))
    value = (value ^ (value >> uint64(32))) * uint64(0xD6E8FEB86659FD93)
    slot = (value ^ (value >> uint64(32))) & mask
    while True:
        row = slots[slot]
        if row == EMPTY_SLOT:
            return slot
        if keys[row, 0] == words[0] and keys[row, 1] == words[1] and keys[row, 2] == words[2]:
            return slot
        slot = (slot + uint64(1)) & mask


@njit(cache=True)
def _check_new_symbol(words: Any, count: int, room: int) -> Any:
    """Return 0 where a symbol may have a row, else a `Reject`: the rule of ``encode_symbol``."""
    ended = False
    for position in range(24):
        byte = (words[position >> 3] >> uint64(8 * (position & 7))) & uint64(0xFF)
        if byte == 0 and position > 0:
            ended = True
        elif ended or byte < 33 or byte > 126:
            return Reject.BAD_SYMBOL.value
    return 0 if count < room else Reject.TOO_MANY_SYMBOLS.value


@njit(cache=True)
def _start(state: Any, tick: Any) -> None:
    state.version = STATE_VERSION
    state.symbol = tick.symbol
    state.offset = -1
    state.stream_id = tick.stream_id
    state.source_seq = tick.source_seq


@njit(cache=True, error_model="numpy")
def _judge(tick: Any, state: Any, lateness_ns: int, future_ns: int) -> Any:
    """Return 0 where a tick of a known symbol is to be used, else why not."""
    if tick.stream_id == state.stream_id and tick.source_seq <= state.source_seq:
        return DUPLICATE
    state.stream_id = tick.stream_id
    state.source_seq = tick.source_seq
    return _check_tick(tick, state, lateness_ns, future_ns)


@njit(cache=True)
def _take_note(reason: int, tick: Any, state: Any) -> None:
    """Count a tick that is not used, in its symbol's state; keep the first side of a book for the other to come."""
    if reason == DUPLICATE:
        state.duplicates += uint64(1)
    else:
        state.rejected += uint64(1)
    if reason == Reject.MISSING_SIDE.value:
        state.bid, state.bid_size, state.ask, state.ask_size = _book_after(tick, state)


@njit(cache=True, error_model="numpy")
def _check_tick(tick: Any, state: Any, lateness_ns: int, future_ns: int) -> Any:
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


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
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
    bid, _, ask, _ = _book_after(tick, state)
    if bid == 0.0 or ask == 0.0:
        return Reject.MISSING_SIDE.value
    return Reject.CROSSED.value if bid > ask else 0


@njit(cache=True, inline="always")
def _book_after(tick: Any, state: Any) -> Any:
    # A missing side keeps its last price and size. A price that is told without a size has the size 0.
    bid, bid_size, ask, ask_size = state.bid, state.bid_size, state.ask, state.ask_size
    if not np.isnan(tick.bid):
        bid = tick.bid
        bid_size = 0.0 if np.isnan(tick.bid_size) else tick.bid_size
    if not np.isnan(tick.ask):
        ask = tick.ask
        ask_size = 0.0 if np.isnan(tick.ask_size) else tick.ask_size
    return bid, bid_size, ask, ask_size


@njit(cache=True, error_model="numpy")
def _update(tick: Any, state: Any, out: Any) -> None:
    gap_s = max(tick.event_ns - state.event_ns, 0) / NS_PER_S
    state.gap_s = 1.0 if state.seq == 0 else state.gap_s + _EMA_32 * (gap_s - state.gap_s)
    state.event_ns = max(state.event_ns, tick.event_ns)
    if tick.kind == 2:
        _take_quote(tick, state)
    else:
        _take_trade(tick, state)
    has_book = state.bid > 0.0 and state.ask > 0.0
    ref = 0.5 * (state.bid + state.ask) if has_book else state.last_price
    _roll(state, ref)
    _price_features(state, ref, out)
    _market_features(state, has_book, out)


@njit(cache=True, error_model="numpy")
def _take_quote(tick: Any, state: Any) -> None:
    bid, bid_size, ask, ask_size = _book_after(tick, state)
    if state.bid > 0.0 and state.ask > 0.0:
        # Source: Cont, Kukanov, Stoikov, "The price impact of order book events", J. Fin. Econometrics 12(1), 2014.
        flow = 0.0
        if bid >= state.bid:
            flow += bid_size
        if bid <= state.bid:
            flow -= state.bid_size
        if ask <= state.ask:
            flow -= ask_size
        if ask >= state.ask:
            flow += state.ask_size
        state.flow += _EMA_32 * (flow - state.flow)
        state.depth += _EMA_32 * (0.5 * (bid_size + ask_size) - state.depth)
    else:
        state.depth = 0.5 * (bid_size + ask_size)
    state.bid, state.ask, state.bid_size, state.ask_size = bid, ask, bid_size, ask_size


@njit(cache=True, error_model="numpy")
def _take_trade(tick: Any, state: Any) -> None:
    # The aggressor where the venue tells it; else the quote test, then the tick test.
    # Source: Lee, Ready, "Inferring trade direction from intraday data", J. Finance 46(2), 1991.
    mid = 0.5 * (state.bid + state.ask) if state.bid > 0.0 and state.ask > 0.0 else 0.0
    if tick.side != 0:
        side = 1.0 if tick.side > 0 else -1.0
    elif mid > 0.0 and tick.price != mid:
        side = 1.0 if tick.price > mid else -1.0
    elif state.last_price > 0.0 and tick.price != state.last_price:
        side = 1.0 if tick.price > state.last_price else -1.0
    else:
        side = state.last_side
    state.signed_size += _EMA_32 * (side * tick.size - state.signed_size)
    state.size += _EMA_32 * (tick.size - state.size)
    state.last_side = side
    state.last_price = tick.price
    state.trade_ns = max(state.trade_ns, tick.event_ns)


@njit(cache=True, error_model="numpy")
def _roll(state: Any, ref: float) -> None:
    """Advance rings and averages by ``ref``. Before the call ``state.seq`` refs were seen."""
    seen = int(state.seq)
    if seen == 0:
        state.ema_12 = ref
        state.ema_26 = ref
    else:
        # The first 14 moves are averaged, later ones smoothed.
        # Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
        move = ref - state.ref
        period = min(seen, 14)
        state.gain += (max(move, 0.0) - state.gain) / period
        state.loss += (max(-move, 0.0) - state.loss) / period
    state.ema_12 += _EMA_12 * (ref - state.ema_12)
    state.ema_26 += _EMA_26 * (ref - state.ema_26)
    macd = state.ema_12 - state.ema_26
    state.macd_signal += _EMA_9 * (macd - state.macd_signal)
    state.ref = ref


@njit(cache=True, error_model="numpy")
def _price_features(state: Any, ref: float, out: Any) -> None:
    seen = int(state.seq)
    slot = seen & _RING_MASK
    refs, returns = state.refs, state.returns
    change = 0.0 if seen < 1 else np.log(ref / refs[(seen - 1) & _RING_MASK]) * 1e4
    out[0] = change
    out[1] = 0.0 if seen < 8 else np.log(ref / refs[(seen - 8) & _RING_MASK]) * 1e4
    oldest = refs[slot] if seen >= RING else refs[0] if seen > 0 else ref
    window_change = np.log(ref / oldest) * 1e4
    out[2] = window_change if seen >= RING else 0.0
    refs[slot] = ref
    returns[slot] = change
    length = min(seen + 1, RING)  # one-tick returns add up to the return over the window
    out[10] = np.sqrt(_sum_of_squares(returns, 0, length, window_change / length) / length)
    # Sums over a window are taken anew from its ring at each tick. Running sums would be 50 ns cheaper, but one
    # print at 1,000 times the price (a lost decimal point) left the bands 12 % too wide for 60 ticks.
    length = min(seen + 1, 20)
    start, total = seen + 1 - length, 0.0
    for number in range(start, seen + 1):
        total += refs[number & _RING_MASK]
    mean = total / length
    sigma = np.sqrt(_sum_of_squares(refs, start, length, mean) / length)
    # Below a thousandth of a bp the band is rounding noise, not a band.
    is_flat = 4.0 * sigma <= ref * 1e-7
    out[8] = 0.5 if is_flat else (ref - mean + 2.0 * sigma) / (4.0 * sigma)
    out[9] = 0.0 if is_flat else 4.0 * sigma / mean * 1e4
    length = min(seen + 1, 32)
    for number in range(seen + 1 - length, start):
        total += refs[number & _RING_MASK]
    out[3] = (ref * length / total - 1.0) * 1e4
    out[4] = (ref / state.ema_12 - 1.0) * 1e4
    moved = state.gain + state.loss
    out[5] = 100.0 * state.gain / moved if moved > 0.0 else 50.0
    macd = state.ema_12 - state.ema_26
    out[6] = macd / ref * 1e4
    out[7] = (macd - state.macd_signal) / ref * 1e4


@njit(cache=True, inline="always", error_model="numpy")
def _sum_of_squares(ring: Any, start: int, length: int, mean: float) -> Any:
    # In four chains: an addition must wait for the one before it.
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    fours = start + (length & ~3)
    for number in range(start, fours, 4):
        a += (ring[number & _RING_MASK] - mean) ** 2
        b += (ring[(number + 1) & _RING_MASK] - mean) ** 2
        c += (ring[(number + 2) & _RING_MASK] - mean) ** 2
        d += (ring[(number + 3) & _RING_MASK] - mean) ** 2
    for number in range(fours, start + length):
        a += (ring[number & _RING_MASK] - mean) ** 2
    return (a + b) + (c + d)


@njit(cache=True, error_model="numpy")
def _market_features(state: Any, has_book: bool, out: Any) -> None:
    out[11], out[12], out[13] = 0.0, 0.0, 0.0
    if has_book:
        mid = 0.5 * (state.bid + state.ask)
        depth = state.bid_size + state.ask_size
        out[11] = (state.ask - state.bid) / mid * 1e4
        if depth > 0.0:
            micro = (state.bid * state.ask_size + state.ask * state.bid_size) / depth
            out[12] = (state.bid_size - state.ask_size) / depth
            out[13] = (micro / mid - 1.0) * 1e4
    out[14] = state.flow / state.depth if state.depth > 0.0 else 0.0
    out[15] = state.signed_size / state.size if state.size > 0.0 else 0.0
    out[16] = np.log(1.0 + 1.0 / max(state.gap_s, 1e-6))
    since_s = (state.event_ns - state.trade_ns) / NS_PER_S if state.trade_ns > 0 else _MAX_SINCE_TRADE_S
    out[17] = np.log(1.0 + min(since_s, _MAX_SINCE_TRADE_S))


@njit(cache=True, inline="always")
def _limit(out: Any) -> Any:
    """Limit the features; return whether they are finite. A NaN stays, to be seen."""
    for feature in range(len(out)):
        if abs(out[feature]) > _FEATURE_LIMIT:
            out[feature] = np.copysign(_FEATURE_LIMIT, out[feature])
    return np.isfinite(out.sum())


@njit(cache=True, inline="always")
def _fnv1a(words: Any) -> Any:
    value = uint64(0xCBF29CE484222325)
    for word in words:
        value = (value ^ uint64(word)) * uint64(0x100000001B3)
    return value
