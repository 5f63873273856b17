"""The ticks that the benches run on, and how peers get at them."""

import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.windows import Windows
from stream.clock import NS_PER_S
from stream.records import Records, TickKind
from stream.sources.replay import Replay
from stream.sources.simulator import Simulator, symbol_names

LATENESS_NS: Final = 5 * NS_PER_S
FUTURE_NS: Final = 5 * NS_PER_S
_CHUNK_TICKS: Final = 65_536
# Simulated ticks a second of all symbols: with 10,000 of them a symbol ticks once in 5 seconds on the average.
_SIMULATED_RATE_PER_S: Final = 2_000.0

Optional = float | None
Tick = tuple[str, int, Optional, Optional, int | None, Optional, Optional, Optional, Optional]
TICK_NAMES: Final = ("symbol", "event_ns", "price", "size", "side", "bid", "ask", "bid_size", "ask_size")


def recorded_day(directory: Path, day: str, limit: int | None) -> Records:
    """Return a recorded day, ``TICK[N]``, as far as the engine accepts its ticks: peers do not check theirs.

    Raises:
        SourceError: there is no such day.
    """
    ticks = next(Replay([directory], date.fromisoformat(day)).days())
    ticks["recv_ns"] = ticks["event_ns"]
    return accepted(ticks if limit is None else ticks[:limit])


def simulated(symbols: int, count: int) -> Records:
    """Return ``TICK[count]`` of the simulator: the n-th symbol is n**0.6 times less active than the first."""
    start_ns = 1_700_000_000 * NS_PER_S
    return accepted(Simulator(symbol_names(symbols), 7, start_ns, _SIMULATED_RATE_PER_S).chunk(count))


def accepted(ticks: Records) -> Records:
    """Return the ticks that the engine accepts; without the others, it accepts all of them."""
    while True:
        windows = Windows(LATENESS_NS, FUTURE_NS)
        keep = np.concatenate(
            [windows.step(chunk, offsets).reason.copy() == 0 for chunk, offsets in chunks(ticks, _CHUNK_TICKS)]
        )
        if keep.all():
            return ticks
        ticks = ticks[keep]


def chunks(ticks: Records, size: int) -> Iterator[tuple[Records, NDArray[np.int64]]]:
    """Yield ticks in chunks, each with the offset that `Windows.step` wants: the number of the chunk."""
    for number, start in enumerate(range(0, len(ticks), size)):
        chunk = ticks[start : start + size]
        yield chunk, np.full(len(chunk), number, np.int64)


def again(ticks: Records, passes: int) -> Records:
    """Return the same ticks several times over, each pass later than the one before it."""
    span_ns = int(ticks["event_ns"].max() - ticks["event_ns"].min()) + NS_PER_S
    rounds = [ticks.copy() for _ in range(passes)]
    for number, each in enumerate(rounds):
        each["source_seq"] += np.uint64(number * int(ticks["source_seq"].max()))
        each["event_ns"] += number * span_ns
        each["recv_ns"] += number * span_ns
    return np.concatenate(rounds)


def reference_prices(ticks: Records) -> NDArray[np.float64]:
    """Return the reference price after each tick, ``float64[N]``."""
    windows = Windows(LATENESS_NS, FUTURE_NS)
    return np.concatenate([windows.step(*each).ref.copy() for each in chunks(ticks, _CHUNK_TICKS)])


def after(ticks: Records) -> tuple[float, NDArray[np.float64]]:
    """Return what the engine has after the last tick: the reference price, and the features before rounding."""
    windows = Windows(LATENESS_NS, FUTURE_NS)
    ref = math.nan
    for chunk, offsets in chunks(ticks, _CHUNK_TICKS):
        ref = float(windows.step(chunk, offsets).ref[-1])
    return ref, windows.exact


def save(path: Path, ticks: Records, refs: NDArray[np.float64]) -> None:
    """Write a market for `load_ticks` and `load_trail`."""
    np.savez(path, ticks=ticks, refs=refs)


def load_ticks(path: str, limit: int) -> list[Tick]:
    """Return the ticks of a market as `ticks_of` has them."""
    with np.load(path) as market:
        return list(ticks_of(market["ticks"][:limit]))


def load_trail(path: str, limit: int) -> list[tuple[str, int, float, float | None]]:
    """Return symbol, event time, reference price and, for trades, the price of each tick, for peers that know no
    quotes."""
    with np.load(path) as market:
        refs = market["refs"][:limit].tolist()
        ticks = ticks_of(market["ticks"][:limit])
        return [(tick[0], tick[1], ref, tick[2]) for tick, ref in zip(ticks, refs, strict=True)]


def ticks_of(ticks: Records) -> Iterator[Tick]:
    """Yield `TICK_NAMES` of each tick; None where the tick does not tell. Only a trade has a price."""
    is_quote = ticks["kind"] != TickKind.TRADE
    columns = [ticks["symbol"].astype("U").tolist(), ticks["event_ns"].tolist()]
    for name in ("price", "size", "side", "bid", "ask", "bid_size", "ask_size"):
        values = ticks[name].astype(object)
        values[is_quote if name in ("price", "size", "side") else ~is_quote | np.isnan(ticks[name])] = None
        columns.append(values.tolist())
    yield from zip(*columns, strict=True)


def json_ticks(ticks: Records) -> Iterator[dict[str, Any]]:
    """Yield each tick as people write it in JSON: what it tells, and no more. A side of 0 tells nothing."""
    for tick in ticks_of(ticks):
        told = {name: value for name, value in zip(TICK_NAMES, tick, strict=True) if value is not None}
        if told.get("side") == 0:
            del told["side"]
        yield told
