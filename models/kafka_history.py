"""The ticks that Kafka still holds, for training on the last days.

Partition after partition, each in its order: that is the order of arrival of each symbol, and so gives the features
that the lanes had, whatever the order of partitions. Memory holds one fetch, however long the time is.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from stream.ending import end_consumer
from stream.errors import RecordError, SourceError
from stream.records import TICK, Records, decode_block, join_records

logger = logging.getLogger(__name__)

_NS_PER_MS: Final = 1_000_000
# Messages are stamped when they are sent, by a clock that may be behind that of their ticks: 1.3 s was seen.
_CLOCKS_APART_MS: Final = 60_000
_PATIENCE_MS: Final = 30_000

# Called after each fetch with how many messages are done, and how many there are.
Told = Callable[[int, int], object]


def kafka_ticks(bootstrap: str, topic: str, from_ns: int, to_ns: int, told: Told) -> Iterator[Records]:
    """Yield ``TICK[N]`` of [from_ns, to_ns) of event time, as far as the topic reaches when this is called.

    Blocks that this version does not read are left out, as lanes leave them out, and the log says how many. It also
    says where the topic no longer reaches back to ``from_ns``. Not to be called from within a running event loop.

    Args:
        bootstrap: HOST:PORT[,HOST:PORT] of the cluster.
        topic: of blocks of ticks.
        from_ns: of event time.
        to_ns: likewise.
        told: shows progress.

    Raises:
        SourceError: the topic is not there or does not answer, or retention took messages while they were read.
    """

    async def step() -> Records | None:
        return await anext(fetches, None)

    with asyncio.Runner() as runner:
        fetches = _fetches(bootstrap, topic, from_ns // _NS_PER_MS - _CLOCKS_APART_MS, told)
        try:
            while (ticks := runner.run(step())) is not None:
                inside = (ticks["event_ns"] >= from_ns) & (ticks["event_ns"] < to_ns)
                if inside.any():
                    yield ticks[inside]
        except OffsetOutOfRangeError:
            raise SourceError(
                f"{topic}: retention took ticks while they were read; right would be a longer retention_hours, or "
                "a later start"
            ) from None
        except (KafkaError, OSError) as error:
            raise SourceError(f"{topic} at {bootstrap} cannot be read: {error!r}") from None
        finally:
            runner.run(fetches.aclose())


@dataclass(frozen=True)
class _Piece:
    """The messages [start, end) of one partition."""

    where: Any
    start: int
    end: int


async def _fetches(bootstrap: str, topic: str, from_ms: int, told: Told) -> AsyncGenerator[Records, None]:
    partitions = await _partitions(bootstrap, topic)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=100
    )
    await consumer.start()
    unread = 0
    try:
        plan = await _plan(consumer, partitions, from_ms)
        done, total = 0, sum(piece.end - piece.start for piece in plan)
        for piece in plan:
            consumer.assign([piece.where])
            consumer.seek(piece.where, piece.start)
            at = piece.start
            while at < piece.end:
                found = await consumer.getmany(piece.where, timeout_ms=_PATIENCE_MS)
                position = await consumer.position(piece.where)
                if position == at:
                    raise SourceError(f"{topic}: nothing came of {piece} within {_PATIENCE_MS / 1000:g} s")
                messages = [each for each in found.get(piece.where, ()) if each.offset < piece.end]
                blocks = [block for each in messages if (block := _decoded(each)) is not None]
                unread += len(messages) - len(blocks)
                done += min(position, piece.end) - at
                at = position
                told(done, total)
                if blocks:
                    yield join_records(blocks)
    finally:
        await end_consumer(consumer)
    if unread:
        logger.warning("%s: %d of %d blocks cannot be read and were left out", topic, unread, total)


async def _partitions(bootstrap: str, topic: str) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (info,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    numbers = sorted(part["partition"] for part in info["partitions"])
    if not numbers:
        raise SourceError(f"there is no topic {topic} at {bootstrap}; `tickloom topics` makes those that it needs")
    return [TopicPartition(topic, number) for number in numbers]


async def _plan(consumer: AIOKafkaConsumer, partitions: list[TopicPartition], from_ms: int) -> list[_Piece]:
    oldest, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, from_ms)))
    plan = []
    for where in partitions:
        # None: every message was sent before.
        start = ends[where] if found[where] is None else found[where].offset
        if start == oldest[where] > 0:
            logger.warning(
                "%s[%d] may not reach back to the time asked for: retention has taken what was before offset %d",
                where.topic,
                where.partition,
                start,
            )
        # One that has nothing is not even assigned: aiokafka may hang when it is stopped right after an assignment.
        if start < ends[where]:
            plan.append(_Piece(where, start, ends[where]))
    return plan


def _decoded(message: Any) -> Records | None:
    try:
        return decode_block(message.value, TICK)
    except RecordError as error:
        logger.debug("%s[%d] at %d: %s", message.topic, message.partition, message.offset, error)
        return None
