"""Compiled: an accepted tick advances everything that is known of its symbol, and becomes a row of features.

Here: the book, flows, and windows by count of ticks. Windows by event time are in `agents/time_windows.py`, bars
in `agents/bars.py`; the features' names, units, formulas and rules in `agents/features.py`.
"""

import math
from typing import Any, Final

import numpy as np

from agents import bars, time_windows
from agents.checks import book_after, take_note
from agents.periods import RING
from stream.clock import NS_PER_S
from stream.compiled import compiled, inlined
from stream.records import Reject

_RING_MASK: Final = RING - 1
_CAP_NS: Final = 3600 * NS_PER_S
_LOG_CAP: Final = math.log(1.0 + _CAP_NS / NS_PER_S)
SPREAD: Final = 11  # where the feature stands in a row


@inlined
def has_book(state: Any) -> Any:
    """Return whether both sides of the book are known."""
    return state.bid > 0.0 and state.ask > 0.0


@compiled
def update(tick: Any, state: Any, periods: Any, values: Any) -> None:
    """Write the features of a tick to ``values``, ``float64[COUNT]``. ``state.seq`` is raised afterwards."""
    seen = int(state.seq - state.session_seq)
    gap_s = max(tick.event_ns - state.event_ns, 0) / NS_PER_S
    state.gap_s = 1.0 if seen == 0 else state.gap_s + periods.flow_weight * (gap_s - state.gap_s)
    state.event_ns = max(state.event_ns, tick.event_ns)
    is_quote = tick.kind == 2
    never_traded = state.last_price == 0.0
    flow, depth, side = 0.0, 0.0, 0.0
    if is_quote:
        flow, depth = _take_quote(tick, state, periods)
    else:
        side = _take_trade(tick, state, periods)
    is_quoted = has_book(state)
    ref = 0.5 * (state.bid + state.ask) if is_quoted else state.last_price
    before = state.ref if seen > 0 else ref
    _roll(state, seen, ref, periods)
    change = _price_features(state, seen, ref, periods, values)
    _channel_feature(state, seen, ref, periods, values)
    _market_features(state, is_quoted, ref, values)
    _age_features(state, values)
    time_windows.advance(state, seen == 0, before, periods)
    time_windows.add(state, tick, is_quote, ref, change, flow, depth, side)
    time_windows.write(state, ref, periods, values)
    price = tick.price if not is_quote else ref if never_traded else 0.0
    bars.take(
        state, seen == 0, price, 0.0 if is_quote else tick.size, never_traded and not is_quote, periods, values
    )


@compiled
def pass_over(reason: int, tick: Any, state: Any) -> None:
    """Note a tick that is not used; the first side of a book is kept for the other to come."""
    take_note(reason, tick, state)
    if reason == Reject.MISSING_SIDE.value:
        _note_sides(tick, state)


@inlined
def _note_sides(tick: Any, state: Any) -> None:
    if not np.isnan(tick.bid):
        state.bid_ns = max(state.bid_ns, tick.event_ns)
    if not np.isnan(tick.ask):
        state.ask_ns = max(state.ask_ns, tick.event_ns)


@compiled
def _take_quote(tick: Any, state: Any, periods: Any) -> Any:
    """Return Cont's e_n and the depth at the touch."""
    bid, bid_size, ask, ask_size = book_after(tick, state)
    flow, depth = 0.0, 0.5 * (bid_size + ask_size)
    if has_book(state):
        # Source: Cont, Kukanov, Stoikov, "The price impact of order book events", J. Fin. Econometrics 12(1), 2014.
        if bid >= state.bid:
            flow += bid_size
        if bid <= state.bid:
            flow -= state.bid_size
        if ask <= state.ask:
            flow -= ask_size
        if ask >= state.ask:
            flow += state.ask_size
        state.flow += periods.flow_weight * (flow - state.flow)
        state.depth += periods.flow_weight * (depth - state.depth)
    else:
        state.depth = depth
    state.bid, state.ask, state.bid_size, state.ask_size = bid, ask, bid_size, ask_size
    _note_sides(tick, state)
    return flow, depth


