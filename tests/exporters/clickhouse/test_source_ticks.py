"""The tick of a prediction is found by its place, and none is where another stands there, or nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from hypothesis import given
from hypothesis import strategies as st

from exporters.clickhouse.source_ticks import SourceTicks, ticks_at
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SinkUnavailable
from stream.records import PREDICTION, Records, TickKind, empty_ticks, encode_block, join_records

FIRST_NS = 1_700_000_000 * 10**9


def ticks(count: int, first: int = 0) -> Records:
    """Trades that all differ."""
    made = empty_ticks(count)
    number = first + np.arange(count)
    made["symbol"] = [f"S{each % 3}" for each in number]
    made["kind"], made["event_ns"], made["source_seq"] = TickKind.TRADE, FIRST_NS + number, 1 + number
    made["price"], made["size"] = 100 + number / 100, 1 + number % 7
    return made


def blocks_of(count: int, lengths: list[int], first_offset: int = 0) -> list[tuple[int, Records]]:
    """Ticks cut into blocks of these lengths, in turn, at every second offset."""
    rows, blocks, start = ticks(count), [], 0
    while start < count:
        length = lengths[len(blocks) % len(lengths)]
        blocks.append((first_offset + 2 * len(blocks), rows[start : start + length]))
        start += length
    return blocks


def predictions_on(blocks: list[tuple[int, Records]], partition: int = 0) -> Records:
    """A prediction on every tick."""
    made = np.zeros(sum(len(block) for _, block in blocks), PREDICTION)
    joined = join_records([block for _, block in blocks])
    made["symbol"], made["event_ns"] = joined["symbol"], joined["event_ns"]
    made["source_offset"] = np.concatenate([np.full(len(block), offset) for offset, block in blocks])
    made["source_index"] = np.concatenate([np.arange(len(block)) for _, block in blocks])
    made["source_partition"] = partition
    return made


cuts = st.lists(st.integers(1, 20), min_size=1, max_size=6)


@given(lengths=cuts, order=st.permutations(range(60)), taken=st.integers(1, 60))
def test_each_tick_is_found_whatever_the_cut_and_the_order(
    lengths: list[int], order: list[int], taken: int
) -> None:
    blocks = blocks_of(60, lengths)
    some = np.array(order[:taken])
    found = ticks_at(predictions_on(blocks)[some], dict(blocks))
    assert found.tobytes() == ticks(60)[some].tobytes()


@given(lengths=cuts, data=st.data())
def test_what_is_not_there_is_empty_and_the_others_are_found(lengths: list[int], data: st.DataObject) -> None:
    blocks = blocks_of(60, lengths)
    predictions = predictions_on(blocks)
    kept = dict(data.draw(st.lists(st.sampled_from(blocks), max_size=len(blocks), unique_by=lambda each: each[0])))
    expected = ticks(60)
    expected[~np.isin(predictions["source_offset"], list(kept))] = empty_ticks(1)
    assert ticks_at(predictions, kept).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("symbol", b"OTHER"),
        ("event_ns", FIRST_NS - 1),
        ("source_index", 5),
        ("source_index", 2**32 - 1),
        ("source_offset", 1),
        ("source_offset", -1),
        ("source_offset", 2**62),
    ],
)
def test_a_place_where_another_tick_or_none_stands_gives_an_empty_one(field: str, value: Any) -> None:
    blocks = blocks_of(15, [5])
    predictions = predictions_on(blocks)
    predictions[field][7] = value
    expected = ticks(15)
    expected[7:8] = empty_ticks(1)
    assert ticks_at(predictions, dict(blocks)).tobytes() == expected.tobytes()


def test_without_any_block_all_are_empty() -> None:
    assert ticks_at(predictions_on(blocks_of(5, [5])), {}).tobytes() == empty_ticks(5).tobytes()


class Topic:
    """Two partitions of ticks on a real broker."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap, self.name = bootstrap, name
        self.written: dict[int, list[tuple[int, Records]]] = {0: [], 1: []}

    async def write(self, count: int, lengths: list[int], partition: int = 0) -> Records:
        """Add ticks, cut so; return a prediction on each."""
        first = sum(len(block) for _, block in self.written[partition])
        rows, new, start = ticks(count, first), [], 0
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            while start < count:
                block = rows[start : start + lengths[len(new) % len(lengths)]]
                sent = await producer.send_and_wait(self.name, encode_block(block), partition=partition)
                new.append((sent.offset, block))
                start += len(block)
        self.written[partition] += new
        return predictions_on(new, partition)

    async def write_bytes(self, value: bytes) -> int:
        """Add a message that is no block."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            sent = await producer.send_and_wait(self.name, value, partition=0)
        return int(sent.offset)

    async def forget_before(self, offset: int) -> None:
        """As retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(self.name, 0): RecordsToDelete(before_offset=offset)})
        await admin.close()

    def of(self, partition: int = 0) -> Records:
        return join_records([block for _, block in self.written[partition]])


