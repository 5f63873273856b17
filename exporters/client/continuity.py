"""What has come of a channel, from whichever connection: each message once, in order, and every hole told. Pure.

Each connection is a `Stream`: the messages of one gateway, in order, of which the gateway leaves none out that it
has. One connection or several, of one gateway or two, are merged alike. Of each symbol:

- a message that follows the last one that came is next, whoever brings it first;
- one that we had is dropped. Which of two is newer says the place of its tick for predictions and features (their
  seq may begin anew), and seq for other channels;
- one that follows its stream's last, where that stream was not ahead, shows a hole of the engine's own: a `Gap`;
- else its stream began, or went on, further than we are: another stream may still bring what is between. The
  message is dropped and its connection asked to resume from where we are; then its stream is as good as any.

So a hole is never taken for granted while a gateway could still fill it, and nothing waits in memory for that.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Final, NamedTuple

import numpy as np

from exporters.client.items import Batch, Gap, Item, Reset, Stats
from exporters.feed_channels import Channel
from exporters.protocol import Mode

# (offset << 16) + index orders ticks by where they stand, as in `exporters.sequence`.
_INDEX_BITS: Final = 16
_NOT_KNOWN: Final = -1


class Had(NamedTuple):
    """The last message that came of a symbol."""

    seq: int
    order: int = _NOT_KNOWN  # grows from each message to the next, also where seq begins anew


class _Modes(dict[bytes, Mode]):
    def __init__(self, choose: Callable[[bytes], Mode]) -> None:
        super().__init__()
        self._choose = choose

    def __missing__(self, symbol: bytes) -> Mode:
        mode = self[symbol] = self._choose(symbol)
        return mode


class Stream:
    """One connection's messages of a channel."""

    def __init__(self, choose: Callable[[bytes], Mode]) -> None:
        """Begin one.

        Args:
            choose: says how the gateway was asked to follow a symbol.
        """
        self.modes = _Modes(choose)  # clear it when the answers change
        self.last: dict[bytes, int] = {}  # the order of the last message of each symbol
        self.hopeless: set[bytes] = set()  # symbols that it is ahead of, and cannot bring what is between
        self.epoch: str | None = None
        self.is_ahead = False  # it must be asked to resume
        self.replays = 0  # it brings all since a time: what is not there then is nowhere


class _Verdict(Enum):
    CONTINUES = 0
    BEGINS = 1
    FOLLOWS = 2  # of `latest`
    SKIP = 3
    AFTER_A_HOLE = 4
    RESTARTS = 5
    AHEAD = 6


# Half of what it takes to call Had.
_new: Final = tuple.__new__
_DROPPED: Final = (_Verdict.SKIP, _Verdict.AHEAD)


