"""Bars of the reference prices in predictions. Pure.

They follow from the rows of ``predictions`` alone, so every gateway makes the same. Time is event time, and never
goes back within a symbol: a tick that is out of order counts in the bar that is open, as in the engine's own bars.
A bar is final when a later prediction of its symbol says that it is over; times without predictions have no bar.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporters.feed_board import Int64s
from exporters.feed_channels import BAR
from stream.records import Records, join_records

_SLOT_BITS: Final = 40  # a number of a bar of 1 s has 31
_NOTHING: Final = np.zeros(0, BAR)


class BarMaker:
    """Makes the bars of one length, of all symbols; all by columns, some 100 ns a row in large batches."""

    def __init__(self, length_ns: int) -> None:
        """Know of no symbol.

        Args:
            length_ns: of a bar; bars begin at its multiples.
        """
        self._length_ns = length_ns
        self._open: Records = np.zeros(64, BAR)  # by slot, what is not over yet; seq 0: none
        # By slot: we saw it begin. The first of a symbol may have begun before us.
        self._whole: NDArray[np.bool_] = np.zeros(64, bool)

    def add(self, rows: Records, slots: Int64s) -> Records:
        """Return the bars that are over: ``BAR[M]``, in the order they ended.

        Args:
            rows: ``PREDICTION[N]`` in order, N >= 1.
            slots: ``int64[N]``, a number for the symbol of each, always the same and not far above their count.
        """
        self._grow(int(slots.max()) + 1)
        if len(rows) == 1 and self._goes_on(rows[0], int(slots[0])):
            return _NOTHING
        order = np.argsort(slots, kind="stable")
        keys = self._keys(rows["event_ns"][order], slots[order])
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        parts = self._parts(rows, order, keys[starts], starts)
        return self._merge(parts, slots[order[starts]], order[starts], rows["published_ns"])

    def _goes_on(self, row: Any, slot: int) -> bool:
        """Add one row to the bar that is open, if it belongs there: the columns would cost it ten times as much."""
        now, price = self._open[slot], row["ref_price"]
        if row["event_ns"] // self._length_ns > now["seq"]:
            return False
        now["high"], now["low"], now["close"] = max(now["high"], price), min(now["low"], price), price
        now["last_seq"] = row["seq"]
        now["ticks"] += 1
        return True

    def _keys(self, event_ns: Int64s, slots: Int64s) -> Int64s:
        """Slot and number of the bar of each row, in one: both ascend."""
        keys = (slots << _SLOT_BITS) + event_ns // self._length_ns
        begins = np.flatnonzero(np.concatenate([[True], slots[1:] != slots[:-1]]))
        before = (slots[begins] << _SLOT_BITS) + self._open["seq"][slots[begins]].astype(np.int64)
        keys[begins] = np.maximum(keys[begins], before)
        return np.maximum.accumulate(keys)

    def _parts(self, rows: Records, order: Int64s, keys: Int64s, starts: Int64s) -> Records:
        """One part of a bar for each group of rows: ``BAR[groups]``."""
        stops = np.append(starts[1:], len(rows))
        parts = np.zeros(len(starts), BAR)
        parts["symbol"] = rows["symbol"][order[starts]]
        parts["seq"] = keys & ((1 << _SLOT_BITS) - 1)
        parts["start_ns"] = parts["seq"].astype(np.int64) * self._length_ns
        parts["end_ns"] = parts["start_ns"] + self._length_ns
        prices = rows["ref_price"][order]
        parts["open"], parts["close"] = prices[starts], prices[stops - 1]
        parts["high"], parts["low"] = np.maximum.reduceat(prices, starts), np.minimum.reduceat(prices, starts)
        parts["ticks"] = stops - starts
        parts["last_seq"] = rows["seq"][order[stops - 1]]
        return parts

    def _merge(self, parts: Records, slots: Int64s, begins: Int64s, published_ns: Int64s) -> Records:
        """Add parts, grouped by slot, to what is open; return what is over.

        Args:
            parts: ``BAR[G]``.
            slots: ``int64[G]``.
            begins: ``int64[G]``, the row with which each part begins: it ends the bar before.
            published_ns: of each row.
        """
        edges = slots[1:] != slots[:-1]
        is_first, is_last = np.concatenate([[True], edges]), np.concatenate([edges, [True]])
        now = self._open[slots]
        goes_on = is_first & (now["seq"] == parts["seq"])
        for name, merge in (("high", np.maximum), ("low", np.minimum), ("ticks", np.add)):
            parts[name][goes_on] = merge(parts[name][goes_on], now[name][goes_on])
        parts["open"][goes_on] = now["open"][goes_on]
        whole = ~is_first | np.where(goes_on, self._whole[slots], now["seq"] != 0)
        # What was open ends with the first part of its slot that is another bar; a part that is not the last of its
        # slot ends with the next.
        was_open = is_first & ~goes_on & self._whole[slots]
        inner = np.flatnonzero(~is_last & whole)
        ended_by = np.concatenate([begins[was_open], begins[inner + 1]])
        over = _NOTHING
        if len(ended_by):
            over = join_records([now[was_open], parts[inner]])[np.argsort(ended_by, kind="stable")]
            over["published_ns"] = published_ns[np.sort(ended_by)]
        last = slots[is_last]
        self._open[last], self._whole[last] = parts[is_last], whole[is_last]
        return over

    def _grow(self, count: int) -> None:
        room = len(self._open)
        if count > room:
            more = max(room, count - room)
            self._open = np.concatenate([self._open, np.zeros(more, BAR)])
            self._whole = np.concatenate([self._whole, np.zeros(more, bool)])
