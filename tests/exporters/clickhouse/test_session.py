"""Questions are read-only and limited, their values bound; answers stream, and can be cancelled on the server."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.clickhouse.complaints import QueryCancelled, QueryRefused
from exporters.clickhouse.session import Limits, Session
from stream.embedded.clickhouse import EmbeddedClickHouse
from stream.errors import ServerError, SettingsError
from stream.settings import Settings


@pytest.fixture
def session(clickhouse: EmbeddedClickHouse) -> Iterator[Session]:
    with Session(clickhouse.analyst_url) as made:
        yield made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_value_is_bound_whatever_is_in_it(session: Session, value: str) -> None:
    assert session.rows("SELECT {it:String} AS it", {"it": value}) == [{"it": value}]


def test_values_of_every_kind_are_bound(session: Session) -> None:
    kinds = {
        "UInt64": ("18446744073709551615", 18446744073709551615),
        "Nullable(Int8)": ("NULL", None),
        "Array(String)": ("['AIG', 'it\\'s']", ["AIG", "it's"]),
        "Float64": ("nan", np.nan),
        "Date": ("2024-05-01", "2024-05-01"),
    }
    for kind, (text, right) in kinds.items():
        ((got,),) = (row.values() for row in session.rows(f"SELECT {{it:{kind}}} AS it", {"it": text}))
        assert str(got) == str(right)


def test_a_parameter_without_a_value_and_a_value_without_a_parameter_are_told(session: Session) -> None:
    with pytest.raises(QueryRefused, match=r"give --param b=\.\.\. \(UInt8\)"):
        session.ask("SELECT {a:String}, {b:UInt8}", {"a": "x"})
    with pytest.raises(QueryRefused, match="has no parameter symbl; it has symbol"):
        session.ask("SELECT {symbol:String}", {"symbol": "x", "symbl": "y"})


def test_nothing_can_be_changed_not_even_by_a_user_who_may(clickhouse: EmbeddedClickHouse) -> None:
    with Session(clickhouse.url) as session:
        for statement in ("CREATE TABLE x (a Int8) ENGINE = Memory", "SYSTEM FLUSH LOGS"):
            with pytest.raises(
                QueryRefused, match=r"readonly mode(.|\n)*hint: this connection is for reading only"
            ):
                session.ask(statement)
        with pytest.raises(QueryRefused, match="readonly"):
            session.rows("SELECT 1 SETTINGS readonly = 0")


def test_limits_are_told_with_what_to_do(clickhouse: EmbeddedClickHouse) -> None:
    with Session(clickhouse.analyst_url, Limits(seconds=1, rows=100_000)) as session:
        with pytest.raises(QueryRefused, match=r"Limit for result exceeded(.|\n)*hint: add LIMIT"):
            session.rows("SELECT number FROM numbers(1000000)")
        with pytest.raises(QueryRefused, match=r"Timeout exceeded(.|\n)*hint: read less"):
            session.rows("SELECT count() FROM numbers(1000000000000) WHERE cityHash64(number) = 1")
        assert session.rows("SELECT 1 AS one") == [{"one": 1}]


def test_the_narrower_limits_of_the_server_hold_and_are_not_overstepped(clickhouse: EmbeddedClickHouse) -> None:
    names = "max_execution_time max_result_rows readonly"
    query = "SELECT name, value FROM system.settings WHERE name IN splitByChar(' ', {names:String})"
    with Session(clickhouse.analyst_url, Limits(seconds=6000, rows=10**12)) as session:
        told = {row["name"]: row["value"] for row in session.rows(query, {"names": names})}
    assert told == {"max_execution_time": "60", "max_result_rows": "10000000", "readonly": "2"}


def test_times_keep_their_nanoseconds(session: Session) -> None:
    (batch,) = session.ask("SELECT toDateTime64('2024-05-01 10:00:00.123456789', 9, 'UTC') AS at")
    assert batch.column("at").to_numpy(zero_copy_only=False)[0] == np.datetime64("2024-05-01T10:00:00.123456789")


def test_a_long_answer_streams(session: Session) -> None:
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in session.ask("SELECT number, toString(number) AS text FROM numbers(2000000)"):
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == 2_000_000
    assert most < 16 << 20
    assert session.progress == (2_000_000, 2_000_000)


def test_the_first_rows_are_enough_and_the_rest_is_not_fetched(clickhouse: EmbeddedClickHouse) -> None:
    with Session(clickhouse.url, Limits(rows=10**15)) as session:
        batches, more = session.ask("SELECT number FROM numbers(1000000000000)").first(100_000)
        assert more
        assert sum(batch.num_rows for batch in batches) == 100_000
        assert session.progress[0] < 10**11
        batches, more = session.ask("SELECT number FROM numbers(1000)").first(1000)
        assert (sum(batch.num_rows for batch in batches), more) == (1000, False)


def test_what_is_cancelled_ends_on_the_server_and_the_connection_goes_on(clickhouse: EmbeddedClickHouse) -> None:
    slow = "SELECT count() FROM numbers(1000000000000) WHERE cityHash64(number) = 7654321"
    running = (
        "SELECT count() AS n FROM system.processes WHERE query LIKE '%= 7654321%' AND query NOT LIKE '%processes%'"
    )
    with Session(clickhouse.url) as session, Session(clickhouse.url) as other:
        timer = threading.Timer(0.5, session.cancel)
        timer.start()
        with pytest.raises(QueryCancelled):
            session.rows(slow)
        timer.join()
        deadline_s = time.monotonic() + 10
        while other.rows(running) != [{"n": 0}]:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert session.rows("SELECT 1 AS one") == [{"one": 1}]
        session.cancel()  # nothing is asked: nothing happens
        assert session.rows("SELECT 2 AS two") == [{"two": 2}]


def test_a_type_that_cannot_be_shown_is_told_with_a_way_out(session: Session) -> None:
    with pytest.raises(QueryRefused, match=r"right would be toString\(COLUMN\)"):
        session.rows("SELECT (1, 'a') AS pair")
    assert session.rows("SELECT toString((1, 'a')) AS pair") == [{"pair": "(1,'a')"}]


def test_a_server_that_is_away_and_an_address_that_is_none_are_told() -> None:
    with pytest.raises(ServerError, match=r"ClickHouse at 127\.0\.0\.1:1 cannot be reached"):
        Session("clickhouse://default@127.0.0.1:1/default").ask("SELECT 1")
    with pytest.raises(SettingsError, match="no ClickHouse is configured, and no demo runs here"):
        Session.of(Settings())
