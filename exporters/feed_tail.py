"""Follows every partition of some topics without a group: any number of gateways read the same.

At the start it goes back far enough to know the newest prediction of each symbol, then it follows. When the broker
is away it drops the connection, makes a new one as soon as somebody answers, and goes on where it was. When another
cluster answers, or a topic that ends before where we were, everything is forgotten and read anew.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from exporters.feed_early import EarlyCopies
from exporters.feed_history import Segment
from exporters.feed_inlets import Inlet
from exporters.feed_pacer import FLUSH_EVERY_S, Pacer
from exporters.waiting import BROKER_PATIENCE_S, Backoff, end_task, pause
from stream.clock import Clock
from stream.cluster import cluster_id
from stream.ending import end_consumer
from stream.records import Records, join_records
from stream.settings import Settings
from stream.telemetry import Health

logger = logging.getLogger(__name__)

Prepare = Callable[[Sequence[Any]], Awaitable[None]]

FEED: Final = "feed"  # the part of our health that is a problem until the past is read
# Blocks of a partition that are read for the first snapshot: at 500 blocks a second those of 4 s, of a quiet market
# those of a day. A symbol that ticks less often appears with its next tick.
_PAST_BLOCKS: Final = 2000
_POLL_S: Final = 0.2  # how long `stop` may wait for getmany
_WATCH_EVERY_S: Final = 1.0
_RETRY_LIMIT_S: Final = 5.0
_TOPIC_EVERY_S: Final = 5.0  # how soon a topic is found that others create
# Rows that are worked off in one go: about 15 ms with one client of `full`. Clients are served in between.
_CHUNK_ROWS: Final = 4096
# After a round in which Kafka only had what came early: each costs us and the broker as much as a round of news.
_REST_S: Final = 0.02
# Who is to get what comes next is not served yet: to read sooner would only cost more reads.
WHILE_BUSY_S: Final = FLUSH_EVERY_S / 4


class Tail:
    """Takes messages from Kafka to the hub, for as long as it runs."""

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        inlet: Inlet,
        pacer: Pacer,
        health: Health,
        clock: Clock,
        part: str = FEED,
        prepare: Prepare | None = None,
        early: EarlyCopies | None = None,
    ) -> None:
        """Make it; `run` runs it.

        Args:
            settings: ``kafka`` must be set.
            topics: what to follow; those that are not there yet are waited for, as long as there is none at all.
            inlet: where the messages go.
            pacer: told that there is something to flush.
            health: told when Kafka is away, or has not been read yet.
            clock: gives the time at which rows were read.
            part: what this is called in ``health``.
            prepare: awaited with messages before ``inlet`` reads them.
            early: what may come before Kafka has it; see `take_early`.
        """
        self.lag_blocks: dict[int, int] = {}  # of the first topic; always the same object
        self._settings, self._topics, self._inlet = settings, topics, inlet
        self._pacer, self._health, self._clock, self._part = pacer, health, clock, part
        self._kafka = "kafka" if part == FEED else f"kafka: {part}"
        self._epoch: str | None = None
        self._next: dict[TopicPartition, int] = {}  # offsets up to which we have everything
        self._past_ends: dict[TopicPartition, int] = {}  # where the past ends that is being read, if it is
        self._consumer: Any = None
        self._backoff = Backoff(_RETRY_LIMIT_S)
        self._prepare = prepare
        self._early = early
        self._is_level = False  # all that was read was handed on
        self._wanted = asyncio.Event()  # early copies wait for what Kafka has

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self._run_connected(stop)
            except (KafkaError, TimeoutError, OSError) as error:
                self._health.fail(
                    self._kafka,
                    f"Kafka at {self._settings.kafka} does not answer ({type(error).__name__}); "
                    "clients stay connected and get nothing new until it is back",
                )
                await pause(stop, self._backoff.next_s())

    async def _run_connected(self, stop: asyncio.Event) -> None:
        bootstrap = str(self._settings.kafka)
        epoch = await cluster_id(bootstrap)
        partitions = await partitions_of(bootstrap, self._topics)
        while not partitions and not stop.is_set():
            await pause(stop, _TOPIC_EVERY_S)
            partitions = await partitions_of(bootstrap, self._topics)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # of what retention has taken; the gap is counted
            fetch_max_wait_ms=self._settings.fetch_wait_ms,
        )
        watch: asyncio.Task[None] | None = None
        try:
            await self._consumer.start()
            self._consumer.assign(partitions)
            await asyncio.wait_for(self._seek(epoch, partitions), BROKER_PATIENCE_S)
            watch = asyncio.create_task(self._watch(partitions))
            self._health.recover(self._kafka)
            self._backoff = Backoff(_RETRY_LIMIT_S)
            await self._pump(stop, watch)
        finally:
            self._is_level = False
            if watch is not None:
                await end_task(watch)
            await end_consumer(self._consumer)

    async def _seek(self, epoch: str, partitions: list[TopicPartition]) -> None:
        starts = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        goes_on = epoch == self._epoch and all(self._next.get(p, end + 1) <= end for p, end in ends.items())
        if not goes_on:
            if self._epoch is not None:
                self._health.fail(
                    self._part, f"Kafka at {self._settings.kafka} numbers messages anew: reading them again"
                )
            self._inlet.forget()
            self._next = {p: max(starts[p], ends[p] - _PAST_BLOCKS) for p in partitions}
            offsets = {p.partition: offset for p, offset in self._next.items() if p.topic == self._topics[0]}
            for fanout in self._inlet.fanouts:
                fanout.begin(epoch, offsets)
            self._epoch = epoch
            self._past_ends = dict(ends)
            self._finish_past()
        for partition, offset in self._next.items():
            self._consumer.seek(partition, offset)

    async def _pump(self, stop: asyncio.Event, watch: "asyncio.Task[None]") -> None:
        while not stop.is_set():
            read = await self._consumer.getmany(timeout_ms=int(_POLL_S * 1000))
            read_ns = self._clock()
            self._is_level = False
            confirmed = self._early.predictions["confirmed"] if self._early is not None else 0
            if watch.done():
                watch.result()  # raises what the broker did not answer
            has_news = await self._take_in(read, read_ns)
            for partition in read:
                if partition.topic == self._topics[0]:
                    self._inlet.fanouts[0].history.reach(partition.partition, self._next[partition])
            self._finish_past()
            if self._early is not None and not self._past_ends:
                self._is_level = True
                self._wanted.clear()
                self.take_early()
                if confirmed < self._early.predictions["confirmed"] and not has_news:
                    await self._rest()
            await asyncio.sleep(0)  # a round that all have had comes to its end, and keeps nobody
            if any(fanout.rounds.busy for fanout in self._inlet.fanouts):
                await asyncio.sleep(WHILE_BUSY_S)

    async def _take_in(self, read: Mapping[TopicPartition, Sequence[Any]], read_ns: int) -> bool:
        """Hand on what is new in messages; return whether anything is."""
        parts: list[Records] = []
        segments: list[Segment] = []
        for partition, messages in read.items():
            if self._prepare is not None:
                await self._prepare(messages)
            rows = self._inlet.read(partition.topic, partition.partition, messages)
            self._next[partition] = await self._consumer.position(partition)
            if len(rows):
                parts.append(rows)
                segments.append(Segment(len(rows), partition.partition, self._next[partition]))
        if parts:
            await self._hand_on(_join(parts), segments, read_ns)
        return bool(parts)

    async def _rest(self) -> None:
        # Not wait_for, as in `_watch`.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST_S):
                await self._wanted.wait()

    def take_early(self) -> None:
        """Hand on what came early and goes on where it ended."""
        if not self._is_level or self._early is None:
            return
        if not any(fanout.rounds.backlog > _CHUNK_ROWS for fanout in self._inlet.fanouts):
            parts = list(self._early.due())
            if parts:
                segments = [Segment(len(rows), partition, None) for partition, rows in parts]
                self._inlet.take(join_records([rows for _, rows in parts]), segments, False, self._clock())
                self._pacer.poke()
        if self._early.wait:
            self._wanted.set()

    async def _hand_on(self, rows: Records, segments: list[Segment], read_ns: int) -> None:
        start = 0
        for some in _portions(segments):
            if start:
                await asyncio.sleep(0)
            while any(fanout.rounds.backlog > _CHUNK_ROWS for fanout in self._inlet.fanouts):
                await asyncio.sleep(WHILE_BUSY_S)
            stop = start + sum(segment.rows for segment in some)
            is_past = bool(self._past_ends)
            self._inlet.take(rows[start:stop], some, is_past, read_ns)
            start = stop
            if not is_past:
                self._pacer.poke()

    def _finish_past(self) -> None:
        if self._past_ends and all(self._next[p] >= end for p, end in self._past_ends.items()):
            self._past_ends = {}
            for fanout in self._inlet.fanouts:
                logger.info("%s: %d symbols known from the past", fanout.channel.name, len(fanout.board))
                fanout.show_all()
            self._health.recover(self._part)

    async def _watch(self, partitions: list[TopicPartition]) -> None:
        """Say for ever how far we are behind; ends with the error when the broker does not answer."""
        while True:
            # Not wait_for: Python 3.11's loses a cancellation that comes together with the answer.
            async with asyncio.timeout(BROKER_PATIENCE_S):
                ends = await self._consumer.end_offsets(partitions)
            behind = {p: max(0, end - self._next[p]) for p, end in ends.items()}
            self.lag_blocks.update({p.partition: n for p, n in behind.items() if p.topic == self._topics[0]})
            await asyncio.sleep(_WATCH_EVERY_S)


async def partitions_of(bootstrap: str, topics: Sequence[str]) -> list[TopicPartition]:
    """Return the partitions of those topics that exist.

    Raises:
        KafkaError: the cluster does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(BROKER_PATIENCE_S * 1000))
    try:
        await admin.start()
        return [
            TopicPartition(info["topic"], int(partition["partition"]))
            for info in await admin.describe_topics()
            if info["topic"] in topics
            for partition in info["partitions"]
        ]
    finally:
        await admin.close()


def _portions(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Cut segments into portions of up to _CHUNK_ROWS rows; a segment that is cut is whole with its last part."""
    portion: list[Segment] = []
    rows = 0
    for segment in segments:
        left = segment.rows
        while left:
            part = min(left, _CHUNK_ROWS - rows)
            left -= part
            portion.append(segment._replace(rows=part, is_last=left == 0))
            rows += part
            if rows == _CHUNK_ROWS:
                yield portion
                portion, rows = [], 0
    if portion:
        yield portion


def _join(parts: list[Records]) -> Records:
    if len(parts) == 1:
        return parts[0]
    if parts[0].dtype.hasobject:
        return np.concatenate(parts)
    # What is joined is read-only, and chained rows are written to.
    joined = join_records(parts)
    return joined if joined.flags.writeable or "prev" not in (joined.dtype.names or ()) else joined.copy()
