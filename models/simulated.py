"""The recording that the first model is trained on: simulated markets side by side, busy ones and quiet ones.

A model that has only seen one market is sure of itself and wrong in another that ticks ten times as often.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from stream.clock import NS_PER_S
from stream.records import Records
from stream.sources.simulator import Simulator, symbol_names

# (symbols, ticks a second of all of them): from 2 to some 300 ticks a second and symbol.
MARKETS: Final = ((20, 500.0), (20, 100.0), (3, 300.0), (50, 250.0), (6, 1000.0))
TICKS_PER_S: Final = sum(rate for _, rate in MARKETS)

_START_NS: Final = 1_700_000_000 * NS_PER_S
_SLICE_NS: Final = 10 * NS_PER_S
_SEEDS: Final = 1_000  # seeds of markets are 1,000 x seed + 1, ...: none is the default seed of a demo


def simulated_markets(seed: int, seconds: float) -> Iterator[Records]:
    """Yield ``TICK[N]`` chunks of all markets, slice after slice of simulated time, each symbol in order.

    Args:
        seed: > 0; the same seed gives the same ticks.
        seconds: of simulated time, about `TICKS_PER_S` ticks each.
    """
    markets = [
        Simulator([f"{name}.{number}" for name in symbol_names(count)], _SEEDS * seed + number, _START_NS, rate)
        for number, (count, rate) in enumerate(MARKETS, start=1)
    ]
    end_ns = _START_NS + int(seconds * NS_PER_S)
    for slice_ns in range(_START_NS + _SLICE_NS, end_ns + _SLICE_NS, _SLICE_NS):
        yield np.concatenate([ticks for market in markets for ticks in _until(market, min(slice_ns, end_ns))])


def _until(market: Simulator, end_ns: int) -> Iterator[Records]:
    limit = 65_536
    while len(ticks := market.until(end_ns, limit)):
        yield ticks
        if len(ticks) < limit:
            break
