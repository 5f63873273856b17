"""The Faust application: made by a factory, configured from `Settings`, with nothing discovered by magic.

Faust's ``autodiscover`` turns an agent's ImportError into a warning, after which the agent silently does not
exist; here agents are attached by explicit calls (`agents/lanes.py`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import aiokafka
import faust
from faust.transport.drivers import aiokafka as driver
from mode.utils.queues import FlowControlEvent

from stream.settings import Settings
from stream.topics import APP_ID, broker

# A block of 4,096 ticks is 426 KB; this many wait in memory for a lane at the most.
_BUFFERED_BLOCKS = 64
_FETCH_BYTES = 4 << 20
# A broker takes batches of 1,048,588 bytes unless told otherwise; a full block of predictions has 622,608.
_REQUEST_BYTES = 1_000_000


class StateTable(faust.Table):
    """A table of raw bytes that is written at checkpoints, outside of stream iteration."""

    async def write(self, partition: int, key: bytes, value: bytes) -> "asyncio.Future[Any]":
        """Set a row and send it to the changelog; the future resolves once the brokers have it."""
        sent = await self.app.producer.send(self.changelog_topic_name, key, value, partition, None, None)
        self.data[key] = value
        return sent  # type: ignore[no-any-return]


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust hard-codes a fetch wait of 1,500 ms. With aiokafka's one fetch in flight for each node, a stall of
    250 ms of the event loop then costs 1 to 1.7 s of latency, because the next fetch asks only for idle
    partitions and waits the whole time."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms  # noqa: SLF001  (read when the consumer starts)
        return consumer


class _Consumer(driver.Consumer):
    """Faust's consumer, without the races in which it loses messages around a rebalance.

    Faust fetches all the time. What it had asked for before a rebalance arrives after it, passes for new, and takes
    the place of what the seek to the committed offsets was to bring (faust-streaming issues 221, 596 and 606).
    Here the one task that fetches does the seek too, between two fetches, and what came before it is dropped.
    """

    _epoch = 0  # counted up when partitions are taken away, and when it is known where to go on
    _starts: Mapping[Any, int] = MappingProxyType({})  # where to go on: known once the tables are recovered
    _is_positioned = False

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Forget where we were."""
        self._turn_to({})
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Go to the committed offset of each partition, or to the oldest message where there is none."""
        await super().perform_seek()
        sources = [tp for tp in self.assignment() if self._is_source(tp)]
        new = [tp for tp in sources if not self._committed_offset[tp]]
        oldest = await self.earliest_offsets(*new) if new else {}
        self._turn_to({tp: self._committed_offset[tp] or oldest[tp] for tp in sources})

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        """Yield what comes from the brokers, of our partitions only what follows the last seek."""
        if self._starts and not self._is_positioned:
            self._is_positioned = True
            await self.seek_wait(self._starts)
        epoch, is_positioned = self._epoch, self._is_positioned
        async for tp, message in super().getmany(timeout):
            if (is_positioned and epoch == self._epoch) or not self._is_source(tp):
                yield tp, message

    def _turn_to(self, starts: Mapping[Any, int]) -> None:
        self._epoch += 1
        self._starts, self._is_positioned = starts, False

    def _is_source(self, tp: Any) -> bool:
        return bool(self.app.topics.acks_enabled_for(tp.topic))

    def ack(self, message: Any) -> bool:
        """Acknowledge what an agent has seen.

        Faust acknowledges, unseen, what still arrives while partitions are taken away; a commit would lose it.
        """
        return bool(message.tracked) and bool(super().ack(message))


class _Transport(driver.Transport):
    Consumer = _Consumer


class _FlowControl(FlowControlEvent):
    """Lets messages through, or not.

    Faust resumes the flow a second time when tables are recovered, and each time throws away what has arrived:
    at every start under load, the first blocks after the committed offset (faust-streaming issue 596).
    """

    def resume(self) -> None:
        if not self.is_active():
            super().resume()


class TickloomApp(faust.App):
    """A Faust application with our transport."""

    fetch_wait_ms: int
    bootstrap: list[str]

    @cached_property
    def flow_control(self) -> _FlowControl:
        """The switch of all queues."""
        return _FlowControl()

    async def first_uncommitted(self, tp: Any) -> int:
        """Return where the group goes on in a partition: its committed offset, or the oldest that there is."""
        thread = self.consumer._thread  # noqa: SLF001  (only it may use the consumer of aiokafka)
        committed = await thread.call_thread(thread._ensure_consumer().committed, tp)  # noqa: SLF001
        return int((await self.consumer.earliest_offsets(tp))[tp] if committed is None else committed)

    async def first_offset_from(self, tp: Any, offset: int) -> int:
        """Return the first offset at or after ``offset`` at which a partition holds a message."""
        reader = aiokafka.AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await reader.start()
        try:
            where = aiokafka.TopicPartition(tp.topic, tp.partition)
            reader.assign([where])
            reader.seek(where, offset)
            return int((await reader.getone(where)).offset)
        finally:
            await reader.stop()

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)


def create_app(settings: Settings) -> TickloomApp:
    """Return the application that agents are attached to.

    Raises:
        SettingsError: ``settings.kafka`` is not set; the command line starts the embedded broker before this.
    """
    brokers = broker(settings).split(",")
    datadir = settings.data_dir / "workers" / settings.worker_name
    datadir.mkdir(parents=True, exist_ok=True)
    app = TickloomApp(
        APP_ID,
        broker=";".join(f"kafka://{address}" for address in brokers),
        autodiscover=False,
        Table=StateTable,
        store="memory://",
        datadir=datadir,
        web_enabled=False,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication,
        table_standby_replicas=settings.standby_replicas,
        # The broker keeps our place; a new group starts with the oldest tick that there is.
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=_FETCH_BYTES,
        stream_buffer_maxsize=_BUFFERED_BLOCKS,
        broker_commit_interval=settings.checkpoint_s,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 5,
        broker_rebalance_timeout=max(settings.session_timeout_s, 10.0),
        broker_request_timeout=max(settings.session_timeout_s * 2, 30.0),
        producer_acks=-1,
        producer_linger=0,
        producer_max_batch_size=_REQUEST_BYTES,
        producer_max_request_size=_REQUEST_BYTES,
        # At first Faust waits for other workers; with one partition set each there is nothing to wait for.
        stream_recovery_delay=0.0,
        # It would wait for acknowledgements that only the lanes' last checkpoint gives, after the wait.
        stream_wait_empty=False,
        worker_redirect_stdouts=False,
    )
    app.fetch_wait_ms = settings.fetch_wait_ms
    app.bootstrap = brokers
    return app
