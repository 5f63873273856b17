"""The publisher against a real Kafka."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import ServerError, SinkRejected, SinkUnavailable
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import MAX_BLOCK_RECORDS, TICK, Records, empty_ticks, partition_of

PARTITIONS = 3


def some_ticks(count: int, first_seq: int = 1, symbols: int = 17) -> Records:
    ticks = empty_ticks(count)
    ticks["source_seq"] = np.arange(first_seq, first_seq + count)
    names = np.array([f"S{number}".encode() for number in range(symbols)], TICK["symbol"])
    ticks["symbol"] = names[np.arange(count) % symbols]
    ticks["price"] = np.arange(count)
    ticks["kind"] = 1
    return ticks


def expected_in(partition: int, ticks: Records) -> Records:
    return ticks[partition_of(ticks["symbol"], PARTITIONS) == partition]


def new_publisher(
    bootstrap: str, topic: str, linger_ms: float = 1.0, partitions: int = PARTITIONS
) -> TickPublisher:
    return TickPublisher(bootstrap, partitions, linger_ms, PublisherMetrics(CollectorRegistry()), topic)


@pytest.fixture
async def topic(kafka: EmbeddedKafka, tick_topic: Any) -> Any:
    return await tick_topic(kafka.bootstrap, PARTITIONS)


@pytest.fixture
async def publisher(kafka: EmbeddedKafka, topic: str) -> AsyncIterator[TickPublisher]:
    async with new_publisher(kafka.bootstrap, topic) as new:
        yield new


async def test_each_partition_gets_its_ticks_in_the_order_of_publishing(
    kafka: EmbeddedKafka, publisher: TickPublisher, topic: str, read_blocks: Any
) -> None:
    ticks = some_ticks(50_000)
    for start, end in itertools.pairwise([0, 1, 2, 9, 5_000, 5_001, 41_000, 50_000]):
        await publisher.publish(ticks[start:end])
    await publisher.flush()
    for partition, blocks in enumerate(await read_blocks(kafka.bootstrap, topic)):
        assert np.concatenate(blocks).tobytes() == expected_in(partition, ticks).tobytes()
    assert publisher.unacknowledged_ticks == 0
    assert publisher.metrics.ticks == 50_000


async def test_blocks_fill_at_high_load(
    kafka: EmbeddedKafka, publisher: TickPublisher, topic: str, read_blocks: Any
) -> None:
    await publisher.publish(some_ticks(200_000))
    await publisher.flush()
    for blocks in await read_blocks(kafka.bootstrap, topic):
        assert all(len(block) == MAX_BLOCK_RECORDS for block in blocks[:-1])


async def test_a_tick_that_comes_alone_goes_at_once(kafka: EmbeddedKafka, topic: str, read_blocks: Any) -> None:
    async with new_publisher(kafka.bootstrap, topic, linger_ms=20.0) as publisher:
        await publisher.publish(some_ticks(1))
        await publisher.flush()  # the first send looks up metadata
        for seq in range(2, 12):
            await asyncio.sleep(0.03)
            await publisher.publish(some_ticks(1, seq))
            await asyncio.sleep(0)
            assert len(publisher._sent) == 1
            await publisher.flush()
    lengths = [len(block) for blocks in await read_blocks(kafka.bootstrap, topic) for block in blocks]
    assert lengths == [1] * 11


async def test_ticks_that_follow_closely_wait_for_the_next_round(
    kafka: EmbeddedKafka, topic: str, read_blocks: Any
) -> None:
    async with new_publisher(kafka.bootstrap, topic, linger_ms=200.0) as publisher:
        for seq in range(1, 52):
            await publisher.publish(some_ticks(1, seq))
            await asyncio.sleep(0)
        while publisher.unacknowledged_ticks:
            await asyncio.sleep(0.01)
    lengths = [len(block) for blocks in await read_blocks(kafka.bootstrap, topic) for block in blocks]
    assert lengths == [1, 50]


async def test_ticks_gather_while_a_block_is_on_its_way(kafka: EmbeddedKafka, topic: str, read_blocks: Any) -> None:
    async with new_publisher(kafka.bootstrap, topic, linger_ms=0.0, partitions=PARTITIONS) as publisher:
        for seq in range(1, 2_001):
            await publisher.publish(some_ticks(1, seq))
            await asyncio.sleep(0)
        await publisher.flush()
    blocks = [block for blocks in await read_blocks(kafka.bootstrap, topic) for block in blocks]
    assert sum(map(len, blocks)) == 2_000
    assert len(blocks) < 1_000  # without Nagle's rule there are as many blocks as ticks


async def test_a_refused_block_surfaces_in_flush_and_in_publish(kafka: EmbeddedKafka, tick_topic: Any) -> None:
    topic = await tick_topic(kafka.bootstrap, PARTITIONS, max_message_bytes="1000")
    async with new_publisher(kafka.bootstrap, topic) as publisher:
        await publisher.publish(some_ticks(4_000))
        with pytest.raises(SinkRejected, match="MessageSizeTooLarge"):
            await publisher.flush()
        with pytest.raises(SinkRejected):
            await publisher.publish(some_ticks(1, 4_001))
        assert publisher.unacknowledged_ticks == 4_001


async def test_a_stopped_broker_holds_publish_back_and_a_restart_sends_everything(
    kafka: EmbeddedKafka, publisher: TickPublisher, topic: str, read_blocks: Any
) -> None:
    ticks = some_ticks(1_500_000)
    await publisher.publish(ticks[:10_000])
    await publisher.flush()
    accepted = 10_000

    async def publish_the_rest() -> None:
        nonlocal accepted
        while accepted < len(ticks):
            start, accepted = accepted, accepted + 50_000
            await publisher.publish(ticks[start:accepted])

    os.kill(kafka.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(publish_the_rest(), 3)
        assert 200_000 < publisher.unacknowledged_ticks < 800_000
        assert publisher.stalled_s > 1
        publisher.give_up("the test says so")
        with pytest.raises(SinkUnavailable, match="the test says so"):
            await publisher.flush()
        restart = asyncio.create_task(publisher.restart())
        await asyncio.sleep(1)
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
    await restart
    await publisher.flush()
    for partition, blocks in enumerate(await read_blocks(kafka.bootstrap, topic)):
        seen = np.concatenate(blocks)["source_seq"]
        # What the discarded producer had under way may stand there twice: a lane keeps what is above the newest.
        kept = seen[np.flatnonzero(np.diff(np.maximum.accumulate(seen), prepend=np.uint64(0)))]
        assert kept.tolist() == expected_in(partition, ticks[:accepted])["source_seq"].tolist()


async def test_a_broker_that_dies_and_comes_back_loses_nothing_and_repeats_nothing(
    tmp_path: Path, tick_topic: Any, read_blocks: Any
) -> None:
    with EmbeddedKafka(tmp_path) as server:
        topic = await tick_topic(server.bootstrap, PARTITIONS)
        ticks = some_ticks(400_000)
        async with new_publisher(server.bootstrap, topic) as publisher:
            await publisher.publish(ticks[:100_000])
            await asyncio.to_thread(server.kill)
            publishing = asyncio.create_task(publisher.publish(ticks[100_000:]))
            await asyncio.to_thread(server.restart)
            await publishing
            await publisher.flush()
        for partition, blocks in enumerate(await read_blocks(server.bootstrap, topic)):
            assert np.concatenate(blocks).tobytes() == expected_in(partition, ticks).tobytes()


async def test_a_topic_of_another_size_is_refused(kafka: EmbeddedKafka, topic: str) -> None:
    publisher = new_publisher(kafka.bootstrap, topic, partitions=PARTITIONS + 1)
    with pytest.raises(ServerError, match="3 partitions and the setting `partitions` says 4"):
        await publisher.__aenter__()


async def test_no_broker_is_said_clearly() -> None:
    publisher = new_publisher("127.0.0.1:9", "ticks")
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:9"):
        await publisher.__aenter__()
