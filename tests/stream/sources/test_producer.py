"""What the errors of a producer mean, and that a discarded one leaves nothing open."""

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from aiokafka import errors

from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SinkRejected, SinkUnavailable
from stream.sources.producer import as_sink_error, discard_producer, open_producer


@pytest.mark.parametrize(
    "error",
    [
        errors.OutOfOrderSequenceNumber(),
        errors.UnknownProducerId(),
        errors.ProducerFenced(),
        errors.KafkaConnectionError("gone"),
        errors.NotLeaderForPartitionError(),
        errors.KafkaTimeoutError(),
        errors.UnknownError(),
        errors.KafkaError("Unexpected error during batch delivery"),
    ],
)
def test_errors_that_a_new_producer_may_not_meet_again_are_retriable(error: Exception) -> None:
    assert isinstance(as_sink_error(error, "ticks"), SinkUnavailable)


@pytest.mark.parametrize(
    "error",
    [errors.MessageSizeTooLargeError("big"), errors.TopicAuthorizationFailedError("ticks"), ValueError("ours")],
)
def test_errors_that_would_come_again_are_not(error: Exception) -> None:
    sink_error = as_sink_error(error, "ticks")
    assert isinstance(sink_error, SinkRejected)
    assert type(error).__name__ in str(sink_error)


async def test_a_producer_of_a_silent_broker_is_discarded_soon(kafka: EmbeddedKafka, tick_topic: Any) -> None:
    topic = await tick_topic(kafka.bootstrap, 1)
    producer = await open_producer(kafka.bootstrap, topic, 1, None)
    os.kill(kafka.pid, signal.SIGSTOP)
    try:
        answer = await producer.send(topic, b"x", partition=0)
        await asyncio.sleep(0.2)
        started_s = time.monotonic()
        await discard_producer(producer)
        assert time.monotonic() - started_s < 6
        if answer.done():
            answer.exception()
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
