"""The bars of `features.py`: what they hold, and the 12 features of each length, taken anew when a bar closes."""

from math import log, sqrt
from typing import Any, Final

BARS_S: Final = (1.0, 60.0)
_KEPT_BARS: Final = 20

Bar = dict[str, Any]


def new_bars() -> list[Bar]:
    """Return the bars of a symbol before its first tick, one for each length."""
    return [_new_bar(round(length_s * 1e9)) for length_s in BARS_S]


def _new_bar(bar_ns: int) -> Bar:
    return {
        "bar_ns": bar_ns,
        "end_ns": 0,
        "high": None,  # of the open bar; None without a price
        "low": None,
        "close": None,
        "bars": 0,  # closed ones
        "averages": [0.0] * 6,  # EMA 12, EMA 26, signal, gain, loss, true range
        "closes": [],
        "highs": [],
        "lows": [],
        "returns": [],
        "features": [0.0, 0.0, 50.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 0.0],
    }


def take_bars(bars: list[Bar], row: list[float], now_ns: int, price: float | None, anew: bool) -> None:
    """Close the bars that have ended, add a price, and append the features of all lengths.

    ``price`` is None where the tick has none that counts. With ``anew`` the open bar forgets what it had.
    """
    for bar in bars:
        if now_ns >= bar["end_ns"]:
            if bar["close"] is not None:
                _close(bar)
                bar["close"] = None
            bar["end_ns"] = (now_ns // bar["bar_ns"] + 1) * bar["bar_ns"]
        if price is not None:
            if anew or bar["close"] is None:
                bar["high"] = bar["low"] = price
            elif price > bar["high"]:
                bar["high"] = price
            elif price < bar["low"]:
                bar["low"] = price
            bar["close"] = price
        row += bar["features"]


def _close(bar: Bar) -> None:
    high, low, close, before = bar["high"], bar["low"], bar["close"], bar["bars"]
    ema_12, ema_26, signal, gain, loss, true_range = bar["averages"]
    bars = bar["bars"] = before + 1
    closes = bar["closes"]
    if before:
        last = closes[-1]
        change, period = close - last, before if before < 14 else 14
        gain += (max(change, 0.0) - gain) / period
        loss += (max(-change, 0.0) - loss) / period
        true_range += (max(high, last) - min(low, last) - true_range) / period
        _keep(bar["returns"], log(close / last) * 1e4)
    for name, value in (("closes", close), ("highs", high), ("lows", low)):
        _keep(bar[name], value)
    ema_12 += _weight(bars, 12) * (close - ema_12)
    ema_26 += _weight(bars, 26) * (close - ema_26)
    macd, has_signal = ema_12 - ema_26, bars >= 26
    if has_signal:
        signal += _weight(bars - 25, 9) * (macd - signal)
    bar["averages"] = [ema_12, ema_26, signal, gain, loss, true_range]
    mean, sigma = _moments(closes)
    is_flat = 4.0 * sigma <= close * 1e-7
    highest, lowest = max(bar["highs"]), min(bar["lows"])
    bar["features"] = [
        (close / mean - 1.0) * 1e4,
        (close / ema_12 - 1.0) * 1e4,
        100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0,
        macd / close * 1e4,
        signal / close * 1e4 if has_signal else 0.0,
        (macd - signal) / close * 1e4 if has_signal else 0.0,
        0.5 if is_flat else (close - mean + 2.0 * sigma) / (4.0 * sigma),
        0.0 if is_flat else 4.0 * sigma / mean * 1e4,
        true_range / close * 1e4,
        (close / closes[-11] - 1.0) * 1e4 if bars > 10 else 0.0,
        (close - lowest) / (highest - lowest) if highest > lowest else 0.5,
        _moments(bar["returns"])[1] if before else 0.0,
    ]


def _keep(ring: list[float], value: float) -> None:
    ring.append(value)
    if len(ring) > _KEPT_BARS:
        del ring[0]


def _weight(count: int, period: int) -> float:
    """Of the ``count``-th value: the mean of the values until there are ``period``, an EMA from there on."""
    return 1.0 / count if count <= period else 2.0 / (period + 1.0)


def _moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sqrt(sum([(value - mean) ** 2 for value in values]) / len(values))
