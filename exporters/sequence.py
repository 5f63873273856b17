"""Drops the predictions that we already had. Pure: no Kafka, no I/O.

After a crash the engine sends some predictions again, the same to the byte; (symbol, seq) says which. A symbol's
``seq`` counts from 1 without a gap, so one number for each symbol is all the memory that this takes.

A ``seq`` that goes back is one of two things, and the position of the tick behind it (offset and index in the
``ticks`` topic) tells which: a *repetition* points at a tick that was seen before; a *restart* (the engine lost its
state and numbers from 1 again) points at a newer one. Repetitions are dropped, restarts are kept and counted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.records import Records

# (offset << 16) + index orders ticks by where they stand: a block holds at most 4096, an offset stays below 2**47.
_INDEX_BITS = 16

Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Accepted:
    """What was new in some rows, and what was wrong with them."""

    rows: Records  # PREDICTION[M], in the order they came
    duplicates: int = 0  # rows that we already had
    missing: int = 0  # predictions that should stand between two that we got
    restarts: int = 0  # times that a symbol's seq began anew
    fresh: frozenset[bytes] = frozenset()  # symbols that we knew nothing of


class Sequencer:
    """The last ``seq`` of every symbol, by partition: a symbol lives in one."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}

    @property
    def symbols(self) -> int:
        """How many symbols are remembered."""
        return sum(len(lane.slots) for lane in self._lanes.values())

    def accept(self, partition: int, rows: Records) -> Accepted:
        """Return what is new in ``PREDICTION[N]`` rows of one partition, in order of arrival, and remember it.

        The first row of a symbol that is not known is new whatever its seq.
        """
        return self._lanes.setdefault(partition, _Lane()).accept(rows)

    def forget(self, partition: int) -> None:
        """Know nothing of a partition's symbols: somebody else went on with them."""
        self._lanes.pop(partition, None)


class _Slots(dict[bytes, int]):
    def __missing__(self, symbol: bytes) -> int:
        slot = self[symbol] = len(self)
        return slot


class _Lane:
    def __init__(self) -> None:
        self.slots = _Slots()
        self._seq: Int64s = np.zeros(64, np.int64)  # 0: not known
        self._position: Int64s = np.full(64, -1, np.int64)

    def accept(self, rows: Records) -> Accepted:
        known = len(self.slots)
        slots = np.fromiter(map(self.slots.__getitem__, rows["symbol"].tolist()), np.int64, len(rows))
        self._grow()
        order = np.argsort(slots, kind="stable")
        run = _Run(slots[order], rows["seq"][order].astype(np.int64), _positions(rows)[order])
        keep = run.keep(self._seq, self._position)
        kept = run if keep.all() else run.take(keep)
        previous = kept.shifted(kept.seq, self._seq)
        steps = (kept.seq - previous)[previous > 0]
        last = kept.lasts()
        self._seq[kept.slots[last]] = kept.seq[last]
        self._position[kept.slots[last]] = kept.position[last]
        fresh = list(self.slots)[known:] if len(self.slots) > known else ()
        return Accepted(
            rows if kept is run else rows[np.sort(order[keep])],
            duplicates=len(rows) - len(kept.slots),
            missing=int((steps[steps > 1] - 1).sum()),
            restarts=int((steps <= 0).sum()),
            fresh=frozenset(fresh),
        )

    def _grow(self) -> None:
        room = len(self._seq)
        if len(self.slots) > room:
            more = max(room, len(self.slots) - room)
            self._seq = np.concatenate([self._seq, np.zeros(more, np.int64)])
            self._position = np.concatenate([self._position, np.full(more, -1, np.int64)])


@dataclass(frozen=True)
class _Run:
    """Rows grouped by symbol, in order of arrival within each."""

    slots: Int64s
    seq: Int64s
    position: Int64s

    def take(self, keep: NDArray[np.bool_]) -> "_Run":
        return _Run(self.slots[keep], self.seq[keep], self.position[keep])

    def firsts(self) -> NDArray[np.bool_]:
        return np.concatenate([np.ones(min(1, len(self.slots)), bool), self.slots[1:] != self.slots[:-1]])

    def lasts(self) -> NDArray[np.bool_]:
        return np.concatenate([self.slots[1:] != self.slots[:-1], np.ones(min(1, len(self.slots)), bool)])

    def shifted(self, values: Int64s, before: Int64s) -> Int64s:
        """The value of the row before in the same group; of the memory, where there is none."""
        previous = np.concatenate([values[:0] if len(values) == 0 else values[:1], values[:-1]])
        return np.where(self.firsts(), before[self.slots], previous)

    def keep(self, seq: Int64s, position: Int64s) -> NDArray[np.bool_]:
        """Which rows are new, given the last seq and position of each slot."""
        keep = self.seq > self.shifted(self.seq, seq)
        if keep.all():
            return keep
        # Something came again. Only its symbols are looked at row by row: new is what exceeds all before it.
        starts = np.flatnonzero(self.firsts())
        stops = np.append(starts[1:], len(self.slots))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            if not keep[start:stop].all():
                slot = self.slots[start]
                newer = self.seq[start:stop] > _running_max(seq[slot], self.seq[start:stop])
                keep[start:stop] = newer | (
                    self.position[start:stop] > _running_max(position[slot], self.position[start:stop])
                )
        return keep


def _running_max(first: np.int64, values: Int64s) -> Int64s:
    """The greatest of ``first`` and all values before each."""
    return np.maximum.accumulate(np.concatenate([[first], values]))[:-1]


def _positions(rows: Records) -> Int64s:
    positions: Int64s = (rows["source_offset"].astype(np.int64) << _INDEX_BITS) + rows["source_index"]
    return positions