@compiled
def _take_trade(tick: Any, state: Any, periods: Any) -> Any:
    """Return the side of the aggressor: 1 buyer, -1 seller, 0 not known."""
    # The aggressor where the venue tells it; else the quote test, then the tick test.
    # Source: Lee, Ready, "Inferring trade direction from intraday data", J. Finance 46(2), 1991.
    mid = 0.5 * (state.bid + state.ask) if has_book(state) else 0.0
    if tick.side != 0:
        side = 1.0 if tick.side > 0 else -1.0
    elif mid > 0.0 and tick.price != mid:
        side = 1.0 if tick.price > mid else -1.0
    elif state.last_price > 0.0 and tick.price != state.last_price:
        side = 1.0 if tick.price > state.last_price else -1.0
    else:
        side = state.last_side
    state.signed_size += periods.flow_weight * (side * tick.size - state.signed_size)
    state.size += periods.flow_weight * (tick.size - state.size)
    state.last_side = side
    state.last_price = tick.price
    state.trade_ns = max(state.trade_ns, tick.event_ns)
    return side


@compiled
def _roll(state: Any, seen: int, ref: float, periods: Any) -> None:
    """Advance the averages by ``ref``. Before the call ``seen`` refs were seen."""
    if seen == 0:
        state.ema_12 = ref
        state.ema_26 = ref
    else:
        # The first moves are averaged, later ones smoothed.
        # Source: Wilder, "New Concepts in Technical Trading Systems", 1978.
        move = ref - state.ref
        period = min(seen, periods.rsi)
        state.gain += (max(move, 0.0) - state.gain) / period
        state.loss += (max(-move, 0.0) - state.loss) / period
    state.ema_12 += periods.ema_fast_weight * (ref - state.ema_12)
    state.ema_26 += periods.ema_slow_weight * (ref - state.ema_26)
    macd = state.ema_12 - state.ema_26
    state.macd_signal += periods.macd_signal_weight * (macd - state.macd_signal)
    state.ref = ref


@compiled
def _price_features(state: Any, seen: int, ref: float, periods: Any, values: Any) -> Any:
    """Put ``ref`` into the rings; return the one-tick log return in bps."""
    slot = seen & _RING_MASK
    refs, returns = state.refs, state.returns
    change = 0.0 if seen < 1 else np.log(ref / refs[(seen - 1) & _RING_MASK]) * 1e4
    values[0] = change
    short, long, length = periods.return_short, periods.return_long, periods.volatility
    values[1] = 0.0 if seen < short else np.log(ref / refs[(seen - short) & _RING_MASK]) * 1e4
    values[2] = 0.0 if seen < long else np.log(ref / refs[(seen - long) & _RING_MASK]) * 1e4
    # One-tick returns add up to the return over the window.
    if seen >= length == long:
        window_change = values[2]
    else:
        oldest = refs[(seen - length) & _RING_MASK] if seen >= length else refs[0] if seen > 0 else ref
        window_change = np.log(ref / oldest) * 1e4
    refs[slot] = ref
    returns[slot] = change
    # A window as long as the ring is summed up in the ring's order, the same whatever is the newest.
    length = min(seen + 1, length)
    start = 0 if length == RING else seen + 1 - length
    values[10] = np.sqrt(_sum_of_squares(returns, start, length, window_change / length) / length)
    _average_features(state, seen, ref, periods, values)
    return change


