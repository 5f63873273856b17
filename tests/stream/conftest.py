"""Topics of ticks for the tests of sources: made fresh, and read back block by block."""

from collections.abc import Awaitable, Callable

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream.records import TICK, Records, decode_block

TickTopic = Callable[..., Awaitable[str]]
ReadBlocks = Callable[[str, str], Awaitable[list[list[Records]]]]


@pytest.fixture
def tick_topic(fresh_name: Callable[[str], str]) -> TickTopic:
    """Make a topic with a fresh name: ``await tick_topic(bootstrap, partitions, max_message_bytes="1000")``."""

    async def make(bootstrap: str, partitions: int, **config: str) -> str:
        topic = fresh_name("ticks")
        configs = {name.replace("_", "."): value for name, value in config.items()}
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        await admin.close()
        return topic

    return make


@pytest.fixture
def read_blocks() -> ReadBlocks:
    """Read a topic: ``await read_blocks(bootstrap, topic)`` gives the blocks of each partition."""

    async def read(bootstrap: str, topic: str) -> list[list[Records]]:
        async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, fetch_max_wait_ms=50) as consumer:
            parts = [TopicPartition(topic, partition) for partition in sorted(consumer.partitions_for_topic(topic))]
            consumer.unsubscribe()
            consumer.assign(parts)
            await consumer.seek_to_beginning(*parts)
            ends = await consumer.end_offsets(parts)
            blocks: list[list[Records]] = [[] for _ in parts]
            while any([await consumer.position(part) < ends[part] for part in parts]):
                for part, messages in (await consumer.getmany(timeout_ms=500)).items():
                    blocks[part.partition] += [decode_block(message.value, TICK) for message in messages]
        return blocks

    return read
