"""The last messages of a channel in memory, in order, for clients that resume. Pure."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from exporters.feed_board import Board, Int64s
from exporters.feed_channels import Channel
from stream.records import Records

_PIECE_ROWS: Final = 4096


class Segment(NamedTuple):  # the collector has nothing to look at in there: there are as many as blocks in memory
    """Where consecutive rows were read."""

    rows: int
    partition: int
    next_offset: int  # after the blocks that they came in
    is_last: bool = True  # no more rows of these blocks follow


class History:
    """A ring of rows. A *position* counts all rows that ever came."""

    def __init__(self, channel: Channel, room: int) -> None:
        """Make an empty one.

        Args:
            channel: whose rows.
            room: how many it holds.
        """
        self.head = 0  # position of the row that comes next
        self.evicted_ns = -1  # the newest time of a row that is no longer held
        self._channel, self._room = channel, room
        self._rows: Records = np.zeros(room, channel.dtype)
        self._cells = channel.cells(self._rows)
        self._seqs: Int64s = self._rows["seq"].view(np.int64)
        self._times: Int64s = self._rows[channel.time_field]
        self._slots: Int64s = np.zeros(room, np.int64)
        self._texts: list[bytes | None] = [None] * room
        self._segments: deque[tuple[int, Segment]] = deque()  # with the position of the first row
        self._first_offsets: dict[int, int] = {}
        self._next_offsets: dict[int, int] = {}
        self._held_from: Int64s = np.zeros(64, np.int64)

    @property
    def start(self) -> int:
        """The position of the oldest row that is held."""
        return max(0, self.head - self._room)

    def begin(self, offsets: dict[int, int]) -> None:
        """Say from which offset on each partition is read."""
        self._first_offsets.update(offsets)
        self._next_offsets.update(offsets)

    @property
    def partitions(self) -> list[int]:
        """The partitions that are read."""
        return sorted(self._next_offsets)

    def first_offset(self, partition: int) -> int:
        """Return the offset of a partition from which on all that was read is held."""
        return self._first_offsets.get(partition, 0)

    def next_offset(self, partition: int) -> int:
        """Return the offset of a partition up to which all was read."""
        return self._next_offsets.get(partition, 0)

    def reach(self, partition: int, next_offset: int) -> None:
        """Take note that all of a partition was read up to here, though it may have had no rows for us."""
        self._next_offsets[partition] = next_offset

    def held_from(self, slot: int) -> int:
        """Return the lowest seq of a slot after which all is held."""
        return int(self._held_from[slot])

    def append(
        self, board: Board, rows: Records, slots: Int64s, first: Int64s, segments: Sequence[Segment]
    ) -> None:
        """Take rows that the board has just taken.

        Args:
            board: whose slots they are.
            rows: in order; more than there is room for is fine.
            slots: ``int64[N]``, the slot of each.
            first: indices of the rows with which a slot begins, or begins anew.
            segments: where they come from, in order; they may reach beyond these rows, into those of the next call.
        """
        self._grow(len(board))
        if len(first):
            # Of a chained channel nobody knows whether something was missed before the first.
            self._held_from[slots[first]] = rows["seq"][first] - (0 if self._channel.chained else 1)
        self._evict(len(rows))
        cut = max(0, len(rows) - self._room)
        if cut:
            self._held_from[slots[:cut]] = rows["seq"][:cut]
            self.evicted_ns = max(self.evicted_ns, int(rows[self._channel.time_field][:cut].max()))
        self._write(self.head + cut, self._channel.cells(rows[cut:]), slots[cut:])
        position = self.head
        for segment in segments:
            self._segments.append((position, segment))
            position += segment.rows
            if segment.is_last:
                self._next_offsets[segment.partition] = segment.next_offset
        self.head += len(rows)
        self._drop_segments()

    def _write(self, position: int, cells: Records, slots: Int64s) -> None:
        start = 0
        for to in self._places(position, len(cells)):
            stop = start + to.stop - to.start
            self._cells[to], self._slots[to] = cells[start:stop], slots[start:stop]
            self._texts[to] = [None] * (stop - start)
            start = stop

    def _places(self, position: int, count: int) -> Iterator[slice]:
        """Yield where in the ring so many rows from a position on stand: in one piece, or in two."""
        while count > 0:
            place = position % self._room
            length = min(count, self._room - place)
            yield slice(place, place + length)
            position, count = position + length, count - length

    def take(self, position: int, after: Int64s, from_ns: int, limit: int) -> tuple[Int64s, int]:
        """Return positions of the next rows whose seq is above ``after`` of their slot, and where to go on.

        Args:
            position: at or after `start`.
            after: ``int64[slots]``; rows of slots beyond it do not count.
            from_ns: rows before this time do not count.
            limit: return about so many.
        """
        if len(after) == 0:
            return np.zeros(0, np.int64), self.head
        at = np.arange(position, self.head)
        places = at % self._room
        slots = self._slots[places]
        # Slots that the board has got since come live.
        wanted = (slots < len(after)) & (self._seqs[places] > after[np.minimum(slots, len(after) - 1)])
        chosen = at[wanted & (self._times[places] >= from_ns)]
        if len(chosen) > limit:
            return chosen[:limit], int(chosen[limit])
        return chosen, self.head

    def piece(self, position: int) -> tuple[Records, Int64s, int]:
        """Return some rows from a position on, their slots, and where to go on."""
        stop = min(position + _PIECE_ROWS, self.head)
        places = np.arange(position, stop) % self._room
        return self._rows[places], self._slots[places], stop

    def rows(self, positions: Int64s) -> Records:
        """Return the rows at these positions, a copy."""
        return self._rows[positions % self._room]

    def items(self, positions: Int64s, board: Board) -> list[bytes]:
        """Return the JSON of these rows without the closing brace; each is made once."""
        texts, places = self._texts, (positions % self._room).tolist()
        stale = [place for place in places if texts[place] is None]
        if stale:
            rows = self._cells[stale].view(self._channel.dtype)
            for place, text in zip(stale, board.items(rows, self._slots[stale]), strict=True):
                texts[place] = text
        return [texts[place] or b"" for place in places]

    def _evict(self, count: int) -> None:
        stop = min(self.head, self.head + count - self._room)
        for gone in self._places(self.start, stop - self.start):
            self._held_from[self._slots[gone]] = self._seqs[gone]
            self.evicted_ns = max(self.evicted_ns, int(self._times[gone].max()))

    def _drop_segments(self) -> None:
        while self._segments and self._segments[0][0] < self.start:
            _, segment = self._segments.popleft()
            self._first_offsets[segment.partition] = segment.next_offset

    def _grow(self, slots: int) -> None:
        room = len(self._held_from)
        if slots > room:
            self._held_from = np.concatenate([self._held_from, np.zeros(max(room, slots - room), np.int64)])
