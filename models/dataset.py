"""Training data from recorded ticks: the engine's own features, and labels by event time.

The features come from the same compiled kernel that serves live (`agents.windows.Windows`), so there is no second
implementation that could drift. A label looks ahead by the horizon and no further, and is only known where the
recording reaches that far: nothing is filled in.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.history import ANY_FUTURE_NS, roll
from agents.periods import DEFAULT, Periods
from agents.validate import OUTLIER_BPS, OUTLIER_SCALE
from agents.windows import Windows
from stream.clock import NS_PER_S
from stream.errors import ModelError
from stream.records import Records

_BPS: Final = 1e4
_NOT_YET: Final = np.iinfo(np.int64).max

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class HistoryRows:
    """What the engine knew after each accepted tick of a recording, in order of arrival. A = accepted ticks."""

    features: NDArray[np.float32]  # [A, features.COUNT]
    symbol_row: Integers  # [A] index into ``symbols``
    event_ns: Integers  # [A] newest event time of the symbol so far: never falls
    ref_price: NDArray[np.float64]  # [A]
    spread_bps: NDArray[np.float32]  # [A] the feature of this name, NaN where a side of the book is not known
    symbols: tuple[str, ...]
    data_sha256: str  # of all ticks read, accepted or not

    def only(self, where: NDArray[np.bool_]) -> "HistoryRows":
        """Return some of the rows, ``bool[A]``; symbols keep their numbers."""
        return replace(
            self,
            features=self.features[where],
            symbol_row=self.symbol_row[where],
            event_ns=self.event_ns[where],
            ref_price=self.ref_price[where],
            spread_bps=self.spread_bps[where],
        )


@dataclass(frozen=True)
class Horizon:
    """How far ahead a label looks: a length of event time, or a number of ticks of the symbol; the other is 0.

    A prediction states its horizon in ns, and what comes of it is joined by event time. A number of ticks has no
    length until they have come, so it is for research: models of it can be trained and judged, and not exported.
    """

    ns: int = 0
    ticks: int = 0

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ModelError: not just one of them is above 0.
        """
        if min(self.ns, self.ticks) < 0 or (self.ns > 0) == (self.ticks > 0):
            raise ModelError(f"a horizon of {self.ns} ns and {self.ticks} ticks; right would be just one above 0")

    def __str__(self) -> str:
        return f"{self.ticks} ticks" if self.ticks else f"{self.ns / NS_PER_S:g} s"


@dataclass(frozen=True)
class Labels:
    """What came of each row. A = rows."""

    known: NDArray[np.bool_]  # [A] the recording reaches to the horizon
    direction: Integers  # [A] 0 down, 1 flat, 2 up; 0 where not known
    return_bps: NDArray[np.float32]  # [A] clipped; 0 where not known
    end_ns: Integers  # [A] event time up to which the label looks; the largest int64 where not known

    def only(self, where: NDArray[np.bool_]) -> "Labels":
        """Return the labels of some rows, ``bool[A]``."""
        return Labels(self.known[where], self.direction[where], self.return_bps[where], self.end_ns[where])


@dataclass(frozen=True)
class Streams:
    """Pieces of symbols' histories, side by side, for training with carried state. S = pieces, T = longest.

    Rows are looked up when they are wanted, and not copied: a day of one busy symbol has 200 MB of features.
    """

    rows: HistoryRows
    labels: Labels
    columns: Integers  # [F] the features that the model takes, in its order
    index: Integers  # [S, T] of the row; 0 where the piece has ended
    weight: NDArray[np.float32]  # [S, T] 1 where the label counts, else 0

    def chunk(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.float32], Integers, NDArray[np.float32], NDArray[np.float32]]:
        """Return features ``float32[S, C, F]``, directions, returns in bps and weights ``[S, C]`` of some steps."""
        index = self.index[:, start:stop]
        features_of = self.rows.features[index[..., None], self.columns]
        return (
            features_of,
            self.labels.direction[index],
            self.labels.return_bps[index],
            self.weight[:, start:stop],
        )


