"""Compiled: an accepted tick advances the windows of its symbol, and becomes a feature row.

The features' names, units and formulas are in `agents/features.py`.
"""

from typing import Any, Final

import numpy as np

from agents.checks import book_after
from agents.state import RING
from stream.clock import NS_PER_S
from stream.compiled import compiled, inlined

_RING_MASK: Final = RING - 1
_EMA_12: Final = 2.0 / 13.0
_EMA_26: Final = 2.0 / 27.0
_EMA_9: Final = 2.0 / 10.0
_EMA_32: Final = 2.0 / 33.0
_MAX_SINCE_TRADE_S: Final = 3600.0


@compiled
def update(tick: Any, state: Any, out: Any) -> None:
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


@compiled
def _take_quote(tick: Any, state: Any) -> None:
    bid, bid_size, ask, ask_size = book_after(tick, state)
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


@compiled
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


@compiled
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


@compiled
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
