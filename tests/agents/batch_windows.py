"""Windows by event time and bars of a whole stream at once: the second half of `batch_features.py`."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agents.periods import Periods
from stream.records import Records

Floats = NDArray[np.float64]
_BUCKETS = 10


def window_features(
    ticks: Records,
    ref: Floats,
    flow: Floats,
    depth: Floats,
    side: Floats,
    is_quote: NDArray[np.bool_],
    periods: Periods,
) -> list[Floats]:
    """Return eight columns for each window, ``float64[N]`` each."""
    now_ns = np.maximum.accumulate(ticks["event_ns"])
    squares = np.concatenate([[0.0], (np.log(ref[1:] / ref[:-1]) * 1e4) ** 2])
    size = np.where(is_quote, 0.0, ticks["size"])
    notional = np.where(is_quote, 0.0, ticks["price"] * ticks["size"])
    columns = []
    for length_s in periods.windows_s:
        bucket = now_ns // (round(length_s * 1e9) // _BUCKETS)
        # The first tick of the window that ends with each tick.
        first = np.searchsorted(bucket, bucket - (_BUCKETS - 1))
        start_ref = ref[np.maximum(first - 1, 0)]
        count = np.arange(len(ref)) - first + 1.0
        sizes = _sums(size, first)
        notionals, depths = _sums(notional, first), _sums(depth, first)
        low, high = _extremes(ref, first)
        height = high - low
        columns += [
            (ref / start_ref - 1) * 1e4,
            (ref * count / _sums(ref, first) - 1) * 1e4,
            np.divide(ref * sizes, notionals, out=np.ones(len(ref)), where=notionals > 0) * 1e4 - 1e4,
            np.sqrt(_sums(squares, first)),
            np.divide(ref - low, height, out=np.full(len(ref), 0.5), where=height > 0),
            np.divide(_sums(side * size, first), sizes, out=np.zeros(len(ref)), where=sizes > 0),
            np.divide(
                _sums(flow, first) * _sums(is_quote * 1.0, first), depths, out=np.zeros(len(ref)), where=depths > 0
            ),
            np.log(1 + count / length_s),
        ]
    return columns


def _sums(values: Floats, first: NDArray[np.int64]) -> Floats:
    """Return the sum from ``first[i]`` to ``i`` for each i.

    Differences of running sums, in long double and from a near start, so that they are better than float64.
    """
    out = np.zeros(len(values))
    step = 4096
    for start in range(0, len(values), step):
        stop = min(start + step, len(values))
        origin = first[start]
        running = np.concatenate([[0.0], np.cumsum(values[origin:stop].astype(np.longdouble))])
        out[start:stop] = running[np.arange(start, stop) - origin + 1] - running[first[start:stop] - origin]
    return out


def _extremes(values: Floats, first: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return minimum and maximum from ``first[i]`` to ``i`` for each i, from tables of powers of two."""
    index = np.arange(len(values))
    power = np.log2(index - first + 1).astype(np.int64)
    result = []
    for better in (np.minimum, np.maximum):
        table = values
        out = np.empty(len(values))
        for level in range(int(power.max()) + 1):
            at = power == level
            out[at] = better(table[index[at]], table[first[at] + 2**level - 1])
            table = np.concatenate([table[: 2**level], better(table[2**level :], table[: -(2**level)])])
        result.append(out)
    return result[0], result[1]


def bar_features(ticks: Records, ref: Floats, is_quote: NDArray[np.bool_], periods: Periods) -> list[Floats]:
    """Return twelve columns for each length of bar, ``float64[N]`` each."""
    now_ns = np.maximum.accumulate(ticks["event_ns"])
    first_trade = int(np.argmin(is_quote)) if not is_quote.all() else len(ticks)
    is_before = np.arange(len(ticks)) < first_trade
    price = np.where(is_quote, np.where(is_before, ref, np.nan), ticks["price"])
    columns = []
    for length_s in periods.bars_s:
        interval = now_ns // round(length_s * 1e9)
        # The first trade starts the open bar anew.
        counts = ~np.isnan(price)
        if first_trade < len(ticks):
            counts &= ~(is_before & (interval == interval[first_trade]))
        bars = pd.DataFrame({"price": price[counts]}).groupby(interval[counts])["price"].ohlc()
        rows = over_bars(bars, periods)
        # Of the last bar that had ended when the tick came.
        last = np.searchsorted(bars.index.to_numpy(), interval) - 1
        initial = np.array([0, 0, 50, 0, 0, 0, 0.5, 0, 0, 0, 0.5, 0])
        columns += list(np.where((last >= 0)[:, None], rows[last] if len(rows) else initial, initial).T)
    return columns


