"""The last messages of a channel in memory, in order, for clients that resume. Pure."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from exporters.feed_board import STORE_ROWS, Board, Int64s, Placed, join_rows
from exporters.feed_channels import Channel
from stream.records import Records

_PIECE_ROWS: Final = 4096


class Segment(NamedTuple):  # the collector has nothing to look at in there: there are as many as blocks in memory
    """Where consecutive rows were read."""

    rows: int
    partition: int
    next_offset: int | None  # after the blocks that they came in; None where Kafka had not told yet
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
        self._stored = 0  # ... that is stored next
        self._unstored: list[tuple[Records, Placed, Sequence[Segment]]] = []
        self._evicted_ns = -1
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

    @property
    def evicted_ns(self) -> int:
        """The newest time of a row that is no longer held; -1 where all are."""
        self._store()
        return self._evicted_ns

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
        self._store()
        return self._first_offsets.get(partition, 0)

    def next_offset(self, partition: int) -> int:
        """Return the offset of a partition up to which all was read."""
        return self._next_offsets.get(partition, 0)

    def reach(self, partition: int, next_offset: int) -> None:
        """Take note that all of a partition was read up to here, though it may have had no rows for us."""
        self._next_offsets[partition] = next_offset

    def held_from(self, slot: int) -> int:
        """Return the lowest seq of a slot after which all is held."""
        self._store()
        return int(self._held_from[slot])

    def append(self, rows: Records, placed: Placed, segments: Sequence[Segment]) -> Int64s:
        """Take rows that the board has just taken; return their positions, ``int64[N]``.

        Args:
            rows: in order; more than there is room for is fine. Nobody changes them any more.
            placed: where they stand on the board.
            segments: where they come from, in order; they may reach beyond these rows, into those of the next call.
        """
        position, self.head = self.head, self.head + len(rows)
        for places in self._places(position, min(len(rows), self._room)):
            self._texts[places] = [None] * (places.stop - places.start)
        for segment in segments:
            if segment.is_last and segment.next_offset is not None:
                self._next_offsets[segment.partition] = segment.next_offset
        self._unstored.append((rows, placed, segments))
        if self.head - self._stored >= STORE_ROWS:
            self._store()
        return np.arange(position, self.head)

    def _store(self) -> None:
        """Store what came since: nobody who is to get it waits for that, and in bulk it costs less."""
        if not self._unstored:
            return
        first: list[int] = []
        count = 0
        for rows, placed, segments in self._unstored:
            first += [count + index for index in placed.first]
            position = self._stored + count
            for segment in segments:
                self._segments.append((position, segment))
                position += segment.rows
            count += len(rows)
        rows = join_rows([rows for rows, _, _ in self._unstored])
        slots = np.concatenate([placed.slots for _, placed, _ in self._unstored])
        self._unstored = []
        self._grow(int(slots.max(initial=0)) + 1)
        if first:
            # Of a chained channel nobody knows whether something was missed before the first.
            self._held_from[slots[first]] = rows["seq"][first] - (0 if self._channel.chained else 1)
        self._evict(count)
        cut = max(0, count - self._room)
        if cut:
            self._held_from[slots[:cut]] = rows["seq"][:cut]
            self._evicted_ns = max(self._evicted_ns, int(rows[self._channel.time_field][:cut].max()))
        self._write(self._stored + cut, self._channel.cells(rows[cut:]), slots[cut:])
        self._stored += count
        self._drop_segments()

    def _write(self, position: int, cells: Records, slots: Int64s) -> None:
        start = 0
        for to in self._places(position, len(cells)):
            stop = start + to.stop - to.start
            self._cells[to], self._slots[to] = cells[start:stop], slots[start:stop]
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
        self._store()
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
        self._store()
        stop = min(position + _PIECE_ROWS, self.head)
        places = np.arange(position, stop) % self._room
        return self._rows[places], self._slots[places], stop

    def rows(self, positions: Int64s) -> Records:
        """Return the rows at these positions, a copy."""
        self._store()
        return self._rows[positions % self._room]

    def items(self, positions: Int64s, rows: Records, board: Board) -> list[bytes]:
        """Return the JSON of the rows at these positions without the closing brace; each is made once."""
        texts, places = self._texts, (positions % self._room).tolist()
        stale = [index for index, place in enumerate(places) if texts[place] is None]
        if stale:
            some = rows if len(stale) == len(rows) else rows[stale]
            for index, text in zip(stale, board.items(some), strict=True):
                texts[places[index]] = text
        return [texts[place] or b"" for place in places]

    def _evict(self, count: int) -> None:
        start, stop = max(0, self._stored - self._room), min(self._stored, self._stored + count - self._room)
        for gone in self._places(start, stop - start):
            self._held_from[self._slots[gone]] = self._seqs[gone]
            self._evicted_ns = max(self._evicted_ns, int(self._times[gone].max()))

    def _drop_segments(self) -> None:
        while self._segments and self._segments[0][0] < self._stored - self._room:
            _, segment = self._segments.popleft()
            # What came early is in Kafka before what has been read of it until now.
            offset = segment.next_offset or self.next_offset(segment.partition)
            self._first_offsets[segment.partition] = max(offset, self._first_offsets.get(segment.partition, 0))

    def _grow(self, slots: int) -> None:
        room = len(self._held_from)
        if slots > room:
            self._held_from = np.concatenate([self._held_from, np.zeros(max(room, slots - room), np.int64)])
