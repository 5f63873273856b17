"""From arrays of ticks to blocks in Kafka: in rounds, in order, with every acknowledgement waited for.

What a source hands to `TickPublisher.publish` is kept until the brokers have acknowledged it. A send that fails
for good is never passed over: the publisher stops, and `publish` and `flush` raise until `restart` has replaced
the producer and sent again, in order, all that is unacknowledged. Some of it may then stand in Kafka twice; lanes
drop a tick whose ``source_seq`` they have seen, so it still counts once.

Retries with one and the same idempotent producer are not enough: after an answer that leaves open whether a batch
was written, its sequence numbers no longer agree with the broker's. The instance is discarded, as Jepsen's report
on Kafka clients advises.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerClosed
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from stream.errors import SinkError, SinkUnavailable
from stream.records import MAX_BLOCK_RECORDS, Records, encode_block
from stream.sources.pending import PendingTicks
from stream.sources.producer import as_sink_error, discard_producer, open_producer
from stream.topics import TICKS

logger = logging.getLogger(__name__)

# Blocks sent and not acknowledged: 27 MB when all are full. Beyond it ticks gather in fuller blocks.
_MAX_UNACKNOWLEDGED_BLOCKS: Final = 64
# A timer of uvloop may fire so much before its time.
_TIMER_S: Final = 0.0006
# Ticks accepted and not sent. Beyond it `publish` waits: this is the back-pressure.
_MAX_PENDING_TICKS: Final = 64 * MAX_BLOCK_RECORDS


@dataclass(frozen=True)
class Acknowledged:
    """The last block of a partition that the brokers have acknowledged."""

    offset: int  # of the block in its partition; -1 when the broker did not tell
    source_seq: int  # of the block's last tick


@dataclass(frozen=True)
class _Sent:
    """A block on its way."""

    partition: int
    block: bytes
    ticks: int
    source_seq: int
    sent_s: float


class PublisherMetrics:
    """What a publisher counts, in plain numbers. One object for the life of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ticks = 0
        self.blocks = 0
        self.bytes = 0
        self.failures: Counter[str] = Counter()  # by the error
        self.unacknowledged = 0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics: the protocol of a Prometheus collector."""
        for name, count in (("ticks", self.ticks), ("blocks", self.blocks), ("bytes", self.bytes)):
            told = f"{name.capitalize()} that Kafka has acknowledged"
            yield CounterMetricFamily(f"tickloom_published_{name}", told, value=count)
        failures = CounterMetricFamily(
            "tickloom_publish_failures", "Blocks that were not acknowledged", labels=["error"]
        )
        for error, count in list(self.failures.items()):
            failures.add_metric([error], count)
        yield failures
        yield GaugeMetricFamily(
            "tickloom_unacknowledged_blocks", "Blocks sent and not acknowledged", value=self.unacknowledged
        )


class TickPublisher:
    """Publishes ticks to Kafka in blocks; an async context manager.

    The order of the ticks of a partition in Kafka is the order of the calls of `publish`.
    """

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        linger_ms: float,
        metrics: PublisherMetrics,
        topic: str = TICKS,
        compression: str | None = None,
        idempotent: bool = True,
    ) -> None:
        """Make the publisher; entering it connects.

        Args:
            bootstrap: ``HOST:PORT[,HOST:PORT]`` of the brokers.
            partitions: that the topic has.
            linger_ms: the least distance between two rounds of blocks; a tick that comes alone goes at once.
            metrics: where it counts.
            topic: that it publishes to.
            compression: None, "lz4", "snappy", "zstd" or "gzip".
            idempotent: False only for a broker that cannot; see `open_producer`.
        """
        self.metrics = metrics
        self.partitions = partitions
        self.published_seq = 0  # source_seq of the last tick that `publish` accepted
        self._bootstrap = bootstrap
        self._topic = topic
        self._linger_s = linger_ms / 1e3
        self._compression = compression
        self._idempotent = idempotent
        self._pending = PendingTicks(partitions)
        self._sent: dict[int, _Sent] = {}  # in the order of first sending, which a restart keeps
        self._sent_count = 0
        self._acknowledged: list[Acknowledged | None] = [None] * partitions
        self._on_the_way = [0] * partitions  # blocks sent to a partition and not acknowledged
        self._next_round_s = 0.0  # the loop's time before which no block that is not full is sent
        self._flushing = 0
        self._failure: SinkError | None = None
        self._producer: AIOKafkaProducer | None = None
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        """Connect and start sending.

        Raises:
            SinkUnavailable: no broker answers, or there is no such topic (yet); try again later.
            ServerError: the topic has another number of partitions.
        """
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect. Only `flush` makes sure that everything is acknowledged: call it before."""
        await self._close()
        if self.unacknowledged_ticks:
            logger.warning("%d ticks were not acknowledged by Kafka", self.unacknowledged_ticks)

    @property
    def unacknowledged_ticks(self) -> int:
        """Ticks that were accepted and are not acknowledged."""
        return self._pending.count + sum(sent.ticks for sent in self._sent.values())

    @property
    def stalled_s(self) -> float:
        """How long the oldest block has waited for its acknowledgement, in seconds; 0 when none waits."""
        oldest = next(iter(self._sent.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.sent_s

    def acknowledged(self, partition: int) -> Acknowledged | None:
        """Return the last acknowledged block of a partition, None before the first."""
        return self._acknowledged[partition]

    def is_settled(self, partition: int) -> bool:
        """Whether everything that was accepted for a partition is acknowledged."""
        return self._pending.is_empty(partition) and all(
            sent.partition != partition for sent in self._sent.values()
        )

    async def publish(self, ticks: Records) -> None:
        """Accept ticks, to be sent in the next round; wait while too many are pending.

        The ticks are accepted even when this raises or is cancelled: do not hand them over again.

        Args:
            ticks: ``TICK[N]`` of any symbols; must not be changed afterwards.

        Raises:
            SinkUnavailable: a send failed; `restart` may help.
            SinkRejected: the brokers will never take what was sent.
        """
        if len(ticks):
            self._accept(ticks)
        await self._wait_until(lambda: self._failure or self._pending.count < _MAX_PENDING_TICKS)
        self._raise_failure()

    async def flush(self) -> None:
        """Send what is pending now and wait until everything is acknowledged. Cancelling it is safe.

        Raises:
            SinkUnavailable: a send failed; `restart` may help.
            SinkRejected: the brokers will never take what was sent.
        """
        self._flushing += 1
        self._wake.set()
        try:
            await self._wait_until(lambda: self._failure or not (self._pending.count or self._sent))
        finally:
            self._flushing -= 1
        self._raise_failure()

    async def restart(self) -> None:
        """Discard the producer, connect a new one and send again all that is unacknowledged, in order.

        Raises:
            SinkUnavailable: no broker answers; try again later. Nothing is forgotten.
        """
        await self._close()
        await self._open()

    def give_up(self, why: str) -> None:
        """Make every waiting and later `publish` and `flush` raise `SinkUnavailable`, until `restart`."""
        self._fail(SinkUnavailable(f"{self.unacknowledged_ticks} ticks are not acknowledged: {why}"))

    def _accept(self, ticks: Records) -> None:
        loop = asyncio.get_running_loop()
        self._pending.add(ticks)
        self.published_seq = int(ticks["source_seq"][-1])
        if self._is_round_due(loop.time()) or self._pending.has_full_block():
            self._wake.set()
        elif self._timer is None:
            self._timer = loop.call_at(self._next_round_s, self._wake.set)

    async def _open(self) -> None:
        producer = await open_producer(
            self._bootstrap, self._topic, self.partitions, self._compression, self._idempotent
        )
        self._producer = producer
        self._on_the_way = [0] * self.partitions
        self._failure = None
        self._sender = asyncio.create_task(self._send_for_ever(producer), name="tick sender")

    async def _close(self) -> None:
        self._cancel_timer()
        if self._sender is not None:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
            self._sender = None
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await discard_producer(producer)

    async def _send_for_ever(self, producer: AIOKafkaProducer) -> None:
        try:
            for key, sent in list(self._sent.items()):  # what a producer before this one has left
                await self._send(producer, key, sent)
            while True:
                await self._send_due(producer)
                await self._wake.wait()
                self._wake.clear()
        except Exception as error:  # noqa: BLE001  (nobody awaits this task: whatever ends it must reach `publish`)
            self._on_error(error)

    async def _send_due(self, producer: AIOKafkaProducer) -> None:
        """Send one round: what waits for each partition that is not held."""
        loop = asyncio.get_running_loop()
        self._cancel_timer()
        now_s = loop.time()
        ready = [partition for partition in range(self.partitions) if not self._is_held(partition, now_s)]
        if ready:
            self._next_round_s = now_s + self._linger_s
        for partition in ready:
            await self._send_partition(producer, partition)
            if self._failure:
                return
        # A partition with a block on its way is looked at again when that is acknowledged.
        waiting = [not self._pending.is_empty(p) and not self._on_the_way[p] for p in range(self.partitions)]
        if any(waiting) and self._timer is None:
            self._timer = loop.call_at(self._next_round_s, self._wake.set)

    async def _send_partition(self, producer: AIOKafkaProducer, partition: int) -> None:
        """Send everything that waits for a partition: full blocks, and last one that need not be full."""
        while not self._pending.is_empty(partition):
            if self._on_the_way[partition] and not self._pending.is_full(partition):
                return
            await self._wait_until(lambda: self._failure or len(self._sent) < _MAX_UNACKNOWLEDGED_BLOCKS)
            if self._failure:
                return
            ticks = self._pending.take(partition)
            seq = int(ticks["source_seq"][-1])
            self._sent_count += 1
            sent = _Sent(partition, encode_block(ticks), len(ticks), seq, time.monotonic())
            await self._send(producer, self._sent_count, sent)
            self._notify()

    def _is_held(self, partition: int, now_s: float) -> bool:
        """Whether a partition's ticks must wait: Nagle's rule, and rounds that are not too many.

        A block that is not full waits while another is on its way to the same partition, and for the next round. A
        tick that comes alone goes at once. Where ticks come faster than blocks can be handled, blocks grow instead
        of their number, and it is the number that costs.
        """
        if self._pending.is_empty(partition):
            return True
        if self._pending.is_full(partition):
            return False
        return self._on_the_way[partition] > 0 or not (self._flushing or self._is_round_due(now_s))

    def _is_round_due(self, now_s: float) -> bool:
        return now_s >= self._next_round_s - _TIMER_S

    async def _send(self, producer: AIOKafkaProducer, key: int, sent: _Sent) -> None:
        # Noted before it is sent: a send that fails or is cancelled must lose neither the block nor its place.
        self._sent[key] = sent
        self._on_the_way[sent.partition] += 1
        future: asyncio.Future[Any] = await producer.send(self._topic, sent.block, partition=sent.partition)
        future.add_done_callback(partial(self._on_answer, producer, key))
        self.metrics.unacknowledged = len(self._sent)

    def _on_answer(self, producer: AIOKafkaProducer, key: int, answer: "asyncio.Future[Any]") -> None:
        error = ProducerClosed() if answer.cancelled() else answer.exception()
        if producer is not self._producer:  # a discarded producer's answer: the block is sent again anyway
            return
        if error is not None:
            self._on_error(error)
            return
        sent = self._sent.pop(key)
        self._on_the_way[sent.partition] -= 1
        if not self._pending.is_empty(sent.partition):
            self._wake.set()
        self._acknowledged[sent.partition] = Acknowledged(answer.result().offset, sent.source_seq)
        self.metrics.ticks += sent.ticks
        self.metrics.blocks += 1
        self.metrics.bytes += len(sent.block)
        self.metrics.unacknowledged = len(self._sent)
        self._notify()

    def _on_error(self, error: BaseException) -> None:
        self.metrics.failures[type(error).__name__] += 1
        self._fail(as_sink_error(error, self._topic))

    def _fail(self, failure: SinkError) -> None:
        # The first failure tells most; those that follow are its consequences.
        if self._failure is None:
            self._failure = failure
            logger.error("%s", failure)
        self._notify()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait_until(self, reached: Callable[[], object]) -> None:
        while not reached():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
