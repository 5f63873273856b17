"""Bars of the reference prices in predictions. Pure.

They follow from the rows of ``predictions`` alone, so every gateway makes the same. Time is event time, and never
goes back within a symbol: a tick that is out of order counts in the bar that is open, as in the engine's own bars.
A bar is final when a later prediction of its symbol says that it is over; times without predictions have no bar.
"""

import numpy as np

from exporters.feed_channels import BAR
from exporters.sequence import Int64s
from stream.records import Records

_SLOT_BITS = 40  # a number of a bar of 1 s has 31


class BarMaker:
    """Makes the bars of one length, of all symbols."""

    def __init__(self, length_ns: int) -> None:
        """Know of no symbol.

        Args:
            length_ns: of a bar; bars begin at its multiples.
        """
        self._length_ns = length_ns
        self._slots: dict[bytes, int] = {}
        self._open: Records = np.zeros(64, BAR)  # seq 0: none
        self._whole = np.zeros(64, bool)  # we saw the bar begin; the first of a symbol may have begun before us

    def add(self, rows: Records) -> Records:
        """Take ``PREDICTION[N]`` in order; return the bars that are over: ``BAR[M]``, in the order they ended."""
        slots = np.array(
            [self._slots.setdefault(symbol, len(self._slots)) for symbol in rows["symbol"].tolist()], np.int64
        )
        self._grow()
        order = np.argsort(slots, kind="stable")
        slots = slots[order]
        keys = (slots << _SLOT_BITS) + rows["event_ns"][order] // self._length_ns
        begins = np.concatenate([[True], slots[1:] != slots[:-1]])
        keys[begins] = np.maximum(
            keys[begins], (slots[begins] << _SLOT_BITS) + self._open["seq"][slots[begins]].astype(np.int64)
        )
        keys = np.maximum.accumulate(keys)
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        parts = self._parts(rows[order], keys[starts], starts)
        over: list[tuple[int, Records]] = []
        for part, slot, row in zip(parts, slots[starts].tolist(), order[starts].tolist(), strict=True):
            ended = self._merge(slot, part)
            if ended is not None:
                ended["published_ns"] = rows["published_ns"][row]
                over.append((row, ended))
        bars = np.zeros(len(over), BAR)
        for index, (_, bar) in enumerate(sorted(over, key=lambda pair: pair[0])):
            bars[index] = bar
        return bars

    def _parts(self, rows: Records, keys: Int64s, starts: Int64s) -> Records:
        """One part of a bar for each group of rows: ``BAR[groups]``."""
        stops = np.append(starts[1:], len(rows))
        parts = np.zeros(len(starts), BAR)
        parts["symbol"] = rows["symbol"][starts]
        parts["seq"] = keys & ((1 << _SLOT_BITS) - 1)
        parts["start_ns"] = parts["seq"].astype(np.int64) * self._length_ns
        parts["end_ns"] = parts["start_ns"] + self._length_ns
        prices = np.ascontiguousarray(rows["ref_price"])
        parts["open"], parts["close"] = prices[starts], prices[stops - 1]
        parts["high"], parts["low"] = np.maximum.reduceat(prices, starts), np.minimum.reduceat(prices, starts)
        parts["ticks"] = stops - starts
        parts["last_seq"] = rows["seq"][stops - 1]
        return parts

    def _merge(self, slot: int, part: Records) -> Records | None:
        """Add a part to the open bar, or begin one with it; return the bar that is over, if we know all of it."""
        now = self._open[slot]
        if now["seq"] == part["seq"]:
            now["high"], now["low"] = max(now["high"], part["high"]), min(now["low"], part["low"])
            now["close"], now["last_seq"] = part["close"], part["last_seq"]
            now["ticks"] += part["ticks"]
            return None
        ended = now.copy() if self._whole[slot] else None
        self._whole[slot] = now["seq"] != 0
        self._open[slot] = part
        return ended

    def _grow(self) -> None:
        room = len(self._open)
        if len(self._slots) > room:
            more = max(room, len(self._slots) - room)
            self._open = np.concatenate([self._open, np.zeros(more, BAR)])
            self._whole = np.concatenate([self._whole, np.zeros(more, bool)])
