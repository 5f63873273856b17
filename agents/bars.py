"""Compiled: bars of trades, and the indicators over those that are closed. Their rules are in `agents/features.py`.

Everything about closed bars is computed when one closes; a tick only copies it.
"""

from typing import Any, Final

import numpy as np

from agents.features import BAR_FEATURES, TICK_FEATURES, WINDOW_FEATURES
from agents.periods import BARS, RING, WINDOWS
from stream.compiled import compiled, inlined

_FIRST: Final = TICK_FEATURES + WINDOWS * WINDOW_FEATURES
_RING_MASK: Final = RING - 1


@compiled
def take(state: Any, is_first: bool, price: float, size: float, anew: bool, periods: Any, values: Any) -> None:
    """Close the bars that have ended, add a price, and write the features of every length of bar.

    ``price`` is 0 where the tick has none that counts. With ``anew`` the open bar forgets what it had.
    """
    now_ns = state.event_ns
    for number in range(BARS):
        bar, bar_ns = state.bars[number], periods.bar_ns[number]
        if is_first:
            _begin(bar)
            bar.end_ns = (now_ns // bar_ns + 1) * bar_ns
        elif now_ns >= bar.end_ns:
            if bar.prices > 0:
                _close(bar, periods)
            bar.prices = 0
            bar.end_ns += bar_ns
            if now_ns >= bar.end_ns:
                bar.end_ns = (now_ns // bar_ns + 1) * bar_ns
        if anew:
            bar.prices = 0
        if price > 0.0:
            if bar.prices == 0:
                bar.open, bar.high, bar.low, bar.volume = price, price, price, 0.0
            bar.high, bar.low, bar.close = max(bar.high, price), min(bar.low, price), price
            bar.volume += size
            bar.prices += 1
        at = _FIRST + number * BAR_FEATURES
        for feature in range(BAR_FEATURES):
            values[at + feature] = bar.features[feature]


@compiled
def _begin(bar: Any) -> None:
    bar.prices, bar.bars = 0, 0
    bar.ema_fast, bar.ema_slow, bar.macd_signal = 0.0, 0.0, 0.0
    bar.gain, bar.loss, bar.true_range = 0.0, 0.0, 0.0
    for feature in range(BAR_FEATURES):
        bar.features[feature] = 0.0
    bar.features[2], bar.features[6], bar.features[10] = 50.0, 0.5, 0.5


@compiled
def _close(bar: Any, periods: Any) -> None:
    close, before, out = bar.close, bar.bars, bar.features
    slot, last = before & _RING_MASK, bar.closes[(before - 1) & _RING_MASK]
    out[9] = (close / bar.closes[(before - periods.bar_roc) & _RING_MASK] - 1.0) * 1e4
    if before < periods.bar_roc:
        out[9] = 0.0
    bar.closes[slot], bar.highs[slot], bar.lows[slot] = close, bar.high, bar.low
    bar.returns[slot] = 0.0
    if before > 0:
        bar.returns[slot] = np.log(close / last) * 1e4
        # Source: Wilder, "New Concepts in Technical Trading Systems", 1978: the first values are averaged.
        move = close - last
        period = min(before, periods.bar_rsi)
        bar.gain += (max(move, 0.0) - bar.gain) / period
        bar.loss += (max(-move, 0.0) - bar.loss) / period
        true_range = max(bar.high, last) - min(bar.low, last)
        bar.true_range += (true_range - bar.true_range) / min(before, periods.bar_atr)
    bar.bars = before + 1
    moved = bar.gain + bar.loss
    out[2] = 100.0 * bar.gain / moved if moved > 0.0 else 50.0
    out[8] = bar.true_range / close * 1e4
    _average(bar, periods)
    _bands(bar, periods)
    _channel(bar, periods)


@inlined
def _weight(count: int, period: int) -> Any:
    """Of the ``count``-th value: the mean of the values until there are ``period``, an EMA from there on."""
    return 1.0 / count if count <= period else 2.0 / (period + 1.0)


@compiled
def _average(bar: Any, periods: Any) -> None:
    close, bars, out = bar.close, bar.bars, bar.features
    bar.ema_fast += _weight(bars, periods.bar_ema_fast) * (close - bar.ema_fast)
    bar.ema_slow += _weight(bars, periods.bar_ema_slow) * (close - bar.ema_slow)
    macd = bar.ema_fast - bar.ema_slow
    out[1] = (close / bar.ema_fast - 1.0) * 1e4
    out[3] = macd / close * 1e4
    known = bars + 1 - periods.bar_ema_slow  # values of the MACD since the slow average is full
    if known > 0:
        bar.macd_signal += _weight(known, periods.bar_macd_signal) * (macd - bar.macd_signal)
        out[4] = bar.macd_signal / close * 1e4
        out[5] = (macd - bar.macd_signal) / close * 1e4


@compiled
def _bands(bar: Any, periods: Any) -> None:
    close, bars, out = bar.close, bar.bars, bar.features
    out[0] = (close / _moments(bar.closes, bars, min(bars, periods.bar_sma))[0] - 1.0) * 1e4
    mean, sigma = _moments(bar.closes, bars, min(bars, periods.bar_bollinger))
    is_flat = 4.0 * sigma <= close * 1e-7
    out[6] = 0.5 if is_flat else (close - mean + 2.0 * sigma) / (4.0 * sigma)
    out[7] = 0.0 if is_flat else 4.0 * sigma / mean * 1e4
    returns = min(bars - 1, periods.bar_volatility)
    out[11] = _moments(bar.returns, bars, returns)[1] if returns > 0 else 0.0


@inlined
def _moments(ring: Any, count: int, length: int) -> Any:
    """Return mean and population standard deviation of the last ``length`` of ``count`` values."""
    total, squares = 0.0, 0.0
    for number in range(count - length, count):
        total += ring[number & _RING_MASK]
    mean = total / length
    for number in range(count - length, count):
        squares += (ring[number & _RING_MASK] - mean) ** 2
    return mean, np.sqrt(squares / length)


@compiled
def _channel(bar: Any, periods: Any) -> None:
    high, low = bar.high, bar.low
    for number in range(bar.bars - min(bar.bars, periods.bar_channel), bar.bars):
        high, low = max(high, bar.highs[number & _RING_MASK]), min(low, bar.lows[number & _RING_MASK])
    bar.features[10] = (bar.close - low) / (high - low) if high > low else 0.5
