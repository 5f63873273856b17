from typing import Any

import numpy as np
from pydantic import SecretStr

from stream.embedded.ports import free_port
from stream.records import Records
from stream.settings import Settings


def last(rows: Records, symbol: bytes) -> Any:
    return rows[rows["symbol"] == symbol][-1]


def test_the_newest_predictions_are_the_last_ones(api: Any, rows: Records) -> None:
    answer = api.get("/v1/predictions/latest").json
    assert (answer["source"], answer["next"]) == ("redis", None)
    assert [row["symbol"] for row in answer["data"]] == ["AIG", "BAC"]
    for row in answer["data"]:
        ours = last(rows, row["symbol"].encode())
        assert row["seq"] == ours["seq"]
        assert row["ref_price"] == ours["ref_price"]
        assert np.float32(row["p_up"]) == ours["p_up"]
        assert np.datetime64(row["event_time"][:-1], "ns").astype(int) == ours["event_ns"]
        assert api.get(f"/v1/predictions/latest/{row['symbol']}").json == row


def test_while_redis_is_away_clickhouse_answers_the_same(api: Any, filled: Settings, run_api: Any) -> None:
    away = filled.model_copy(update={"redis": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    with run_api(away) as other:
        got = other.get("/v1/predictions/latest?symbols=BAC,AIG").json
        wanted = api.get("/v1/predictions/latest?symbols=BAC,AIG").json
        assert got.pop("source") == "clickhouse"
        assert wanted.pop("source") == "redis"
        assert got == wanted
        assert {"AIG", "BAC"} <= set(other.get("/v1/symbols").json["data"])
        ready = other.get("/v1/ready")
        assert ready.status == 200


def test_with_both_away_it_says_so(filled: Settings, run_api: Any) -> None:
    port = free_port()
    update = {
        "redis": SecretStr(f"redis://127.0.0.1:{port}/0"),
        "clickhouse": SecretStr(f"clickhouse://default@127.0.0.1:{port}/default"),
        "kafka": None,
    }
    with run_api(filled.model_copy(update=update)) as api:
        reply = api.get("/v1/predictions/latest/AIG")
        assert (reply.status, reply.json["code"]) == (503, "unavailable")
        assert "Redis" in reply.json["detail"]
        assert "ClickHouse" in reply.json["detail"]
        assert int(reply.headers["retry-after"]) > 0


def test_symbols_come_page_by_page_and_by_their_beginning(api: Any) -> None:
    first = api.get("/v1/symbols?limit=1").json
    assert first["data"] == ["AIG"]
    assert api.get(f"/v1/symbols?limit=1&cursor={first['next']}").json == {"data": ["BAC"], "next": None}
    assert api.get("/v1/symbols?start=B").json["data"] == ["BAC"]
    assert api.get("/v1/predictions/latest?limit=1").json["data"][0]["symbol"] == "AIG"


def test_a_symbol_without_a_prediction_is_not_found(api: Any) -> None:
    reply = api.get("/v1/predictions/latest/NOBODY")
    assert (reply.status, reply.json["code"]) == (404, "not-found")
    assert api.get("/v1/predictions/latest?symbols=NOBODY,AIG").json["data"][0]["symbol"] == "AIG"
