"""The past of a channel out of Kafka, for one client at a time, beside the live feed and never in its way.

At most _READERS read at once, each as a consumer of its own; after each portion the reader rests as long as the
portion took, so that all of them together take no more than half of the event loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from exporters.feed_tail import partitions_of
from exporters.intake import Message
from exporters.waiting import BROKER_PATIENCE_S
from stream.ending import end_consumer
from stream.records import Records
from stream.settings import Settings

Decode = Callable[[Iterable[Message]], Records]

_READERS: Final = 4
_BLOCKS: Final = 64  # that are worked off in one go
_FETCH_WAIT_MS: Final = 100


class Archive:
    """Reads one topic."""

    def __init__(self, settings: Settings, topic: str, decode: Decode, readers: asyncio.Semaphore) -> None:
        """Make it; it connects when somebody asks.

        Args:
            settings: ``kafka`` must be set.
            topic: what to read.
            decode: from messages to rows.
            readers: how many may read at once, over all archives; see `make_readers`.
        """
        self._settings, self._topic, self._decode, self._readers = settings, topic, decode, readers

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[Reader]":
        """Give a reader, as soon as one is free.

        Raises:
            KafkaError, TimeoutError: the brokers do not answer.
        """
        async with self._readers:
            bootstrap = str(self._settings.kafka)
            partitions = await partitions_of(bootstrap, [self._topic])
            consumer = AIOKafkaConsumer(
                bootstrap_servers=bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                max_partition_fetch_bytes=1 << 20,
            )
            try:
                await consumer.start()
                consumer.assign(partitions)
                async with asyncio.timeout(BROKER_PATIENCE_S):
                    starts = await consumer.beginning_offsets(partitions)
                    ends = await consumer.end_offsets(partitions)
                yield Reader(consumer, self._decode, _by_number(starts), _by_number(ends), self._topic)
            finally:
                await end_consumer(consumer)


class Reader:
    """Reads ranges of offsets."""

    def __init__(
        self, consumer: Any, decode: Decode, starts: Mapping[int, int], ends: Mapping[int, int], topic: str
    ) -> None:
        """Take over a consumer that is assigned all partitions.

        Args:
            consumer: started.
            decode: from messages to rows.
            starts: the oldest offset of each partition.
            ends: where each partition ended when this was opened.
            topic: whose.
        """
        self.starts, self.ends = starts, ends
        self._consumer, self._decode, self._topic = consumer, decode, topic

    @property
    def partitions(self) -> list[int]:
        """All partitions."""
        return sorted(self.starts)

    async def offsets_at(self, from_ns: int) -> dict[int, int | None]:
        """Return the first offset of each partition from a time on; None where nothing is so new.

        Raises:
            KafkaError, TimeoutError: the brokers do not answer.
        """
        at_ms = max(0, from_ns // 1_000_000)
        wanted = dict.fromkeys(self._all(self.partitions), at_ms)
        found = await asyncio.wait_for(self._consumer.offsets_for_times(wanted), BROKER_PATIENCE_S)
        return {p.partition: None if one is None else int(one.offset) for p, one in found.items()}

    async def read(
        self, positions: dict[int, int], ends: Callable[[int], int]
    ) -> AsyncIterator[tuple[int, Records, int]]:
        """Yield partition, rows and where they go on, until each partition is at its end.

        Args:
            positions: by partition, and moves along; others are not read.
            ends: asked for the end of a partition again and again; it may move on.

        Raises:
            KafkaError, TimeoutError: the brokers do not answer, or have no more where there should be.
        """
        mine = self._all(positions)
        self._consumer.pause(*(p for p in self._consumer.assignment() if p not in mine))
        self._consumer.resume(*mine)
        for partition in mine:
            self._consumer.seek(partition, positions[partition.partition])
        silent_since_s = time.monotonic()
        while any(position < ends(partition) for partition, position in positions.items()):
            read = await self._consumer.getmany(*mine, timeout_ms=_FETCH_WAIT_MS, max_records=_BLOCKS)
            started_s = time.monotonic()
            if read:
                silent_since_s = started_s
            elif started_s - silent_since_s > BROKER_PATIENCE_S:
                raise TimeoutError(f"{self._topic} does not reach {[ends(p) for p in positions]}: {positions}")
            for where, messages in read.items():
                end = ends(where.partition)
                wanted = [message for message in messages if message.offset < end]
                # What compaction or retention has taken leaves numbers out.
                positions[where.partition] = messages[-1].offset + 1 if len(wanted) == len(messages) else end
                if len(wanted) < len(messages):
                    self._consumer.seek(where, end)
                yield where.partition, self._decode(wanted), positions[where.partition]
            await asyncio.sleep(min(0.05, time.monotonic() - started_s))

    def _all(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]


def _by_number(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {partition.partition: offset for partition, offset in offsets.items()}


def make_readers() -> asyncio.Semaphore:
    """Return what limits how many read at once."""
    return asyncio.Semaphore(_READERS)
