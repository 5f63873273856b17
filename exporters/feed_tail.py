"""Follows every partition of ``predictions`` without a group: any number of gateways read the same.

At the start it goes back far enough to know the newest prediction of each symbol, then it follows. When the broker
is away it drops the connection, makes a new one as soon as somebody answers, and goes on where it was. When another
cluster answers, or a topic that ends before where we were, everything is forgotten and read anew.
"""

import asyncio
import logging
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from exporters.cluster import cluster_id
from exporters.feed_hub import Hub
from exporters.feed_metrics import FeedMetrics
from exporters.feed_pacer import Pacer
from exporters.intake import Intake
from exporters.waiting import BROKER_PATIENCE_S, Backoff, pause
from stream.clock import Clock
from stream.records import Records, join_records
from stream.settings import Settings
from stream.telemetry import Health

logger = logging.getLogger(__name__)

FEED: Final = "feed"  # the part of our health that is a problem until the past is read
# Blocks of a partition that are read for the first snapshot: at 500 blocks a second those of 4 s, of a quiet market
# those of a day. A symbol that ticks less often appears with its next tick.
_PAST_BLOCKS: Final = 2000
_POLL_S: Final = 0.2  # how long `stop` may wait for getmany
_WATCH_EVERY_S: Final = 1.0
_RETRY_LIMIT_S: Final = 5.0
# Rows that are worked off in one go: about 15 ms with one client of `full`. Clients are served in between.
_CHUNK_ROWS: Final = 4096


class Tail:
    """Takes predictions from Kafka to the hub, for as long as it runs."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        intake: Intake,
        hub: Hub,
        pacer: Pacer,
        metrics: FeedMetrics,
        health: Health,
        clock: Clock,
    ) -> None:
        """Make it; `run` runs it.

        Args:
            settings: ``kafka`` must be set.
            topic: where the blocks of PREDICTION are; it exists.
            intake: decodes, checks and deduplicates.
            hub: where the rows go.
            pacer: told that there is something to flush.
            metrics: told of latencies and how far behind we are.
            health: told when Kafka is away.
            clock: gives the time at which rows were read.
        """
        self._settings, self._topic, self._intake, self._hub = settings, topic, intake, hub
        self._pacer, self._metrics, self._health, self._clock = pacer, metrics, health, clock
        self._next: dict[TopicPartition, int] = {}  # offsets up to which we have everything
        self._past_ends: dict[TopicPartition, int] = {}  # where the past ends that is being read, if it is
        self._consumer: Any = None
        self._backoff = Backoff(_RETRY_LIMIT_S)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self._run_connected(stop)
            except (KafkaError, TimeoutError, OSError) as error:
                self._health.fail(
                    "kafka",
                    f"Kafka at {self._settings.kafka} does not answer ({type(error).__name__}); "
                    "clients stay connected and get nothing new until it is back",
                )
                await pause(stop, self._backoff.next_s())

    async def _run_connected(self, stop: asyncio.Event) -> None:
        bootstrap = str(self._settings.kafka)
        epoch = await cluster_id(bootstrap)
        partitions = await _partitions(bootstrap, self._topic)
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
            self._health.recover("kafka")
            self._backoff = Backoff(_RETRY_LIMIT_S)
            await self._pump(stop, watch)
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            await _end(self._consumer)

    async def _seek(self, epoch: str, partitions: list[TopicPartition]) -> None:
        starts = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        goes_on = epoch == self._hub.epoch and all(self._next.get(p, end + 1) <= end for p, end in ends.items())
        if not goes_on:
            if self._hub.epoch is not None:
                self._health.fail(
                    FEED, f"Kafka at {self._settings.kafka} numbers predictions anew: reading them again"
                )
            self._intake.forget_everything()
            self._hub.begin(epoch)
            self._next = {p: max(starts[p], ends[p] - _PAST_BLOCKS) for p in partitions}
            self._past_ends = dict(ends)
            self._finish_past()
        for partition, offset in self._next.items():
            self._consumer.seek(partition, offset)

    async def _pump(self, stop: asyncio.Event, watch: "asyncio.Task[None]") -> None:
        while not stop.is_set():
            read = await self._consumer.getmany(timeout_ms=int(_POLL_S * 1000))
            read_ns = self._clock()
            if watch.done():
                watch.result()  # raises what the broker did not answer
            accepted = [self._intake.read(p.partition, messages).rows for p, messages in read.items()]
            for partition in read:
                self._next[partition] = await self._consumer.position(partition)
            accepted = [rows for rows in accepted if len(rows)]
            if accepted:
                await self._hand_on(join_records(accepted), read_ns)
            self._finish_past()

    async def _hand_on(self, rows: Records, read_ns: int) -> None:
        for start in range(0, len(rows), _CHUNK_ROWS):
            if start:
                await asyncio.sleep(0)
            chunk = rows[start : start + _CHUNK_ROWS]
            if self._past_ends:
                self._hub.fill(chunk)
                continue
            self._metrics.on_read(chunk, read_ns)
            self._hub.publish(chunk)
            self._pacer.poke()

    def _finish_past(self) -> None:
        if self._past_ends and all(self._next[p] >= end for p, end in self._past_ends.items()):
            self._past_ends = {}
            logger.info("%d symbols known from the past", len(self._hub.board))
            self._hub.show_all()
            self._health.recover(FEED)

    async def _watch(self, partitions: list[TopicPartition]) -> None:
        """Say for ever how far we are behind; ends with the error when the broker does not answer."""
        while True:
            ends = await asyncio.wait_for(self._consumer.end_offsets(partitions), BROKER_PATIENCE_S)
            self._metrics.lag_blocks = {p.partition: max(0, end - self._next[p]) for p, end in ends.items()}
            await asyncio.sleep(_WATCH_EVERY_S)


async def _end(consumer: Any) -> None:
    """End a consumer completely, whether its broker answers or not."""
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping}, timeout=BROKER_PATIENCE_S)
    if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
        # aiokafka 0.14 stumbles over its own cancelled fetches then, and leaves its connections open.
        stopping.cancel()
        await consumer._client.close()  # noqa: SLF001


async def _partitions(bootstrap: str, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic.

    Raises:
        KafkaError: the cluster does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(BROKER_PATIENCE_S * 1000))
    try:
        await admin.start()
        for info in await admin.describe_topics():
            if info["topic"] == topic:
                return [TopicPartition(topic, int(partition["partition"])) for partition in info["partitions"]]
    finally:
        await admin.close()
    raise KafkaError(f"no topic {topic}")
