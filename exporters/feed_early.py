"""Early copies (`stream.early`) on their way into the feed: which go out, and whether Kafka says the same later.

A copy goes out when each of its rows is the next of its symbol. One that is ahead of what came waits until Kafka
has told what is in between; one that Kafka was faster with is dropped. When Kafka has the block too it is compared
with what was told: mostly it is the same to the byte, and nothing else is left to do with it.
"""

import bisect
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporters.intake import Intake, Message, are_plausible
from stream.clock import NS_PER_S, Clock
from stream.errors import RecordError
from stream.records import PREDICTION, PREDICTION_CONTENT_BYTES, Records, decode_block
from stream.telemetry import Health

logger = logging.getLogger(__name__)

EARLY: Final = "early"  # the part of our health
_WAITING_BLOCKS: Final = 256  # of a partition: those of a third of a second, of up to 60 kB each
# More are not told before Kafka has confirmed some; and no more than an eighth of what the feed can give again.
_TOLD_ROWS: Final = 8192
# Kafka has what was told within milliseconds, and after a worker's end once another has taken over.
_CONFIRMED_WITHIN_S: Final = 60.0

_OUTCOMES: Final = ("told", "confirmed", "late", "bad", "contradicted", "lost")

_Position = tuple[int, int]  # of the tick behind a row, offset and index: they order the rows of a partition
_Contents = dict[tuple[bytes, int], bytes]  # by symbol and seq


@dataclass(eq=False)
class _Copy:
    block: bytes
    rows: Records
    told_ns: int = 0
    open: _Contents | None = None  # what Kafka has not had; None where it has had nothing

    @property
    def first(self) -> _Position:
        return _position(self.rows, 0)

    @property
    def last(self) -> _Position:
        return _position(self.rows, -1)


