"""Bookmarks against a real Kafka: what a repeatable source finds when it comes back."""

from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SinkUnavailable
from stream.publisher import PublisherMetrics, TickPublisher
from stream.records import TICK, Records, empty_ticks, partition_of
from stream.sources.resume import Bookmarks

PARTITIONS = 4
OURS, OTHERS = 0xAAAA, 0xBBBB


def some_ticks(first_seq: int, count: int, stream_id: int = OURS, symbols: int = 23) -> Records:
    ticks = empty_ticks(count)
    ticks["source_seq"] = np.arange(first_seq, first_seq + count)
    names = np.array([f"S{number}".encode() for number in range(symbols)], TICK["symbol"])
    ticks["symbol"] = names[np.arange(count) % symbols]
    ticks["stream_id"] = stream_id
    return ticks


def last_in_each_partition(ticks: Records) -> list[int]:
    partitions = partition_of(ticks["symbol"], PARTITIONS)
    return [int(ticks["source_seq"][partitions == part].max(initial=0)) for part in range(PARTITIONS)]


@pytest.fixture
async def topic(kafka: EmbeddedKafka, tick_topic: Any) -> Any:
    return await tick_topic(kafka.bootstrap, PARTITIONS)


async def publish(kafka: EmbeddedKafka, topic: str, *parts: Records) -> None:
    async with TickPublisher(
        kafka.bootstrap, PARTITIONS, 1.0, PublisherMetrics(CollectorRegistry()), topic
    ) as publisher:
        for part in parts:
            await publisher.publish(part)
        await publisher.flush()


async def load(kafka: EmbeddedKafka, topic: str, stream_id: int = OURS) -> list[int]:
    async with Bookmarks(kafka.bootstrap, PARTITIONS, stream_id, topic) as bookmarks:
        return [int(position) for position in await bookmarks.load()]


async def test_a_new_stream_stands_at_nothing_even_where_others_have_written(
    kafka: EmbeddedKafka, topic: str
) -> None:
    await publish(kafka, topic, some_ticks(1, 9_000, OTHERS))
    assert await load(kafka, topic) == [0] * PARTITIONS


async def test_without_any_saved_bookmark_but_the_first_the_tail_tells(kafka: EmbeddedKafka, topic: str) -> None:
    assert await load(kafka, topic) == [0] * PARTITIONS
    ticks = some_ticks(1, 30_000)
    await publish(kafka, topic, ticks, some_ticks(1, 20_000, OTHERS))
    assert await load(kafka, topic) == last_in_each_partition(ticks)
    assert await load(kafka, topic) == last_in_each_partition(ticks)


async def test_saved_bookmarks_are_where_the_reading_starts(kafka: EmbeddedKafka, topic: str) -> None:
    ticks = some_ticks(1, 50_000)
    async with (
        Bookmarks(kafka.bootstrap, PARTITIONS, OURS, topic) as bookmarks,
        TickPublisher(kafka.bootstrap, PARTITIONS, 1.0, PublisherMetrics(CollectorRegistry()), topic) as publisher,
    ):
        await bookmarks.load()
        await publisher.publish(ticks[:40_000])
        await publisher.flush()
        await bookmarks.save(publisher)
        await publisher.publish(ticks[40_000:])
        await publisher.flush()
    positions = np.array(await load(kafka, topic))
    # Settled: what belongs to a partition up to the stream's position is there, the last tick's or not.
    assert np.all(positions >= last_in_each_partition(ticks))
    assert np.all(positions <= 50_000)


async def test_a_partition_without_symbols_of_the_stream_follows_the_whole_stream(
    kafka: EmbeddedKafka, topic: str
) -> None:
    ticks = some_ticks(1, 1_000, symbols=1)
    async with (
        Bookmarks(kafka.bootstrap, PARTITIONS, OURS, topic) as bookmarks,
        TickPublisher(kafka.bootstrap, PARTITIONS, 1.0, PublisherMetrics(CollectorRegistry()), topic) as publisher,
    ):
        await bookmarks.load()
        await publisher.publish(ticks)
        await publisher.flush()
        await bookmarks.save(publisher)
    assert await load(kafka, topic) == [1_000] * PARTITIONS


async def test_what_is_not_a_block_does_not_hide_the_position(kafka: EmbeddedKafka, topic: str) -> None:
    await load(kafka, topic)
    ticks = some_ticks(1, 5_000)
    await publish(kafka, topic, ticks)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for partition in range(PARTITIONS):
            await producer.send_and_wait(topic, b"garbage", partition=partition)
    assert await load(kafka, topic) == last_in_each_partition(ticks)


async def test_no_broker_is_said_clearly() -> None:
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:9"):
        await Bookmarks("127.0.0.1:9", PARTITIONS, OURS).__aenter__()
