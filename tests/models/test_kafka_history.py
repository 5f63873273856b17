"""Ticks out of a real Kafka: in order, between two moments, and with whatever is wrong said aloud."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from models.dataset import by_symbol, history
from models.kafka_history import kafka_ticks
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.ports import free_port
from stream.errors import SourceError
from stream.records import encode_block, partition_of

PARTITIONS = 3
Filled = tuple[str, Any]


async def fill(bootstrap: str, topic: str, ticks: Any, junk: bytes | None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for block in np.array_split(ticks, len(ticks) // 50):
            homes = partition_of(block["symbol"], PARTITIONS)
            for number in np.unique(homes).tolist():
                await producer.send_and_wait(topic, encode_block(block[homes == number]), partition=number)
        if junk is not None:
            await producer.send_and_wait(topic, junk, partition=0)


@pytest.fixture(scope="module")
def filled(kafka: EmbeddedKafka, make_ticks: Callable[..., Any], fresh_name: Callable[[str], str]) -> Filled:
    ticks = make_ticks(4000, symbols=5, seed=2)
    # Recorded a minute ago, as live ticks are.
    ticks["event_ns"] += time.time_ns() - 60_000_000_000 - ticks["event_ns"][-1]
    topic = fresh_name("history")
    asyncio.run(fill(kafka.bootstrap, topic, ticks, b"no block"))
    return topic, ticks


def test_the_features_of_kafkas_ticks_are_those_of_the_ticks(
    kafka: EmbeddedKafka, filled: Filled, caplog: pytest.LogCaptureFixture
) -> None:
    topic, ticks = filled
    walked: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        rows = history(
            kafka_ticks(kafka.bootstrap, topic, 0, 1 << 62, lambda *at: walked.append(at)), 5_000_000_000
        )
    assert "1 of" in caplog.text
    assert "cannot be read and were left out" in caplog.text
    assert walked[-1][0] == walked[-1][1] > 80
    assert sorted(walked) == walked
    direct = history(ticks, 5_000_000_000)
    assert len(rows.event_ns) == len(direct.event_ns)
    of_symbol = {direct.symbols[direct.symbol_row[where[0]]]: where for where in by_symbol(direct.symbol_row)}
    for where in by_symbol(rows.symbol_row):
        there = of_symbol[rows.symbols[rows.symbol_row[where[0]]]]
        assert rows.features[where].tobytes() == direct.features[there].tobytes()


def test_only_ticks_between_the_two_moments_come(kafka: EmbeddedKafka, filled: Filled) -> None:
    topic, ticks = filled
    from_ns, to_ns = (int(ticks["event_ns"][place]) for place in (1000, 3000))
    some = np.concatenate(list(kafka_ticks(kafka.bootstrap, topic, from_ns, to_ns, lambda *_: None)))
    assert sorted(some["source_seq"].tolist()) == ticks["source_seq"][1000:3000].tolist()


def test_messages_that_were_sent_long_before_are_not_read_at_all(kafka: EmbeddedKafka, filled: Filled) -> None:
    topic, _ = filled
    walked: list[tuple[int, int]] = []
    later_ns = time.time_ns() + 3600 * 1_000_000_000
    assert list(kafka_ticks(kafka.bootstrap, topic, later_ns, 1 << 62, lambda *at: walked.append(at))) == []
    assert walked == []


def test_what_retention_has_taken_is_said(
    kafka: EmbeddedKafka,
    make_ticks: Callable[..., Any],
    fresh_name: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticks, topic = make_ticks(1000, symbols=5), fresh_name("history")

    async def lose() -> None:
        await fill(kafka.bootstrap, topic, ticks, None)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=5)})
        await admin.close()

    asyncio.run(lose())
    with caplog.at_level(logging.WARNING):
        some = np.concatenate(list(kafka_ticks(kafka.bootstrap, topic, 0, 1 << 62, lambda *_: None)))
    assert len(some) < len(ticks)
    assert f"{topic}[0] may not reach back to the time asked for" in caplog.text
    assert f"{topic}[1]" not in caplog.text


def test_a_topic_that_is_not_there_and_a_broker_that_is_not_are_errors_in_words(
    kafka: EmbeddedKafka, fresh_name: Callable[[str], str]
) -> None:
    with pytest.raises(SourceError, match="there is no topic"):
        next(kafka_ticks(kafka.bootstrap, fresh_name("never"), 0, 1, lambda *_: None))
    with pytest.raises(SourceError, match="cannot be read"):
        next(kafka_ticks(f"127.0.0.1:{free_port()}", "ticks", 0, 1, lambda *_: None))


def test_reading_may_be_given_up_in_the_middle(kafka: EmbeddedKafka, filled: Filled) -> None:
    chunks = kafka_ticks(kafka.bootstrap, filled[0], 0, 1 << 62, lambda *_: None)
    assert len(next(chunks))
    chunks.close()  # type: ignore[attr-defined]


def test_a_last_partition_that_holds_nothing_does_not_hold_up_the_end(
    kafka: EmbeddedKafka, make_ticks: Callable[..., Any], fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("history")
    ticks = make_ticks(3000, symbols=1)  # of one symbol: one partition has it
    asyncio.run(fill(kafka.bootstrap, topic, ticks, None))
    assert sum(map(len, kafka_ticks(kafka.bootstrap, topic, 0, 1 << 62, lambda *_: None))) == len(ticks)
