"""Where a source that can repeat itself goes on after a stop or a crash: nothing twice, nothing missing.

Such a source numbers its whole stream: ``source_seq`` is the position in the merged stream, and one ``stream_id``
stands for one content. `TickPublisher` keeps the order of each partition, so what stands in a partition is always a
*prefix* of what belongs there. The last ``source_seq`` of each partition is therefore all there is to know: the
source goes on after the smallest of them and skips, per partition, what stands there already.

The last ``source_seq`` is in the tail of the topic. Other streams may have written to it meanwhile, so that the
tail may be long; a bookmark says from where to read. It is a committed offset of a consumer group that nobody
joins, with the position that was acknowledged there as its metadata. A first bookmark (the end of the partition,
position 0) is written before the first tick, so "no bookmark" means "no tick". Bookmarks are an economy: a stale
one costs a longer read of the tail and never a wrong answer.
"""

import asyncio
import logging
import time
from typing import Self

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from numpy.typing import NDArray

from stream.ending import end_consumer
from stream.errors import InvariantError, RecordError, SinkUnavailable
from stream.publisher import TickPublisher
from stream.records import TICK, decode_block
from stream.topics import TICKS

logger = logging.getLogger(__name__)

# The broker answers a fetch at once while there is something to read; this bounds the wait for an empty tail.
_FETCH_WAIT_MS = 50
# A new broker makes its topic of offsets when it is first asked for it, which takes a second or two.
_COORDINATOR_S = 15.0


class Bookmarks:
    """The positions of one stream in each partition, and the bookmarks that make them quick to find."""

    def __init__(self, bootstrap: str, partitions: int, stream_id: int, topic: str = TICKS) -> None:
        """Name the stream; nothing is read yet.

        Args:
            bootstrap: ``HOST:PORT[,HOST:PORT]`` of the brokers.
            partitions: that the topic has.
            stream_id: that the stream's ticks carry.
            topic: that the stream is published to.
        """
        self.group = f"tickloom-source-{stream_id:08x}"
        self._bootstrap = bootstrap
        self._stream_id = stream_id
        self._parts = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._saved: dict[TopicPartition, OffsetAndMetadata] = {}
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            SinkUnavailable: the brokers do not answer; try again later.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self.group,
            group_id=self.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
        )
        try:
            await consumer.start()
        except KafkaError as error:
            await end_consumer(consumer)
            raise SinkUnavailable(f"Kafka at {self._bootstrap} does not answer: {error!r}") from error
        except BaseException:
            await end_consumer(consumer)
            raise
        consumer.assign(self._parts)
        consumer.pause(*self._parts)
        self._consumer = consumer
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect; nothing is written."""
        if self._consumer is not None:
            await end_consumer(self._consumer)
            self._consumer = None

    async def load(self) -> NDArray[np.uint64]:
        """Return the last ``source_seq`` of the stream in each partition, ``uint64[P]``, 0 where there is none.

        Raises:
            SinkUnavailable: the brokers do not answer; try again later.
        """
        consumer = self._connected()
        positions = np.zeros(len(self._parts), np.uint64)
        try:
            saved = await self._read_saved()
            ends = await consumer.end_offsets(self._parts)
            starts = await consumer.beginning_offsets(self._parts)
            for part in self._parts:
                bookmark = saved.get(part)
                if bookmark is None or bookmark.offset > ends[part]:  # the latter: a new topic of the same name
                    bookmark = OffsetAndMetadata(ends[part], "0")
                self._saved[part] = bookmark
                positions[part.partition] = int(self._saved[part].metadata)
            scan = {part: max(bookmark.offset, starts[part]) for part, bookmark in self._saved.items()}
            await self._read_tails(scan, ends, positions)
            await consumer.commit(self._saved)
        except KafkaError as error:
            raise SinkUnavailable(f"cannot read where {self.group} stopped: {error!r}") from error
        logger.info("%s: stands at %s", self.group, positions.tolist())
        return positions

    async def save(self, publisher: TickPublisher) -> None:
        """Write what ``publisher`` knows to be acknowledged as the new bookmarks.

        Raises:
            SinkUnavailable: the brokers do not answer; the old bookmarks stay good.
        """
        news = {}
        for part in self._parts:
            old = self._saved[part]
            last = publisher.acknowledged(part.partition)
            # Where nothing is on its way, the stream has come as far as the whole publisher.
            settled_seq = publisher.published_seq if publisher.is_settled(part.partition) else 0
            seq = max(settled_seq, 0 if last is None else last.source_seq, int(old.metadata))
            new = OffsetAndMetadata(old.offset if last is None else max(last.offset, old.offset), str(seq))
            if new != old:
                news[part] = new
        if not news:
            return
        try:
            await self._connected().commit(news)
        except KafkaError as error:
            raise SinkUnavailable(f"cannot write where {self.group} stands: {error!r}") from error
        self._saved |= news

    async def _read_saved(self) -> dict[TopicPartition, OffsetAndMetadata]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, client_id=self.group)
        deadline_s = time.monotonic() + _COORDINATOR_S
        try:
            await admin.start()
            while True:
                try:
                    saved = await admin.list_consumer_group_offsets(self.group, partitions=self._parts)
                    return {part: bookmark for part, bookmark in saved.items() if bookmark.offset >= 0}
                except GroupCoordinatorNotAvailableError:
                    if time.monotonic() > deadline_s:
                        raise
                    await asyncio.sleep(0.1)
        finally:
            await admin.close()

    def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise InvariantError("bookmarks are used inside their `async with` only")
        return self._consumer

    async def _read_tails(
        self, scan: dict[TopicPartition, int], ends: dict[TopicPartition, int], positions: NDArray[np.uint64]
    ) -> None:
        """Raise ``positions`` to what is found between the offsets ``scan`` and ``ends``."""
        consumer = self._connected()
        unread = [part for part, offset in scan.items() if offset < ends[part]]
        for part in unread:
            consumer.seek(part, scan[part])
            consumer.resume(part)
        while unread:
            for part, messages in (await consumer.getmany(*unread, timeout_ms=1000)).items():
                for message in messages:
                    positions[part.partition] = max(positions[part.partition], self._last_seq(message.value))
            for part in list(unread):
                if await consumer.position(part) >= ends[part]:
                    consumer.pause(part)
                    unread.remove(part)

    def _last_seq(self, value: bytes) -> np.uint64:
        """Return the last ``source_seq`` of our stream in a block, 0 when it holds none."""
        try:
            ticks = decode_block(value, TICK)
        except RecordError:
            return np.uint64(0)  # somebody else's mistake; the lane puts it aside and counts it
        ours = ticks["source_seq"][ticks["stream_id"] == self._stream_id]
        return np.uint64(ours[-1] if len(ours) else 0)
