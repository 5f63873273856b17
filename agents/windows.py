"""The rolling windows of every symbol of one lane: pure computation, no I/O, no clock, no framework.

`Windows.step` runs one compiled loop over blocks of ticks, in order of arrival, that validates each tick,
updates the symbol's `STATE` row and writes its feature row. The same code serves live, replay and training, and
its results do not depend on how the ticks were cut into blocks.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents import features
from agents.kernel import apply_ticks
from agents.periods import DEFAULT, Periods
from agents.state import STATE
from agents.symbol_table import EMPTY_SLOT, empty_slots, find_slot, home_of, index_symbols
from agents.validate import OUTLIER_BPS, OUTLIER_SCALE, Limits
from stream.errors import InvariantError, SettingsError
from stream.records import SYMBOL_BYTES, TICK, Records, symbol_words

_WORDS: Final = SYMBOL_BYTES // 8
_TICK_WORDS: Final = TICK.itemsize // 8


@dataclass(slots=True)  # frozen, it would take four times as long to make
class Step:
    """What one call of `Windows.step` did. A = accepted ticks, N = its ticks.

    The arrays are views that the next call overwrites.
    """

    features: NDArray[np.float32]  # [A, features.COUNT]
    rows: NDArray[np.int64]  # [A] row of the symbol
    rounds: NDArray[np.int64]  # [A] accepted ticks of the same symbol before this one, in this call
    index: NDArray[np.int64]  # [A] position of the tick in the call
    seq: NDArray[np.uint64]  # [A]
    ref: NDArray[np.float64]  # [A] reference price
    spread_bps: NDArray[np.float32]  # [A] the feature of this name, NaN where a side of the book is not known
    feature_hash: NDArray[np.uint64]  # [A] of the row's bits: as stream/records.py says
    marks: NDArray[np.uint32]  # [A] bits of `Mark`
    reason: NDArray[np.uint8]  # [N] 0 accepted, or another of agents.validate.OUTCOMES
    has_marks: bool  # whether any accepted tick has one

    def only(self, at: NDArray[np.int64]) -> "Step":
        """Return a copy that has only the accepted ticks at ``at``, ``int64[K]``; the rest stays as it is."""
        return dataclasses.replace(self, **{name: getattr(self, name)[at] for name in _BY_ACCEPTED})


_BY_ACCEPTED: Final = ("features", "rows", "rounds", "index", "seq", "ref", "spread_bps", "feature_hash", "marks")


class Windows:
    """The `STATE` rows of one lane."""

    def __init__(
        self,
        lateness_ns: int,
        future_ns: int,
        max_symbols: int = 16_384,
        outcomes: NDArray[np.int64] | None = None,
        *,
        outlier_bps: float = OUTLIER_BPS,
        outlier_scale: float = OUTLIER_SCALE,
        partition: int = 0,
        partitions: int = 1,
        symbols: NDArray[np.bytes_] | None = None,
        periods: Periods = DEFAULT,
    ) -> None:
        """Make room for ``max_symbols``; memory (31 KiB each) is only used once a symbol ticks.

        Args:
            lateness_ns: a tick this much older than the symbol's newest is rejected as late.
            future_ns: a tick whose ``event_ns`` is this much ahead of its own ``recv_ns`` is rejected.
            max_symbols: symbols beyond this are rejected, so that garbage cannot fill the memory.
            outcomes: ``int64[256]``, ticks by outcome (see agents/validate.py), counted up in place.
            outlier_bps: see `agents.validate.Limits`.
            outlier_scale: likewise.
            partition: whose symbols these are.
            partitions: of the topic; symbols of the others are rejected. With 1 there are no others.
            symbols: ``S24[K]``, the only ones that are not rejected; None for any.
            periods: of the indicators.
        """
        self.periods = periods
        self._limits = Limits(lateness_ns, future_ns, float(outlier_bps), float(outlier_scale))
        self.states: Records = np.zeros(max_symbols, STATE)
        self.count = 0
        # Rows that changed since the last checkpoint.
        self.dirty: NDArray[np.bool_] = np.zeros(max_symbols, np.bool_)
        self.outcomes = np.zeros(256, np.int64) if outcomes is None else outcomes
        self._keys = np.zeros((max_symbols, _WORDS), np.uint64)
        self._slots = empty_slots(max_symbols)
        self._home = home_of(partition, partitions, symbols)
        self._touched = np.zeros(max_symbols, np.int64)  # serial of the last call that touched the row
        self._round = np.zeros(max_symbols, np.int64)
        self._serial = 0
        self._periods = periods.record()
        # The features of the last tick, before they are rounded off to float32 and limited.
        self.exact: NDArray[np.float64] = np.zeros(features.COUNT)
        self._reserve(64)

    def load(self, rows: Records) -> None:
        """Take ``STATE[S]`` rows over, as a recovery does, into empty windows.

        Raises:
            InvariantError: there are rows already, a symbol stands twice, or there are more than ``max_symbols``.
            SettingsError: a row was made with other periods.
        """
        other = np.flatnonzero(rows["periods_id"] != self._periods["id"])
        if len(other):
            raise SettingsError(
                f"the state of {rows['symbol'][other[0]].decode()} and of {len(other) - 1} other symbols was made "
                f"with other periods ({rows['periods_id'][other[0]]:016x}) than the settings have "
                f"({self.periods.id:016x}); set the periods back, or rebuild the state by replaying the ticks into "
                "a new application id"
            )
        if self.count or len(rows) > len(self.states) or len(np.unique(rows["symbol"])) != len(rows):
            raise InvariantError(f"{len(rows)} state rows do not fit into {self.count} of {len(self.states)}")
        self.states[: len(rows)] = rows
        self._keys[: len(rows)] = symbol_words(rows["symbol"])
        self.count = len(rows)
        index_symbols(self._keys, self._slots, self.count, self._home)

    def step(self, ticks: Records, offsets: NDArray[np.int64]) -> Step:
        """Apply the ticks of one or more blocks.

        Args:
            ticks: ``TICK[N]`` in order of arrival.
            offsets: ``int64[N]``, the offset of each tick's block in the partition, ascending; a symbol whose
                state has seen a block skips its ticks.

        Raises:
            InvariantError: a feature is not finite, which no accepted tick may bring about.
        """
        size = len(ticks)
        if size > len(self._ticks):
            self._reserve(size)
        # A private copy: aligned and writable, whatever buffer the block came from, so that one compiled
        # version serves all. As bytes: between records numpy looks at every field first, which takes 3 us.
        raw = np.ascontiguousarray(ticks, TICK).view(np.uint8)
        self._tick_bytes[: len(raw)] = raw
        self._serial += 1
        accepted, self.count, finite, all_marks = apply_ticks(
            self._ticks[:size],
            self._tick_words[:size],
            self.states,
            self._keys,
            self._slots,
            self._touched,
            self._round,
            self.dirty,
            self.outcomes,
            self.count,
            self._serial,
            offsets,
            tuple(self._limits),
            tuple(self._home),
            self._periods,
            self.exact,
            self._features,
            self._feature_words,
            self._out_int,
            self._out_seq,
            self._out_ref,
            self._out_spread,
            self._out_marks,
            self._reason,
        )
        if not finite:
            bad = int(np.argmin(np.isfinite(self._features[:accepted]).all(axis=1)))
            raise InvariantError(f"a feature is not finite after {self._ticks[self._out_int[2, bad]]!r}")
        return Step(
            features=self._features[:accepted],
            rows=self._out_int[0, :accepted],
            rounds=self._out_int[1, :accepted],
            index=self._out_int[2, :accepted],
            seq=self._out_seq[0, :accepted],
            feature_hash=self._out_seq[1, :accepted],
            ref=self._out_ref[:accepted],
            spread_bps=self._out_spread[:accepted],
            marks=self._out_marks[:accepted],
            reason=self._reason[:size],
            has_marks=all_marks != 0,
        )

    def row_of(self, symbol: bytes) -> int | None:
        """Return the row of a symbol, or None where it has none, or may not tick any more."""
        row = self._slots[find_slot(symbol_words(np.array([symbol], STATE["symbol"]))[0], self._keys, self._slots)]
        return None if row == EMPTY_SLOT else int(row)

    def words(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return the symbols of rows from ``start`` up to ``stop`` as ``uint64[N, 3]``, a view."""
        return self._keys[start:stop]

    def _reserve(self, size: int) -> None:
        self._ticks = np.zeros(size, TICK)
        self._tick_bytes = self._ticks.view(np.uint8)
        self._tick_words = self._ticks.view(np.uint64).reshape(size, _TICK_WORDS)
        self._features = np.zeros((size, features.COUNT), np.float32)
        self._feature_words = self._features.view(np.uint64)
        self._out_int = np.zeros((3, size), np.int64)
        self._out_seq = np.zeros((2, size), np.uint64)
        self._out_ref = np.zeros(size, np.float64)
        self._out_spread = np.zeros(size, np.float32)
        self._out_marks = np.zeros(size, np.uint32)
        self._reason = np.zeros(size, np.uint8)
