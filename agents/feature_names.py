"""What the values of FEATURES are called: catalogues on the compacted topic ``features.names``.

Names carry periods, and periods are settings of workers. A reader of FEATURES shall not need those settings, and
has to tell old rows from new ones when they change: so each row has the id of its names, and a worker that
publishes features tells its names before the first of them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from agents.features import Feature, catalogue
from agents.periods import Periods
from stream.ending import end_consumer
from stream.errors import ServerError
from stream.topics import FEATURE_NAMES

Catalogues = dict[int, tuple[Feature, ...]]  # by id of the names

_WAIT_MS: Final = 200


def names_id(names: Sequence[str]) -> int:
    """Return the id of names in their order: the first 8 bytes of the SHA-256 of them as lines, little-endian."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:8], "little")


async def tell_names(bootstrap: str, periods: Periods) -> None:
    """Tell what the features are called that are made with some periods, and wait until the brokers have it.

    Raises:
        ServerError: they do not take it.
    """
    features = catalogue(periods)
    key = f"{names_id([feature.name for feature in features]):016x}".encode()
    value = json.dumps([asdict(feature) for feature in features]).encode()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    try:
        await producer.start()
        await producer.send_and_wait(FEATURE_NAMES, value, key, 0)
    except KafkaError as error:
        raise ServerError(f"Kafka at {bootstrap} did not take the names of the features: {error!r}") from error
    finally:
        await producer.stop()


async def read_catalogues(bootstrap: str) -> Catalogues:
    """Return every catalogue that was ever told.

    Raises:
        KafkaError: the brokers do not answer, or there is no such topic.
    """
    found: Catalogues = {}
    where = TopicPartition(FEATURE_NAMES, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([where])
        await consumer.seek_to_beginning(where)
        end = (await consumer.end_offsets([where]))[where]
        while await consumer.position(where) < end:
            for message in (await consumer.getmany(where, timeout_ms=_WAIT_MS)).get(where, ()):
                found[int(message.key, 16)] = tuple(Feature(**each) for each in json.loads(message.value))
    finally:
        await end_consumer(consumer)
    return found
