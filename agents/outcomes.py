"""What came of each prediction, from the stream of predictions alone. Pure: no Kafka, no I/O.

There is a prediction for each accepted tick, with the price that it refers to. So the outcome of a prediction is
known once one of the same symbol comes that is later than its horizon: the price that counts is that of the last
one at or before the horizon. This is the definition of `models.dataset.label`, to the bit. It differs in one case
only: a recording may end with a tick exactly at a horizon, and a label is known then; a stream must wait for the
next tick, as another may come at the same nanosecond.

Each tick settles what is due and puts its own prediction behind the last one of its model: O(1) amortised, in
memory that is bounded by `MAX_PENDING` predictions of a partition, `MAX_PENDING_OF_SYMBOL` of a symbol and model.

A position costs half of the spread that there was when it was predicted and half of that at its horizon, told by
the same two predictions as the prices, and fees: as in `models.profit`.

Beside each prediction the *fallback* makes one, of what is known then and nothing later: how often down, flat and
up came after an outcome such as the last one that is known (momentum), in counts that fade with
`FALLBACK_HORIZONS`. It is what a model must beat to be worth serving.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.outcome_kernel import (
    ABANDONED,
    BOOK,
    BOOKS,
    CLOCK,
    COUNT_COLUMNS,
    HORIZONS,
    MAX_PENDING,
    NEVER_NS,
    PENDING,
    SHRINK_ALL,
    SYMBOL,
    TALLIES,
    add_book,
    give_up,
    symbol_row_of,
    take_predictions,
    wider,
)
from agents.symbol_table import empty_slots, find_slot
from stream.records import OUTCOME, OUTCOME_SHADOW, SYMBOL_BYTES, Records, join_records, symbol_words

_FIRST_ROOM: Final = 256
_OUT_ROWS: Final = 1 << 14

_SAVED: Final = np.dtype(
    [
        ("symbol", f"S{SYMBOL_BYTES}"),
        ("model_id", "<u8"),
        ("settled_position", "<i8"),
        ("last_position", "<i8"),
        ("from_ns", "<i8"),
        ("counted_ns", "<i8"),
        ("counts", "<f8", (COUNT_COLUMNS,)),
    ]
)


@dataclass(frozen=True)
class Costs:
    """What a position costs, in and out again, in bps of its price."""

    fees_bps: float  # besides half of the spread at each end
    unknown_bps: float  # all in all, where one of the spreads is not known


class OutcomeJoin:
    """The predictions of one partition that wait for their horizons, and the fallback's memory."""

    def __init__(self, partition: int, costs: Costs, is_shadow: bool = False, room: int = MAX_PENDING) -> None:
        """Make an empty join.

        Args:
            partition: stands in each outcome.
            costs: of a position.
            is_shadow: the predictions are stored, not served.
            room: how many predictions may wait.
        """
        self.is_shadow = is_shadow
        self._partition, self._costs, self._room = partition, costs, room
        self._model_ids: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._dead_bands_bps: NDArray[np.float64] = np.zeros(0)
        self._keys: NDArray[np.uint64] = np.zeros((_FIRST_ROOM, SYMBOL_BYTES // 8), np.uint64)
        self._slots = empty_slots(_FIRST_ROOM)
        self._symbols: Records = np.zeros(_FIRST_ROOM, SYMBOL)
        self._books: Records = np.zeros(_FIRST_ROOM, BOOK)
        self._counts: NDArray[np.float64] = np.zeros((_FIRST_ROOM, COUNT_COLUMNS))
        self._pending: Records = np.zeros(min(room, 1024), PENDING)
        self._scalars: NDArray[np.int64] = np.array([0, 0, -1, 0, NEVER_NS], np.int64)
        self._tallies: NDArray[np.int64] = np.zeros(len(TALLIES), np.int64)
        self._out: Records = np.zeros(_OUT_ROWS, OUTCOME)

    @property
    def clock_ns(self) -> int:
        """The newest event time of all symbols."""
        return int(self._scalars[CLOCK])

    @property
    def pending(self) -> int:
        """How many predictions wait."""
        return int(self._known_books["pending"].sum())

    @property
    def _known_books(self) -> Records:
        return self._books[: self._scalars[BOOKS]]

    def tallies(self) -> Counter[str]:
        """Return what became of the predictions so far, by the names in `TALLIES`."""
        return Counter(dict(zip(TALLIES, self._tallies.tolist(), strict=True)))

    def know(self, dead_bands_bps: Mapping[int, float]) -> None:
        """Learn the dead bands of models, by model id; what is known already stays."""
        known = set(self._model_ids.tolist())
        new = {model: band for model, band in dead_bands_bps.items() if model not in known}
        self._model_ids = np.concatenate([self._model_ids, np.array(list(new), np.uint64)])
        self._dead_bands_bps = np.concatenate([self._dead_bands_bps, np.array(list(new.values()), np.float64)])

    def take(self, rows: Records, offsets: NDArray[np.int64]) -> Records:
        """Take predictions and return the outcomes that they tell.

        Args:
            rows: ``PREDICTION[N]`` of this partition in the order of the topic; of a shadow, of one model.
            offsets: ``int64[N]`` of the block that each came in, in the topic of predictions.

        Returns:
            ``OUTCOME[M]``; those of a symbol and model are in the order of their seq.
        """
        self._grow(len(rows))
        rows = rows.copy()  # blocks are read-only, what was put together is not: two types, for numba
        words = symbol_words(rows["symbol"])
        found: list[Records] = []
        at = 0
        while at < len(rows):
            at, count = take_predictions(
                rows,
                words,
                offsets,
                at,
                (self._keys, self._slots, self._symbols, self._books, self._counts, self._pending),
                self._scalars,
                self._tallies,
                self._model_ids,
                self._dead_bands_bps,
                self._out,
                self._room,
            )
            found.append(self._out[:count].copy())
        outcomes = join_records(found).copy() if found else np.zeros(0, OUTCOME)
        spreads_bps = outcomes["cost_bps"].astype(np.float64)
        is_known = np.isfinite(spreads_bps)
        outcomes["cost_bps"] = np.where(is_known, spreads_bps + self._costs.fees_bps, self._costs.unknown_bps)
        outcomes["source_partition"] = self._partition
        if self.is_shadow:
            outcomes["flags"] |= OUTCOME_SHADOW
        return outcomes

    def give_up(self, before_ns: int) -> int:
        """Give up predictions whose horizon ended before a moment: their symbols are silent. Return how many."""
        given = int(give_up(before_ns, self._books, self._pending, self._scalars))
        self._tallies[ABANDONED] += given
        return given

    def oldest_offset(self) -> int | None:
        """Return the offset of the oldest block with a prediction that waits, None where none waits."""
        heads = self._known_books["head"]
        return int(self._pending["offset"][heads[heads >= 0]].min()) if (heads >= 0).any() else None

    def save(self) -> bytes:
        """Return what `restore` needs to go on with the outcomes where this join is."""
        books = self._known_books
        saved = np.zeros(len(books) + 1, _SAVED)
        saved["counted_ns"][-1] = self.clock_ns
        rows = saved[:-1]
        rows["symbol"] = self._keys[books["symbol_row"]].view(f"S{SYMBOL_BYTES}").ravel()
        rows["model_id"] = self._model_ids[books["model"]]
        for name in ("settled_position", "last_position", "counted_ns"):
            rows[name] = books[name]
        waits = books["pending"] > 0
        rows["from_ns"] = np.where(waits, self._pending["from_ns"][np.maximum(books["head"], 0)], books["from_ns"])
        rows["counts"] = self._counts[: len(books)]
        return saved.tobytes()

    def restore(self, raw: bytes) -> None:
        """Go on from what `save` returned, in an empty join that knows the models.

        Predictions are to come again from the block of the oldest that waited. Those that were settled are passed
        over. On the others that were seen, the fallback says nothing: what it knows now was not known then.
        """
        saved = np.frombuffer(raw, _SAVED)
        self._scalars[CLOCK] = int(saved["counted_ns"][-1])
        rows = saved[:-1]
        places = {model: place for place, model in enumerate(self._model_ids.tolist())}
        rows = rows[np.isin(rows["model_id"], self._model_ids)]
        self._grow(len(rows))
        words = symbol_words(rows["symbol"])
        for row, word in zip(rows, words, strict=True):
            symbol_row = symbol_row_of(word, self._keys, self._slots, self._symbols, self._scalars)
            model = places[int(row["model_id"])]
            at = add_book(symbol_row, model, self._symbols, self._books, self._scalars)
            book = self._books[at]
            for name in ("settled_position", "from_ns", "counted_ns"):
                book[name] = row[name]
            book["known_position"] = book["last_position"] = row["last_position"]
            self._counts[at] = row["counts"]

    def frequencies(self) -> NDArray[np.float64]:
        """Return the shares of down, flat and up lately, over all symbols and models: ``float64[3]``."""
        counts = self._counts[: self._scalars[BOOKS], :HORIZONS].sum(axis=0).reshape(3, 3).sum(axis=0)
        shares: NDArray[np.float64] = (counts + SHRINK_ALL / 3) / (counts.sum() + SHRINK_ALL)
        return shares

    def _grow(self, more: int) -> None:
        symbols, books, _, used, _ = self._scalars.tolist()
        if symbols + more > len(self._symbols):
            self._keys = wider(self._keys, symbols + more)
            self._symbols = wider(self._symbols, symbols + more)
            self._slots = empty_slots(len(self._keys))
            for row in range(symbols):
                self._slots[find_slot(self._keys[row], self._keys, self._slots)] = row
        if books + more > len(self._books):
            self._books = wider(self._books, books + more)
            self._counts = wider(self._counts, books + more)
        if min(used + more, self._room) > len(self._pending):
            self._pending = wider(self._pending, used + more)[: self._room].copy()