class Continuity:
    """All streams of a channel."""

    def __init__(self, channel: Channel, stats: Stats) -> None:
        """Begin with nothing.

        Args:
            channel: which.
            stats: told what became of messages.
        """
        self.channel = channel
        self.epoch: str | None = None
        self.newest_ns = 0  # the newest time of any message that came
        self.had: dict[bytes, Had] = {}
        self.streams: list[Stream] = []
        self._past_epochs: set[str] = set()
        self._stats = stats

    def take(self, stream: Stream, batch: Batch) -> list[Item]:
        """Return what is new in a batch that a stream brought, and what is to be told before it."""
        out: list[Item] = []
        if batch.epoch != self.epoch and not self._switch(stream, batch.epoch, out):
            return out
        stream.epoch = batch.epoch
        records, orders = batch.records, _orders(batch)
        symbols, seqs = records["symbol"].tolist(), records["seq"].tolist()
        befores = records["prev"].tolist() if self.channel.chained else [seq - 1 for seq in seqs]
        rows = list(zip(symbols, seqs, befores, orders, strict=True))
        easy = 0 if batch.skipped is not None else self._go_on(stream, rows)
        if easy == len(rows):
            out.append(replace(batch, is_snapshot=False) if batch.is_snapshot else batch)
        else:
            plan = _Plan(batch, out, easy)
            for index in range(easy, len(rows)):
                symbol, seq, before, order = rows[index]
                had = self.had.get(symbol)
                verdict = self._judge(stream, symbol, had, seq, before, order, batch.is_snapshot)
                stream.last[symbol] = order
                if verdict not in _DROPPED:
                    self.had[symbol] = Had(seq, order)
                plan.add(index, verdict, had)
            plan.finish()
        self._note(batch, out)
        return out

    def _go_on(self, stream: Stream, rows: list[tuple[bytes, int, int, int]]) -> int:
        """Take rows as long as each is next; return how many were. Nearly always all are: this has to be quick."""
        had_of, last, modes, full = self.had, stream.last, stream.modes, Mode.FULL
        count = 0
        for symbol, seq, before, order in rows:
            had = had_of.get(symbol)
            if had is None or before != had[0] or order <= had[1] or modes[symbol] is not full:
                break
            had_of[symbol] = _new(Had, (seq, order))
            last[symbol] = order
            count += 1
        return count

    def begin(self, stream: Stream, after: Mapping[bytes, Had]) -> None:
        """Take note that a stream goes on, from now on, after these messages."""
        for symbol, had in after.items():
            stream.last[symbol] = had.order
        if after:
            stream.hopeless.difference_update(after)
            stream.is_ahead = False

    def reset(self, stream: Stream, symbols: Iterable[str], reason: str) -> list[Item]:
        """Return what a gateway's `reset` means: nothing, where another stream brings what this one cannot.

        Of the other reasons than ``gone``, what follows shows more: see `take`.
        """
        if reason != "gone":
            return []
        lost = []
        for name in symbols:
            symbol = name.encode()
            if self._comes_elsewhere(stream, symbol):
                stream.hopeless.add(symbol)
            else:
                lost.append(name)
        return self._lose(lost)

    def end(self, stream: Stream) -> list[Item]:
        """Return what the end of a stream means for symbols that only it could bring without a hole."""
        self.streams.remove(stream)
        lost: dict[str, None] = {}
        for other in self.streams:
            for symbol in list(other.hopeless):
                if self._brings(other, symbol):
                    other.hopeless.discard(symbol)  # we have come to where it is
                elif not self._comes_elsewhere(other, symbol):
                    other.hopeless.discard(symbol)
                    other.is_ahead = True
                    lost[symbol.decode()] = None
        return self._lose(list(lost))

    def forget(self, covers: Callable[[str], bool]) -> None:
        """Begin symbols anew: the next message of each is a snapshot to the reader."""
        for symbol in [symbol for symbol in self.had if covers(symbol.decode())]:
            del self.had[symbol]

    def is_behind(self, stream: Stream, symbol: str, seq: int) -> bool:
        """Return whether a gateway that says it has sent us ``seq`` has sent something that did not come."""
        raw = symbol.encode()
        had = self.had.get(raw)
        return had is not None and stream.modes[raw] is Mode.FULL and raw not in stream.hopeless and had.seq < seq

    def _judge(
        self, stream: Stream, symbol: bytes, had: Had | None, seq: int, before: int, order: int, snapshot: bool
    ) -> _Verdict:
        mode = stream.modes[symbol]
        if mode is Mode.NONE:
            return _Verdict.SKIP
        if had is None:
            return _Verdict.BEGINS
        if order <= had.order:
            self._stats.duplicates += 1
            return _Verdict.SKIP
        if seq <= had.seq:
            return _Verdict.RESTARTS
        if mode is not Mode.FULL:
            return _Verdict.FOLLOWS
        if before == had.seq:
            return _Verdict.CONTINUES
        last = stream.last.get(symbol)
        if stream.replays or (not snapshot and last is not None and last <= had.order):
            return _Verdict.AFTER_A_HOLE
        if symbol not in stream.hopeless:
            stream.is_ahead = True
        return _Verdict.AHEAD

    def _switch(self, stream: Stream, epoch: str, out: list[Item]) -> bool:
        """Go over to another epoch, unless it is one that is over."""
        if self.epoch is not None:
            is_current = any(other.epoch == self.epoch for other in self.streams if other is not stream)
            if epoch in self._past_epochs and is_current:
                return False
            self._past_epochs.add(self.epoch)
            self._past_epochs.discard(epoch)
            out += self._lose([symbol.decode() for symbol in self.had], "epoch")
        for each in self.streams:
            each.last.clear()
            each.hopeless.clear()
        self.epoch = epoch
        return True

    def _comes_elsewhere(self, stream: Stream, symbol: bytes) -> bool:
        return any(self._brings(other, symbol) for other in self.streams if other is not stream)

    def _brings(self, stream: Stream, symbol: bytes) -> bool:
        """Whether a stream brings what comes next of a symbol."""
        had = self.had.get(symbol)
        if had is None or symbol not in stream.last:
            return False
        return stream.last[symbol] <= had.order and stream.modes[symbol] is Mode.FULL

    def _lose(self, symbols: list[str], reason: str = "gone") -> list[Item]:
        if not symbols:
            return []
        for symbol in symbols:
            self.had.pop(symbol.encode(), None)
        self._stats.resets += len(symbols)
        return [Reset(self.channel.name, tuple(symbols), reason)]

    def _note(self, batch: Batch, out: list[Item]) -> None:
        if out:
            self.newest_ns = max(self.newest_ns, int(batch.records[self.channel.time_field].max()))
        for item in out:
            match item:
                case Batch():
                    self._stats.records += len(item)
                case Gap():
                    self._stats.gaps += 1
                case Reset() if item.reason == "restarted":
                    self._stats.resets += len(item.symbols)


