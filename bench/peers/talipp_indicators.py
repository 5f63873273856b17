"""Peer: talipp, whose indicators take one value after another. It has no quotes: it gets the reference price.

Its lists of inputs and outputs grow for ever; they are let grow here, as purging costs time.
"""

from math import log
from typing import Any

from talipp.indicators import BB, EMA, MACD, RSI, SMA, StdDev

from bench.markets import load_refs
from bench.peers.meter import Job, Meter


class Symbol:
    """The indicators of one symbol."""

    def __init__(self) -> None:
        self.ticks = 0
        self.ref = 0.0
        self.sma_32, self.ema_12, self.ema_26 = SMA(32), EMA(12), EMA(26)
        self.rsi_14, self.macd, self.bollinger = RSI(14), MACD(12, 26, 9), BB(20, 2.0)
        self.volatility_64 = StdDev(64)
        self._all = (self.sma_32, self.ema_12, self.ema_26, self.rsi_14, self.macd, self.bollinger)

    def add(self, ref: float) -> None:
        """Take a tick."""
        for indicator in self._all:
            indicator.add(ref)
        self.volatility_64.add(log(ref / self.ref) * 1e4 if self.ticks else 0.0)
        self.ref = ref
        self.ticks += 1

    def values(self) -> dict[str, Any]:
        """Return the values after the last tick; nothing before all windows are full."""
        if self.volatility_64[-1] is None:
            return {}
        macd, band = self.macd[-1], self.bollinger[-1]
        return {
            "ticks": self.ticks,
            "ref": self.ref,
            "sma_32": self.sma_32[-1],
            "ema_12": self.ema_12[-1],
            "ema_26": self.ema_26[-1],
            "rsi_14": self.rsi_14[-1],
            "macd": macd.macd,
            "macd_histogram": macd.histogram,
            "bollinger_lower": band.lb,
            "bollinger_upper": band.ub,
            "volatility_64_bps": self.volatility_64[-1],
        }


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    ticks = load_refs(job.market, job.limit_ticks)
    symbols = {name: Symbol() for name, _ in ticks}
    meter = Meter(job)
    meter.start()
    for name, ref in ticks:
        symbols[name].add(ref)
        if meter.tick():
            break
    meter.finish({name: symbol.values() for name, symbol in symbols.items()})


if __name__ == "__main__":
    main(Job.from_argv())
