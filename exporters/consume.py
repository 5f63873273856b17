"""The loop of an exporter that is a consumer of ``predictions`` with a group of its own.

    getmany ─▶ Intake: decode, check, drop what we had ─▶ pending ─▶ sink.write ─▶ done ─▶ sink.settle ─▶ commit

Kafka is the spool: an offset is committed only after the sink has acknowledged everything before it. While the
sink is away we keep one batch, retry exactly that one and fetch nothing, so memory stays bounded and nobody
upstream notices. A crash repeats what was not committed; sinks take repetitions without harm.

Why `_generation`: a rebalance takes partitions away at any await. Rows that we hold then are still written
(repeating is harmless), but their offsets are not ours to commit any more: a partition that comes back starts
again where its group's offset stands, and is committed from there.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from exporters.batch import Batch, Sink
from exporters.intake import Door
from exporters.metrics import SinkMetrics
from exporters.pending import Pending
from exporters.waiting import BROKER_PATIENCE_S, Backoff, end_task, pause
from stream.cluster import cluster_id
from stream.ending import end_consumer
from stream.errors import SinkRejected, SinkUnavailable
from stream.settings import Settings
from stream.telemetry import Health

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.2  # how long `stop` may wait for getmany
_COMMIT_EVERY_S: Final = 0.25  # a crash repeats at most this much to the sink; a commit costs a round trip
_WORK_FOR_SETTLING: Final = (
    9  # a sink that takes long to settle does it less often, a tenth of the time at the most
)
_CHECK_EVERY_S: Final = 1.0  # signs of life of an idle sink
_WATCH_EVERY_S: Final = 2.0
# The broker answers a fetch once it has this much, or after so long (half the age of a batch, if that is longer).
# Each fetch costs broker and exporter a millisecond: else an exporter makes one for every block of a few ticks.
_GATHER_BYTES: Final = 1 << 20
_GATHER_MS: Final = 10
_LONGEST_GATHER_MS: Final = 250
_RETRY_LIMIT_S: Final = 5.0
_REFUSALS_LOGGED: Final = 20
# aiokafka leaves the group when nobody calls getmany for this long. A sink may be away for days; a process that
# hangs stops its heartbeats, and those are what tells.
_NEVER_MS: Final = 2**31 - 1


class Consumption(ConsumerRebalanceListener):
    """Takes predictions from Kafka to a sink, for as long as it runs."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str,
        sink: Sink,
        intake: Door,
        metrics: SinkMetrics,
        health: Health,
        max_rows: int,
        max_age_s: float,
    ) -> None:
        """Make the loop; `run` runs it.

        Args:
            settings: ``kafka`` must be set.
            topic: where the blocks are.
            group: the consumer group whose offsets say what the sink has.
            sink: where the rows go.
            intake: the door.
            metrics: counts what became of them.
            health: told when Kafka or the sink is away.
            max_rows: a batch is written once it has this many rows (it may have more: blocks are not cut) ...
            max_age_s: ... or once its oldest row was read this long ago.
        """
        self._settings, self._topic, self._group = settings, topic, group
        self._sink, self._intake, self._metrics, self._health = sink, intake, metrics, health
        self._max_rows, self._max_age_s = max_rows, max_age_s
        self._generation = 0
        self._owned: frozenset[TopicPartition] = frozenset()
        self._pending = Pending(0)
        self._done: dict[TopicPartition, int] = {}  # next offsets, everything before them is in the sink
        self._consumer: Any = None
        self._epoch = ""
        self._committed_s = self._checked_s = 0.0
        self._commit_every_s = _COMMIT_EVERY_S
        self._committing = asyncio.Lock()
        self._refusals = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set; then write what was read, commit, and leave the group."""
        backoff = Backoff(_RETRY_LIMIT_S)
        while not stop.is_set():
            try:
                await self._run_connected(stop)
            except KafkaError as error:
                self._health.fail("kafka", f"Kafka at {self._settings.kafka}: {error!r}; trying again")
                await pause(stop, backoff.next_s())

    async def _run_connected(self, stop: asyncio.Event) -> None:
        # Rows of an earlier connection that were remembered as had, but never written, must be taken again.
        self._intake.forget_everything()
        self._owned, self._done, self._pending = frozenset(), {}, Pending(self._generation)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_min_bytes=_GATHER_BYTES,
            fetch_max_wait_ms=min(max(_GATHER_MS, int(self._max_age_s * 1000 / 2)), _LONGEST_GATHER_MS),
            session_timeout_ms=int(self._settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(self._settings.session_timeout_s * 1000 / 4),
            max_poll_interval_ms=_NEVER_MS,
            # Joining a group takes as long as its slowest member, up to the session timeout.
            request_timeout_ms=int(self._settings.session_timeout_s * 1000) + 5_000,
        )
        watch: asyncio.Task[None] | None = None
        try:
            await self._consumer.start()
            self._epoch = await cluster_id(str(self._settings.kafka))
            await self._await_topic(stop)
            self._consumer.subscribe([self._topic], listener=self)
            watch = asyncio.create_task(self._watch())
            await self._pump(stop)
            await self._commit()
        finally:
            if watch is not None:
                await end_task(watch)
            await end_consumer(self._consumer)

    async def _await_topic(self, stop: asyncio.Event) -> None:
        # Subscribing to a topic that is not there would have the broker create it, with partitions as it likes.
        while self._topic not in await self._consumer.topics() and not stop.is_set():
            self._health.fail("kafka", f"Kafka at {self._settings.kafka} has no topic {self._topic} yet; waiting")
            await pause(stop, 1.0)

    async def _pump(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            patience_s = min(_POLL_S, self._pending.due_in_s(self._max_age_s))
            read = await self._consumer.getmany(timeout_ms=int(patience_s * 1000))
            for partition, messages in read.items():
                accepted = self._intake.read(partition.partition, messages)
                self._pending.add(self._generation, partition, messages, accepted)
            if self._pending.is_due(self._max_rows, self._max_age_s):
                await self._flush(stop)
            elif not read:
                await self._check_sink()
            if self._done and time.monotonic() - self._committed_s > self._commit_every_s:
                await self._commit()
        await self._flush(stop)

    async def _flush(self, stop: asyncio.Event) -> None:
        pending, generation = self._pending, self._pending.generation
        batch = pending.batch(self._epoch)
        if batch is not None and not await self._deliver(batch, stop):
            return  # told to stop while the sink is away: what is not committed is read again
        if generation == self._generation:
            self._done.update(pending.next_offsets)
        self._pending = Pending(self._generation)

    async def _deliver(self, batch: Batch, stop: asyncio.Event) -> bool:
        """Write a batch, however long it takes; return whether the sink has it (or will never take it)."""
        try:
            return await self._persist(partial(self._write, batch), stop)
        except SinkRejected as error:
            return await self._divide(batch, error, stop)

    async def _persist(self, attempt: Callable[[], Awaitable[None]], stop: asyncio.Event) -> bool:
        """Try until the sink is there; return False where ``stop`` was set before."""
        backoff = Backoff(_RETRY_LIMIT_S)
        while True:
            try:
                await attempt()
            except SinkUnavailable as error:
                self._sink_is_down(error)
                self._metrics.on_retry()
                if stop.is_set():
                    return False
                await pause(stop, backoff.next_s())
            else:
                self._sink_is_up()
                return True

    async def _write(self, batch: Batch) -> None:
        started_s = time.monotonic()
        await self._sink.write(batch)
        self._metrics.on_written(len(batch.rows), time.monotonic() - started_s)

    async def _put_aside(self, batch: Batch, reason: str) -> None:
        try:
            await self._sink.put_aside(batch, reason)
        except SinkRejected as error:
            logger.error("%s does not even keep the row as a dead letter: %s", self._sink.name, error)

    async def _divide(self, batch: Batch, error: SinkRejected, stop: asyncio.Event) -> bool:
        """Find the rows that the sink will not take, and write all others."""
        if len(batch.rows) > 1:
            for half in batch.halves():
                if not await self._deliver(half, stop):
                    return False
            return True
        if not await self._persist(partial(self._put_aside, batch, str(error)), stop):
            return False
        self._metrics.on_refused(1)
        self._refusals += 1
        if self._refusals <= _REFUSALS_LOGGED:
            names = batch.rows.dtype.names or ()
            row = dict(zip(names, batch.rows[0].item(), strict=True))
            logger.error(
                "%s will never take this row of %s, left out: %s: %s", self._sink.name, self._topic, row, error
            )
        return True

    async def _check_sink(self) -> None:
        if time.monotonic() - self._checked_s < _CHECK_EVERY_S:
            return
        try:
            await self._sink.check()
        except SinkUnavailable as error:
            self._sink_is_down(error)
        else:
            self._sink_is_up()
        self._checked_s = time.monotonic()

    def _sink_is_up(self) -> None:
        self._checked_s = time.monotonic()
        self._metrics.on_up(True)
        self._health.recover(self._sink.name)

    def _sink_is_down(self, error: SinkUnavailable) -> None:
        self._metrics.on_up(False)
        self._health.fail(self._sink.name, f"{error}; waiting, Kafka keeps what comes in")

    async def _commit(self) -> None:
        # One at a time: a rebalance asks for a commit as well, and must not find half of what was settled.
        async with self._committing:
            await self._settle_and_commit(dict(self._done))

    async def _settle_and_commit(self, done: dict[TopicPartition, int]) -> None:
        started_s = self._committed_s = time.monotonic()
        try:
            await self._sink.settle()
        except SinkUnavailable as error:
            self._sink_is_down(error)
            return
        self._committed_s = time.monotonic()
        self._commit_every_s = max(_COMMIT_EVERY_S, _WORK_FOR_SETTLING * (self._committed_s - started_s))
        ours = self._consumer.assignment()
        offsets = {partition: offset for partition, offset in done.items() if partition in ours}
        if not offsets:
            return
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), BROKER_PATIENCE_S)
        except CommitFailedError:
            logger.info("group %s was rebalanced before a commit; what it covers is read again", self._group)
        except (KafkaError, TimeoutError) as error:
            logger.warning("offsets of group %s are not committed yet: %r", self._group, error)
            return
        self._done = {p: offset for p, offset in self._done.items() if offset != offsets.get(p)}

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Commit what the sink has, then give the partitions up (called by aiokafka)."""
        await self._commit()
        self._generation += 1
        self._done = {}

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take partitions (called by aiokafka). What another member may have gone on with is not known to us."""
        for partition in assigned - self._owned:
            self._intake.forget(partition.partition)
        self._owned = frozenset(assigned)
        logger.info("group %s: partitions %s", self._group, sorted(p.partition for p in assigned))

    async def _watch(self) -> None:
        """Say for ever how far we are behind, and whether the broker answers."""
        while True:
            try:
                # Not wait_for: Python 3.11's loses a cancellation that comes together with the answer.
                async with asyncio.timeout(BROKER_PATIENCE_S):
                    await self._measure_lag()
            except IllegalStateError:
                pass  # a rebalance took the partition while we asked
            except (KafkaError, TimeoutError) as error:
                self._health.fail("kafka", f"Kafka at {self._settings.kafka} does not answer ({error!r}); waiting")
            else:
                self._health.recover("kafka")
            await asyncio.sleep(_WATCH_EVERY_S)

    async def _measure_lag(self) -> None:
        ours = self._consumer.assignment()
        if not ours:
            await self._consumer.topics()  # no end to ask for; but this is answered by the broker too
        ends = await self._consumer.end_offsets(ours) if ours else {}
        lag_blocks = {}
        for partition, end in ends.items():
            position = self._pending.first_offsets.get(partition)
            if position is None:
                position = await self._consumer.position(partition)
            lag_blocks[partition.partition] = end - position
        self._metrics.on_lag(lag_blocks)