class _Plan:
    """Puts what is new into batches, with what is to be told between them."""

    def __init__(self, batch: Batch, out: list[Item], easy: int) -> None:
        self._batch, self._out = batch, out
        self._indices = list(range(easy))
        self._skipped: list[int] = []
        self._is_snapshot = batch.is_snapshot and easy == 0

    def add(self, index: int, verdict: _Verdict, had: Had | None) -> None:
        if verdict in _DROPPED:
            return
        record = self._batch.records[index] if verdict.value > _Verdict.SKIP.value else None
        if record is not None and had is not None:
            self.finish()
            symbol = bytes(record["symbol"]).decode()
            if verdict is _Verdict.RESTARTS:
                self._out.append(Reset(self._batch.channel, (symbol,), "restarted"))
            else:
                self._out.append(Gap(self._batch.channel, symbol, had.seq, int(record["seq"])))
        is_snapshot = verdict in (_Verdict.BEGINS, _Verdict.RESTARTS)
        if verdict is _Verdict.FOLLOWS:
            is_snapshot = self._batch.is_snapshot
        if is_snapshot is not self._is_snapshot:
            self.finish()
            self._is_snapshot = is_snapshot
        self._indices.append(index)
        if self._batch.skipped is not None:
            self._skipped.append(self._skips(index, int(self._batch.skipped[index]), verdict, had))

    def finish(self) -> None:
        if not self._indices:
            return
        batch, count = self._batch, len(self._indices)
        skipped = None if batch.skipped is None else np.array(self._skipped, np.uint32)
        records = batch.records if count == len(batch) else batch.records[self._indices]
        records.flags.writeable = False
        self._out.append(replace(batch, records=records, is_snapshot=self._is_snapshot, skipped=skipped))
        self._indices, self._skipped = [], []

    def _skips(self, index: int, told: int, verdict: _Verdict, had: Had | None) -> int:
        if had is None or verdict is _Verdict.RESTARTS:
            return 0
        if "prev" in (self._batch.records.dtype.names or ()):
            return told
        return int(self._batch.records["seq"][index]) - had.seq - 1


def _orders(batch: Batch) -> list[int]:
    """What grows from each message of a symbol to the next, also where seq begins anew."""
    records = batch.records
    if "source_offset" not in (records.dtype.names or ()):
        seqs: list[int] = records["seq"].tolist()
        return seqs
    places = (records["source_offset"].astype(np.int64) << _INDEX_BITS) + records["source_index"]
    orders: list[int] = places.tolist()
    return orders
