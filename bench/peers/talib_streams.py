"""Peer: TA-Lib's streaming API, C handles that take one value after another. It gets the reference price.

A handle is opened on a history, which is the symbol's first ticks; these are not measured.
"""

from math import log
from typing import Any, Final

import numpy as np
from talib import stream

from bench.markets import load_refs
from bench.peers.meter import Job, Meter

_HISTORY_TICKS: Final = 128


class Symbol:
    """The handles of one symbol."""

    def __init__(self, history: list[float]) -> None:
        refs = np.array(history)
        returns_bps = np.concatenate([[0.0], np.log(refs[1:] / refs[:-1]) * 1e4])
        self.ticks, self.ref = len(history), history[-1]
        self._handles: tuple[Any, ...] = (
            stream.SMA(refs, 32),
            stream.EMA(refs, 12),
            stream.EMA(refs, 26),
            stream.RSI(refs, 14),
            stream.MACD(refs, 12, 26, 9),
            stream.BBANDS(refs, 20, 2.0, 2.0),
        )
        self._updates = tuple(handle.update for handle in self._handles)
        self._volatility = stream.STDDEV(returns_bps, 64, 1.0)

    def add(self, ref: float) -> None:
        """Take a tick."""
        for update in self._updates:
            update(ref)
        self._volatility.update(log(ref / self.ref) * 1e4)
        self.ref = ref
        self.ticks += 1

    def values(self) -> dict[str, Any]:
        """Return the values after the last tick."""
        sma_32, ema_12, ema_26, rsi_14, macd, bands = (handle.value for handle in self._handles)
        return {
            "ticks": self.ticks,
            "ref": self.ref,
            "sma_32": sma_32,
            "ema_12": ema_12,
            "ema_26": ema_26,
            "rsi_14": rsi_14,
            "macd": macd[0],
            "macd_histogram": macd[2],
            "bollinger_lower": bands[2],
            "bollinger_upper": bands[0],
            "volatility_64_bps": self._volatility.value,
        }


def main(job: Job) -> None:
    """Measure until the job's limits are reached."""
    histories: dict[str, list[float]] = {}
    rest = []
    for name, ref in load_refs(job.market, job.limit_ticks):
        history = histories.setdefault(name, [])
        if len(history) < _HISTORY_TICKS:
            history.append(ref)
        else:
            rest.append((name, ref))
    symbols = {name: Symbol(history) for name, history in histories.items() if len(history) == _HISTORY_TICKS}
    meter = Meter(job)
    meter.start()
    for name, ref in rest:
        symbols[name].add(ref)
        if meter.tick():
            break
    meter.finish({name: symbol.values() for name, symbol in symbols.items()})


if __name__ == "__main__":
    main(Job.from_argv())
