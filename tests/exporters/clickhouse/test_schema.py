"""The schema is the same however often it is made, and what it promises about ages and names holds."""

from typing import Any

from clickhouse_driver import Client
from trial_database import ask, batch_of

from exporters.clickhouse.predictions import PredictionSink
from exporters.clickhouse.schema import migrate, migrations


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