def history(
    ticks: Records | Iterable[Records],
    lateness_ns: int,
    periods: Periods = DEFAULT,
    outlier_bps: float = OUTLIER_BPS,
    outlier_scale: float = OUTLIER_SCALE,
) -> HistoryRows:
    """Run the engine's kernel over a recording.

    Args:
        ticks: ``TICK[N]`` in order of arrival, whole or in chunks of any size.
        lateness_ns: as the engine that will serve has it.
        periods: likewise.
        outlier_bps: likewise; see `agents.validate.Limits`.
        outlier_scale: likewise.
    """
    windows = Windows(
        lateness_ns, ANY_FUTURE_NS, periods=periods, outlier_bps=outlier_bps, outlier_scale=outlier_scale
    )
    digest = hashlib.sha256()
    rows, symbol_rows, events, refs, spreads = [], [], [], [], []
    for chunk, step in roll(ticks, windows):
        digest.update(chunk.tobytes())
        rows.append(step.features.copy())
        symbol_rows.append(step.rows.copy())
        refs.append(step.ref.copy())
        spreads.append(step.spread_bps.copy())
        events.append(chunk["event_ns"][step.index])
    symbol_row = np.concatenate([np.zeros(0, np.int64), *symbol_rows])
    return HistoryRows(
        features=np.concatenate([np.zeros((0, features.COUNT), np.float32), *rows]),
        symbol_row=symbol_row,
        event_ns=never_falling(np.concatenate([np.zeros(0, np.int64), *events]), symbol_row),
        ref_price=np.concatenate([np.zeros(0), *refs]),
        spread_bps=np.concatenate([np.zeros(0, np.float32), *spreads]),
        symbols=tuple(symbol.decode("ascii") for symbol in windows.states["symbol"][: windows.count]),
        data_sha256=digest.hexdigest(),
    )


def label(rows: HistoryRows, horizon: Horizon | int, dead_band_bps: float, clip_bps: float) -> Labels:
    """Compare each row's reference price with the one that stood a horizon later.

    By event time, the later price is that of the symbol's last row at or before that time. Rows whose horizon lies
    beyond the symbol's last row have no label: what came after is not known.

    Args:
        rows: A rows.
        horizon: > 0; a plain number is in ns of event time.
        dead_band_bps: a return within +- this is "flat".
        clip_bps: returns are cut off at +- this, for one wild print must not rule a regression.
    """
    ahead = horizon if isinstance(horizon, Horizon) else Horizon(ns=horizon)
    end_ns = np.full(len(rows.event_ns), _NOT_YET)
    change_bps = np.zeros(len(rows.event_ns))
    for where in by_symbol(rows.symbol_row):
        event_ns, ref = rows.event_ns[where], rows.ref_price[where]
        if ahead.ticks:
            later = np.arange(ahead.ticks, len(where))
            ends_ns = event_ns[later]
        else:
            ends_ns = event_ns[event_ns <= event_ns[-1] - ahead.ns] + ahead.ns
            later = np.searchsorted(event_ns, ends_ns, side="right") - 1
        # Event time never falls, so the rows that have a label are the first ones.
        end_ns[where[: len(later)]] = ends_ns
        change_bps[where[: len(later)]] = (ref[later] / ref[: len(later)] - 1.0) * _BPS
    known = end_ns != _NOT_YET
    direction = 1 + (change_bps > dead_band_bps).astype(np.int64) - (change_bps < -dead_band_bps)
    direction[~known] = 0
    return Labels(known, direction, np.clip(change_bps, -clip_bps, clip_bps).astype(np.float32), end_ns)


def cut_streams(
    rows: HistoryRows,
    labels: Labels,
    columns: Integers,
    inside: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    pieces: int,
    burn_in: int,
) -> Streams:
    """Cut the rows inside a span into about ``pieces`` pieces of consecutive rows of one symbol each.

    State is carried over whatever silence lies between two rows, a session gap included, as lanes carry it.

    Args:
        rows: A rows.
        labels: of them.
        columns: ``int64[F]``: the features that the model takes.
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
    streams = Streams(rows, labels, columns, np.zeros(shape, np.int64), np.zeros(shape, np.float32))
    for piece, part in enumerate(parts):
        streams.index[piece, : len(part)] = part
        streams.weight[piece, burn_in : len(part)] = counts[part[burn_in:]]
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


def never_falling(event_ns: Integers, symbol_row: Integers) -> Integers:
    """Return the newest event time of each row's symbol so far, ``int64[A]``."""
    newest = event_ns.copy()
    for where in by_symbol(symbol_row):
        newest[where] = np.maximum.accumulate(event_ns[where])
    return newest
