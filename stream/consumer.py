"""Faust's consumer without the races in which it loses or repeats messages around a rebalance.

Faust fetches all the time. What it had asked for before a rebalance arrives after it, passes for new, and takes the
place of what the seek to the committed offsets was to bring (faust-streaming issues 221, 596 and 606); its guard
against repetitions then drops what comes again; and it acknowledges, unseen, what arrives while partitions are
taken away, so that a commit loses it. Here

* the one task that fetches does the seek too, between two fetches, and drops what was fetched before it;
* blocks of ticks wait in an inbox that the agent empties. The first message wakes the agent by way of Faust's
  streams, which take 100 us for one; from then on the agent waits for the inbox itself;
* nothing is acknowledged message by message: the lanes say up to which offset their state is kept, and that is what
  is committed (`StreamConsumer.kept`);
* lanes count offsets, and read again what should be missing all the same (`agents/lanes.py`): their promise does
  not rest on this file being right about Faust.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import aiokafka
from faust.transport.drivers import aiokafka as driver
from mode.utils.futures import maybe_async

# After so many messages for Faust's tables the fetching task lets others run.
_YIELD_EVERY: Final = 16
# What lanes have not taken yet; beyond it nothing is fetched.
_MAX_INBOX_BYTES: Final = 16 << 20
# So often the fetching task looks whether it is to stop or to seek.
_WAIT_S: Final = 1.0


class _InLoop(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, without a thread: aiokafka runs in the event loop of the worker.

    Each fetch crossed between two threads four times, which took 1 to 2 ms; and a lane computes for 0.2 ms at a
    time, so that heartbeats need no thread of their own. Faust also hard-codes a fetch wait of 1,500 ms: with
    aiokafka's one fetch in flight for each node, a stall of 250 ms of the event loop then costs 1 to 1.7 s of
    latency, because the next fetch asks only for idle partitions and waits the whole time.
    """

    _serving: "asyncio.Task[None] | None" = None

    def __init__(self, consumer: Any, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(consumer, loop=loop, thread_loop=loop, **kwargs)

    async def start(self) -> None:
        """Start aiokafka's consumer."""
        self._thread_started.set()
        await self._default_start()
        await self.on_thread_started()
        self._serving = asyncio.create_task(self._serve_here(), name="kafka consumer")

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of aiokafka's consumer."""
        return await maybe_async(fun(*args, **kwargs))

    async def _serve_here(self) -> None:
        await self.wait_until_stopped()
        await self._shutdown_thread()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms  # noqa: SLF001  (read when the consumer starts)
        return consumer


class StreamConsumer(driver.Consumer):
    """The consumer of a worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.starts: Mapping[Any, int] = {}  # where our partitions go on; empty until tables are recovered
        self.kept: dict[Any, int] = {}  # the first offset that the state of each partition has not kept
        self._inbox: dict[Any, list[Any]] = {}  # blocks of ticks that the lanes have not taken
        self._inbox_bytes = 0
        self._generation = -1  # of the group, when they came
        self._room = asyncio.Event()
        self._has_come = asyncio.Event()  # something for the inbox
        self._is_awaited = False  # by an agent that has had its first message
        self._epoch = 0  # counted up when partitions are taken away, and when it is known where to go on
        self._is_positioned = False

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Forget where we were, after the lanes have kept and committed what they have done."""
        self._turn_to({})
        self.take()
        await super().on_partitions_revoked(revoked)
        self.kept.clear()

    async def perform_seek(self) -> None:
        """Find the committed offset of each partition, or its oldest message where there is none."""
        await super().perform_seek()
        sources = [tp for tp in self.assignment() if self._is_source(tp)]
        new = [tp for tp in sources if not self._committed_offset[tp]]
        oldest = await self.earliest_offsets(*new) if new else {}
        self._turn_to({tp: self._committed_offset[tp] or oldest[tp] for tp in sources})

    def committed(self, tp: Any) -> int | None:
        """Return the offset that the group goes on at in a partition, or None where it never committed any."""
        return self._committed_offset[tp] or None

    def take(self) -> tuple[int, dict[Any, list[Any]]]:
        """Return the generation of the group and what has come for each partition since the last call, in order."""
        inbox, self._inbox = self._inbox, {}
        for tp in inbox:
            self.app.monitor.stream_inbound_time[tp] = time.monotonic()  # where Faust looks whether it stands still
        self._inbox_bytes = 0
        self._room.set()
        return self._generation, inbox

    async def takes(self) -> AsyncIterator[tuple[int, dict[Any, list[Any]]]]:
        """Yield what `take` returns, whenever something has come; close it to be woken by Faust's stream again."""
        self._is_awaited = True
        try:
            while True:
                self._has_come.clear()
                if self._inbox:
                    yield self.take()
                else:
                    await self._has_come.wait()
                    await self.app.flow_control.acquire()
        finally:
            self._is_awaited = False

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what the lanes have kept; return whether anything was committed."""
        news = {tp: offset for tp, offset in self.kept.items() if offset != self._committed_offset[tp]}
        return bool(news) and await self._commit_offsets(news, start_new_transaction)

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Look whether a partition stands still, unless it is still to be found where it goes on.

        Faust fails an assertion there, and the worker stopped for it.
        """
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment  # noqa: SLF001
        state = assignment and assignment.state_value(tp)
        if state and state.has_valid_position:
            super().verify_event_path(now, tp)

    def _new_consumer_thread(self) -> _InLoop:
        return _InLoop(self, loop=self.loop, beacon=self.beacon)

    def _turn_to(self, starts: Mapping[Any, int]) -> None:
        self._epoch += 1
        self.starts, self._is_positioned = starts, False

    def _is_source(self, tp: Any) -> bool:
        return bool(self.app.topics.acks_enabled_for(tp.topic))

    async def _drain_messages(self, fetcher: Any) -> None:
        # Not Faust's own: it costs 100 us a message, and drops what comes again after a rebalance.
        try:
            while not (self._stopped.is_set() or fetcher.should_stop):
                if self.starts and not self._is_positioned:
                    self._is_positioned = True
                    await self.seek_wait(self.starts)
                epoch, is_positioned = self._epoch, self._is_positioned
                records, active = await self._wait_next_records(timeout=_WAIT_S)
                if records and self.flow_active:
                    is_ours = is_positioned and epoch == self._epoch
                    await self._deliver({tp: records[tp] for tp in records if tp in active}, is_ours)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[Any, list[Any]], Any]:
        # As Faust's own, without what it has around it for consumers in other threads: 5 % of a worker.
        client = self._thread._ensure_consumer()  # noqa: SLF001
        fetcher = client._fetcher  # noqa: SLF001
        active = self._get_active_partitions() if self.flow_active else None
        if not active or fetcher._closed:  # noqa: SLF001
            found: tuple[Mapping[Any, list[Any]], Any] = await super()._wait_next_records(timeout)
            return found
        with fetcher._subscriptions.fetch_context():  # noqa: SLF001
            records = await fetcher.fetched_records(active, timeout, client._max_poll_records)  # noqa: SLF001
        return records, active

    async def _deliver(self, records: Mapping[Any, list[Any]], is_ours: bool) -> None:
        newest: Any = None
        for tp, batch in records.items():
            if not self._is_source(tp):
                await self._deliver_to_faust(tp, batch)
            elif is_ours:
                newest = tp, batch[-1]
                self._inbox.setdefault(tp, []).extend(batch)
                self._inbox_bytes += sum(len(record.value or b"") for record in batch)
        if newest is not None:
            self._generation = self.app.consumer_generation_id
            if self._is_awaited:
                self._has_come.set()
            else:
                await self.callback(self._to_message(*newest))
            if self._inbox_bytes > _MAX_INBOX_BYTES:
                self._room.clear()
                await self._room.wait()

    async def _deliver_to_faust(self, tp: Any, batch: list[Any]) -> None:
        for handled, record in enumerate(batch, 1):
            if not self.flow_active:
                return
            await self.callback(self._to_message(tp, record))
            if handled % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


class StreamTransport(driver.Transport):
    """Faust's transport, with our consumer."""

    Consumer = StreamConsumer
