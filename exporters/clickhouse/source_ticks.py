"""The ticks that predictions follow, read again from Kafka by their places.

A prediction tells where its tick stands in the topic `ticks`: partition, offset of the block, index in it.
Predictions come in that order, so that this reads each partition once, from beginning to end, without a group.
"""

import asyncio
import contextlib
import logging
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from exporters.waiting import BROKER_PATIENCE_S
from stream.ending import end_consumer
from stream.errors import RecordError, SinkUnavailable
from stream.records import TICK, Records, decode_block, empty_ticks, join_records
from stream.topics import TICKS

logger = logging.getLogger(__name__)

_POLL_MS: Final = 1000


class SourceTicks:
    """Finds the ticks of predictions."""

    def __init__(self, bootstrap: str, topic: str = TICKS) -> None:
        """Make it; it connects when it is first asked."""
        self._bootstrap, self._topic = bootstrap, topic
        self._partitions: dict[int, _Partition] = {}
        self.missing = 0

    async def find(self, rows: Records) -> Records:
        """Return the tick of each prediction: ``TICK[N]`` for ``PREDICTION[N]``.

        One that Kafka does not have any more is empty: kind 0, numbers NaN.

        Raises:
            SinkUnavailable: Kafka does not answer. Cancelling it is safe.
        """
        found = empty_ticks(len(rows))
        try:
            for number in np.unique(rows["source_partition"]).tolist():
                ours = np.flatnonzero(rows["source_partition"] == number)
                some = rows[ours]
                if number not in self._partitions:
                    self._partitions[number] = _Partition(self._bootstrap, TopicPartition(self._topic, number))
                blocks = await self._partitions[number].read(np.unique(some["source_offset"]))
                found[ours] = ticks_at(some, blocks)
        except (KafkaError, TimeoutError, OSError) as error:
            await self.close()
            raise SinkUnavailable(
                f"Kafka at {self._bootstrap} does not give the ticks of predictions: {error!r}"
            ) from error
        self._count(int((found["kind"] == 0).sum()))
        return found

    async def close(self) -> None:
        """Close the connections; the next question opens others."""
        partitions, self._partitions = self._partitions, {}
        await asyncio.gather(*(partition.close() for partition in partitions.values()))

    def _count(self, missing: int) -> None:
        if missing and not self.missing:
            logger.warning(
                "Kafka has the ticks of %d predictions no more; their trades count in no bar's volume", missing
            )
        self.missing += missing


class _Partition:
    """The blocks of a partition, with a consumer of its own.

    One consumer for all of them stands still half a second at a time: it asks a broker for nothing while what came
    of another partition is not taken, and a question for partitions without news holds up whatever comes after it.
    """

    def __init__(self, bootstrap: str, partition: TopicPartition) -> None:
        self._bootstrap, self._partition = bootstrap, partition
        self._consumer: Any = None
        self._held: dict[int, Records] = {}  # blocks of the last predictions, by offset
        self._next = -1  # offset that is read next

    async def read(self, offsets: NDArray[np.int64]) -> dict[int, Records]:
        """Have the blocks at some ascending offsets; those that are not there are left out.

        Raises:
            KafkaError, TimeoutError, OSError: Kafka does not answer.
        """
        held = self._held
        # Some after these may be there as well: more was read than was needed, and the next predictions follow it.
        blocks = self._held = {offset: block for offset, block in held.items() if offset >= offsets[0]}
        wanted = [offset for offset in offsets.tolist() if offset not in held]
        if not wanted:
            return blocks
        if self._consumer is None:
            self._consumer = await self._connected()
        last = min(wanted[-1], await self._end(wanted[-1]) - 1)
        if self._next != wanted[0]:
            self._consumer.seek(self._partition, wanted[0])
            self._next = wanted[0]
        while self._next <= last:
            await asyncio.wait_for(self._poll(blocks), 2 * BROKER_PATIENCE_S)
        return blocks

    async def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            await end_consumer(self._consumer)

    async def _connected(self) -> Any:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await asyncio.wait_for(consumer.start(), 2 * BROKER_PATIENCE_S)
        except BaseException:
            await end_consumer(consumer)
            raise
        consumer.assign([self._partition])
        return consumer

    async def _end(self, beyond: int) -> int:
        """Return the offset behind the last block, or one ``beyond`` which there are more."""
        known = self._consumer.highwater(self._partition)
        if known is not None and known > beyond:
            return int(known)
        ends = await asyncio.wait_for(self._consumer.end_offsets([self._partition]), BROKER_PATIENCE_S)
        return int(ends[self._partition])

    async def _poll(self, blocks: dict[int, Records]) -> None:
        read: dict[TopicPartition, list[Any]] = {}
        while not read:
            read = await self._consumer.getmany(timeout_ms=_POLL_MS)
        for message in read[self._partition]:
            self._next = message.offset + 1
            with contextlib.suppress(RecordError):
                blocks[message.offset] = decode_block(message.value or b"", TICK)


def ticks_at(rows: Records, blocks: dict[int, Records]) -> Records:
    """Return the tick of each prediction of a partition: ``TICK[N]``; empty ones for those that are not there.

    Args:
        rows: ``PREDICTION[N]``.
        blocks: ``TICK[...]`` of the partition by offset.
    """
    picked = empty_ticks(len(rows))
    if not blocks:
        return picked
    offsets = np.array(sorted(blocks), np.int64)
    parts = [blocks[offset] for offset in offsets.tolist()]
    lengths = np.array([len(part) for part in parts])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    which = np.minimum(np.searchsorted(offsets, rows["source_offset"]), len(offsets) - 1)
    is_there = (offsets[which] == rows["source_offset"]) & (rows["source_index"] < lengths[which])
    at = np.where(is_there, starts[which] + rows["source_index"].astype(np.int64), 0)
    ticks = join_records(parts)[at]
    # Offsets start again where the topic was made anew: then another tick may stand there.
    is_there &= (ticks["symbol"] == rows["symbol"]) & (ticks["event_ns"] == rows["event_ns"])
    picked[is_there] = ticks[is_there]
    return picked
