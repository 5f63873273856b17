"""The schema is the same however often it is made, and what it promises about ages and names holds."""

from collections.abc import Callable
from typing import Any

import pytest
from clickhouse_driver import Client
from trial_database import ask, batch_of, url_of

from exporters.clickhouse import schema
from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.schema import migrate, migrations
from stream.embedded.clickhouse import EmbeddedClickHouse


async def test_making_it_again_from_the_first_file_on_does_no_harm(
    sink: PredictionSink, url: str, make_rows: Any
) -> None:
    await sink.write(batch_of(make_rows(["AIG"], 3)))
    ask(url, "TRUNCATE TABLE tickloom_migrations SYNC")
    client = Client.from_url(url)
    try:
        assert migrate(client) == [name for _, name, _ in migrations()]
        assert migrate(client) == []
    finally:
        client.disconnect()
    assert ask(url, "SELECT count() FROM v_predictions") == [(3,)]


async def test_rows_of_a_week_ago_are_compressed_harder(sink: PredictionSink, url: str, make_rows: Any) -> None:
    await sink.write(batch_of(make_rows(["AIG"], 3)))  # of 2023, as in a replay, but written now
    codec = "SELECT default_compression_codec FROM system.parts WHERE database = currentDatabase() AND active"
    query = f"{codec} AND table = 'predictions'"
    assert ask(url, query) == [("ZSTD(1)",)]
    columns = "(symbol, event_time, ingested_time)"
    ask(url, f"INSERT INTO predictions {columns} SELECT 'B', event_time, '2024-01-01' FROM predictions")  # noqa: S608
    ask(url, "ALTER TABLE predictions DELETE WHERE symbol != 'B' SETTINGS mutations_sync = 1")
    ask(url, "OPTIMIZE TABLE predictions FINAL")
    assert ask(url, query) == [("ZSTD(6)",)]


async def test_an_analyst_can_ask_what_is_known_of_a_symbol(sink: PredictionSink, url: str, make_rows: Any) -> None:
    await sink.write(batch_of(make_rows(["AIG"], 3)))
    await sink.settle()
    ask(url, "INSERT INTO instrument_facts (symbol, venue) VALUES ('AIG', 'NYSE'), ('GHOST', 'NOWHERE')")
    ask(url, "SYSTEM RELOAD DICTIONARY instruments")
    wanted = ", ".join(f"dictGet('instruments', '{name}', 'AIG')" for name in ("venue", "ticks"))
    analyst = url.replace("default@", "analyst@")
    assert ask(analyst, f"SELECT {wanted}, dictGet('instruments', 'venue', 'GHOST')") == [("NYSE", 3, "NOWHERE")]
    assert ask(analyst, "SELECT dictHas('models', '00')") == [(0,)]


def test_a_database_of_any_age_keeps_its_rows_when_it_is_migrated(
    clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, every = url_of(clickhouse, fresh_name("old")), migrations()
    ask(clickhouse.url, f"CREATE DATABASE {url.rsplit('/', 1)[1]}")
    for number, (version, _, _) in enumerate(every, 1):
        with Client.from_url(url) as client, monkeypatch.context() as patch:
            patch.setattr(schema, "migrations", lambda number=number: every[:number])
            migrate(client)
        row = f"('S', '2025-01-0{version} 12:00:00.000000001', 1.25)"
        ask(url, f"INSERT INTO predictions (symbol, event_time, ref_price) VALUES {row}")  # noqa: S608
        if version >= 3:
            ask(url, f"INSERT INTO ticks (symbol, event_time, price) VALUES {row}")  # noqa: S608
    # What was there before predictions had a spread, and an exporter of then, which does not name the column.
    assert ask(url, "SELECT countIf(isNaN(spread_bps)) FROM v_predictions") == [(len(every),)]
    asked = "uniqExact(event_time), sum({0}), sum(toUnixTimestamp64Nano(event_time) % 1000000000)"
    ask(url, "OPTIMIZE TABLE ticks FINAL")  # parts of other codecs become one
    for view, price, rows in (("v_predictions", "ref_price", len(every)), ("v_ticks", "price", len(every) - 2)):
        found = ask(url, f"SELECT {asked.format(price)} FROM {view}")  # noqa: S608
        assert found == [(rows, 1.25 * rows, rows)]


def test_the_engine_took_what_it_did_not_refuse_in_the_same_place_of_the_same_cluster(
    clickhouse: EmbeddedClickHouse, fresh_name: Callable[[str], str]
) -> None:
    url = url_of(clickhouse, fresh_name("taken"))
    ask(clickhouse.url, f"CREATE DATABASE {url.rsplit('/', 1)[1]}")
    with Client.from_url(url) as client:
        migrate(client)
    place = "source_offset, source_index, source_partition, epoch, source_seq"
    columns = f"symbol, event_time, kind, price, size, {place}, bid, ask"
    at = "'2025-01-01 12:00:0"
    ticks = [
        f"('A', {at}1', 'trade', 10, 3, 5, 0, 2, 'one', 1, nan, nan)",
        f"('A', {at}1', 'trade', 11, 4, 5, 1, 2, 'one', 2, nan, nan)",  # refused
        f"('A', {at}1', 'trade', 12, 5, 5, 1, 2, 'two', 3, nan, nan)",  # the same place of another cluster
        f"('A', {at}1', 'trade', 13, 6, 5, 1, 3, 'one', 4, nan, nan)",  # of another partition
        f"('B', {at}1', 'trade', 14, 7, 5, 1, 2, 'one', 5, nan, nan)",  # of another symbol
        f"('A', {at}2', 'halt', nan, nan, 6, 0, 2, 'one', 6, nan, nan)",  # an order
        f"('A', {at}3', 'trade', 9, 1, 7, 0, 2, 'one', 7, nan, nan)",
        f"('A', {at}3', 'quote', nan, nan, 7, 1, 2, 'one', 8, nan, nan)",  # of one side: no mid
    ]
    ask(url, f"INSERT INTO ticks ({columns}) VALUES {', '.join(ticks)}")  # noqa: S608
    for reason in ("outlier", "late"):  # told twice after a crash
        ask(url, f"INSERT INTO rejected ({columns}, reason) VALUES {ticks[1][:-1]}, '{reason}')")  # noqa: S608
    taken = ask(url, "SELECT symbol, source_seq FROM v_accepted_ticks ORDER BY source_seq")
    assert taken == [("A", 1), ("A", 3), ("A", 4), ("B", 5), ("A", 7), ("A", 8)]
    asked = "symbol = 'A', kind = '{0}', seconds = 2, from = '2025-01-01 00:00:00', to = '2025-01-02 00:00:00'"
    bars = (
        "SELECT toSecond(time), open, high, low, close, volume, notional, ticks FROM v_tick_bars({0}) ORDER BY time"
    )
    assert ask(url, bars.format(asked.format("trade"))) == [
        (0, 10, 13, 10, 13, 14, 10 * 3 + 12 * 5 + 13 * 6, 3),
        (2, 9, 9, 9, 9, 1, 9, 1),
    ]
    assert ask(url, bars.format(asked.format("quote"))) == []
