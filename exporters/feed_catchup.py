"""Resume and replay: what a client missed, or all since a time, and from there on live without a gap.

The past comes out of the channel's history in memory where that has it, else first out of Kafka up to where memory
begins. Meanwhile the symbols concerned are *held back*: live messages of theirs wait, in the history, and the last
piece of the past and the first live message are given in one step of the event loop. The past goes as fast as the
client reads, so it never counts against the client's queue.
"""

import asyncio
import logging
from typing import Final

import numpy as np
from aiokafka.errors import KafkaError

from exporters.feed_archive import Archive, Reader
from exporters.feed_board import Int64s
from exporters.feed_client import FeedClient
from exporters.feed_fanout import Fanout
from exporters.feed_messages import ReplayCompleted, Reset, Resumed
from exporters.feed_metrics import FeedMetrics
from exporters.feed_requests import Subscribe
from exporters.feed_wire import Held, message_frame
from stream.records import SYMBOL_BYTES, Records, partition_of

logger = logging.getLogger(__name__)

_PIECE_ROWS: Final = 1024  # of the past that is given in one go: some 3 ms
_SEARCH_BLOCKS: Final = 64
_SEARCH_FACTOR: Final = 4
_LOOK_EVERY_S: Final = 0.05  # whether the channel's own past has been read
_NEVER: Final = (1 << 63) - 1  # the last seq of a symbol that is not ours
_SLACK_NS: Final = 1_000_000_000  # between a row's time and that of its message in Kafka


