"""The topics: made with the partitions and the configuration that lanes need, or refused in words."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.errors import ServerError, SettingsError
from stream.settings import Settings
from stream.telemetry import Health
from stream.topics import (
    APP_ID,
    FEATURE_NAMES,
    MODEL_EVENTS,
    MODEL_SCORES,
    MODELS,
    PREDICTIONS,
    REJECTED_TICKS,
    STATE_CHANGELOG,
    TICKS,
    await_topics,
    broker,
    create_topics,
    forget_state,
    topic_specs,
)

PARTITIONS = 4  # topics have fixed names: all tests that share the broker use the same number


def test_there_is_a_topic_for_each_kind_of_record_and_one_for_the_state() -> None:
    names = [spec.name for spec in topic_specs(24.0)]
    assert names[:4] == [TICKS, REJECTED_TICKS, PREDICTIONS, STATE_CHANGELOG]
    # Faust looks for its table's changelog under this name.
    assert STATE_CHANGELOG.startswith(f"{APP_ID}-")
    assert STATE_CHANGELOG.endswith("-changelog")


def test_ticks_are_kept_for_a_time_and_states_for_ever() -> None:
    specs = {spec.name: spec.config for spec in topic_specs(0.5)}
    assert specs[TICKS]["retention.ms"] == specs[PREDICTIONS]["retention.ms"] == "1800000"
    assert specs[TICKS]["cleanup.policy"] == "delete"
    assert specs[STATE_CHANGELOG]["cleanup.policy"] == "compact"
    assert "retention.ms" not in specs[STATE_CHANGELOG]


async def test_topics_are_created_once_with_their_partitions(kafka: EmbeddedKafka) -> None:
    await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
    assert await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        seen = {info["topic"]: len(info["partitions"]) for info in await admin.describe_topics()}
        resource = ConfigResource(ConfigResourceType.TOPIC, STATE_CHANGELOG)
        [answer] = await admin.describe_configs([resource])
    finally:
        await admin.close()
    one = dict.fromkeys((MODELS, MODEL_SCORES, MODEL_EVENTS, FEATURE_NAMES), 1)
    right = {spec.name: PARTITIONS for spec in topic_specs(24.0)} | one
    assert {spec.name: seen[spec.name] for spec in topic_specs(24.0)} == right
    values = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert values["cleanup.policy"] == "compact"


async def test_another_number_of_partitions_is_refused_for_symbols_would_change_lanes(kafka: EmbeddedKafka) -> None:
    await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
    with pytest.raises(ServerError, match=r"has 4 partitions and the setting `partitions` says 5; set it to what"):
        await create_topics(kafka.bootstrap, PARTITIONS + 1, 1, 24.0)


async def test_the_state_is_forgotten_only_while_no_worker_runs(kafka: EmbeddedKafka) -> None:
    settings = Settings(kafka=kafka.bootstrap, partitions=PARTITIONS)
    await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(STATE_CHANGELOG, b"row", key=b"AIG", partition=0)
    part, changelog = TopicPartition(TICKS, 0), TopicPartition(STATE_CHANGELOG, 0)
    worker = AIOKafkaConsumer(TICKS, bootstrap_servers=kafka.bootstrap, group_id=APP_ID, enable_auto_commit=False)
    async with worker:
        while part not in worker.assignment():
            await asyncio.sleep(0.05)
        await worker.commit({part: 7})
        with pytest.raises(ServerError, match="stop all workers first"):
            await forget_state(settings)
        assert await worker.committed(part) == 7
        assert (await worker.end_offsets([changelog]))[changelog] == 1
    await forget_state(settings)
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=APP_ID) as reader:
        assert await reader.committed(part) == 0
        assert (await reader.end_offsets([changelog]))[changelog] == 0


def test_a_broker_that_is_not_set_is_asked_for() -> None:
    with pytest.raises(SettingsError, match="TICKLOOM_KAFKA=HOST:PORT"):
        broker(Settings())
    assert broker(Settings(kafka="localhost:9092")) == "localhost:9092"


async def test_a_broker_that_is_there_needs_no_waiting(kafka: EmbeddedKafka) -> None:
    health = Health("worker")
    assert await await_topics(Settings(kafka=kafka.bootstrap, partitions=PARTITIONS), health, asyncio.Event())
    assert health.problems == {}


async def test_a_broker_that_is_away_is_waited_for_until_we_stop() -> None:
    health, stop = Health("worker"), asyncio.Event()
    settings = Settings(kafka=f"127.0.0.1:{free_port()}")
    waiting = asyncio.create_task(await_topics(settings, health, stop))
    async with asyncio.timeout(30):
        while "kafka" not in health.problems:
            await asyncio.sleep(0.05)
    assert f"no broker answers at {settings.kafka}" in health.problems["kafka"]
    stop.set()
    assert await asyncio.wait_for(waiting, 30) is False
