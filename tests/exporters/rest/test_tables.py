"""Answers against the tables themselves: each row, in each form, and page by page."""

import io
from typing import Any

import numpy as np
import orjson
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from clickhouse_driver import Client

from exporters.rest.representation import ARROW, PARQUET
from stream.records import Records


def times(rows: Records, name: str) -> list[str]:
    return [f"{each}Z" for each in np.datetime_as_string(rows[name].astype("datetime64[ns]"), unit="ns")]


@pytest.mark.parametrize("symbol", ["AIG", "BAC"])
def test_the_pages_of_a_symbol_are_its_predictions_to_the_bit(api: Any, rows: Records, symbol: str) -> None:
    ours = rows[rows["symbol"] == symbol.encode()]
    got = api.pages(f"/v1/predictions?symbol={symbol}&limit=700")
    assert [row["seq"] for row in got] == ours["seq"].tolist()
    assert [row["event_time"] for row in got] == times(ours, "event_ns")
    assert [row["published_time"] for row in got] == times(ours, "published_ns")
    assert [row["ref_price"] for row in got] == ours["ref_price"].tolist()
    assert [row["spread_bps"] for row in got[:3]] == [None, None, 1.0]
    for name in ("p_down", "p_flat", "p_up", "expected_return_bps", "spread_bps"):
        assert np.array_equal(np.array([row[name] for row in got], np.float32), ours[name], equal_nan=True), name
    assert [int(row["feature_hash_hex"], 16) for row in got] == ours["feature_hash"].tolist()
    assert {row["model"] for row in got} == {"718e0a2ddc1319ff"}
    assert {row["warming"] for row in got} == {False}


def test_newest_first_is_the_same_backwards(api: Any) -> None:
    path = "/v1/predictions?symbol=AIG&limit=1000"
    assert api.pages(f"{path}&order=desc") == api.pages(path)[::-1]


def test_a_span_has_its_first_moment_and_not_its_last(api: Any, rows: Records) -> None:
    ours = np.sort(rows["event_ns"][rows["symbol"] == b"AIG"])
    first, last = int(ours[100]), int(ours[2000])
    got = api.pages(f"/v1/predictions?symbol=AIG&limit=10000&from={first}&to={last}")
    assert len(got) == np.count_nonzero((ours >= first) & (ours < last))


@pytest.mark.parametrize("form", [ARROW, PARQUET])
def test_arrow_and_parquet_are_the_same_rows(api: Any, form: str) -> None:
    path = "/v1/predictions?symbol=AIG&limit=500"
    reply = api.get(path, Accept=form)
    assert (reply.status, reply.headers["content-type"]) == (200, form)
    read = (
        pyarrow.ipc.open_stream(reply.body).read_all() if form == ARROW else pq.read_table(io.BytesIO(reply.body))
    )
    rows = api.get(path).json["data"]
    assert read.column_names == list(rows[0])
    assert read["seq"].to_pylist() == [row["seq"] for row in rows]
    assert read["symbol"].to_pylist() == ["AIG"] * 500
    stamps = np.datetime_as_string(read["event_time"].to_numpy(), unit="ns")
    assert [f"{stamp}Z" for stamp in stamps] == [row["event_time"] for row in rows]
    following = reply.headers["link"].removeprefix("<").partition(">")[0]
    assert api.get(following).json["data"][0]["seq"] == 501


def test_rows_that_come_meanwhile_neither_repeat_nor_hide_others(api: Any, database: Client) -> None:
    insert = "INSERT INTO predictions (symbol, seq, event_time) VALUES"
    late = np.datetime64("2013-10-07T14:00:00.000000001", "ns")
    database.execute(insert, [("LATE", seq, late.astype("datetime64[us]").item()) for seq in (10, 20, 30, 40)])
    first = api.get("/v1/predictions?symbol=LATE&limit=2").json
    database.execute(insert, [("LATE", seq, late.astype("datetime64[us]").item()) for seq in (5, 15, 25, 50)])
    rest = api.pages(f"/v1/predictions?symbol=LATE&limit=2&cursor={first['next']}")
    seen = [row["seq"] for row in first["data"]] + [row["seq"] for row in rest]
    assert seen == [10, 20, 25, 30, 40, 50], "what was there is there once; what came before our place is not"


def test_a_cursor_of_another_question_is_refused(api: Any) -> None:
    cursor = api.get("/v1/predictions?symbol=AIG&limit=5").json["next"]
    for path in (
        "/v1/predictions?symbol=BAC",
        "/v1/predictions?symbol=AIG&order=desc",
        "/v1/outcomes?symbol=AIG",
        "/v1/predictions?symbol=AIG&from=2013-10-07",
    ):
        reply = api.get(f"{path}{'&'}cursor={cursor}")
        assert (reply.status, reply.json["code"]) == (400, "bad-cursor"), path