@pytest.fixture
async def topic(kafka: EmbeddedKafka, fresh_name: Callable[[str], str]) -> Topic:
    name = fresh_name("ticks")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1)])
    await admin.close()
    return Topic(kafka.bootstrap, name)


@pytest.fixture
async def source(topic: Topic) -> AsyncIterator[SourceTicks]:
    made = SourceTicks(topic.bootstrap, topic.name)
    yield made
    await made.close()


async def test_ticks_of_two_partitions_are_found_forwards_backwards_and_again(
    topic: Topic, source: SourceTicks
) -> None:
    one, other = await topic.write(300, [7, 30, 1]), await topic.write(200, [11], partition=1)
    for piece in (one[:40], other[:90], one[30:200], one[:40], other[80:], one[200:], other[:1]):
        found = await source.find(piece)
        place = piece["event_ns"] - FIRST_NS
        assert found.tobytes() == topic.of(int(piece["source_partition"][0]))[place].tobytes()
    both = np.concatenate([one[::3], other[::3]])[np.random.default_rng(1).permutation(167)]
    place = both["event_ns"] - FIRST_NS
    expected = ticks(300)[place]
    assert (await source.find(both)).tobytes() == expected.tobytes()
    assert source.missing == 0


async def test_a_start_that_is_cut_off_is_made_again(topic: Topic, source: SourceTicks) -> None:
    predictions = await topic.write(10, [10])
    for patience_s in (0.0, 0.001, 0.01):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await source.find(predictions)
    assert (await source.find(predictions)).tobytes() == topic.of().tobytes()


async def test_ticks_that_come_later_are_found_later(topic: Topic, source: SourceTicks) -> None:
    first = await topic.write(20, [5])
    assert (await source.find(first)).tobytes() == topic.of().tobytes()
    later = await topic.write(20, [5])
    assert (await source.find(later)).tobytes() == topic.of()[20:].tobytes()


async def test_ticks_that_kafka_forgot_are_empty_and_counted(
    topic: Topic, source: SourceTicks, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = await topic.write(50, [10])
    await topic.forget_before(2)
    found = await source.find(predictions)
    assert found[20:].tobytes() == topic.of()[20:].tobytes()
    assert found[:20].tobytes() == empty_ticks(20).tobytes()
    assert source.missing == 20
    assert "the ticks of 20 predictions no more" in caplog.text


async def test_a_place_beyond_the_end_is_empty_and_nobody_waits_for_it(topic: Topic, source: SourceTicks) -> None:
    predictions = await topic.write(20, [10])
    predictions["source_offset"][10:] = 1_000
    async with asyncio.timeout(10):
        found = await source.find(predictions)
    assert found[:10].tobytes() == topic.of()[:10].tobytes()
    assert (found["kind"][10:] == 0).all()


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
async def test_a_damaged_block_costs_its_own_ticks_only(topic: Topic, source: SourceTicks, damage: str) -> None:
    before = await topic.write(10, [10])
    whole = encode_block(ticks(10, 10))
    offset = await topic.write_bytes({"cut": whole[:-3], "noise": b"\xff" * len(whole), "empty": b""}[damage])
    lost = predictions_on([(offset, ticks(10, 10))])
    after = await topic.write(10, [10])
    found = await source.find(np.concatenate([before, lost, after]))
    assert np.concatenate([found[:10], found[20:]]).tobytes() == topic.of().tobytes()
    assert found[10:20].tobytes() == empty_ticks(10).tobytes()


async def test_a_broker_that_is_not_there_is_said_and_asked_again_later(topic: Topic, kafka: EmbeddedKafka) -> None:
    predictions = await topic.write(10, [10])
    source = SourceTicks("127.0.0.1:1", topic.name)
    with pytest.raises(SinkUnavailable, match=r"Kafka at 127\.0\.0\.1:1 does not give the ticks"):
        await source.find(predictions)
    source._bootstrap = kafka.bootstrap
    assert (await source.find(predictions)).tobytes() == topic.of().tobytes()
    await source.close()


async def test_after_closing_it_connects_again(topic: Topic, source: SourceTicks) -> None:
    predictions = await topic.write(10, [5])
    for _ in range(2):
        assert (await source.find(predictions)).tobytes() == topic.of().tobytes()
        await source.close()
