"""Blocks that are made here are read by a real server as what they were made of."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client, errors
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.clickhouse.native import Column, insert, numbers, one_text, symbols, texts, times
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.errors import SinkRejected

TYPES = {
    "Int8": "<i1",
    "UInt8": "<u1",
    "UInt16": "<u2",
    "Int32": "<i4",
    "UInt32": "<u4",
    "Int64": "<i8",
    "UInt64": "<u8",
    "Float32": "<f4",
    "Float64": "<f8",
}
COLUMNS = ", ".join(f"`{name}` {name}" for name in TYPES)
# What DateTime64(9) holds.
FIRST_NS, LAST_NS = -(2**63) + 10**18, 2**63 - 10**18


@pytest.fixture(
    scope="module", params=["", "&compression=lz4&network_compression_method=LZ4"], ids=["plain", "lz4"]
)
def client(clickhouse: EmbeddedClickHouse, request: Any, fresh_name: Any) -> Iterator[Client]:
    """A client of a database of its own, with little patience: for what is missing, the server waits."""
    database = fresh_name("native")
    with Client.from_url(clickhouse.url) as first:
        first.execute(f"CREATE DATABASE {database}")
    with Client.from_url(
        f"{clickhouse.url.removesuffix('/default')}/{database}?send_receive_timeout=1{request.param}"
    ) as made:
        made.execute(
            f"CREATE TABLE everything (at UInt64, {COLUMNS}, time DateTime64(9, 'UTC'), text String,"
            " symbol LowCardinality(String), epoch LowCardinality(String)) ENGINE = MergeTree ORDER BY at"
        )
        yield made


texts_of_any_length = st.one_of(
    st.binary(max_size=12),
    # Lengths of one, two and three bytes.
    st.sampled_from([0, 1, 127, 128, 129, 16_383, 16_384, 20_000]).map(lambda size: b"x" * size),
)
rows_of = st.integers(1, 40).flatmap(
    lambda count: st.fixed_dictionaries(
        {
            **{
                name: st.binary(min_size=count * int(kind[2]), max_size=count * int(kind[2]))
                for name, kind in TYPES.items()
            },
            "time": st.lists(st.integers(FIRST_NS, LAST_NS), min_size=count, max_size=count),
            "symbol": st.lists(
                st.binary(max_size=24).map(lambda name: name.rstrip(b"\0")), min_size=count, max_size=count
            ),
            "text": st.lists(texts_of_any_length, min_size=count, max_size=count),
            "epoch": st.text(max_size=200),
        }
    )
)


@given(rows=rows_of)
@settings(max_examples=25)
def test_what_goes_in_comes_out(client: Client, rows: dict[str, Any]) -> None:
    count = len(rows["time"])
    values = {name: np.frombuffer(rows[name], kind) for name, kind in TYPES.items()}
    times_ns, names = np.array(rows["time"], np.int64), np.array(rows["symbol"], "S24")
    columns = [
        numbers("at", "UInt64", np.arange(count, dtype=np.uint64)),
        *(numbers(name, name, value) for name, value in values.items()),
        times("time", times_ns),
        symbols("symbol", names),
        texts("text", rows["text"]),
        one_text("epoch", rows["epoch"], count),
    ]
    client.execute("TRUNCATE TABLE everything")
    insert(client, "everything", columns, count, {})
    # As bytes, so that NaNs are compared as well; the server drops zeros at the end.
    bits = ", ".join(f"hex(reinterpretAsString(`{name}`))" for name in TYPES)
    asked = f"{bits}, toUnixTimestamp64Nano(time), hex(symbol), hex(text), hex(epoch)"
    found = client.execute(f"SELECT {asked} FROM everything ORDER BY at")  # noqa: S608
    expected = zip(
        *([value.tobytes().rstrip(b"\0").hex().upper() for value in value_of] for value_of in values.values()),
        times_ns.tolist(),
        [name.hex().upper() for name in rows["symbol"]],
        [text.hex().upper() for text in rows["text"]],
        itertools.repeat(rows["epoch"].encode().hex().upper(), count),
        strict=True,
    )
    assert found == list(expected)


@pytest.mark.parametrize("distinct", [1, 256, 257, 65_536, 65_537])
def test_keys_are_wide_enough_for_the_dictionary(client: Client, distinct: int) -> None:
    names = np.array([f"S{number}" for number in range(distinct)] * 2, "S24")
    client.execute("TRUNCATE TABLE everything")
    places = numbers("at", "UInt64", np.arange(len(names), dtype=np.uint64))
    insert(client, "everything", [places, symbols("symbol", names)], len(names), {})
    asked = f"count(), uniqExact(symbol), countIf(symbol = concat('S', toString(at % {distinct})))"
    assert client.execute(f"SELECT {asked} FROM everything") == [(2 * distinct, distinct, 2 * distinct)]  # noqa: S608


def test_the_server_converts_to_the_type_of_the_table(client: Client) -> None:
    client.execute("TRUNCATE TABLE everything")
    small = numbers("Int64", "Int8", np.array([-5, 7], np.int8))
    insert(client, "everything", [numbers("at", "UInt64", np.array([0, 1], np.uint64)), small], 2, {})
    assert client.execute("SELECT Int64 FROM everything ORDER BY at") == [(-5,), (7,)]


def damaged() -> dict[str, list[Column]]:
    whole = numbers("at", "UInt64", np.arange(3, dtype=np.uint64))
    dictionary = one_text("epoch", "one", 3)
    return {
        "a column of fewer rows": [numbers("at", "UInt64", np.arange(2, dtype=np.uint64)), whole],
        "a column that ends in a value": [Column("at", "UInt64", whole.data[:-3])],
        "a dictionary without its keys": [whole, Column("epoch", dictionary.type, dictionary.data[:-5])],
        "a dictionary of another version": [whole, Column("epoch", dictionary.type, b"\7" + dictionary.data[1:])],
        "a key that the dictionary has not": [
            whole,
            Column("epoch", dictionary.type, dictionary.data[:-1] + b"\x09"),
        ],
        "a type that nobody knows": [Column("at", "UInt65", whole.data)],
        "a type that does not convert": [Column("at", "Array(UInt8)", b"\0" * 24)],
    }


@pytest.mark.parametrize("name", damaged())
def test_a_damaged_block_is_refused_whole_and_the_client_goes_on(client: Client, name: str) -> None:
    client.execute("TRUNCATE TABLE everything")
    with pytest.raises((errors.Error, EOFError, OSError)):
        insert(client, "everything", damaged()[name], 3, {})
    assert client.execute("SELECT count() FROM everything") == [(0,)]
    insert(client, "everything", [numbers("at", "UInt64", np.arange(3, dtype=np.uint64))], 3, {})
    assert client.execute("SELECT count(), sum(at) FROM everything") == [(3, 3)]


@pytest.mark.parametrize(("table", "column"), [("nowhere", "at"), ("everything", "nothing")])
def test_the_error_names_what_the_server_does_not_have(client: Client, table: str, column: str) -> None:
    with pytest.raises(errors.ServerException, match=r"nowhere|nothing"):
        insert(client, table, [numbers(column, "UInt64", np.arange(3, dtype=np.uint64))], 3, {})
    assert client.execute("SELECT 1") == [(1,)]


def test_a_server_that_wants_no_data_is_told_of(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "receive_sample_block", lambda: None)
    with pytest.raises(SinkRejected, match=r"INSERT INTO everything .* without asking for data"):
        insert(client, "everything", [numbers("at", "UInt64", np.arange(3, dtype=np.uint64))], 3, {})
