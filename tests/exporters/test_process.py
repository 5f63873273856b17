"""Exporters as processes, killed with SIGKILL while predictions flow: their sinks end with each prediction once."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from aiokafka import AIOKafkaProducer
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException
from clickhouse_driver.util.helpers import parse_url
from exporter_process import Exporter
from redis.asyncio import Redis

from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.embedded.valkey import EmbeddedValkey
from stream.records import PREDICTION, Records, decode_block, encode_block, partition_of
from stream.settings import Settings
from stream.topics import PREDICTIONS, create_topics

SYMBOLS = [f"S{number}" for number in range(40)]
PARTITIONS = 2


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    """A broker of this test alone, with the topics as they are named in production."""
    server = await asyncio.to_thread(EmbeddedKafka(tmp_path).start)
    await create_topics(server.bootstrap, PARTITIONS, 1, 1.0)
    yield server.bootstrap
    await asyncio.to_thread(server.stop)


async def send(producer: AIOKafkaProducer, rows: Records) -> None:
    partitions = partition_of(rows["symbol"], PARTITIONS)
    sent = [
        await producer.send(PREDICTIONS, encode_block(rows[partitions == number]), partition=number)
        for number in range(PARTITIONS)
    ]
    await asyncio.gather(*sent)


async def export_with_kills(exporter: Exporter, bootstrap: str, rows: Records, kills: int) -> None:
    """Send rows, some of them twice as the engine does after a crash, and kill the exporter again and again."""
    chance = random.Random(7)  # noqa: S311  # the same kills each time
    pieces = np.split(rows, range(400, len(rows), 400))
    at = set(chance.sample(range(len(pieces)), kills))
    await exporter.start()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=1) as producer:
        for number, piece in enumerate(pieces):
            await send(producer, piece)
            if number % 5 == 4:
                await send(producer, piece)
            await asyncio.sleep(0.02)
            if number in at:
                await exporter.end(signal.SIGKILL)
                await exporter.start()


async def has(url: str, figure: str) -> Any:
    async with ClientSession() as session, session.get(f"{url}/health") as answer:
        return (await answer.json())[figure]


async def test_clickhouse_has_every_prediction_once_after_kills(
    broker: str, clickhouse: EmbeddedClickHouse, fresh_name: Any, make_rows: Any, eventually: Any
) -> None:
    url = clickhouse.url.rsplit("/", 1)[0] + "/" + fresh_name("db")
    settings = Settings(kafka=broker, clickhouse=url, clickhouse_flush_s=0.2, session_timeout_s=6.0)
    exporter = Exporter("clickhouse", settings)
    rows = make_rows(SYMBOLS, 500)
    host, options = parse_url(url)

    def counts() -> tuple[int, int, int]:
        client = Client(host, **options)
        try:
            query = "SELECT count(), uniqExact(symbol, seq), toInt64(sum(seq)) FROM v_predictions"
            return tuple(client.execute(query)[0])  # type: ignore[return-value]
        except ServerException as error:
            if error.code not in (60, 81):
                raise
            return 0, 0, 0  # no exporter has made the table yet
        finally:
            client.disconnect()

    want = (len(rows), len(rows), int(rows["seq"].sum()))
    try:
        await export_with_kills(exporter, broker, rows, kills=4)
        await eventually(lambda: asyncio.to_thread(lambda: counts() == want), within_s=60)
        assert await exporter.end(signal.SIGTERM) == 0
        assert await asyncio.to_thread(counts) == want
    finally:
        exporter.abandon()


async def test_redis_has_the_newest_of_every_symbol_and_a_whole_stream_after_kills(
    broker: str, tmp_path: Path, make_rows: Any, eventually: Any
) -> None:
    server = await asyncio.to_thread(EmbeddedValkey(tmp_path / "redis").start)
    settings = Settings(
        kafka=broker,
        redis=server.url,
        session_timeout_s=6.0,
        redis_stream_maxlen=100_000,
        redis_conflate_after_s=0,  # on a busy machine the kills take longer
    )
    exporter = Exporter("redis", settings)
    try:
        rows = make_rows(SYMBOLS, 300)
        await export_with_kills(exporter, broker, rows, kills=4)
        async with Redis.from_url(server.url) as client:

            async def newest() -> set[int]:
                keys = [f"tickloom:prediction:{symbol}" for symbol in SYMBOLS]
                return {int(await client.hget(key, "seq") or 0) for key in keys}  # type: ignore[misc]

            async def arrived() -> bool:
                return await newest() == {300}

            await eventually(arrived, within_s=60)
            pairs = []
            for _, entry in await client.xrange("tickloom:predictions"):
                block = decode_block(entry[b"block"], PREDICTION)
                pairs += list(zip(block["symbol"].tolist(), block["seq"].tolist(), strict=True))
        want = {(symbol.encode(), seq) for symbol in SYMBOLS for seq in range(1, 301)}
        assert set(pairs) == want
        assert len(pairs) == len(want)
        assert await has(exporter.url, "problems") == {}
        assert await exporter.end(signal.SIGTERM) == 0
    finally:
        exporter.abandon()
        await asyncio.to_thread(server.stop)
