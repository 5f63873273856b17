"""Latencies and lags equal numpy on the time stamps of predictions; room is what the server says of its parts."""

import numpy as np
import pandas as pd
import pytest
from book_answers import Ask, frame, same, start_of
from book_market import MINUTE, OPEN_NS, Market, S
from clickhouse_driver import Client

from stream.embedded.clickhouse import EmbeddedClickHouse

STAGES = {
    "features": ("consumed_ns", "features_ns"),
    "inference": ("features_ns", "inferred_ns"),
    "publish": ("inferred_ns", "published_ns"),
    "source_to_consumed": ("recv_ns", "consumed_ns"),
    "tick_to_prediction": ("recv_ns", "published_ns"),
}


def stages_of(market: Market) -> pd.DataFrame:
    rows = market.predictions
    return pd.DataFrame({stage: (rows[end] - rows[start]) / 1e3 for stage, (start, end) in STAGES.items()})


def test_percentiles_of_stages_are_those_of_numpy(ask: Ask, market: Market) -> None:
    stages, found = stages_of(market), ask("latency_by_stage")
    assert found["stage"].tolist() == list(STAGES)
    assert (found["predictions"] == len(stages)).all()
    assert found["max_us"].tolist() == stages.max().tolist()
    for name, level, within in (
        ("p50_us", 50, 0.02),
        ("p90_us", 90, 0.02),
        ("p99_us", 99, 0.03),
        ("p999_us", 99.9, 0.1),
    ):
        np.testing.assert_allclose(found[name], np.percentile(stages, level, axis=0), rtol=within, err_msg=name)


def test_an_hour_of_latencies_is_told_by_its_minutes(ask: Ask, market: Market) -> None:
    total = stages_of(market)["tick_to_prediction"]
    minutes = start_of(market.predictions["published_ns"], MINUTE)
    by = total.groupby(minutes)
    worst = by.quantile(0.99)
    found = ask("latency_history")
    assert found["hour"].tolist() == sorted(set(start_of(minutes, 60 * MINUTE)))
    assert found["predictions"].sum() == len(total)
    assert found["max_us"].max() == pytest.approx(total.max(), rel=0.01), "three digits are kept"
    np.testing.assert_allclose(found["worst_p99_us"].max(), worst.max(), rtol=0.02)
    assert found["typical_p50_us"].iloc[0] == pytest.approx(by.median().median(), rel=0.02)
    assert set(found["worst_minute"]) <= set(minutes)


def test_the_slowest_predictions_name_the_stage_that_kept_them(ask: Ask, market: Market) -> None:
    stages, rows = stages_of(market), frame(market.predictions)
    slowest = stages["tick_to_prediction"].sort_values(ascending=False).index[:20]
    parts = stages.loc[slowest].drop(columns="tick_to_prediction")
    expected = pd.DataFrame(
        {
            "symbol": rows.loc[slowest, "symbol"],
            "seq": rows.loc[slowest, "seq"],
            "published_time": rows.loc[slowest, "published_ns"],
            "tick_to_prediction_us": stages.loc[slowest, "tick_to_prediction"],
            "stage": parts.idxmax(axis=1),
            "stage_us": parts.max(axis=1),
            "share": parts.max(axis=1) / stages.loc[slowest, "tick_to_prediction"],
            "source_offset": rows.loc[slowest, "source_offset"],
        }
    )
    same(ask("slowest_predictions"), expected)


def test_predictions_a_second_are_counted_by_our_clock(ask: Ask, market: Market) -> None:
    rows = frame(market.predictions)
    seconds = rows.groupby(start_of(rows["published_ns"], S)).size()
    minute = start_of(seconds.index.to_numpy(), MINUTE)
    by = seconds.groupby(minute)
    symbols = rows.groupby(start_of(rows["published_ns"], MINUTE))["symbol"].nunique()
    expected = pd.DataFrame(
        {"predictions": by.sum(), "per_s": by.sum() / 60, "busiest_s": by.max(), "symbols": symbols}
    )
    same(ask("throughput"), expected.reset_index(names="minute"))


def test_the_lag_of_a_partition_is_told_to_its_newest_tick(ask: Ask, market: Market) -> None:
    found = ask("lag_by_partition", minutes=100_000_000)
    newest = market.predictions[market.predictions["event_ns"].argmax()]
    assert found["source_partition"].tolist() == [0]
    row = found.iloc[0]
    assert row["predictions"] == len(market.predictions)
    assert (row["newest_event_time"], row["behind_newest_s"]) == (newest["event_ns"], 0)
    assert row["newest_offset"] == market.predictions["source_offset"].max()
    assert row["newest_published_time"] == market.predictions["published_ns"].max()
    assert row["p99_ms"] >= row["p50_ms"] > 0
    recent = ask("lag_by_partition", minutes=1)
    is_recent = market.predictions["event_ns"] >= newest["event_ns"] - MINUTE
    assert recent["predictions"].tolist() == [is_recent.sum()]


def test_the_room_of_tables_is_what_their_parts_take(
    ask: Ask, market: Market, clickhouse: EmbeddedClickHouse
) -> None:
    found = ask("storage").set_index("table")
    assert {"ticks", "rejected", "predictions", "outcomes", "bars_1s"} <= set(found.index)
    assert found.loc["ticks", "rows"] == len(market.ticks)
    assert found.loc["outcomes", "rows"] == len(market.outcomes) + len(market.shadow_outcomes)
    assert (found["bytes_per_row"] * found["rows"]).to_numpy() == pytest.approx(found["bytes_on_disk"].to_numpy())
    assert found.loc["ticks", "first_partition"] == f"{pd.Timestamp(OPEN_NS):%Y%m%d}"
    assert found.loc["ticks", "parts"] >= 3, "three days"
    columns = ask("storage_by_column", limit=1_000)
    per_table = columns.groupby("table")["share"].sum()
    np.testing.assert_allclose(per_table, 1.0)
    with Client.from_url(clickhouse.url) as client:
        for table, bytes_there in columns.groupby("table")["compressed_bytes"].sum().items():
            # Each part has marks and a primary key beside its columns.
            query = "SELECT sum(data_compressed_bytes) FROM system.parts WHERE active AND table = %(t)s"
            assert bytes_there <= client.execute(query, {"t": table})[0][0]
