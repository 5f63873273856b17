from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client

from exporters.clickhouse.sparse import mend_sparse_columns


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    mend_sparse_columns()
    server, _, database = url.rpartition("/")
    with Client.from_url(f"{server}/default?use_numpy=1") as client:
        client.execute(f"CREATE DATABASE {database}")
        client.execute(f"USE {database}")
        yield client


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("DateTime64(9, 'UTC')", "fromUnixTimestamp64Nano(1381132800689028004, 'UTC')"),
        ("DateTime('UTC')", "toDateTime(1381132800, 'UTC')"),
        ("Date", "toDate('2013-10-07')"),
        ("Bool", "true"),
        ("Float64", "1.5"),
        ("UInt64", "18446744073709551615"),
        ("String", "'x'"),
    ],
)
def test_a_column_of_little_but_defaults_is_read_as_any_other(client: Client, kind: str, value: str) -> None:
    client.execute(f"CREATE TABLE seldom (n UInt64, v {kind}) ENGINE = MergeTree ORDER BY n")
    client.execute(f"INSERT INTO seldom SELECT number, {value} FROM numbers(200) WHERE number % 50 = 7")  # noqa: S608
    client.execute("INSERT INTO seldom (n) SELECT number FROM numbers(200) WHERE number % 50 != 7")
    client.execute("OPTIMIZE TABLE seldom FINAL")
    asked = "SELECT serialization_kind = 'Sparse' FROM system.parts_columns WHERE active AND column = 'v'"
    [[sparse]] = client.execute(f"{asked} AND database = currentDatabase()")
    assert sparse == 1, "else this tests nothing"
    seen: Any = client.query_arrow("SELECT v FROM seldom ORDER BY n").column("v")
    [wanted] = client.query_arrow(f"SELECT {value} AS v").column("v").to_pylist()
    assert seen.slice(7, 1).to_pylist() == [wanted]
    others = np.delete(np.arange(200), np.arange(7, 200, 50))
    assert len(set(seen.take(others).to_pylist())) == 1
    assert set(seen.take(np.arange(7, 200, 50)).to_pylist()) == {wanted}
