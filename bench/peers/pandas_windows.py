"""Peer: pandas, called at each tick on the symbol's last prices, as notebooks that went live do.

It gets the reference price, and makes 14 of our features by count of ticks: bars, books, windows by time would be
whole tables to be computed at each tick.

An EMA needs more history than its period: 512 prices leave less than 1e-15 of what came before them.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.markets import load_trail
from bench.peers.meter import Job, Meter

_HISTORY_TICKS: Final = 512


def indicators(refs: "pd.Series[float]") -> dict[str, "pd.Series[float]"]:
    """Return the indicators at each price of a series, by their usual pandas formulas."""
    change = refs.diff()
    gain = change.clip(lower=0.0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-change.clip(upper=0.0)).ewm(alpha=1 / 14, adjust=False).mean()
    ema_12, ema_26 = refs.ewm(span=12, adjust=False).mean(), refs.ewm(span=26, adjust=False).mean()
    macd = ema_12 - ema_26
    middle, sigma = refs.rolling(20).mean(), refs.rolling(20).std(ddof=0)
    returns_bps = pd.Series(np.log(refs / refs.shift()) * 1e4)
    signal = macd.ewm(span=9, adjust=False).mean()
    return {
        "ref": refs,
        "sma_32": refs.rolling(32).mean(),
        "ema_12": ema_12,
        "ema_26": ema_26,
        "rsi_14": 100.0 * gain / (gain + loss),
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": macd - signal,
        "bollinger_lower": middle - 2.0 * sigma,
        "bollinger_upper": middle + 2.0 * sigma,
        "volatility_64_bps": returns_bps.rolling(64).std(ddof=0),
        "low_64": refs.rolling(64).min(),
        "high_64": refs.rolling(64).max(),
    } | {f"roc_{ticks}": (refs / refs.shift(ticks) - 1.0) * 100.0 for ticks in (1, 8, 64)}


def newest(count: int, window: NDArray[np.float64]) -> dict[str, Any]:
    """Return the values after a symbol's ``count``-th tick, from the last prices."""
    columns = indicators(pd.Series(window))
    return {"ticks": count} | {name: float(column.iloc[-1]) for name, column in columns.items()}


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    ticks = load_trail(job.market, job.limit_ticks)
    windows = {name: np.empty(0) for name, *_ in ticks}
    counts = dict.fromkeys(windows, 0)
    last: dict[str, dict[str, Any]] = {}
    meter = Meter(job)
    meter.start()
    for name, _, ref, _ in ticks:
        windows[name] = np.append(windows[name], ref)[-_HISTORY_TICKS:]
        counts[name] += 1
        last[name] = newest(counts[name], windows[name])
        if meter.tick():
            break
    meter.finish(last)


if __name__ == "__main__":
    main(Job.from_argv())