def test_outcomes_and_scores_are_those_of_the_views(api: Any, outcomes: Records, database: Client) -> None:
    got = api.pages("/v1/outcomes?symbol=AIG&limit=1000&model=718e0a2ddc1319ff")
    ours = outcomes[outcomes["symbol"] == b"AIG"]
    assert [row["realised_class"] for row in got] == [["down", "flat", "up"][each] for each in ours["realised"]]
    assert {row["fallback_log_loss"] for row in got} == {None}
    assert api.pages("/v1/outcomes?symbol=AIG&model=0000000000000000") == []
    scores = api.pages("/v1/model-scores?symbol=AIG&limit=1")
    of_view = database.execute(
        "SELECT toUnixTimestamp(hour), outcomes, hit_rate FROM model_scores WHERE symbol = 'AIG' ORDER BY hour"
    )
    seen = [
        (int(np.datetime64(row["hour"][:-1], "s").astype(int)), row["outcomes"], row["hit_rate"]) for row in scores
    ]
    assert seen == [(hour, count, pytest.approx(rate)) for hour, count, rate in of_view]


def test_ticks_are_those_that_were_sent(api: Any, ticks: Records) -> None:
    got = api.pages("/v1/ticks?symbol=BAC&limit=1000")
    ours = ticks[ticks["symbol"] == b"BAC"]
    assert [row["event_time"] for row in got] == times(ours, "event_ns")
    assert [(row["price"], row["size"]) for row in got] == list(zip(ours["price"], ours["size"], strict=True))
    assert {row["kind"] for row in got} == {"trade"}
    assert {row["bid"] for row in got} == {None}, "what a trade does not have is null"


def test_features_have_a_number_for_each_name(api: Any, database: Client) -> None:
    event = "fromUnixTimestamp64Nano(1381132800000000000 + toInt64(number), 'UTC')"
    insert = (
        "INSERT INTO features (symbol, event_time, seq, rsi_14, published_time, ingested_time) "  # noqa: S608
        f"SELECT 'AIG', {event}, number, number / 2, now(), now() FROM numbers(1, 5)"
    )
    database.execute(insert)
    got = api.pages("/v1/features?symbol=AIG&limit=2")
    assert [row["seq"] for row in got] == [1, 2, 3, 4, 5]
    assert [row["rsi_14"] for row in got] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert {row["macd_bps"] for row in got} == {None}, "a feature that there was not"
    assert "ingested_time" not in got[0]


@pytest.mark.parametrize("length", ["1s", "1m", "1h"])
def test_bars_are_those_of_the_view(api: Any, database: Client, length: str) -> None:
    got = api.pages(f"/v1/bars/{length}?symbol=AIG&limit=300")
    columns = "toUnixTimestamp(bar_time), open, high, low, close, volume, ticks"
    asked = f"SELECT {columns} FROM v_bars_{length} WHERE symbol = 'AIG' ORDER BY bar_time"  # noqa: S608
    of_view = database.execute(asked)
    seen = [
        (
            int(np.datetime64(row["bar_time"][:-1], "s").astype(int)),
            *(row[name] for name in ("open", "high", "low", "close", "volume", "ticks")),
        )
        for row in got
    ]
    assert seen == of_view
    assert seen


def test_a_page_is_no_larger_than_its_form_may_be(api: Any) -> None:
    reply = api.get("/v1/predictions?symbol=AIG&limit=20000")
    assert (reply.status, reply.json["code"]) == (422, "bad-parameter")
    assert api.get("/v1/predictions?symbol=AIG&limit=20000", Accept=PARQUET).status == 200


def test_what_the_client_has_is_not_sent_again(api: Any) -> None:
    path = "/v1/predictions?symbol=AIG&limit=100"
    first = api.get(path)
    again = api.get(path, If_None_Match=f'"other", {first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    zipped = api.get(path, Accept_Encoding="gzip", If_None_Match=first.headers["etag"])
    assert zipped.status == 200
    assert zipped.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in zipped.headers["vary"]


def test_a_parameter_that_is_wrong_is_named(api: Any) -> None:
    reply = api.get("/v1/predictions?symbol=AIG&limit=0&form=noon&from=noon")
    assert reply.status == 422
    assert {error["name"] for error in reply.json["errors"]} == {"limit", "form", "from"}
    assert "2026-11-25T09:30:00" in reply.json["detail"]
    assert orjson.loads(reply.body)["type"] == "urn:tickloom:problem:bad-parameter"
