"""The embedded broker: Apache Kafka itself, and the stand-in where it cannot run."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import ServerError

FreshName = Callable[[str], str]


async def create_topic(bootstrap: str, name: str, configs: dict[str, str] | None = None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=configs)])
    finally:
        await admin.close()


async def configuration(bootstrap: str, topic: str, keys: Iterable[str]) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        ((_, _, _, _, entries),) = response.resources
        found = {entry[0]: entry[1] for entry in entries}
        return {key: found[key] for key in keys}
    finally:
        await admin.close()


async def send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k", partition=0)


async def read_all(bootstrap: str, topic: str) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, fetch_max_wait_ms=20, max_partition_fetch_bytes=8 * 1024 * 1024
    ) as consumer:
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


async def test_a_topic_may_be_compacted(kafka: EmbeddedKafka, fresh_name: FreshName) -> None:
    topic = fresh_name("changelog")
    wanted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "max.compaction.lag.ms": "60000"}
    await create_topic(kafka.bootstrap, topic, wanted)
    assert await configuration(kafka.bootstrap, topic, wanted.keys()) == wanted


async def test_a_topic_that_nobody_created_does_not_appear(kafka: EmbeddedKafka, fresh_name: FreshName) -> None:
    topic = fresh_name("mistyped")
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=500) as producer:
        with pytest.raises(KafkaError):
            await producer.send_and_wait(topic, b"lost", partition=0)


async def test_a_block_of_several_mebibytes_fits(kafka: EmbeddedKafka, fresh_name: FreshName) -> None:
    topic = fresh_name("blocks")
    block = bytes(6 * 1024 * 1024)
    await create_topic(kafka.bootstrap, topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=8 * 1024 * 1024) as producer:
        await producer.send_and_wait(topic, block, partition=0)
    assert await read_all(kafka.bootstrap, topic) == [block]


async def test_a_group_takes_over_from_where_the_last_member_committed(
    kafka: EmbeddedKafka, fresh_name: FreshName
) -> None:
    topic, group = fresh_name("ticks"), fresh_name("lanes")
    await create_topic(kafka.bootstrap, topic)
    await send(kafka.bootstrap, topic, [b"one", b"two"])
    for expected in (b"one", b"two"):
        async with AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka.bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=1_000,
            heartbeat_interval_ms=200,
            max_poll_records=1,
        ) as consumer:
            record = await consumer.getone()
            assert record.value == expected
            await consumer.commit()


def test_a_second_server_on_the_same_data_is_refused(kafka: EmbeddedKafka) -> None:
    with pytest.raises(ServerError, match="is in use by a running tickloom"):
        EmbeddedKafka(kafka.data_dir).start()
    assert kafka.alive()


async def test_topics_survive_a_crash_and_a_restart(tmp_path: Path, fresh_name: FreshName) -> None:
    topic = fresh_name("ticks")
    data_dir = tmp_path / "größe & 'platz' 💾"
    with EmbeddedKafka(data_dir) as kafka:
        port = kafka.port
        await create_topic(kafka.bootstrap, topic)
        await send(kafka.bootstrap, topic, [b"before"])
        kafka.kill()
        assert not kafka.alive()
        kafka.restart()
        assert kafka.port == port
        assert await read_all(kafka.bootstrap, topic) == [b"before"]
        await send(kafka.bootstrap, topic, [b"after"])
    with EmbeddedKafka(data_dir) as again:
        assert await read_all(again.bootstrap, topic) == [b"before", b"after"]


def test_a_path_that_kafka_would_take_for_two_is_refused(tmp_path: Path) -> None:
    server = EmbeddedKafka(tmp_path / "a,b")
    with pytest.raises(ServerError, match="the path has a comma"):
        server.start()
    assert not server.alive()


async def test_without_java_the_stand_in_runs_and_says_so(
    tmp_path: Path, fresh_name: FreshName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    lines: list[str] = []
    with EmbeddedKafka(tmp_path).start(lines.append) as broker:
        assert broker.kind == "tansu"
        assert broker.degraded_reason is not None
        assert "there is no java on the PATH" in broker.degraded_reason
        assert "lost at the end" in broker.degraded_reason
        assert lines == [f"WARNING: {broker.degraded_reason}"]
        topic = fresh_name("ticks")
        await create_topic(broker.bootstrap, topic)
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            await producer.send_and_wait(topic, b"one", partition=0)
        assert await read_all(broker.bootstrap, topic) == [b"one"]
    assert not broker.alive()
