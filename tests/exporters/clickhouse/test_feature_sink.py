"""Feature rows in ClickHouse: the engine's values to the bit, each row once, whatever they are called."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException
from clickhouse_driver.util.helpers import parse_url

from agents.feature_names import names_id, tell_names
from agents.feature_tap import FeatureTap
from agents.features import NAMES, catalogue, names
from agents.history import ANY_FUTURE_NS
from agents.lane import Lane
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from bench.no_model import NoModel
from exporters.batch import Batch
from exporters.clickhouse.export import run_clickhouse
from exporters.clickhouse.feature_sink import FeatureSink
from exporters.clickhouse.schema import migrations
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.embedded.kafka import EmbeddedKafka
from stream.errors import SinkUnavailable
from stream.feature_blocks import feature_hashes
from stream.records import Records, TickKind, empty_ticks, encode_block, join_records
from stream.settings import Settings
from stream.topics import create_topics

PARTITIONS = 4  # as every test that shares this broker has it


def url_of(server: EmbeddedClickHouse, database: str) -> str:
    return server.url.rsplit("/", 1)[0] + f"/{database}"


def ask(url: str, query: str, **settings: Any) -> list[Any]:
    host, options = parse_url(url)
    client = Client(host, settings=settings, **options)
    try:
        return list(client.execute(query))
    finally:
        client.disconnect()


def engine_rows(count: int = 400, periods: Periods = DEFAULT, symbols: int = 3) -> Records:
    """What a lane publishes of a market."""
    rng = np.random.default_rng(5)
    ticks = empty_ticks(count)
    ticks["symbol"] = [f"F{number}".encode() for number in rng.integers(0, symbols, count)]
    ticks["event_ns"] = 1_700_000_000_000_000_000 + np.cumsum(rng.integers(0, 300_000_000, count))
    ticks["recv_ns"], ticks["source_seq"], ticks["stream_id"] = ticks["event_ns"], np.arange(1, count + 1), 1
    ticks["kind"], ticks["size"] = TickKind.TRADE, 100.0
    ticks["price"] = 100 + np.cumsum(rng.choice([-0.01, 0, 0.01], count))
    lane = Lane(0, Windows(5_000_000_000, ANY_FUTURE_NS, 16, periods=periods), NoModel())
    output = lane.apply([(9, ticks)])
    output.predictions["published_ns"] = ticks["recv_ns"][: len(output.predictions)] + 7
    return FeatureTap(Windows(0, 0, 16, periods=periods), 0).take(output)


def stored(url: str, called: tuple[str, ...], like: str = "%") -> tuple[list[tuple[str, int]], Any]:
    """What the view has of some symbols: symbol and seq, and the values ``float32[N, F]`` as they are called."""
    columns = ", ".join(f"`{name}`" for name in called)
    query = f"SELECT symbol, seq, {columns} FROM v_features WHERE symbol LIKE '{like}' ORDER BY symbol, seq"  # noqa: S608
    rows = ask(url, query)
    return [row[:2] for row in rows], np.array([row[2:] for row in rows], np.float32)


def identities(rows: Records) -> list[tuple[str, int]]:
    return [
        (symbol.decode(), seq) for symbol, seq in zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True)
    ]


@pytest.fixture
async def told(kafka: EmbeddedKafka) -> str:
    """A broker that knows what the features of the usual periods are called."""
    await create_topics(kafka.bootstrap, PARTITIONS, 1, 24.0)
    await tell_names(kafka.bootstrap, DEFAULT)
    return kafka.bootstrap


@pytest.fixture
def url(clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str]) -> str:
    return url_of(clickhouse, fresh_name("features"))


@pytest.fixture
async def sink(url: str, told: str) -> AsyncIterator[FeatureSink]:
    made = FeatureSink(url, told)
    yield made
    await made.close()


async def test_what_is_stored_is_what_the_engine_had_to_the_bit(sink: FeatureSink, url: str) -> None:
    rows = np.sort(engine_rows(), order=["symbol", "seq"])
    await sink.write(Batch(rows, ((0, 1, 2),), "one"))
    keys, values = stored(url, NAMES)
    assert keys == identities(rows)
    assert values.tobytes() == rows["values"].tobytes()
    heads = ask(
        url,
        "SELECT toUnixTimestamp64Nano(event_time), ref_price, feature_hash_hex, names_id_hex, source_partition,"
        " source_offset, source_index, toUnixTimestamp64Nano(published_time), epoch"
        " FROM v_features ORDER BY symbol, seq",
    )
    for head, row in zip(heads, rows, strict=True):
        plain = tuple(row[name].item() for name in ("source_partition", "source_offset", "source_index"))
        told = (row["event_ns"], row["ref_price"], f"{row['feature_hash']:016x}", f"{names_id(NAMES):016x}")
        assert head == (*told, *plain, row["published_ns"], "one")
    # From what is stored alone: the names in their order, the values, and the hash again.
    order = ask(url, "SELECT name FROM v_feature_names ORDER BY names_id_hex, position")
    keys, values = stored(url, tuple(name for (name,) in order))
    assert [f"{value:016x}" for value in feature_hashes(values).tolist()] == [head[2] for head in heads]


async def test_each_row_is_there_once_however_often_and_however_cut_it_is_written(
    sink: FeatureSink, url: str
) -> None:
    rows = engine_rows()
    for cuts in ([150], [10, 300], [150]):
        for number, piece in enumerate(np.split(rows, cuts)):
            await sink.write(Batch(piece, ((0, number, number),), "one"))
    keys, values = stored(url, NAMES)
    assert keys == sorted(identities(rows))
    assert np.isfinite(values).all()


async def test_features_of_other_periods_get_columns_of_their_own(sink: FeatureSink, url: str, told: str) -> None:
    others = Periods(tick_rsi=21, windows_s=(0.5, 10.0, 60.0, 300.0))
    await tell_names(told, others)
    usual, other = engine_rows(60), engine_rows(60, others)
    other["symbol"] = np.char.add(other["symbol"], b".B")
    await sink.write(Batch(join_records([usual, other]), ((0, 1, 2),), "one"))
    called = names(others)
    assert "rsi_21" in called
    assert any("0.5s" in name for name in called)
    keys, values = stored(url, called, "%.B")
    right = np.sort(other, order=["symbol", "seq"])
    assert keys == identities(right)
    assert values.tobytes() == right["values"].tobytes()
    [counts] = ask(url, "SELECT countIf(isNaN(rsi_14)), countIf(isNaN(rsi_21)), count() FROM v_features")
    assert counts == (len(other), len(usual), len(usual) + len(other))
    described = ask(url, "SELECT unit, formula FROM v_feature_names WHERE name = 'rsi_21'")
    assert described == [(each.unit, each.formula) for each in catalogue(others) if each.name == "rsi_21"]


async def test_rows_that_nobody_has_named_wait(sink: FeatureSink, url: str, told: str) -> None:
    never_told = Periods(tick_rsi=47)
    rows = engine_rows(20, never_told)
    batch = Batch(rows, ((0, 1, 2),), "one")
    with pytest.raises(SinkUnavailable, match=f"names_id {names_id(names(never_told)):016x} are called; a worker"):
        await sink.write(batch)
    await tell_names(told, never_told)
    await sink.write(batch)
    assert ask(url, "SELECT count() FROM v_features") == [(len(rows),)]


async def test_a_table_that_was_dropped_is_made_anew(sink: FeatureSink, url: str, told: str) -> None:
    others = Periods(tick_rsi=22)
    await tell_names(told, others)
    rows = engine_rows(40, others)
    await sink.write(Batch(rows[:20], ((0, 1, 2),), "one"))
    ask(url, "DROP TABLE features SYNC")
    ask(url, "TRUNCATE TABLE tickloom_migrations")
    with pytest.raises(SinkUnavailable):
        await sink.write(Batch(rows[20:], ((0, 3, 4),), "one"))
    await sink.write(Batch(rows[20:], ((0, 3, 4),), "one"))
    assert ask(url, "SELECT count(), countIf(isNaN(rsi_22)) FROM v_features") == [(len(rows) - 20, 0)]


def test_the_table_begins_with_the_columns_of_the_usual_periods() -> None:
    [statements] = [statements for _, name, statements in migrations() if name.endswith("_features.sql")]
    for name in NAMES:
        assert f"`{name}` Float32 DEFAULT nan" in statements[0], (
            "a new feature needs a migration that adds its column"
        )


async def test_the_exporter_takes_features_from_kafka(
    told: str, url: str, tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    prefix = fresh_name("K")
    rows = engine_rows(300)
    rows["symbol"] = np.char.add(f"{prefix}.".encode(), rows["symbol"])
    producer = AIOKafkaProducer(bootstrap_servers=told)
    await producer.start()
    bad = bytearray(encode_block(rows[:5]))
    bad[-1] ^= 1
    for block in (encode_block(rows[:200]), bytes(bad), b"garbage", encode_block(rows[100:])):
        await producer.send_and_wait("features", block, partition=1)
    await producer.stop()
    settings = Settings(kafka=told, clickhouse=url, data_dir=tmp_path, partitions=PARTITIONS, session_timeout_s=6.0)
    stop = asyncio.Event()
    exporter = asyncio.create_task(run_clickhouse(settings, stop))
    try:
        async with asyncio.timeout(60):
            while len(await asyncio.to_thread(_keys, url, prefix)) < len(rows):
                assert not exporter.done()
                await asyncio.sleep(0.2)
    finally:
        stop.set()
        await exporter
    keys, values = stored(url, NAMES, f"{prefix}.%")
    right = np.sort(rows, order=["symbol", "seq"])
    assert keys == identities(right)
    assert values.tobytes() == right["values"].tobytes()


def _keys(url: str, prefix: str) -> list[tuple[str, int]]:
    try:
        return stored(url, ("rsi_14",), f"{prefix}.%")[0]
    except ServerException as error:
        if error.code not in (60, 81):  # the table, or the database, is not there yet
            raise
        return []
