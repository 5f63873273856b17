"""The Faust application: made by a factory, configured from `Settings`, with nothing discovered by magic.

Faust's ``autodiscover`` turns an agent's ImportError into a warning, after which the agent silently does not
exist; here agents are attached by explicit calls (`agents/lanes.py`).
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import aiokafka
import faust
from mode.utils.queues import FlowControlEvent
from yarl import URL

from stream.consumer import StreamTransport
from stream.ending import end_consumer
from stream.errors import InvariantError, ServerError
from stream.settings import Settings
from stream.topics import APP_ID, broker

logger = logging.getLogger(__name__)

# A block of 4,096 ticks is 426 KB; this many wait in memory for a lane at the most.
_BUFFERED_BLOCKS = 64
_FETCH_BYTES = 4 << 20
# A broker takes batches of 1,048,588 bytes unless told otherwise; a full block of predictions has 622,608.
_REQUEST_BYTES = 1_000_000
_POLL_MS = 500
_WATCH_S = 1.0


class StateTable(faust.Table):
    """A table of raw bytes that is written at checkpoints, outside of stream iteration."""

    # Whether a row from the changelog is to take the place of the one that stands there. A worker that was cut off
    # and comes back may have written rows that are older than those of its successor, later.
    is_newer: Callable[[bytes, bytes], bool]
    superseded: set[bytes]  # keys of which an older row stands last in the changelog

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_newer = lambda row, other: True
        self.superseded = set()

    async def write(self, partition: int, rows: Iterable[tuple[bytes, bytes]]) -> "list[asyncio.Future[Any]]":
        """Set rows, (key, value), and send them to the changelog; a future resolves once its row is there."""
        sent = []
        for key, value in rows:
            sent.append(await self.app.producer.send(self.changelog_topic_name, key, value, partition, None, None))
            self.data[key] = value
        return sent

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take rows over from the changelog: of each key the newest one, which need not be the last."""
        for event in batch:
            key, row = event.message.key, event.message.value
            there_is = self.data.get(key)
            if row is None or there_is is None or self.is_newer(row, there_is):
                super().apply_changelog_batch([event])
                self.superseded.discard(key)
            else:
                self.superseded.add(key)


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
    recovery_patience_s = 60.0  # a recovery that reads nothing for so long is stuck; a new start is not
    bootstrap: list[str]

    @cached_property
    def flow_control(self) -> _FlowControl:
        """The switch of all queues."""
        return _FlowControl()

    async def on_started(self) -> None:
        """Finish starting, which waits for the tables."""
        self.add_future(self._end_a_stuck_recovery())
        await super().on_started()

    async def _end_a_stuck_recovery(self) -> None:
        """End a worker whose tables do not get on: Faust would wait for ever, and say so in its log only.

        It ends as by a crash, which is safe at any moment: what waits for tables would not end in another way.
        """
        before: int | None = None
        since_s = time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_S)
            is_recovering = self.consumer.assignment() and not self.consumer.starts
            # Faust has None where it has not looked yet.
            offsets = [offset or 0 for offset in self.tables.recovery.active_offsets.values()]
            read = sum(offsets) if is_recovering else None
            if read is None or read != before:
                before, since_s = read, time.monotonic()
            elif time.monotonic() - since_s > self.recovery_patience_s:
                logger.critical(
                    "the tables do not get on: nothing read in %.0f s; ending", self.recovery_patience_s
                )
                logging.shutdown()
                os._exit(InvariantError.exit_code)

    async def end_offset(self, tp: Any) -> int:
        """Return the offset that the next message of a partition will have."""
        return int((await self.consumer.highwaters(tp))[tp])

    async def read(self, tp: Any, start: int, end: int) -> AsyncIterator[Any]:
        """Yield the messages of a partition with ``start <= offset < end``, those that there still are.

        Raises:
            ServerError: the brokers do not give them.
        """
        if start >= end:
            # A consumer that is stopped before it has done anything raises CancelledError; Faust would take it for
            # its own, and start the lanes anew for ever.
            return
        where = aiokafka.TopicPartition(tp.topic, tp.partition)
        reader = aiokafka.AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        try:
            await reader.start()
            reader.assign([where])
            reader.seek(where, start)
            while await reader.position(where) < end:
                async with asyncio.timeout(self.conf.broker_request_timeout):
                    found = await reader.getmany(where, timeout_ms=_POLL_MS)
                for message in found.get(where, ()):
                    if start <= message.offset < end:
                        yield message
        except TimeoutError:
            raise ServerError(f"{tp.topic}[{tp.partition}]: the brokers do not give {start} to {end}") from None
        finally:
            await end_consumer(reader)

    def _new_transport(self) -> StreamTransport:
        return StreamTransport(self.conf.broker_consumer, self)


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


def tell_address(app: TickloomApp, host: str, port: int) -> None:
    """Let the other workers know where this one answers. Before it joins the group."""
    reached_at = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104  (compared, not bound)
    app.conf.canonical_url = URL.build(scheme="http", host=reached_at, port=port)


def at_times(app: TickloomApp, cron: str, call: Callable[[str, bool], None]) -> None:
    """Have ``call`` called with the date and whether this worker leads, on every worker. Before the start.

    Args:
        app: the application.
        cron: when, UTC.
        call: must not raise, and not take long.
    """

    async def at_time() -> None:
        call(datetime.now(UTC).date().isoformat(), app.is_leader())

    app.crontab(cron)(at_time)
