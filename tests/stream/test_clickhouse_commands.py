"""`tickloom clickhouse`: the schema is made once, and what is in it is told."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.__main__ import cli
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.errors import ServerError, SettingsError


def call(*words: str) -> Any:
    result = CliRunner().invoke(cli, ["clickhouse", *words])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_schema_is_made_once_and_an_empty_table_has_no_size(
    clickhouse: EmbeddedClickHouse, fresh_name: Any
) -> None:
    url = clickhouse.url.rsplit("/", 1)[0] + "/" + fresh_name("db")
    first = json.loads(call("migrate", "--clickhouse", url, "--json"))
    assert first["applied"][:2] == ["0001_predictions.sql", "0002_outcomes.sql"]
    assert json.loads(call("migrate", "--clickhouse", url, "--json")) == first
    assert f"{len(first['applied'])} of {len(first['applied'])} migrations" in call("migrate", "--clickhouse", url)
    tables = {table["table"]: table for table in json.loads(call("tables", "--clickhouse", url, "--json"))}
    assert {"predictions", "ticks", "bars_1s", "rejected", "stage_latency", "dead_letters"} <= tables.keys()
    assert tables["ticks"]["rows"] == 0
    assert tables["ticks"]["bytes_per_row"] is None
    assert "epochs" in call("tables", "--clickhouse", url)
    assert call("recompute", "2024-02-28", "2024-02-29", "--clickhouse", url) == (
        "computed bars and latencies of 0 symbols\n"
    )


def test_bad_days_and_a_server_that_is_not_there_are_named() -> None:
    with pytest.raises(SettingsError, match="'yesterday' is no day"):
        call("recompute", "yesterday")
    with pytest.raises(SettingsError, match="2024-01-01, is before"):
        call("recompute", "2024-01-02", "2024-01-01")
    with pytest.raises(ServerError, match=r"ClickHouse at 127\.0\.0\.1:1 cannot be reached"):
        call("tables", "--clickhouse", "clickhouse://default@127.0.0.1:1/default")