class CatchUp:
    """The past of one request."""

    def __init__(
        self, client: FeedClient, fanout: Fanout, request: Subscribe, archive: Archive | None, metrics: FeedMetrics
    ) -> None:
        """Hold the symbols of a request back; `run` gives their past.

        Args:
            client: whose subscriptions have the request.
            fanout: its channel.
            request: with ``resume`` or ``replay_from_ns``.
            archive: the channel's past in Kafka; None for a channel that has none.
            metrics: told where the past came from.
        """
        self._client, self._fanout, self._request = client, fanout, request
        self._archive, self._metrics = archive, metrics
        self._following = client.followings[fanout.channel.name]
        resume = request.resume
        self._after = {} if resume is None else {symbol.encode(): seq for symbol, seq in resume.seqs.items()}
        self._given: set[bytes] = set(self._after)  # symbols whose next row follows one that the client has
        self._from_ns = request.replay_from_ns
        self._dropped: list[str] = []
        self._holds = self.covers
        self._following.held_back.append(self._holds)

    def covers(self, symbol: bytes) -> bool:
        """Return whether this brings the past of a symbol."""
        if self._from_ns is None:
            return symbol in self._after
        name = symbol.decode()
        return _matches(name, self._request.symbols) and not _matches(name, self._dropped)

    def drop(self, names: tuple[str, ...]) -> None:
        """Leave symbols alone: they were unsubscribed, or subscribed anew."""
        self._dropped += names
        for symbol in [symbol for symbol in self._after if _matches(symbol.decode(), names)]:
            del self._after[symbol]

    async def run(self) -> None:
        """Give the past and go live. Cancelling it is safe: the client gets nothing more of it."""
        try:
            if self._from_ns is not None:
                await self._replay()
            else:
                await self._resume()
        except (KafkaError, TimeoutError, OSError) as error:
            logger.warning("feed client %s: its past cannot be read: %r", self._client.peer, error)
            self._give_up()
        finally:
            self._release()

    # ---- where the past is ---------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Wait until the channel itself has its newest past."""
        while self._fanout.filling or self._fanout.epoch is None:
            await asyncio.sleep(_LOOK_EVERY_S)

    def _check(self) -> None:
        """Reset what cannot be resumed, whatever is held."""
        resume, board = self._request.resume, self._fanout.board
        if resume is None:
            return
        if resume.epoch != self._fanout.epoch:
            self._reset(list(self._after), "epoch")
            return
        slots = {symbol: board.find(symbol) for symbol in self._after}
        ahead = [s for s, slot in slots.items() if slot is not None and int(board.seqs[slot]) < self._after[s]]
        self._reset(ahead, "ahead")

    async def _resume(self) -> None:
        is_level = False
        while True:
            await self._ready()
            if not is_level and self._archive is not None and self._may_be_behind():
                await self._draw_level(self._archive)
                is_level = True
                continue
            self._check()
            missing = [symbol for symbol in self._after if not self._in_memory(symbol)]
            if not missing:
                # No await since we looked: memory still has it.
                if await self._from_memory():
                    return
                continue  # it went on faster than the client reads
            if self._archive is None:
                self._reset(missing, "gone")
                continue
            history, partitions = self._fanout.history, self._partitions(list(self._after))
            # Also of those that memory has now: it may not when the others are there.
            positions = {partition: history.first_offset(partition) for partition in partitions}
            async with self._archive.open() as reader:
                for partition, wanted in self._partitions(missing).items():
                    begin, gone = await self._search(reader, partition, wanted)
                    positions[partition] = min(begin, positions[partition])
                    self._reset(gone, "gone")
                if await self._from_kafka(reader, positions):
                    return

    def _may_be_behind(self) -> bool:
        """Whether the client has more than the channel, or symbols that it does not know, by the same numbers."""
        resume, board = self._request.resume, self._fanout.board
        slots = ((board.find(symbol), seq) for symbol, seq in self._after.items())
        return (
            resume is not None
            and resume.epoch == self._fanout.epoch
            and any(slot is None or int(board.seqs[slot]) < seq for slot, seq in slots)
        )

    async def _draw_level(self, archive: Archive) -> None:
        """Wait until the channel has read all that is in Kafka now.

        A client that was told by a gateway that is further may have what we have not read yet: that is not gone,
        and nothing has begun anew.
        """
        try:
            async with archive.open() as reader:
                ends = reader.ends
        except (KafkaError, TimeoutError, OSError) as error:
            logger.warning("feed client %s: nobody tells what is in Kafka: %r", self._client.peer, error)
            return
        history = self._fanout.history
        while history is self._fanout.history and any(history.next_offset(p) < end for p, end in ends.items()):
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _replay(self) -> None:
        await self._ready()
        from_ns, history = int(self._from_ns or 0), self._fanout.history
        if self._archive is None:
            if history.evicted_ns >= from_ns:
                self._say_reset(list(self._request.symbols), "gone")
            while not await self._from_memory():
                self._say_reset(list(self._request.symbols), "gone")
            return
        # Where nothing is so new yet, what is so new comes after what was read.
        ends = {partition: history.next_offset(partition) for partition in history.partitions}
        async with self._archive.open() as reader:
            offsets = await reader.offsets_at(from_ns - _SLACK_NS)
            positions = {p: ends[p] if offset is None else offset for p, offset in offsets.items() if p in ends}
            await self._from_kafka(reader, positions)

    def _partitions(self, symbols: list[bytes]) -> dict[int, list[bytes]]:
        """The symbols, by the partition that they live in."""
        found: dict[int, list[bytes]] = {}
        count = len(self._fanout.history.partitions)
        numbers = partition_of(np.array(symbols, f"S{SYMBOL_BYTES}"), count).tolist()
        for symbol, partition in zip(symbols, numbers, strict=True):
            found.setdefault(partition, []).append(symbol)
        return found

    def _in_memory(self, symbol: bytes) -> bool:
        board, slot = self._fanout.board, self._fanout.board.find(symbol)
        if slot is None:
            return False
        after = self._after[symbol]
        return after == int(board.seqs[slot]) or after >= self._fanout.history.held_from(slot)

    async def _search(self, reader: Reader, partition: int, wanted: list[bytes]) -> tuple[int, list[bytes]]:
        """Find an offset before the first row that each symbol misses; return it, and symbols that have none."""
        begin = self._fanout.history.first_offset(partition)
        oldest, step, missing = reader.starts[partition], _SEARCH_BLOCKS, set(wanted)
        # A chained channel tells by an earlier row only that nothing is missing in between.
        reach = 0 if self._fanout.channel.chained else 1
        while missing and begin > oldest:
            end, begin = begin, max(oldest, begin - step)
            step *= _SEARCH_FACTOR
            seen: set[bytes] = set()
            positions = {partition: begin}
            async for _, rows, _ in reader.read(positions, lambda _, end=end: end):  # type: ignore[misc]
                for symbol in missing - seen:
                    mine = rows["seq"][rows["symbol"] == symbol]
                    if len(mine):
                        seen.add(symbol)
                        if int(mine[0]) <= self._after.get(symbol, _NEVER) + reach:
                            missing = missing - {symbol}
        return begin, sorted(missing)

    # ---- giving it -----------------------------------------------------------------------------------------------

    async def _from_kafka(self, reader: Reader, positions: dict[int, int]) -> bool:
        """Give what is in Kafka from ``positions`` on, then what is in memory, and go live; as `_from_memory`."""
        source = "kafka"
        while True:
            # Up to where memory begins, which moves on; never beyond what live clients have.
            async for _, rows, _ in reader.read(positions, self._fanout.history.first_offset):
                for start in range(0, len(rows), _PIECE_ROWS):
                    self._give(self._new(rows[start : start + _PIECE_ROWS]), None)
                    if not await self._client.room():
                        return True
            # No await since the reader looked: memory begins where Kafka was left.
            if await self._from_memory(source):
                return True

    def _new(self, rows: Records) -> Records:
        """Those rows that are ours and that the client does not have, each once."""
        symbols = rows["symbol"].tolist()
        after = np.array([self._last(symbol) for symbol in symbols], np.int64)
        fresh = np.flatnonzero(rows["seq"].astype(np.int64) > after)
        if self._from_ns is not None:
            fresh = fresh[rows[self._fanout.channel.time_field][fresh] >= self._from_ns]
        last: dict[bytes, int] = {}
        kept = []
        for index in fresh.tolist():  # the engine may have sent some twice
            seq = int(rows["seq"][index])
            if seq > last.get(symbols[index], 0):
                last[symbols[index]] = seq
                kept.append(index)
        return rows[kept]

    def _last(self, symbol: bytes) -> int:
        last = self._after.get(symbol)
        if last is None:
            return 0 if self._from_ns is not None and self.covers(symbol) else _NEVER
        return last

    async def _from_memory(self, source: str = "memory") -> bool:
        """Give what is in memory and go live; return False where memory lost, meanwhile, what was not given yet.

        The caller has made sure, without an await since, that memory has all that is missing now.
        """
        history = self._fanout.history
        position = history.start
        while position >= history.start:
            chosen, position = history.take(position, self._after_of_slots(), self._from_ns or 0, _PIECE_ROWS)
            if len(chosen):
                self._give(history.rows(chosen), chosen)
            if position == history.head:
                self._finish(source)
                return True
            if not await self._client.room():
                return True
            if history is not self._fanout.history:  # everything is numbered anew, and the client was told
                return False
        return False

    def _after_of_slots(self) -> Int64s:
        return np.array([self._last(symbol) for symbol in self._fanout.board.symbols], np.int64)

    def _give(self, rows: Records, positions: Int64s | None) -> None:
        """Send rows; the first of a symbol that the client has nothing of is a snapshot."""
        if len(rows) == 0:
            return
        symbols = rows["symbol"].tolist()
        is_first = np.zeros(len(rows), bool)
        before: list[int] = []
        for index, (symbol, seq) in enumerate(zip(symbols, rows["seq"].tolist(), strict=True)):
            if symbol not in self._given:
                is_first[index] = True
                self._given.add(symbol)
            before.append(self._after.get(symbol, 0))
            self._after[symbol] = seq
        if self._fanout.channel.chained and positions is None:
            rows["prev"] = before
        binary = self._client.is_binary and self._fanout.channel.has_binary
        for is_snapshot, wanted in ((True, is_first), (False, ~is_first)):
            chosen = np.flatnonzero(wanted)
            if len(chosen):
                at = None if positions is None else positions[chosen]
                self._client.allow_snapshot(len(chosen))
                for held in self._fanout.frames(is_snapshot, rows[chosen], at, binary):
                    self._client.post(held)

    # ---- the end -------------------------------------------------------------------------------------------------

    def _finish(self, source: str) -> None:
        """Go live. No await: what comes next is live."""
        board, name = self._fanout.board, self._fanout.channel.name
        slots = {symbol: board.find(symbol) for symbol in self._after}
        behind = [
            symbol
            for symbol, slot in slots.items()
            if slot is not None and int(board.seqs[slot]) != self._after[symbol]
        ]
        self._reset(behind, "restarted")
        if self._from_ns is None and self._after:
            self._metrics.resumes[source] += len(self._after)
        seqs = {symbol.decode(): seq for symbol, seq in self._after.items()}
        message: Resumed | ReplayCompleted
        message_id = self._request.message_id
        if self._from_ns is None:
            message = {"type": "resumed", "id": message_id, "channel": name, "seqs": seqs}
        else:
            symbols = list(self._request.symbols)
            message = {"type": "replay_completed", "id": message_id, "channel": name, "symbols": symbols}
        if seqs or self._from_ns is not None:
            self._client.post(Held(message_frame(message)))
        self._begin_others()

    def _give_up(self) -> None:
        """The past cannot be read: tell, and go live."""
        if self._from_ns is None:
            self._reset(list(self._after), "gone")
        else:
            self._say_reset(list(self._request.symbols), "gone")
            self._given.clear()
        self._begin_others()

    def _begin_others(self) -> None:
        """Go live; symbols of a replay of which the client was given nothing begin with a snapshot."""
        board, following = self._fanout.board, self._following
        waited = np.flatnonzero(following.waits)
        self._release()
        others = [slot for slot in waited.tolist() if board.symbols[slot] not in self._given]
        slots = np.array([slot for slot in others if following.full[slot]], np.int64)
        self._fanout.snapshot(self._client, following, slots)

    def _release(self) -> None:
        if self._holds not in self._following.held_back:
            return
        self._following.held_back.remove(self._holds)
        self._fanout.refresh(self._following)

    def _reset(self, symbols: list[bytes], reason: str) -> None:
        """Tell that the past of some symbols cannot be had, and begin them with a snapshot."""
        if not symbols:
            return
        for symbol in symbols:
            self._after.pop(symbol, None)
        self._metrics.resumes[reason] += len(symbols)
        self._fanout.refresh(self._following)
        self._say_reset([symbol.decode() for symbol in symbols], reason)
        found = [self._fanout.board.find(symbol) for symbol in symbols]
        slots = np.array([slot for slot in found if slot is not None], np.int64)
        self._fanout.snapshot(self._client, self._following, slots[self._following.followed[slots]])

    def _say_reset(self, symbols: list[str], reason: str) -> None:
        message: Reset = {
            "type": "reset",
            "id": self._request.message_id,
            "channel": self._fanout.channel.name,
            "symbols": symbols,
            "reason": reason,  # type: ignore[typeddict-item]
        }
        self._client.post(Held(message_frame(message)))


def _matches(name: str, names: "tuple[str, ...] | list[str]") -> bool:
    return any(name == one or (one[-1:] == "*" and name.startswith(one[:-1])) for one in names)