class EarlyCopies:
    """Copies that wait, and those that went out and that Kafka has not had yet."""

    def __init__(
        self, intake: Intake, memory: int, health: Health, clock: Clock, registry: CollectorRegistry
    ) -> None:
        """Begin without any.

        Args:
            intake: what Kafka's messages go through too.
            memory: rows of the channel that clients can resume from.
            health: told when Kafka does not have what was told, or has something else.
            clock: ns.
            registry: of the metrics.
        """
        self.predictions = Counter(dict.fromkeys(_OUTCOMES, 0))
        self._intake, self._health, self._clock = intake, health, clock
        self._room_rows = min(_TOLD_ROWS, memory // 8)  # for more that are told
        self._waiting: dict[int, deque[_Copy]] = {}  # by partition
        self._told: dict[int, deque[_Copy]] = {}  # in the order of their positions
        registry.register(self)

    @property
    def unconfirmed(self) -> int:
        """How many predictions were told that Kafka has not had."""
        return sum(len(copy.rows) for told in self._told.values() for copy in told)

    @property
    def wait(self) -> bool:
        """Whether copies wait for what Kafka has."""
        return any(self._waiting.values())

    def take(self, block: bytes) -> None:
        """Take a copy in; `due` may have it."""
        # Kafka has what is bad too: the intake says what is wrong with it.
        try:
            rows = decode_block(block, PREDICTION)
        except RecordError:
            self.predictions["bad"] += 1
            return
        if not are_plausible(rows):
            self.predictions["bad"] += len(rows)
            return
        waiting = self._waiting.setdefault(int(rows["source_partition"][0]), deque())
        waiting.append(_Copy(block, rows))
        if len(waiting) > _WAITING_BLOCKS:
            self._drop(waiting)

    def due(self) -> Iterator[tuple[int, Records]]:
        """Yield rows that go on where those before end, with their partition: they go out now."""
        for partition, waiting in self._waiting.items():
            while waiting and self._room_rows > 0:
                copy = waiting[0]
                accepted = self._intake.follow(partition, copy.rows)
                if accepted is None:
                    break
                waiting.popleft()
                self.predictions["late"] += accepted.duplicates
                if len(accepted.rows):
                    self.predictions["told"] += len(accepted.rows)
                    self._note_told(partition, _Copy(copy.block, accepted.rows, self._clock()))
                    yield partition, accepted.rows

    def without_told(self, partition: int, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages of Kafka without those that were told, to the byte; compare the others with what was."""
        told, waiting = self._told.get(partition, deque()), self._waiting.get(partition, deque())
        if not told and not waiting:
            return messages
        left = []
        for message in messages:
            if told and message.value == told[0].block:
                self.predictions["confirmed"] += len(self._forget_told(told).rows)
            else:
                left.append(message)
                self._compare(told, waiting, message)
        return left

    def forget(self) -> None:
        """Everything is numbered anew from here on."""
        self._room_rows += self.unconfirmed
        self._waiting, self._told = {}, {}

    def check(self) -> None:
        """Tell our health where Kafka does not get what was told."""
        oldest_ns = min((told[0].told_ns for told in self._told.values() if told), default=None)
        if oldest_ns is not None and self._clock() - oldest_ns > _CONFIRMED_WITHIN_S * NS_PER_S:
            self._health.fail(
                EARLY,
                f"for {_CONFIRMED_WITHIN_S:.0f} s Kafka has not had what clients were told: "
                f"no worker goes on with the partitions {self._late_partitions()}",
            )
        else:
            self._health.recover(EARLY)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        text = "Predictions that came before Kafka had them, by what became of them"
        family = CounterMetricFamily("tickloom_early_predictions", text, labels=["outcome"])
        for outcome, count in self.predictions.items():
            family.add_metric([outcome], count)
        yield family
        text = "Predictions that clients were told and Kafka has not had yet"
        yield GaugeMetricFamily("tickloom_early_unconfirmed", text, value=self.unconfirmed)

    def _late_partitions(self) -> str:
        return ", ".join(str(partition) for partition, told in sorted(self._told.items()) if told)

    def _drop(self, waiting: "deque[_Copy]") -> None:
        self.predictions["late"] += len(waiting.popleft().rows)

    def _note_told(self, partition: int, copy: _Copy) -> None:
        told = self._told.setdefault(partition, deque())
        if told and copy.first < told[-1].first:  # the network may turn them round
            bisect.insort(told, copy, key=_first_of)
        else:
            told.append(copy)
        self._room_rows -= len(copy.rows)

    def _forget_told(self, told: "deque[_Copy]") -> _Copy:
        copy = told.popleft()
        self._room_rows += len(copy.rows)
        return copy

    def _compare(self, told: "deque[_Copy]", waiting: "deque[_Copy]", message: Message) -> None:
        """Look for what was told in a message that is another block: cut differently, or made again."""
        try:
            rows = decode_block(message.value or b"", PREDICTION)
        except RecordError:
            return  # the intake says so
        last = _position(rows, -1)
        while waiting and waiting[0].last <= last:
            self._drop(waiting)
        kept = _contents(rows) if told and told[0].first <= last else {}
        while told and told[0].first <= last:
            copy = told[0]
            if copy.open is None:
                copy.open = _contents(copy.rows)
            for key in copy.open.keys() & kept.keys():
                self._judge(key, copy.open.pop(key) == kept[key], message)
            if copy.last > last:
                break  # the rest comes with the next message
            self._forget_told(told)
            if copy.open:
                self.predictions["lost"] += len(copy.open)
                logger.error(
                    "partition %d has gone on to %s without %d predictions that clients were told, such as %s",
                    message.partition,
                    last,
                    len(copy.open),
                    next(iter(copy.open)),
                )

    def _judge(self, key: tuple[bytes, int], is_same: bool, message: Message) -> None:
        self.predictions["confirmed" if is_same else "contradicted"] += 1
        if not is_same:
            logger.error(
                "Kafka has another prediction %s than clients were told (block %d of partition %d): "
                "do all workers run the same tickloom, and the same `predictor`?",
                key,
                message.offset,
                message.partition,
            )


def _first_of(copy: _Copy) -> _Position:
    return copy.first


def _position(rows: Records, index: int) -> _Position:
    return int(rows["source_offset"][index]), int(rows["source_index"][index])


def _contents(rows: Records) -> _Contents:
    """Return what each row says, without its stamps."""
    says = rows.view("u1").reshape(len(rows), -1)[:, PREDICTION_CONTENT_BYTES]
    keys = zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True)
    return {key: row.tobytes() for key, row in zip(keys, says, strict=True)}
