"""The channel `features`: what the model saw, by name and as records, each row once, to the bit."""

import asyncio
import time
from typing import Any

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from feed_driver import PARTITIONS, Client, Message, Running, Start, validate
from websockets.asyncio.client import connect

from agents.feature_names import names_id, tell_names
from agents.features import COUNT, NAMES, catalogue, names
from agents.periods import DEFAULT, Periods
from exporters.client import Batch, FeatureNames, Feed
from exporters.feed_channels import CHANNELS, FEED_FEATURES
from exporters.feed_wire import FEED_HEADER
from exporters.protocol import BINARY_PROTOCOL
from stream.embedded.kafka import EmbeddedKafka
from stream.feature_blocks import feature_hashes
from stream.records import Records, encode_block, features_record, partition_of

OTHERS = Periods(tick_rsi=21)


@pytest.fixture(scope="module")
def kafka(feed_kafka: EmbeddedKafka) -> EmbeddedKafka:
    """The broker of the feed's tests."""
    return feed_kafka


def some_rows(symbol: str, seqs: list[int], periods: Periods = DEFAULT) -> Records:
    rows = np.zeros(len(seqs), features_record(COUNT))
    rows["symbol"], rows["seq"], rows["source_offset"] = symbol, seqs, seqs
    rows["event_ns"] = 1_700_000_000_000_000_000 + np.array(seqs)
    rows["ref_price"], rows["published_ns"] = 189.55, time.time_ns() + np.arange(len(seqs))
    rows["names_id"] = names_id(names(periods))
    rows["values"] = np.random.default_rng(seqs).normal(0, 1e3, (len(seqs), COUNT))
    rows["values"][:, 3:6] = [0.0, -0.0, 1e6]
    rows["feature_hash"] = feature_hashes(rows["values"])
    return rows


async def send(kafka: EmbeddedKafka, rows: Records) -> None:
    partition = int(partition_of(rows["symbol"][:1], PARTITIONS)[0])
    rows["source_partition"] = partition
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait("features", encode_block(rows), partition=partition)


async def next_rows(client: Client, count: int) -> list[Message]:
    got: list[Message] = []
    while len(got) < count:
        message = await client.next("snapshot", "features")
        got += [row | {"type": message["type"]} for row in message["features"]]
    return got


def check(item: Message, row: Any, called: tuple[str, ...] = NAMES) -> None:
    assert list(item["values"]) == list(called)
    values = np.array(list(item["values"].values()), np.float32)
    assert values.tobytes() == row["values"].tobytes()
    assert int(item["feature_hash"], 16) == feature_hashes(values[None])[0] == row["feature_hash"]
    for name in ("event_ns", "ref_price", "published_ns", "seq"):
        assert item[name] == row[name]


