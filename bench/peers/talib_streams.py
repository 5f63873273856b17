"""Peer: TA-Lib's streaming API, C handles that take one value after another: all of our features that it offers.

These are the 38 of `talipp_indicators`, for the same reasons: it has no windows by time and no book. It gets the
reference price, and bars when they close.

A handle is opened on a history: the symbol's first ticks, which are not measured, and its first bars, which are.
"""

from collections.abc import Sequence
from math import log
from typing import Any, Final

import numpy as np
from talib import stream

from bench.markets import load_trail
from bench.peers.meter import Job, Meter
from bench.peers.price_bars import BARS_S, Bar, BarMaker

_HISTORY: Final = 128
_VALUES: Final = ("ema_12", "ema_26", "rsi_14")

Trail = list[tuple[int, float, float | None]]


class Prices:
    """Handles on one series of prices: of ticks, or of closes."""

    def __init__(self, prices: Sequence[float], sma: int, volatility: int, rocs: tuple[int, ...]) -> None:
        closes = np.array(prices)
        changes_bps = np.concatenate([[0.0], np.log(closes[1:] / closes[:-1]) * 1e4])
        self.count, self.last = len(prices), float(prices[-1])
        self._names = (f"sma_{sma}", *_VALUES, *(f"roc_{period}" for period in rocs))
        self._handles: tuple[Any, ...] = (
            stream.SMA(closes, sma),
            stream.EMA(closes, 12),
            stream.EMA(closes, 26),
            stream.RSI(closes, 14),
            *(stream.ROC(closes, period) for period in rocs),
            stream.MACD(closes, 12, 26, 9),
            stream.BBANDS(closes, 20, 2.0, 2.0),
        )
        self._updates = tuple(handle.update for handle in self._handles)
        self._volatility, self._volatility_name = (
            stream.STDDEV(changes_bps, volatility, 1.0),
            f"volatility_{volatility}_bps",
        )

    def add(self, price: float) -> None:
        """Take the next price."""
        for update in self._updates:
            update(price)
        self._volatility.update(log(price / self.last) * 1e4)
        self.last = price
        self.count += 1

    def values(self) -> dict[str, Any]:
        """Return the values after the last price."""
        *plain, macd, bands = (handle.value for handle in self._handles)
        found = dict(zip(self._names, plain, strict=True)) | {self._volatility_name: self._volatility.value}
        found |= {"macd": macd[0], "macd_signal": macd[1], "macd_histogram": macd[2]}
        return found | {"bollinger_lower": bands[2], "bollinger_upper": bands[0]}


class Bars:
    """Bars of one length, and the handles on them once there are enough."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._maker, self._first = BarMaker(length_s), list[Bar]()
        self._closes: Prices | None = None
        self._high: Any = None
        self._low: Any = None
        self._atr: Any = None

    def add(self, now_ns: int, ref: float, price: float | None) -> None:
        """Take a tick."""
        bar = self._maker.add(now_ns, ref, price)
        if bar is None:
            return
        _, high, low, close = bar
        if self._closes is not None:
            self._closes.add(close)
            self._high.update(high)
            self._low.update(low)
            self._atr.update(high, low, close)
            return
        self._first.append(bar)
        if len(self._first) == _HISTORY:
            self._open()

    def _open(self) -> None:
        _, highs, lows, closes = np.array(self._first).T.copy()
        self._closes = Prices(closes, 20, 20, (10,))
        self._high, self._low = stream.MAX(highs, 20), stream.MIN(lows, 20)
        self._atr = stream.ATR(highs, lows, closes, 14)

    def values(self) -> dict[str, Any]:
        """Return the values after the last bar; nothing before there are enough."""
        if self._closes is None:
            return {}
        own = {"bars": self._closes.count, "close": self._closes.last, "atr_14": self._atr.value}
        return self._closes.values() | own | {"high_20": self._high.value, "low_20": self._low.value}


class Symbol:
    """The handles of one symbol."""

    def __init__(self, history: Trail) -> None:
        refs = [ref for _, ref, _ in history]
        self._now_ns = 0
        self._ticks = Prices(refs, 32, 64, (1, 8, 64))
        self._high, self._low = stream.MAX(np.array(refs), 64), stream.MIN(np.array(refs), 64)
        self._bars = tuple(Bars(length_s) for length_s in BARS_S)
        for tick in history:
            self._add_to_bars(*tick)

    def add(self, event_ns: int, ref: float, price: float | None) -> None:
        """Take a tick."""
        self._ticks.add(ref)
        self._high.update(ref)
        self._low.update(ref)
        self._add_to_bars(event_ns, ref, price)

    def _add_to_bars(self, event_ns: int, ref: float, price: float | None) -> None:
        self._now_ns = max(self._now_ns, event_ns)
        for bars in self._bars:
            bars.add(self._now_ns, ref, price)

    def values(self) -> dict[str, Any]:
        """Return the values after the last tick."""
        found = self._ticks.values() | {"high_64": self._high.value, "low_64": self._low.value}
        bars = {f"{each.length_s:g}": each.values() for each in self._bars}
        return found | {"ticks": self._ticks.count, "ref": self._ticks.last, "over_bars": bars}


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    histories: dict[str, Trail] = {}
    rest: list[tuple[str, int, float, float | None]] = []
    for name, event_ns, ref, price in load_trail(job.market, job.limit_ticks):
        history = histories.setdefault(name, [])
        if len(history) < _HISTORY:
            history.append((event_ns, ref, price))
        else:
            rest.append((name, event_ns, ref, price))
    symbols = {name: Symbol(history) for name, history in histories.items() if len(history) == _HISTORY}
    meter = Meter(job)
    meter.start()
    for name, event_ns, ref, price in rest:
        symbols[name].add(event_ns, ref, price)
        if meter.tick():
            break
    meter.finish({name: symbol.values() for name, symbol in symbols.items()})


if __name__ == "__main__":
    main(Job.from_argv())
