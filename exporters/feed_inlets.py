"""From messages of Kafka topics to rows of channels; each inlet fills and feeds those that come from its topics."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import orjson

from exporters.feed_bars import BarMaker
from exporters.feed_board import Int64s
from exporters.feed_channels import BAR_NS, EVENT, FEED_TICK
from exporters.feed_early import EarlyCopies
from exporters.feed_fanout import Fanout
from exporters.feed_history import Segment
from exporters.feed_hub import Hub
from exporters.feed_metrics import FeedMetrics
from exporters.intake import Intake, Message, plausible, readable_symbols
from stream.errors import RecordError
from stream.records import (
    MAX_BLOCK_RECORDS,
    PREDICTION,
    REJECTED,
    TICK,
    Records,
    Reject,
    TickKind,
    decode_block,
    join_records,
)

_NOTHING: Final = np.zeros(0, PREDICTION)
_HALTS: Final = {TickKind.HALT.value: b'"halt"', TickKind.RESUME.value: b'"resume"'}
_LOOK_EVERY_S: Final = 0.05
_REASONS: Final = {reason.value: reason.name.lower() for reason in Reject}


class Inlet(Protocol):
    """What a `Tail` hands messages to."""

    @property
    def fanouts(self) -> Sequence[Fanout]:
        """All that it feeds."""
        ...

    def forget(self) -> None:
        """Everything is numbered anew from here on."""
        ...

    def read(self, topic: str, partition: int, messages: Sequence[Any]) -> Records:
        """Return the rows of some messages of one partition, in order."""
        ...

    def take(self, rows: Records, segments: Sequence[Segment], is_past: bool, read_ns: int) -> None:
        """Give rows to the channels."""
        ...


class PredictionInlet:
    """``predictions``, and the bars that follow from them."""

    def __init__(self, hub: Hub, intake: Intake, metrics: FeedMetrics, early: EarlyCopies | None = None) -> None:
        """Feed the channels of ``hub``.

        Args:
            hub: its channels prediction, bar.1s and bar.1m are fed.
            intake: decodes, checks and deduplicates.
            metrics: told of latencies.
            early: copies that may have come before.
        """
        self._main = hub.channels["prediction"]
        self._bars = [(hub.channels[name], length_ns) for name, length_ns in BAR_NS.items()]
        self._intake, self._metrics, self.early = intake, metrics, early
        self._makers: list[BarMaker] = []  # none as long as nobody asked for bars

    @property
    def fanouts(self) -> Sequence[Fanout]:
        """All that it feeds: bars only once somebody follows them."""
        return (self._main, *(fanout for fanout, _ in self._bars)) if self._makers else (self._main,)

    def forget(self) -> None:
        """Everything is numbered anew from here on."""
        self._intake.forget_everything()
        if self.early is not None:
            self.early.forget()
        self._makers = [BarMaker(length_ns) for _, length_ns in self._bars if self._makers]

    def read(self, topic: str, partition: int, messages: Sequence[Any]) -> Records:
        """Return ``PREDICTION[N]`` that are new."""
        if self.early is not None:
            messages = self.early.without_told(partition, messages)
            if not messages:
                return _NOTHING
        return self._intake.read(partition, messages).rows

    def take(self, rows: Records, segments: Sequence[Segment], is_past: bool, read_ns: int) -> None:
        """Give them to the channel, and the bars that they end to theirs."""
        if not is_past:
            self._metrics.on_read(rows, read_ns)
        slots = give(self._main, rows, segments, is_past)
        self._make_bars(self._makers, rows, slots, is_past)

    async def begin_bars(self) -> None:
        """Make bars from now on: somebody follows them. The first come from what is in memory, in small pieces.

        Cancelling it is safe.
        """
        while not self._makers:
            while self._main.filling or self._main.epoch is None:
                await asyncio.sleep(_LOOK_EVERY_S)
            history, epoch = self._main.history, self._main.epoch
            makers = [BarMaker(length_ns) for _, length_ns in self._bars]
            for fanout, _ in self._bars:
                fanout.begin(epoch, {})
            position = history.start
            while history is self._main.history and history.start <= position < history.head:
                rows, slots, position = history.piece(position)
                self._make_bars(makers, rows, slots, is_past=True)
                await asyncio.sleep(0)
            if history is self._main.history and position == history.head:
                self._makers = makers
        for fanout, _ in self._bars:
            fanout.show_all()

    def _make_bars(self, makers: list[BarMaker], rows: Records, slots: Int64s, is_past: bool) -> None:
        for (fanout, _), maker in zip(self._bars, makers, strict=False):  # none, or one for each
            bars = maker.add(rows, slots)
            if len(bars):
                give(fanout, bars, (), is_past)


class TickInlet:
    """``ticks``, and the halts among them."""

    def __init__(self, hub: Hub) -> None:
        """Feed the channels tick and halt of ``hub``."""
        self._main, self._halt = hub.channels["tick"], hub.channels["halt"]
        self.fanouts = (self._main, self._halt)

    def forget(self) -> None:
        """Nothing is kept."""

    def read(self, topic: str, partition: int, messages: Sequence[Any]) -> Records:
        """Return ``FEED_TICK[N]``."""
        return decode_ticks(messages)

    def take(self, rows: Records, segments: Sequence[Segment], is_past: bool, read_ns: int) -> None:
        """Give them to the channel, and halts to theirs."""
        give(self._main, rows, segments, is_past)
        halts = rows[(rows["kind"] == TickKind.HALT) | (rows["kind"] == TickKind.RESUME)]
        if len(halts):
            events = np.zeros(len(halts), EVENT)
            events["symbol"], events["seq"], events["at_ns"] = halts["symbol"], halts["seq"], halts["event_ns"]
            events["event"] = [_HALTS[kind] for kind in halts["kind"].tolist()]
            events["details"] = b"{}"
            give(self._halt, events, (), is_past)


class RejectedInlet:
    """``ticks.rejected``: what the engine did not use, one event for each symbol and reason of a block."""

    def __init__(self, hub: Hub) -> None:
        """Feed the channel status of ``hub``."""
        self._main = hub.channels["status"]
        self.fanouts = (self._main,)

    def forget(self) -> None:
        """Nothing is kept."""

    def read(self, topic: str, partition: int, messages: Sequence[Any]) -> Records:
        """Return ``EVENT[N]``."""
        found = [self._events(message) for message in messages]
        return np.concatenate([np.zeros(0, EVENT), *found])

    def take(self, rows: Records, segments: Sequence[Segment], is_past: bool, read_ns: int) -> None:
        """Give them to the channel."""
        give(self._main, rows, segments, is_past)

    def _events(self, message: Message) -> Records:
        try:
            rows = decode_block(message.value or b"", REJECTED)
        except RecordError:
            return np.zeros(0, EVENT)  # whoever counts rejections counts these: agents, and the sink of rejections
        first: dict[tuple[bytes, int], list[Any]] = {}
        good = readable_symbols(rows["tick"]["symbol"])
        for index in np.flatnonzero(good).tolist():
            row = rows[index]
            entry = first.setdefault((bytes(row["tick"]["symbol"]), int(row["reason"])), [index, 0, row])
            entry[1] += 1
        events = np.zeros(len(first), EVENT)
        for place, ((symbol, reason), (index, count, row)) in enumerate(first.items()):
            events[place]["symbol"] = symbol
            events[place]["seq"] = message.offset * MAX_BLOCK_RECORDS + index + 1
            events[place]["at_ns"] = row["tick"]["recv_ns"]
            events[place]["event"] = b'"rejected"'
            details = {
                "reason": _REASONS.get(reason, str(reason)),
                "ticks": count,
                "event_ns": int(row["tick"]["event_ns"]),
                "source_seq": int(row["tick"]["source_seq"]),
            }
            events[place]["details"] = orjson.dumps(details)
        return events


def decode_predictions(messages: Iterable[Message]) -> Records:
    """Return every row of blocks of the past that can be read and can be true: ``PREDICTION[N]``."""
    blocks = []
    for message in messages:
        try:
            rows = decode_block(message.value or b"", PREDICTION)
        except RecordError:
            continue  # it was counted when it was new
        good = plausible(rows)
        blocks.append(rows if good.all() else rows[good])
    return join_records(blocks) if blocks else np.zeros(0, PREDICTION)


def decode_ticks(messages: Iterable[Message]) -> Records:
    """Return every tick that has a symbol, with its place: ``FEED_TICK[N]``."""
    blocks = []
    for message in messages:
        try:
            ticks = decode_block(message.value or b"", TICK)
        except RecordError:
            continue  # the lanes count it and put it where it can be looked at
        rows = np.zeros(len(ticks), FEED_TICK)
        for name in TICK.names or ():
            rows[name] = ticks[name]
        rows["seq"] = message.offset * MAX_BLOCK_RECORDS + np.arange(1, len(ticks) + 1)
        blocks.append(rows[readable_symbols(ticks["symbol"])])
    return join_records(blocks).copy() if blocks else np.zeros(0, FEED_TICK)


def give(fanout: Fanout, rows: Records, segments: Sequence[Segment], is_past: bool) -> Int64s:
    """Give rows to a channel, to keep or to send as well; return the slot of each."""
    return fanout.fill(rows, segments) if is_past else fanout.publish(rows, segments)
