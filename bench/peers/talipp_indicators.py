"""Peer: talipp, whose indicators take one value after another: all of our features that it has indicators for.

These are 14 of the 24 by count of ticks and all over bars, 38 of 80. It has nothing that looks at a book or at
single trades, and no window by time: its VWAP is over everything, its sampling by time makes one value of a period.
It gets the reference price, and bars when they close: its own sampling would compute every bar indicator anew at
each tick.

Its lists of inputs and outputs grow for ever; they are let grow here, as purging costs time.
"""

from math import log
from typing import Any

from talipp.indicators import ATR, BB, EMA, MACD, ROC, RSI, SMA, DonchianChannels, StdDev
from talipp.ohlcv import OHLCV

from bench.markets import load_trail
from bench.peers.meter import Job, Meter
from bench.peers.price_bars import BARS_S, Bar, BarMaker


class Prices:
    """Indicators over one series of prices: of ticks, or of closes."""

    def __init__(self, sma: int, volatility: int, channel: int, rocs: tuple[int, ...]) -> None:
        self.count, self._last = 0, 0.0
        self._by_name: dict[str, Any] = {
            f"sma_{sma}": SMA(sma),
            "ema_12": EMA(12),
            "ema_26": EMA(26),
            "rsi_14": RSI(14),
            "macd": MACD(12, 26, 9),
            "bollinger": BB(20, 2.0),
        } | {f"roc_{period}": ROC(period) for period in rocs}
        self._all = tuple(self._by_name.values())
        self._volatility, self._channel = StdDev(volatility), DonchianChannels(channel)
        self._longest = max(sma, volatility, channel, 26 + 9, *rocs)
        self._names = f"volatility_{volatility}_bps", f"low_{channel}", f"high_{channel}"

    def add(self, price: float, bar: OHLCV) -> None:
        """Take the next price."""
        for indicator in self._all:
            indicator.add(price)
        self._volatility.add(log(price / self._last) * 1e4 if self.count else 0.0)
        self._channel.add(bar)
        self._last = price
        self.count += 1

    def values(self) -> dict[str, Any]:
        """Return the values after the last price; nothing before all windows are full."""
        if self.count <= self._longest:
            return {}
        macd = self._by_name["macd"][-1]
        found = {name: each[-1] for name, each in self._by_name.items() if name not in ("macd", "bollinger")}
        band, channel = self._by_name["bollinger"][-1], self._channel[-1]
        found |= {"macd": macd.macd, "macd_signal": macd.signal, "macd_histogram": macd.histogram}
        found |= {"bollinger_lower": band.lb, "bollinger_upper": band.ub}
        return found | dict(zip(self._names, (self._volatility[-1], channel.lb, channel.ub), strict=True))


class Bars:
    """Bars of one length, and the indicators over them."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._maker, self._closes, self._atr = BarMaker(length_s), Prices(20, 20, 20, (10,)), ATR(14)
        self._close = 0.0

    def add(self, now_ns: int, ref: float, price: float | None) -> None:
        """Take a tick."""
        bar = self._maker.add(now_ns, ref, price)
        if bar is not None:
            self._add_bar(bar)

    def _add_bar(self, bar: Bar) -> None:
        self._close = bar[3]
        ohlcv = OHLCV(*bar)
        self._closes.add(self._close, ohlcv)
        self._atr.add(ohlcv)

    def values(self) -> dict[str, Any]:
        """Return the values after the last bar."""
        found = self._closes.values()
        if not found:
            return {}
        return found | {"bars": self._closes.count, "close": self._close, "atr_14": self._atr[-1]}


class Symbol:
    """The indicators of one symbol."""

    def __init__(self) -> None:
        self._ref, self._now_ns = 0.0, 0
        self._ticks = Prices(32, 64, 64, (1, 8, 64))
        self._bars = tuple(Bars(length_s) for length_s in BARS_S)

    def add(self, event_ns: int, ref: float, price: float | None) -> None:
        """Take a tick."""
        self._now_ns = max(self._now_ns, event_ns)
        self._ref = ref
        self._ticks.add(ref, OHLCV(ref, ref, ref, ref))
        for bars in self._bars:
            bars.add(self._now_ns, ref, price)

    def values(self) -> dict[str, Any]:
        """Return the values after the last tick; nothing before all windows of ticks are full."""
        found = self._ticks.values()
        bars = {f"{each.length_s:g}": each.values() for each in self._bars}
        return found and found | {"ticks": self._ticks.count, "ref": self._ref, "over_bars": bars}


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    ticks = load_trail(job.market, job.limit_ticks)
    symbols = {name: Symbol() for name, *_ in ticks}
    meter = Meter(job)
    meter.start()
    for name, event_ns, ref, price in ticks:
        symbols[name].add(event_ns, ref, price)
        if meter.tick():
            break
    meter.finish({name: symbol.values() for name, symbol in symbols.items()})


if __name__ == "__main__":
    main(Job.from_argv())