async def test_rows_come_once_by_name_after_what_the_values_are(
    gateway: Running, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    await tell_names(kafka.bootstrap, DEFAULT)
    name = fresh_name("F")
    first, more = some_rows(name, [3, 7]), some_rows(name, [7, 8, 12])
    more[0] = first[1]
    await send(kafka, first)
    async with gateway.client() as client:
        await client.follow(name, channel="features", mode="full")
        told = await client.next("feature_names")
        assert told["names_id"] == f"{names_id(NAMES):016x}"
        assert [(each["name"], each["unit"], each["formula"]) for each in told["features"]] == [
            (each.name, each.unit, each.formula) for each in catalogue(DEFAULT)
        ]
        await send(kafka, more)  # a lane that was killed sends some again
        got = await next_rows(client, 3)
        assert [(row["type"], row["seq"], row["prev"]) for row in got[:1]] == [("snapshot", 7, 3)]
        assert [(row["seq"], row["prev"]) for row in got[1:]] == [(8, 7), (12, 8)]
        for item, row in zip(got, [first[1], *more[1:]], strict=True):
            check(item, row)


async def test_what_was_missed_comes_from_memory_and_what_is_old_from_kafka(
    start: Start, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    await tell_names(kafka.bootstrap, DEFAULT)
    gateway = await start(gateway_memory=1024)  # 128 rows of features
    name = fresh_name("F")
    rows = some_rows(name, list(range(10, 2010, 10)))
    for at in range(0, 200, 50):
        await send(kafka, rows[at : at + 50])
    async with gateway.client() as client:
        await client.follow(name, channel="features", mode="full")
        assert (await next_rows(client, 1))[0]["seq"] == 2000
        epoch = (await client.next("heartbeat"))["epoch"]
    for last, source in ((1500, "memory"), (20, "kafka")):
        async with gateway.client() as client:
            await client.follow(name, channel="features", resume={"epoch": epoch, "seqs": {name: last}})
            got = await next_rows(client, (2000 - last) // 10)
            assert [row["seq"] for row in got] == list(range(last + 10, 2010, 10))
            assert [row["prev"] for row in got] == [row["seq"] - 10 for row in got]
            check(got[0], rows[last // 10])
            assert (await client.next("resumed"))["seqs"] == {name: 2000}
        assert f'tickloom_feed_resumes_total{{outcome="{source}"}} 1.0' in await gateway.metrics()
    async with gateway.client() as client:
        await client.follow(name, channel="features", replay_from_ns=int(rows["published_ns"][0]))
        got = await next_rows(client, 200)
        assert [row["seq"] for row in got] == rows["seq"].tolist()
        await client.next("replay_completed")


async def test_binary_clients_get_records_and_are_told_what_the_values_are(
    gateway: Running, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    await tell_names(kafka.bootstrap, DEFAULT)
    name = fresh_name("F")
    rows = some_rows(name, [5])
    await send(kafka, rows)
    async with connect(gateway.where.feed, subprotocols=[BINARY_PROTOCOL]) as socket:
        await Client(socket).say(op="subscribe", channel="features", symbols=[name], mode="latest")
        told = None
        while not isinstance(raw := await socket.recv(), bytes):
            message = orjson.loads(raw)
            validate(message)
            told = message if message["type"] == "feature_names" else told
        assert told is not None
    [header] = np.frombuffer(raw, FEED_HEADER, 1)
    [got] = np.frombuffer(raw, FEED_FEATURES, header["count"], FEED_HEADER.itemsize)
    assert (header["channel"], header["record_bytes"]) == (CHANNELS["features"].number, FEED_FEATURES.itemsize)
    assert f"{got['names_id']:016x}" == told["names_id"]
    assert [each["name"] for each in told["features"]] == list(NAMES)
    for field in rows.dtype.names:
        assert got[field].tobytes() == rows[0][field].tobytes()


async def test_the_python_client_gives_them_with_their_names(
    gateway: Running, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    await tell_names(kafka.bootstrap, DEFAULT)
    name = fresh_name("F")
    rows = some_rows(name, [5, 6])
    await send(kafka, rows)
    async with Feed(gateway.where.feed) as feed, asyncio.timeout(20):
        await feed.subscribe(name, channel="features", mode="full", replay_from_ns=0)
        items = [await anext(feed) for _ in range(3)]
    told, batch = items[1:]
    assert isinstance(told, FeatureNames)
    assert isinstance(batch, Batch)
    assert (told.names_id, told.names) == (names_id(NAMES), NAMES)
    assert batch.records["values"][0].tobytes() == rows["values"][0].tobytes()
    check(batch.rows()[0], rows[0])


async def test_rows_of_other_periods_are_called_otherwise_and_those_without_names_are_left_out(
    gateway: Running, kafka: EmbeddedKafka, fresh_name: Any
) -> None:
    await tell_names(kafka.bootstrap, DEFAULT)
    name = fresh_name("F")
    await send(kafka, some_rows(name, [1]))
    async with gateway.client() as client:
        await client.follow(name, channel="features", mode="full")
        await client.next("snapshot")
        bad = (await gateway.health())["bad"]
        await send(kafka, some_rows(name, [2], Periods(tick_rsi=33)))  # which nobody has told
        await tell_names(kafka.bootstrap, OTHERS)
        row = some_rows(name, [3], OTHERS)
        await send(kafka, row)
        assert (await client.next("feature_names"))["features"][5]["name"] == "rsi_21"
        [got] = await next_rows(client, 1)
        check(got, row[0], names(OTHERS))
        assert (await gateway.health())["bad"] == bad + 1
