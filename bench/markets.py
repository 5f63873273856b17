"""The ticks that the benches run on, and how peers get at them."""

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

Prices = tuple[str, float | None, float | None, float | None, float | None, float | None]


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


def reference(ticks: Records, names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Return what the engine has after each tick: ``ref``, and the features of these names; float64[N] each."""
    from agents import features

    columns = features.indices(names)
    windows = Windows(LATENESS_NS, FUTURE_NS)
    refs, rows = [], []
    for chunk, offsets in chunks(ticks, _CHUNK_TICKS):
        step = windows.step(chunk, offsets)
        refs.append(step.ref.copy())
        rows.append(step.features[:, columns].astype(np.float64))
    table = np.concatenate(rows)
    return {"ref": np.concatenate(refs)} | {name: table[:, at] for at, name in enumerate(names)}


def save(path: Path, ticks: Records, refs: NDArray[np.float64]) -> None:
    """Write a market for `load_ticks` and `load_refs`."""
    np.savez(path, ticks=ticks, refs=refs)


def load_ticks(path: str, limit: int) -> list[Prices]:
    """Return the ticks of a market as `prices_of` has them."""
    with np.load(path) as market:
        return list(prices_of(market["ticks"][:limit]))


def load_refs(path: str, limit: int) -> list[tuple[str, float]]:
    """Return the symbol and the reference price of each tick of a market, for peers that know no quotes."""
    with np.load(path) as market:
        symbols = np.char.decode(market["ticks"]["symbol"][:limit], "ascii").tolist()
        return list(zip(symbols, market["refs"][:limit].tolist(), strict=True))


def prices_of(ticks: Records) -> Iterator[Prices]:
    """Yield (symbol, price, bid, ask, bid size, ask size) of each tick; None where the tick does not tell."""
    columns = [ticks["symbol"].astype("U").tolist()]
    for name in ("price", "bid", "ask", "bid_size", "ask_size"):
        values = ticks[name].astype(object)
        values[np.isnan(ticks[name])] = None
        columns.append(values.tolist())
    yield from zip(*columns, strict=True)


def json_ticks(ticks: Records) -> Iterator[dict[str, Any]]:
    """Yield each tick as people write it in JSON."""
    rows = zip(
        prices_of(ticks), ticks["event_ns"].tolist(), ticks["size"].tolist(), ticks["kind"].tolist(), strict=True
    )
    for (symbol, price, bid, ask, bid_size, ask_size), event_ns, size, kind in rows:
        if kind == TickKind.TRADE:
            yield {"symbol": symbol, "event_ns": event_ns, "price": price, "size": size}
        else:
            quote = {"bid": bid, "ask": ask, "bid_size": bid_size, "ask_size": ask_size}
            told = {name: value for name, value in quote.items() if value is not None}
            yield {"symbol": symbol, "event_ns": event_ns} | told
