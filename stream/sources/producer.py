"""One instance of an idempotent Kafka producer: how it is opened, how it is discarded, what its errors mean."""

import asyncio
import time
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerNotAvailableError,
    CorruptRecordException,
    InvalidProducerEpoch,
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    ReplicaNotAvailableError,
    UnknownError,
    UnknownProducerId,
)

from stream.errors import ServerError, SinkError, SinkRejected, SinkUnavailable

# aiokafka puts blocks for one partition into one batch, and the broker's limit (message.max.bytes, 1,048,588 by
# default) is for the batch: two full blocks of 426 KB fit.
_MAX_BATCH_BYTES: Final = 1_000_000
# How long a producer that is being discarded may try to end in an orderly way.
_DISCARD_S: Final = 2.0

# Where these ended a producer, a new one may succeed, and where aiokafka calls the error `retriable`. A timeout is
# what a full batch meets whose broker was away for 40 s. What is left is a refusal that would come again.
_MAY_PASS: Final = (
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    ProducerFenced,
    ProducerClosed,
    KafkaTimeoutError,
    KafkaUnavailableError,
    BrokerNotAvailableError,
    ReplicaNotAvailableError,
    CorruptRecordException,
    UnknownError,
)


async def open_producer(
    bootstrap: str, topic: str, partitions: int, compression: str | None, idempotent: bool = True
) -> AIOKafkaProducer:
    """Connect a producer for blocks and check that the topic is what we think.

    ``idempotent`` is off only for brokers that cannot (Tansu): a retry may then write a block twice. Order holds
    all the same, as aiokafka has one batch on its way to a partition, and lanes drop ticks that they have seen.

    Raises:
        SinkUnavailable: no broker answers, or there is no such topic (yet); try again later.
        ServerError: the topic has another number of partitions.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id="tickloom-source",
        enable_idempotence=idempotent,
        acks="all",
        linger_ms=0,
        max_batch_size=_MAX_BATCH_BYTES,
        max_request_size=_MAX_BATCH_BYTES,
        compression_type=compression,
    )
    try:
        await producer.start()
        seen = len(await producer.partitions_for(topic))
        if seen != partitions:
            raise ServerError(
                f"topic {topic} has {seen} partitions and the setting `partitions` says {partitions}; "
                "set it to what the topic has"
            )
    except KafkaError as error:
        await discard_producer(producer)
        raise SinkUnavailable(f"no way to topic {topic} of Kafka at {bootstrap}: {error!r}") from error
    except BaseException:
        await discard_producer(producer)
        raise
    return producer


async def discard_producer(producer: AIOKafkaProducer) -> None:
    """End a producer whatever state it is in, without waiting long for brokers that do not answer."""
    try:
        await asyncio.wait_for(producer.flush(), _DISCARD_S)
    except TimeoutError:
        await _abandon(producer)
    else:
        await producer.stop()


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Do what ``stop`` does but for waiting: it would wait for acknowledgements without limit."""
    producer._closed = True  # noqa: SLF001  (nothing public says so)
    sender_task = producer._sender.sender_task  # noqa: SLF001
    deadline_s = time.monotonic() + _DISCARD_S
    # A sender that is cancelled waits for its requests under way; cancelled again, it cancels them.
    while sender_task is not None and not sender_task.done() and time.monotonic() < deadline_s:
        sender_task.cancel()
        await asyncio.wait({sender_task}, timeout=0.05)
    await producer.client.close()


def as_sink_error(error: BaseException, topic: str) -> SinkError:
    """Say whether a new producer may succeed after this error (`SinkUnavailable`) or not (`SinkRejected`)."""
    seen = f"Kafka did not take a block of {topic}: {error!r}"
    # A bare KafkaError is what aiokafka makes of a failure inside its own sender.
    if isinstance(error, _MAY_PASS) or type(error) is KafkaError or getattr(error, "retriable", False):
        return SinkUnavailable(seen)
    return SinkRejected(seen)