@inlined
def _average_features(state: Any, seen: int, ref: float, periods: Any, values: Any) -> None:
    # Sums over a window are taken anew from its ring at each tick. Running sums would be 50 ns cheaper, but one
    # print at 1,000 times the price (a lost decimal point) left the bands 12 % too wide for 60 ticks.
    refs = state.refs
    bollinger = min(seen + 1, periods.bollinger)
    start = seen + 1 - bollinger
    total = _sum(refs, start, seen + 1, 0.0)
    mean = total / bollinger
    sigma = np.sqrt(_sum_of_squares(refs, start, bollinger, mean) / bollinger)
    # Below a thousandth of a bp the band is rounding noise, not a band.
    is_flat = 4.0 * sigma <= ref * 1e-7
    values[8] = 0.5 if is_flat else (ref - mean + 2.0 * sigma) / (4.0 * sigma)
    values[9] = 0.0 if is_flat else 4.0 * sigma / mean * 1e4
    sma = min(seen + 1, periods.sma)
    first = seen + 1 - sma
    total = _sum(refs, first, start, total) if first <= start else _sum(refs, first, seen + 1, 0.0)
    values[3] = (ref * sma / total - 1.0) * 1e4
    values[4] = (ref / state.ema_12 - 1.0) * 1e4
    moved = state.gain + state.loss
    values[5] = 100.0 * state.gain / moved if moved > 0.0 else 50.0
    macd = state.ema_12 - state.ema_26
    values[6] = macd / ref * 1e4
    values[7] = (macd - state.macd_signal) / ref * 1e4
    values[18] = state.macd_signal / ref * 1e4
    values[19] = (ref / state.ema_26 - 1.0) * 1e4


@inlined
def _sum(ring: Any, start: int, stop: int, total: float) -> Any:
    for number in range(start, stop):
        total += ring[number & _RING_MASK]
    return total


@inlined
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


@compiled
def _channel_feature(state: Any, seen: int, ref: float, periods: Any, values: Any) -> None:
    # The window is searched only when its high or low has left it.
    oldest = max(seen + 1 - periods.channel, 0)
    if seen == 0 or ref >= state.channel_high:
        state.channel_high, state.high_at = ref, seen
    elif state.high_at < oldest:
        state.channel_high = ref
        for number in range(oldest, seen + 1):
            if state.refs[number & _RING_MASK] >= state.channel_high:
                state.channel_high, state.high_at = state.refs[number & _RING_MASK], number
    if seen == 0 or ref <= state.channel_low:
        state.channel_low, state.low_at = ref, seen
    elif state.low_at < oldest:
        state.channel_low = ref
        for number in range(oldest, seen + 1):
            if state.refs[number & _RING_MASK] <= state.channel_low:
                state.channel_low, state.low_at = state.refs[number & _RING_MASK], number
    height = state.channel_high - state.channel_low
    values[20] = (ref - state.channel_low) / height if height > 0.0 else 0.5


@compiled
def _market_features(state: Any, is_quoted: bool, ref: float, values: Any) -> None:
    values[SPREAD], values[12], values[13], values[21] = 0.0, 0.0, 0.0, 0.0
    if is_quoted:
        depth = state.bid_size + state.ask_size
        values[SPREAD] = (state.ask - state.bid) / ref * 1e4
        if depth > 0.0:
            micro = (state.bid * state.ask_size + state.ask * state.bid_size) / depth
            values[12] = (state.bid_size - state.ask_size) / depth
            values[13] = (micro / ref - 1.0) * 1e4
        if state.last_price > 0.0:
            values[21] = (ref / state.last_price - 1.0) * 1e4
    values[14] = state.flow / state.depth if state.depth > 0.0 else 0.0
    values[15] = state.signed_size / state.size if state.size > 0.0 else 0.0
    values[16] = np.log(1.0 + 1.0 / max(state.gap_s, 1e-6))


@compiled
def _age_features(state: Any, values: Any) -> None:
    values[17] = _log_age(state.event_ns, state.trade_ns)
    values[22] = _log_age(state.event_ns, state.bid_ns)
    values[23] = values[22] if state.ask_ns == state.bid_ns else _log_age(state.event_ns, state.ask_ns)


@inlined
def _log_age(now_ns: int, then_ns: int) -> Any:
    age_ns = now_ns - then_ns if then_ns > 0 else _CAP_NS
    if age_ns >= _CAP_NS:
        return _LOG_CAP
    return np.log(1.0 + age_ns / NS_PER_S) if age_ns > 0 else 0.0
