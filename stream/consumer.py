"""Faust's consumer without the races in which it loses or repeats messages around a rebalance.

Faust fetches all the time. What it had asked for before a rebalance arrives after it, passes for new, and takes the
place of what the seek to the committed offsets was to bring (faust-streaming issues 221, 596 and 606); its guard
against repetitions then drops what comes again; and it acknowledges, unseen, what arrives while partitions are
taken away, so that a commit loses it. Here

* the one task that fetches does the seek too, between two fetches, and drops what was fetched before it;
* nothing is acknowledged message by message: the lanes say up to which offset their state is kept, and that is what
  is committed (`StreamConsumer.kept`);
* lanes count offsets, and read again what should be missing all the same (`agents/lanes.py`): their promise does
  not rest on this file being right about Faust.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiokafka
from faust.transport.drivers import aiokafka as driver

# After so many messages the fetching task lets others run; those of one fetch come without any waiting.
_YIELD_EVERY = 16


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust hard-codes a fetch wait of 1,500 ms. With aiokafka's one fetch in flight for each node, a stall of
    250 ms of the event loop then costs 1 to 1.7 s of latency, because the next fetch asks only for idle
    partitions and waits the whole time."""

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
        self._epoch = 0  # counted up when partitions are taken away, and when it is known where to go on
        self._is_positioned = False

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Forget where we were, after the lanes have kept and committed what they have done."""
        self._turn_to({})
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

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        """Yield what comes from the brokers, of our partitions only what follows the last seek."""
        if self.starts and not self._is_positioned:
            self._is_positioned = True
            await self.seek_wait(self.starts)
        epoch, is_positioned = self._epoch, self._is_positioned
        async for tp, message in super().getmany(timeout):
            if (is_positioned and epoch == self._epoch) or not self._is_source(tp):
                yield tp, message

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what the lanes have kept; return whether anything was committed."""
        news = {tp: offset for tp, offset in self.kept.items() if offset != self._committed_offset[tp]}
        return bool(news) and await self._commit_offsets(news, start_new_transaction)

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _turn_to(self, starts: Mapping[Any, int]) -> None:
        self._epoch += 1
        self.starts, self._is_positioned = starts, False

    def _is_source(self, tp: Any) -> bool:
        return bool(self.app.topics.acks_enabled_for(tp.topic))

    async def _drain_messages(self, fetcher: Any) -> None:
        # Faust's own compares each offset with the last one it has read, which a message from before a rebalance
        # can set too high: what then comes again is dropped.
        handled = 0
        try:
            while not (self._stopped.is_set() or fetcher.should_stop):
                async for _, message in self.getmany(timeout=1.0):
                    if not self.flow_active:
                        break
                    await self.callback(message)
                    handled += 1
                    if handled % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise


class StreamTransport(driver.Transport):
    """Faust's transport, with our consumer."""

    Consumer = StreamConsumer
