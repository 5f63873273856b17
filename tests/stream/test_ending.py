"""Ending a consumer, whatever its library makes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError

from stream import ending
from stream.embedded.kafka import EmbeddedKafka
from stream.ending import end_consumer


class StubbornConsumer:
    """A consumer that does something else when it is to stop."""

    def __init__(self, stop: Callable[[], Awaitable[None]]) -> None:
        self.stop = stop
        self._client = self
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


async def stumble() -> None:
    raise asyncio.CancelledError


async def fail() -> None:
    raise KafkaConnectionError("away")


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("stop", [stumble, fail, hang])
async def test_a_consumer_that_cannot_stop_ends_nobody_else(
    stop: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_PATIENCE_S", 0.05)
    consumer = StubbornConsumer(stop)
    await asyncio.wait_for(end_consumer(consumer), 5.0)
    assert consumer.is_closed


async def test_who_ends_a_consumer_can_be_cancelled() -> None:
    waiting = asyncio.create_task(end_consumer(StubbornConsumer(hang)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_consumer_ends_while_its_broker_is_dead(tmp_path: Path) -> None:
    """Of aiokafka's fetches one is always waiting for its next try then."""
    server = EmbeddedKafka(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("t", 1, 1)])
        await admin.close()
        consumer = AIOKafkaConsumer(bootstrap_servers=server.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        consumer.assign([TopicPartition("t", 0)])
        await consumer.getmany(timeout_ms=300)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.35)
        await end_consumer(consumer)
        assert not consumer._client._conns
    finally:
        await asyncio.to_thread(server.stop)
