"""Ticks, predictions and what was rejected, through Kafka into ClickHouse, while both ends are killed."""

import asyncio
import itertools
import json
import random
import signal
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError
from clickhouse_driver import errors
from exporter_process import Exporter
from market_day import PARTITION, MarketDay, market_day
from trial_database import BARS, ask, url_of

from exporters.clickhouse.export import run_clickhouse
from exporters.process import group_of
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SettingsError
from stream.records import encode_block
from stream.settings import Settings
from stream.topics import PREDICTIONS, REJECTED_TICKS, TICKS, create_topics

PARTITIONS = PARTITION + 1
GROUPS = {PREDICTIONS: "clickhouse", TICKS: "clickhouse-ticks", REJECTED_TICKS: "clickhouse-rejected"}
STORED = {
    "v_predictions": "* EXCEPT (ingested_time)",
    "v_ticks": "* EXCEPT (ingested_time)",
    "v_rejected": "* EXCEPT (ingested_time)",
    "v_bars_1s": BARS,
    "v_bars_1m": BARS,
    "v_bars_1h": BARS,
    "v_stage_latency": "*",
}


async def test_the_exporter_needs_its_addresses() -> None:
    with pytest.raises(SettingsError, match="`kafka` and `clickhouse`"):
        await run_clickhouse(Settings(kafka="127.0.0.1:1"), asyncio.Event())


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    """A broker of this test alone, with the topics as they are named in production."""
    server = await asyncio.to_thread(EmbeddedKafka(tmp_path / "kafka").start)
    await create_topics(server.bootstrap, PARTITIONS, 1, 1.0)
    yield server.bootstrap
    await asyncio.to_thread(server.stop)


def day_with_copies(data: Path) -> MarketDay:
    """A market day; its source sent every seventh block of ticks twice, and the engine some of its answers."""
    day = market_day(data, 12_000)
    blocks = [(offset, block) for offset, block in day.blocks]
    copies = [(len(blocks) + number, block) for number, (_, block) in enumerate(blocks[::7])]
    return MarketDay(blocks + copies, day.predictions, day.ticks, day.rejected)


async def publish(bootstrap: str, day: MarketDay, between: Callable[[], Any]) -> None:
    """Send the day in pieces; ``between`` is awaited after each."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for _, block in day.blocks:
            await producer.send_and_wait(TICKS, encode_block(block), partition=PARTITION)
        await producer.send_and_wait(REJECTED_TICKS, encode_block(day.rejected), partition=PARTITION)
        for number, piece in enumerate(np.array_split(day.predictions, 16)):
            await producer.send_and_wait(PREDICTIONS, encode_block(piece), partition=PARTITION)
            if number % 5 == 2:
                await producer.send_and_wait(PREDICTIONS, encode_block(piece), partition=PARTITION)
            await between()


async def rewind(bootstrap: str, share: float) -> None:
    """Set the offsets of all groups back by hand, to a share of the topic."""
    for topic, exporter in GROUPS.items():
        partition = TopicPartition(topic, PARTITION)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, group_id=group_of(exporter), enable_auto_commit=False
        )
        await consumer.start()
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        while True:
            try:
                await consumer.commit({partition: int(end * share)})
                break
            except CommitFailedError:  # one that was killed is a member until its session is over
                await asyncio.sleep(0.2)
        await consumer.stop()


def held(url: str) -> Counter[tuple[Any, ...]]:
    """Every row of every view, as values that are equal where the database's are.

    That is not so of their texts: where a part keeps a column sparse, clickhouse-driver gives 0 for 0.0; and which
    parts do depends on how they were merged. NaN, which is not itself, becomes a text.
    """
    return Counter(
        (view, *("nan" if value != value else value for value in row))
        for view, columns in STORED.items()
        for row in ask(url, f"SELECT {columns} FROM {view}")  # noqa: S608
    )


def differences(one: Counter[tuple[Any, ...]], other: Counter[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The first rows that only one of them has."""
    return sorted((one - other) | (other - one), key=repr)[:4]


async def are_settled(bootstrap: str) -> bool:
    """Whether all groups have committed all: what follows from rows comes after them, and before that."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await reader.start()
    try:
        for topic, exporter in GROUPS.items():
            partition = TopicPartition(topic, PARTITION)
            ends = await reader.end_offsets([partition])
            committed = await admin.list_consumer_group_offsets(group_of(exporter), partitions=[partition])
            if committed[partition].offset != ends[partition]:
                return False
        return True
    finally:
        await reader.stop()
        await admin.close()


async def run_until_all_is_there(
    exporter: Exporter, broker: str, url: str, day: MarketDay, eventually: Any
) -> None:
    """Wait until an exporter has taken and settled everything; then stop it."""
    want = (len(day.predictions), len(day.predictions) + len(day.rejected), len(day.rejected))
    views = ("v_predictions", "v_ticks", "v_rejected")
    query = f"SELECT {', '.join(f'(SELECT count() FROM {view})' for view in views)}"  # noqa: S608

    async def is_there() -> bool:
        try:
            rows = await asyncio.to_thread(ask, url, query)
        except (errors.Error, EOFError, OSError):  # no database, no table, or no server yet
            return False
        return rows == [want] and await are_settled(broker)

    await eventually(is_there, within_s=90)
    assert await exporter.end(signal.SIGTERM) == 0


def received(exporter: Exporter) -> int:
    with urllib.request.urlopen(f"{exporter.url}/health", timeout=5) as answer:  # noqa: S310  (ours)
        return int(json.load(answer)["received"])


@pytest.mark.timeout(600)
async def test_every_table_and_view_is_that_of_an_undisturbed_run(
    broker: str, own: EmbeddedClickHouse, fresh_name: Any, shared_data: Path, eventually: Any
) -> None:
    day = day_with_copies(shared_data)
    stormy, calm = url_of(own, fresh_name("stormy")), url_of(own, fresh_name("calm"))
    settings = Settings(
        kafka=broker,
        clickhouse=stormy,
        clickhouse_flush_s=0.1,
        clickhouse_batch_rows=1500,
        session_timeout_s=2.0,
        partitions=PARTITIONS,
    )
    exporters = [Exporter("clickhouse", settings), Exporter("clickhouse", settings)]
    pieces = itertools.count()

    async def disturb() -> None:
        number = next(pieces)
        await asyncio.sleep(random.Random(number).random() * 0.3)  # noqa: S311
        if number % 4 == 1:
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
        elif number in (6, 11):
            await exporters[0].end(signal.SIGKILL)
            await exporters[0].start()

    try:
        for exporter in exporters:
            await exporter.start()
        await publish(broker, day, disturb)
        await exporters[1].end(signal.SIGKILL)
        await run_until_all_is_there(exporters[0], broker, stormy, day, eventually)
        await rewind(broker, 0.0)
        reader = Exporter(
            "clickhouse", settings.model_copy(update={"clickhouse": Settings(clickhouse=calm).clickhouse})
        )
        exporters.append(reader)
        await reader.start()
        await run_until_all_is_there(reader, broker, calm, day, eventually)
        want = held(calm)
        assert want == Counter(dict.fromkeys(want, 1))
        assert differences(want, held(stormy)) == []
        await rewind(broker, 0.4)
        await exporters[0].start()
        await eventually(lambda: received(exporters[0]) > len(day.predictions) // 2, within_s=60)
        await run_until_all_is_there(exporters[0], broker, stormy, day, eventually)
        assert differences(want, held(stormy)) == []
    finally:
        for exporter in exporters:
            exporter.abandon()
