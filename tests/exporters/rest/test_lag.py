import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream.embedded.kafka import EmbeddedKafka


async def leave_behind(bootstrap: str, topic: str, group: str) -> None:
    """Make a group that has done 2 of 5 messages of the first of two partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    for _ in range(5):
        await producer.send_and_wait(topic, b"x", partition=0)
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    await consumer.commit({TopicPartition(topic, 0): 2})
    await consumer.stop()


def test_lag_is_told_by_group_topic_and_partition(
    api: Any, kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    topic, group = fresh_name("lag"), fresh_name("tickloom-lag")
    asyncio.run(leave_behind(kafka.bootstrap, topic, group))

    async def asked() -> list[dict[str, Any]]:
        for _ in range(50):
            rows = [row for row in api.get("/v1/lag").json["data"] if row["group"] == group]
            if rows:
                return rows
            await asyncio.sleep(0.1)
        return []

    [row] = asyncio.run(asked())
    assert row == {"group": group, "topic": topic, "partition": 0, "committed": 2, "end": 5, "lag_blocks": 3}
