"""Training data from recorded ticks: the engine's own features, and labels by event time.

The features come from the same compiled kernel that serves live (`agents.windows.Windows`), so there is no second
implementation that could drift. A label looks ahead by the horizon and no further, and is only known where the
recording reaches that far: nothing is filled in.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.history import ANY_FUTURE_NS, roll
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from stream.records import Records

_BPS: Final = 1e4

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class HistoryRows:
    """What the engine knew after each accepted tick of a recording, in order of arrival. A = accepted ticks."""

    features: NDArray[np.float32]  # [A, features.COUNT]
    symbol_row: Integers  # [A] index into ``symbols``
    event_ns: Integers  # [A] newest event time of the symbol so far: never falls
    ref_price: NDArray[np.float64]  # [A]
    symbols: tuple[str, ...]
    data_sha256: str  # of all ticks read, accepted or not


@dataclass(frozen=True)
class Labels:
    """What came of each row. A = rows."""

    known: NDArray[np.bool_]  # [A] the recording reaches to the horizon
    direction: Integers  # [A] 0 down, 1 flat, 2 up; 0 where not known
    return_bps: NDArray[np.float32]  # [A] clipped; 0 where not known


@dataclass(frozen=True)
class Streams:
    """Pieces of symbols' histories, side by side, for training with carried state. S = pieces, T = longest."""

    features: NDArray[np.float32]  # [S, T, features.COUNT]
    direction: Integers  # [S, T]
    return_bps: NDArray[np.float32]  # [S, T]
    weight: NDArray[np.float32]  # [S, T] 1 where the label counts, else 0


def history(ticks: Records | Iterable[Records], lateness_ns: int, periods: Periods = DEFAULT) -> HistoryRows:
    """Run the engine's kernel over a recording.

    Args:
        ticks: ``TICK[N]`` in order of arrival, whole or in chunks of any size.
        lateness_ns: as the engine that will serve has it.
        periods: likewise.
    """
    windows = Windows(lateness_ns, ANY_FUTURE_NS, periods=periods)
    digest = hashlib.sha256()
    rows, symbol_rows, events, refs = [], [], [], []
    for chunk, step in roll(ticks, windows):
        digest.update(chunk.tobytes())
        rows.append(step.features.copy())
        symbol_rows.append(step.rows.copy())
        refs.append(step.ref.copy())
        events.append(chunk["event_ns"][step.index])
    symbol_row = np.concatenate([np.zeros(0, np.int64), *symbol_rows])
    return HistoryRows(
        features=np.concatenate([np.zeros((0, features.COUNT), np.float32), *rows]),
        symbol_row=symbol_row,
        event_ns=_never_falling(np.concatenate([np.zeros(0, np.int64), *events]), symbol_row),
        ref_price=np.concatenate([np.zeros(0), *refs]),
        symbols=tuple(symbol.decode("ascii") for symbol in windows.states["symbol"][: windows.count]),
        data_sha256=digest.hexdigest(),
    )


def label(rows: HistoryRows, horizon_ns: int, dead_band_bps: float, clip_bps: float) -> Labels:
    """Compare each row's reference price with the one that stood ``horizon_ns`` of event time later.

    The later price is that of the symbol's last row at or before that time. Rows whose horizon lies beyond the
    symbol's last row have no label: what came after is not known.

    Args:
        rows: A rows.
        horizon_ns: > 0.
        dead_band_bps: a return within +- this is "flat".
        clip_bps: returns are cut off at +- this, for one wild print must not rule a regression.
    """
    known = np.zeros(len(rows.event_ns), np.bool_)
    change_bps = np.zeros(len(rows.event_ns))
    for where in by_symbol(rows.symbol_row):
        event_ns, ref = rows.event_ns[where], rows.ref_price[where]
        later_ns = event_ns + horizon_ns
        later = np.searchsorted(event_ns, later_ns, side="right") - 1
        known[where] = later_ns <= event_ns[-1]
        change_bps[where] = (ref[later] / ref - 1.0) * _BPS
    change_bps[~known] = 0.0
    direction = 1 + (change_bps > dead_band_bps).astype(np.int64) - (change_bps < -dead_band_bps)
    direction[~known] = 0
    return Labels(known, direction, np.clip(change_bps, -clip_bps, clip_bps).astype(np.float32))


def cut_streams(
    rows: HistoryRows,
    labels: Labels,
    inside: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    pieces: int,
    burn_in: int,
) -> Streams:
    """Cut the rows inside a span into about ``pieces`` pieces of consecutive rows of one symbol each.

    Args:
        rows: A rows.
        labels: their labels.
        inside: ``bool[A]``: the span.
        counts: ``bool[A]``: the rows of the span whose labels may be used.
        pieces: at least as many as there are symbols come out.
        burn_in: rows at the start of a piece that only build state up, as a piece starts with none.
    """
    length = max(1, -(-int(inside.sum()) // pieces))
    parts = [
        where[start : start + length]
        for where in (group[inside[group]] for group in by_symbol(rows.symbol_row))
        for start in range(0, len(where), length)
    ]
    shape = (len(parts), max((len(part) for part in parts), default=0))
    streams = Streams(
        np.zeros((*shape, rows.features.shape[1]), np.float32),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    weighs = labels.known & counts
    for piece, part in enumerate(parts):
        size = len(part)
        streams.features[piece, :size] = rows.features[part]
        streams.direction[piece, :size] = labels.direction[part]
        streams.return_bps[piece, :size] = labels.return_bps[part]
        streams.weight[piece, burn_in:size] = weighs[part[burn_in:]]
    return streams


def by_symbol(symbol_row: Integers) -> Iterator[Integers]:
    """Yield the indices of each symbol's rows, in order of arrival."""
    order = np.argsort(symbol_row, kind="stable")
    starts = np.flatnonzero(np.diff(symbol_row[order], prepend=-1))
    yield from np.split(order, starts[1:]) if len(order) else ()


def rounds_of(symbol_row: Integers) -> Integers:
    """Return how many rows of the same symbol stand before each row, ``int64[A]``."""
    rounds = np.zeros(len(symbol_row), np.int64)
    for where in by_symbol(symbol_row):
        rounds[where] = np.arange(len(where))
    return rounds


def _never_falling(event_ns: Integers, symbol_row: Integers) -> Integers:
    newest = event_ns.copy()
    for where in by_symbol(symbol_row):
        newest[where] = np.maximum.accumulate(event_ns[where])
    return newest
