"""The newest message of every symbol of a channel, how many there were, and its JSON once somebody wanted it."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters.feed_channels import Channel
from exporters.feed_encode import encode_symbol_name
from stream.records import Records, join_records

Int64s = NDArray[np.int64]

_FIRST_ROOM: Final = 64
STORE_ROWS: Final = 512


class Placed(NamedTuple):
    """Where rows stand on a board."""

    slots: Int64s  # int64[N]
    before: list[int]  # seq of the row before each, of its slot; 0 for none
    first: list[int]  # indices of the rows with which a symbol begins, or begins anew


class _Slots(dict[bytes, int]):
    def __missing__(self, symbol: bytes) -> int:
        slot = self[symbol] = len(self)
        return slot


class Board:
    """One *slot* for each symbol, numbered in the order they were first seen.

    Rows are stored when somebody asks, or there are many: nobody who is to get them waits for that.
    """

    def __init__(self, channel: Channel) -> None:
        """Make an empty one."""
        self.channel = channel
        self._slots = _Slots()
        self.symbols: list[bytes] = []
        self._names: list[bytes] = []  # as JSON text
        self._texts: list[bytes] = []  # JSON of the newest row as of `_text_counts`, without its closing brace
        self._rows: Records = np.zeros(_FIRST_ROOM, channel.dtype)
        self._cells = channel.cells(self._rows)
        self._newest: list[int] = []  # seq of each slot
        self._unstored: list[tuple[Records, Int64s]] = []
        self._unstored_rows = 0
        self._counts: Int64s = np.zeros(_FIRST_ROOM, np.int64)
        self._text_counts: Int64s = np.zeros(_FIRST_ROOM, np.int64)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def counts(self) -> Int64s:
        """How many rows of each slot there were: ``int64[slots]``, a view."""
        self._store()
        return self._counts[: len(self.symbols)]

    @property
    def seqs(self) -> NDArray[Any]:
        """The newest seq of each slot: ``uint64[slots]``, a view."""
        self._store()
        return self._rows["seq"][: len(self.symbols)]

    def put(self, rows: Records) -> Placed:
        """Take rows in order, which nobody changes any more; tell each of a chained channel the seq before it."""
        places = [self._slots[symbol] for symbol in rows["symbol"].tolist()]
        if len(self._slots) > len(self.symbols):
            self._grow()
        newest, before, first = self._newest, list[int](), list[int]()
        for index, (slot, seq) in enumerate(zip(places, rows["seq"].tolist(), strict=True)):
            last = newest[slot]
            if last == 0 or seq <= last:
                first.append(index)
            before.append(last)
            newest[slot] = seq
        if self.channel.chained:
            rows["prev"] = before
        slots = np.array(places, np.int64)
        self._unstored.append((rows, slots))
        self._unstored_rows += len(rows)
        if self._unstored_rows >= STORE_ROWS:
            self._store()
        return Placed(slots, before, first)

    def _store(self) -> None:
        if not self._unstored:
            return
        rows = join_rows([rows for rows, _ in self._unstored])
        slots = np.concatenate([slots for _, slots in self._unstored])
        self._unstored, self._unstored_rows = [], 0
        self._cells[slots] = self.channel.cells(rows)  # where a slot comes twice, numpy keeps the last
        np.add.at(self._counts, slots, 1)

    def find(self, symbol: bytes) -> int | None:
        """Return the slot of a symbol, or None when it was never seen."""
        return self._slots.get(symbol)

    def items(self, rows: Records) -> list[bytes]:
        """Return the JSON of rows of symbols that are known, without the closing brace."""
        names, slots = self._names, self._slots
        return self.channel.encode(rows, [names[slots[symbol]] for symbol in rows["symbol"].tolist()])

    def newest(self, slots: Int64s) -> Records:
        """Return the newest row of each slot, a copy."""
        self._store()
        return self._rows[slots]

    def newest_items(self, slots: Int64s) -> list[bytes]:
        """Return the JSON of the newest row of each slot without the closing brace; each is made once."""
        self._store()
        stale = slots[self._text_counts[slots] != self._counts[slots]]
        if len(stale):
            for slot, text in zip(stale.tolist(), self.items(self._rows[stale]), strict=True):
                self._texts[slot] = text
            self._text_counts[stale] = self._counts[stale]
        return [self._texts[slot] for slot in slots.tolist()]

    def _grow(self) -> None:
        fresh = list(self._slots)[len(self.symbols) :]
        self.symbols += fresh
        self._newest += [0] * len(fresh)
        self._names += [encode_symbol_name(symbol) for symbol in fresh]
        self._texts += [b""] * len(fresh)
        room = len(self._rows)
        if len(self.symbols) > room:
            more = max(room, len(self.symbols) - room)
            self._rows = np.concatenate([self._rows, np.zeros(more, self.channel.dtype)])
            self._cells = self.channel.cells(self._rows)
            self._counts = np.concatenate([self._counts, np.zeros(more, np.int64)])
            self._text_counts = np.concatenate([self._text_counts, np.zeros(more, np.int64)])


def join_rows(parts: list[Records]) -> Records:
    """Return the rows of several arrays in one."""
    return np.concatenate(parts) if parts[0].dtype.hasobject else join_records(parts)
