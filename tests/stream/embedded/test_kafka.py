"""The embedded broker: Apache Kafka itself, and the stand-in where it cannot run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import ServerError

FreshName = Callable[[str], str]


async def create_topic(bootstrap: str, name: str, partitions: int = 1, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        named = {key.replace("_", "."): value for key, value in configs.items()}
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=named)])
    finally:
        await admin.close()


async def send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k", partition=0)


async def read_all(bootstrap: str, topic: str) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=20) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while await consumer.position(partition) < end:
            values.append((await consumer.getone()).value)
        return values


async def test_an_idempotent_producer_and_a_consumer_work(kafka: EmbeddedKafka, fresh_name: FreshName) -> None:
    assert kafka.kind == "kafka"
    topic = fresh_name("ticks")
    await create_topic(kafka.bootstrap, topic)
    values = [b"%d" % number for number in range(50)]
    await send(kafka.bootstrap, topic, values)
    assert await read_all(kafka.bootstrap, topic) == values


def test_a_second_server_on_the_same_data_is_refused(kafka: EmbeddedKafka) -> None:
    with pytest.raises(ServerError, match="is in use by a running tickloom"):
        EmbeddedKafka(kafka.data_dir).start()
    assert kafka.alive()


async def test_topics_survive_a_crash_and_a_restart(tmp_path: Path, fresh_name: FreshName) -> None:
    topic = fresh_name("ticks")
    with EmbeddedKafka(tmp_path) as kafka:
        port = kafka.port
        await create_topic(kafka.bootstrap, topic)
        await send(kafka.bootstrap, topic, [b"before"])
        kafka.kill()
        assert not kafka.alive()
        kafka.restart()
        assert kafka.port == port
        assert await read_all(kafka.bootstrap, topic) == [b"before"]
        await send(kafka.bootstrap, topic, [b"after"])
    with EmbeddedKafka(tmp_path) as again:
        assert await read_all(again.bootstrap, topic) == [b"before", b"after"]
