"""What the process of a source does when Kafka is away: waits, says so, recovers, and stops when told."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import ServerError, SinkRejected, SinkUnavailable
from stream.records import TICK, Records, empty_ticks
from stream.settings import Settings
from stream.sources.delivery import Delivery

PARTITIONS = 2
SETTINGS = Settings(partitions=PARTITIONS)


def some_ticks(first_seq: int, count: int) -> Records:
    ticks = empty_ticks(count)
    ticks["source_seq"] = np.arange(first_seq, first_seq + count)
    ticks["symbol"] = np.array([f"S{number}".encode() for number in range(7)], TICK["symbol"])[np.arange(count) % 7]
    return ticks


async def test_kafka_that_comes_late_is_waited_for_and_told(
    tmp_path: Path, tick_topic: Any, read_blocks: Any
) -> None:
    server = EmbeddedKafka(tmp_path)
    with server:
        topic = await tick_topic(server.bootstrap, PARTITIONS)
        await asyncio.to_thread(server.stop)
        delivery = Delivery(SETTINGS, server.bootstrap, "test", asyncio.Event(), topic=topic)
        entering = asyncio.create_task(delivery.__aenter__())
        while "kafka" not in delivery.health.problems:
            await asyncio.sleep(0.05)
        assert delivery.state == "connecting"
        await asyncio.to_thread(server.start)
        await entering
        try:
            assert delivery.health.problems == {}
            await delivery.send(some_ticks(1, 10_000))
            await delivery.finish("finished")
        finally:
            await delivery.__aexit__()
        blocks = await read_blocks(server.bootstrap, topic)
        assert sum(len(block) for part in blocks for block in part) == 10_000


async def test_stopping_while_kafka_never_came_ends_soon() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, stop.set)
    started_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:9"):
        await Delivery(SETTINGS, "127.0.0.1:9", "test", stop, stream_id=1).__aenter__()
    assert time.monotonic() - started_s < 15


async def test_a_stalled_kafka_is_told_and_a_stop_does_not_wait_for_ever(
    kafka: EmbeddedKafka, tick_topic: Any
) -> None:
    topic = await tick_topic(kafka.bootstrap, PARTITIONS)
    stop = asyncio.Event()
    async with Delivery(SETTINGS, kafka.bootstrap, "test", stop, topic=topic) as delivery:
        await delivery.send(some_ticks(1, 1_000))
        await delivery.settle()
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            await delivery.send(some_ticks(1_001, 1_000))
            while "acknowledgements" not in delivery.health.problems:
                await asyncio.sleep(0.1)
            stop.set()
            started_s = time.monotonic()
            with pytest.raises(SinkUnavailable, match="1000 ticks are not acknowledged"):
                await delivery.finish("stopped")
            assert 8 < time.monotonic() - started_s < 15
        finally:
            os.kill(kafka.pid, signal.SIGCONT)


async def test_after_a_failed_send_a_new_producer_sends_everything_and_health_recovers(
    kafka: EmbeddedKafka, tick_topic: Any, read_blocks: Any
) -> None:
    topic = await tick_topic(kafka.bootstrap, PARTITIONS)
    async with Delivery(SETTINGS, kafka.bootstrap, "test", asyncio.Event(), topic=topic) as delivery:
        await delivery.send(some_ticks(1, 5_000))
        delivery.publisher.give_up("the test says so")
        await delivery.send(some_ticks(5_001, 5_000))
        assert delivery.health.problems == {}
        await delivery.finish("finished")
    seen = np.concatenate([block for part in await read_blocks(kafka.bootstrap, topic) for block in part])
    assert set(seen["source_seq"].tolist()) == set(range(1, 10_001))


async def test_what_kafka_will_never_take_ends_the_source(kafka: EmbeddedKafka, tick_topic: Any) -> None:
    topic = await tick_topic(kafka.bootstrap, PARTITIONS, max_message_bytes="1000")
    async with Delivery(SETTINGS, kafka.bootstrap, "test", asyncio.Event(), topic=topic) as delivery:
        await delivery.send(some_ticks(1, 5_000))
        with pytest.raises(SinkRejected, match="MessageSizeTooLarge"):
            await delivery.finish("finished")


async def test_a_topic_of_another_size_ends_the_source_at_once(kafka: EmbeddedKafka, tick_topic: Any) -> None:
    topic = await tick_topic(kafka.bootstrap, PARTITIONS + 1)
    with pytest.raises(ServerError, match="3 partitions"):
        await Delivery(SETTINGS, kafka.bootstrap, "test", asyncio.Event(), topic=topic).__aenter__()
