"""Topics that are full before anybody reads them: what is measured is then the reader, not the writer."""

from collections.abc import Iterable, Iterator

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from numpy.typing import NDArray

from bench.markets import json_ticks
from stream.records import Records, encode_block, partition_of

_PATIENCE_S = 120.0
# The embedded broker keeps 256 MB of a partition; a bench needs all of it.
_KEEP_ALL = {"retention.bytes": "-1", "retention.ms": "-1"}


def create(bootstrap: str, names: Iterable[str], partitions: int) -> None:
    """Create topics that keep all that they are given.

    Raises:
        KafkaException: the broker refused.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})  # its answers end with it
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=_KEEP_ALL) for name in names]).values():
        future.result(_PATIENCE_S)


def load_messages(bootstrap: str, topic: str, ticks: Records, partitions: int) -> None:
    """Send one JSON message per tick, with the symbol as the key."""
    lanes = partition_of(ticks["symbol"], partitions).tolist()
    messages = ((orjson.dumps(tick), tick["symbol"].encode()) for tick in json_ticks(ticks))
    _send(bootstrap, topic, ((lane, *message) for lane, message in zip(lanes, messages, strict=True)))


def load_blocks(bootstrap: str, topic: str, ticks: Records, partitions: int, block_ticks: int) -> None:
    """Send blocks of up to ``block_ticks`` ticks, those of all partitions as far in the market as each other."""
    _send(bootstrap, topic, _blocks(ticks, partitions, block_ticks))


def _blocks(ticks: Records, partitions: int, block_ticks: int) -> Iterator[tuple[int, bytes, None]]:
    lanes = partition_of(ticks["symbol"], partitions)
    ends: list[tuple[int, int, NDArray[np.int64]]] = []
    for lane in range(partitions):
        rows = np.flatnonzero(lanes == lane)
        for start in range(0, len(rows), block_ticks):
            some = rows[start : start + block_ticks]
            ends.append((int(some[-1]), lane, some))
    for _, lane, some in sorted(ends, key=lambda end: end[:2]):
        yield lane, encode_block(ticks[some]), None


def _send(bootstrap: str, topic: str, messages: Iterable[tuple[int, bytes, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 20})
    failures: list[object] = []

    def on_answer(error: object, _: object) -> None:
        if error is not None:
            failures.append(error)

    for lane, value, key in messages:
        while True:
            try:
                producer.produce(topic, value, key, lane, on_delivery=on_answer)
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(_PATIENCE_S) or failures:
        raise KafkaException(failures[0] if failures else f"{topic} was not filled within {_PATIENCE_S:.0f} s")


def read_all(bootstrap: str, topic: str, partitions: int) -> Iterator[tuple[int, bytes]]:
    """Yield (partition, value) of every message that a topic holds now.

    Raises:
        KafkaException: a message cannot be read, or is gone.
    """
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-reader", "enable.auto.commit": False})
    try:
        ends = {}
        for partition in range(partitions):
            start, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), _PATIENCE_S)
            if start > 0:
                raise KafkaException(f"{topic}[{partition}] has lost its first {start} messages")
            if end > 0:
                ends[partition] = end
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        while ends:
            for message in consumer.consume(100, 5.0):
                if message.error():
                    raise KafkaException(message.error())
                yield message.partition(), message.value()
                if message.offset() + 1 >= ends.get(message.partition(), 0):
                    ends.pop(message.partition(), None)
    finally:
        consumer.close()


def is_committed(bootstrap: str, group: str, topic: str, partitions: int) -> bool:
    """Whether a group has committed everything that a topic holds."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        places = consumer.committed([TopicPartition(topic, each) for each in range(partitions)], _PATIENCE_S)
        for place in places:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, place.partition), _PATIENCE_S)
            if max(place.offset, 0) < end:
                return False
        return True
    finally:
        consumer.close()