def over_bars(bars: pd.DataFrame, p: Periods) -> Floats:
    """Return ``float64[M, 12]`` for M bars, the indicators after each closed bar."""
    close, high, low = (bars[name].to_numpy() for name in ("close", "high", "low"))
    if len(close) == 0:
        return np.zeros((0, 12))
    fast, slow = seeded_ema(close, p.bar_ema_fast), seeded_ema(close, p.bar_ema_slow)
    macd = fast - slow
    started = p.bar_ema_slow - 1
    signal = np.concatenate([np.full(started, np.nan), seeded_ema(macd[started:], p.bar_macd_signal)])[: len(close)]
    mean, sigma = _windows(close, p.bar_bollinger)
    flat = 4 * sigma <= 1e-7 * close
    width = np.where(flat, 1.0, 4 * sigma)
    before = np.concatenate([[np.nan], close[:-1]])
    true_range = np.fmax(high, before) - np.fmin(low, before)
    atr = np.concatenate([[0.0], wilder(true_range[1:], p.bar_atr)])
    lowest = pd.Series(low).rolling(p.bar_channel, min_periods=1).min().to_numpy()
    highest = pd.Series(high).rolling(p.bar_channel, min_periods=1).max().to_numpy()
    height = highest - lowest
    roc = np.zeros(len(close))
    roc[p.bar_roc :] = (close[p.bar_roc :] / close[: -p.bar_roc] - 1) * 1e4
    returns = np.log(close[1:] / close[:-1]) * 1e4
    volatility = np.concatenate([[0.0], _windows(returns, p.bar_volatility)[1]])
    return np.column_stack(
        [
            (close / _windows(close, p.bar_sma)[0] - 1) * 1e4,
            (close / fast - 1) * 1e4,
            rsi(close, p.bar_rsi),
            macd / close * 1e4,
            np.nan_to_num(signal / close * 1e4),
            np.nan_to_num((macd - signal) / close * 1e4),
            np.where(flat, 0.5, (close - mean + 2 * sigma) / width),
            np.where(flat, 0.0, width / mean * 1e4),
            atr / close * 1e4,
            roc,
            np.divide(close - lowest, height, out=np.full(len(close), 0.5), where=height > 0),
            volatility,
        ]
    )


def rsi(ref: Floats, period: int) -> Floats:
    """Return Wilder's RSI after each value; 50 while nothing moved."""
    moves = np.diff(ref)
    parts = (np.maximum(moves, 0), np.maximum(-moves, 0))
    gain, loss = (np.concatenate([[0.0], wilder(part, period)]) for part in parts)
    with np.errstate(invalid="ignore"):
        return np.where(gain + loss > 0, 100 * gain / (gain + loss), 50.0)


def wilder(values: Floats, period: int) -> Floats:
    """Return Wilder's average: an EMA of weight 1/period that starts at the mean of the first ``period`` values."""
    return _started(values, period, 1 / period)


def seeded_ema(values: Floats, period: int) -> Floats:
    """Return the EMA that starts at the mean of the first ``period`` values."""
    return _started(values, period, 2 / (period + 1))


def _started(values: Floats, period: int, alpha: float) -> Floats:
    simple = np.cumsum(values[:period]) / np.arange(1, min(len(values), period) + 1)
    rest = pd.Series(np.concatenate([simple[period - 1 :], values[period:]])).ewm(alpha=alpha, adjust=False).mean()
    return np.concatenate([simple[: period - 1], rest.to_numpy()])


def _windows(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Return mean and population standard deviation of the last ``window`` values (fewer at the start)."""
    if len(values) == 0:
        return values, values
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    return np.nanmean(windows, axis=1), np.nanstd(windows, axis=1)
