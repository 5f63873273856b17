"""The contract with the chdb-core wheel: the recipe of ``clickhouse_child.py`` gives the real server.

The wheel's ``_chdb`` is private. When a newer wheel breaks the recipe, it is here that it shows.
"""

import contextlib
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from stream.embedded.clickhouse import EmbeddedClickHouse

FreshName = Callable[[str], str]

NOT_ENOUGH_PRIVILEGES = 497
UNKNOWN_TABLE = 60
SETTING_OUT_OF_LIMITS = 452


@pytest.fixture
def client(clickhouse: EmbeddedClickHouse) -> Iterator[Any]:
    connected = Client.from_url(clickhouse.url)
    yield connected
    connected.disconnect()


@pytest.fixture
def analyst(clickhouse: EmbeddedClickHouse) -> Iterator[Any]:
    connected = Client.from_url(clickhouse.url.replace("default@", "analyst@"))
    yield connected
    connected.disconnect()


def test_it_is_a_modern_server_on_the_native_protocol(client: Any) -> None:
    ((version, user),) = client.execute("SELECT version(), currentUser()")
    assert int(version.split(".")[0]) >= 26
    assert user == "default"


def test_both_ports_are_on_the_loopback_and_as_published(clickhouse: EmbeddedClickHouse, client: Any) -> None:
    ((tcp_port, http_port),) = client.execute("SELECT getServerPort('tcp_port'), getServerPort('http_port')")
    assert clickhouse.url == f"clickhouse://default@127.0.0.1:{tcp_port}/default"
    assert clickhouse.http_url == f"http://127.0.0.1:{http_port}"


def test_it_speaks_http(clickhouse: EmbeddedClickHouse) -> None:
    connection = HTTPConnection("127.0.0.1", clickhouse.http_port)
    with contextlib.closing(connection):
        connection.request("GET", "/ping")
        assert connection.getresponse().read() == b"Ok.\n"
        connection.request("GET", "/?query=SELECT%2040%2B2")
        assert connection.getresponse().read() == b"42\n"  # the default format is TabSeparated
        connection.request("GET", "/?user=analyst&query=SELECT%20currentDatabase()")
        assert connection.getresponse().read() == b"default\n"


def test_rows_go_in_and_come_out_with_the_types_of_our_schema(client: Any, fresh_name: FreshName) -> None:
    table = fresh_name("predictions")
    client.execute(
        f"CREATE TABLE {table} (symbol LowCardinality(String), seq UInt64, up Float32, "
        "ts DateTime64(9) CODEC(DoubleDelta, ZSTD(1))) ENGINE = ReplacingMergeTree ORDER BY (symbol, seq) "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    rows = [("ABC", 1, 0.25, 1_700_000_000_000_000_001), ("ABC", 2, 0.5, 1_700_000_000_000_000_002)]
    for _ in range(2):  # the second time with the same token is dropped
        client.execute(f"INSERT INTO {table} VALUES", rows, settings={"insert_deduplication_token": "batch-1"})
    found = client.execute(f"SELECT symbol, seq, up, toUnixTimestamp64Nano(ts) FROM {table} ORDER BY seq")  # noqa: S608
    assert found == rows


def test_the_name_of_a_missing_table_is_not_taken_for_that_of_a_file(client: Any) -> None:
    assert client.execute("SELECT engine FROM system.databases WHERE name = 'default'") == [("Atomic",)]
    with pytest.raises(ServerException) as refused:
        client.execute("SELECT * FROM `/etc/hostname`")
    assert refused.value.code == UNKNOWN_TABLE


def test_an_analyst_can_look(client: Any, analyst: Any, fresh_name: FreshName) -> None:
    table = fresh_name("bars")
    client.execute(f"CREATE TABLE {table} (close Float64) ENGINE = MergeTree ORDER BY close")
    client.execute(f"INSERT INTO {table} VALUES", [(1.5,)])
    assert analyst.execute(f"SELECT close FROM {table} SETTINGS max_threads = 1") == [(1.5,)]  # noqa: S608
    assert (table,) in analyst.execute("SHOW TABLES")


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("CREATE TABLE mine (a Int8) ENGINE = Memory", NOT_ENOUGH_PRIVILEGES),
        ("SELECT * FROM file('/etc/hostname', LineAsString)", NOT_ENOUGH_PRIVILEGES),
        ("SELECT * FROM url('http://127.0.0.1:1/', LineAsString)", NOT_ENOUGH_PRIVILEGES),
        ("SYSTEM SHUTDOWN", NOT_ENOUGH_PRIVILEGES),
        ("SET max_execution_time = 600", SETTING_OUT_OF_LIMITS),
        ("SET max_memory_usage = 0", SETTING_OUT_OF_LIMITS),
    ],
)
def test_an_analyst_cannot_touch(analyst: Any, statement: str, code: int) -> None:
    with pytest.raises(ServerException) as refused:
        analyst.execute(statement)
    assert refused.value.code == code


def test_rows_survive_a_crash_and_a_stop(tmp_path: Path) -> None:
    data_dir = tmp_path / "größe & 'platz' {a,b} 💾"
    with EmbeddedClickHouse(data_dir) as server:
        ports = (server.port, server.http_port)
        run(server.url, "CREATE TABLE kept (a Int64) ENGINE = MergeTree ORDER BY a")
        run(server.url, "INSERT INTO kept VALUES", [(1,)])
        server.kill()
        assert not server.alive()
        server.restart()
        assert (server.port, server.http_port) == ports
        run(server.url, "INSERT INTO kept VALUES", [(2,)])
    assert server._running().returncode == 0
    with EmbeddedClickHouse(data_dir) as again:
        assert run(again.url, "SELECT a FROM kept ORDER BY a") == [(1,), (2,)]


def run(url: str, statement: str, rows: list[tuple[int]] | None = None) -> Any:
    client = Client.from_url(url)
    try:
        return client.execute(statement, rows) if rows else client.execute(statement)
    finally:
        client.disconnect()
