"""Windows by event time hold what they say, no less and no more. `test_kernel.py` compares them with the batch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from markets import FUTURE_NS, LATENESS_NS, Feed, equity_day, from_columns

from agents import features
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from stream.records import Records, TickKind

SECOND_NS = 1_000_000_000
START_NS = 1_600_000_000 * SECOND_NS


def rows_of(*ticks: Records, periods: Periods = DEFAULT) -> list[dict[str, float]]:
    windows = Windows(LATENESS_NS, FUTURE_NS, 4, periods=periods, outlier_bps=np.inf)
    step = windows.step(np.concatenate(ticks), np.zeros(sum(map(len, ticks)), np.int64))
    assert not step.reason.any()
    return [dict(zip(features.names(periods), row.tolist(), strict=True)) for row in step.features]


def at(second: float) -> dict[str, int]:
    now_ns = START_NS + round(second * SECOND_NS)
    return {"event_ns": now_ns, "recv_ns": now_ns}


def ticks_in_10_s(row: dict[str, float]) -> int:
    return round(10 * np.expm1(row["tick_rate_10s_log"]))


def test_a_window_is_nine_tenths_to_all_of_its_length() -> None:
    feed = Feed()
    # Buckets of a second: that of 0.0 to 0.99 is in the window until 10.
    for last, held in ((9.0, 2), (9.99, 2), (10.0, 1), (100.0, 1)):
        assert ticks_in_10_s(rows_of(feed.trade("X", 1.0, **at(0.99)), feed.trade("X", 1.0, **at(last)))[1]) == held


def test_the_rate_of_change_starts_from_the_price_that_stood_when_the_window_began() -> None:
    feed = Feed()
    prices = ((0.0, 100.0), (0.5, 110.0), (5.0, 120.0), (10.0, 121.0), (11.0, 132.0), (200.0, 198.0))
    ticks = [feed.trade("X", price, **at(second)) for second, price in prices]
    roc = [round(row["roc_10s_bps"], 3) for row in rows_of(*ticks)]
    # At 10 and at 11 the window begins at 1 and at 2, where 110 stood; at 200 it begins where 132 stood.
    assert roc == [0.0, 1000.0, 2000.0, 1000.0, 2000.0, 5000.0]


def test_the_vwap_is_of_trades_and_its_distance_is_that_of_the_mid() -> None:
    feed = Feed()
    ticks = [
        feed.quote("X", 99.0, 101.0, **at(0)),
        feed.trade("X", 101.0, 30.0, **at(0.1)),
        feed.trade("X", 99.0, 10.0, **at(0.2)),
        feed.quote("X", 110.0, 110.0, **at(8.0)),
        feed.quote("X", 110.0, 110.0, **at(20.0)),
    ]
    rows = rows_of(*ticks)
    vwap = (101.0 * 30 + 99.0 * 10) / 40
    for row, expected in zip(rows, (0.0, 100 / 101, 100 / vwap, 110 / vwap, 0.0), strict=True):
        assert row["vwap_gap_10s_bps"] == (0.0 if expected == 0 else np.float32((expected - 1) * 1e4))
    assert [row["trade_flow_10s"] for row in rows] == [0.0, 1.0, 0.5, 0.5, 0.0]


def test_the_vwap_is_the_published_one(shared_data: Path) -> None:
    bars = pq.read_table(shared_data / "indicators" / "quotes_default.parquet").to_pandas()
    reference = pq.read_table(shared_data / "indicators" / "reference_default.parquet").to_pandas()
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    trades = pd.DataFrame({"ts_ns": START_NS + np.arange(len(bars)) * SECOND_NS, "price": typical, "kind": 1})
    trades["size"] = bars["volume"]
    ticks = from_columns("DEFAULT", trades)
    periods = Periods(windows_s=(1.0, 10.0, 60.0, 1000.0))
    windows = Windows(LATENESS_NS, FUTURE_NS, 4, periods=periods, outlier_bps=np.inf)
    place = features.names(periods).index("vwap_gap_1000s_bps")
    for index in range(len(ticks)):
        windows.step(ticks[index : index + 1], np.array([index]))
        vwap = typical[index] / (windows.exact[place] / 1e4 + 1)
        assert abs(vwap / reference["vwap.vwap"][index] - 1) < 1e-9


def test_a_window_equals_pandas_on_a_recorded_day(shared_data: Path) -> None:
    ticks = equity_day(shared_data, "BAC", "20131007", 40_000)
    ticks = ticks[ticks["kind"] == TickKind.TRADE]
    rows = pd.DataFrame(rows_of(ticks))
    frame = pd.DataFrame({"price": ticks["price"], "size": ticks["size"]})
    frame["notional"] = frame["price"] * frame["size"]
    frame["squares"] = (np.log(frame["price"]).diff().fillna(0) * 1e4) ** 2
    # As of the end of the open bucket, a window is what pandas has for a fixed span.
    bucket_ns = 6 * SECOND_NS
    frame.index = pd.DatetimeIndex(ticks["event_ns"] // bucket_ns * bucket_ns)
    sums = frame.rolling("60s").sum().reset_index(drop=True)
    assert len(sums) > 3000
    for name, expected in (
        ("vwap_gap_60s_bps", (ticks["price"] / (sums["notional"] / sums["size"]) - 1) * 1e4),
        ("volatility_60s_bps", np.sqrt(sums["squares"])),
    ):
        np.testing.assert_allclose(rows[name], expected, rtol=1e-6, atol=1e-5)


def test_a_tick_that_comes_late_counts_at_the_newest_time() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 1.0, **at(20.0)), feed.trade("X", 1.0, **at(15.5)), feed.trade("X", 1.0, **at(29.9))]
    assert ticks_in_10_s(rows_of(*ticks)[2]) == 3
    assert ticks_in_10_s(rows_of(*ticks, feed.trade("X", 1.0, **at(30.0)))[3]) == 2


def test_a_window_forgets_a_wild_print_to_the_last_bit() -> None:
    rng = np.random.default_rng(3)
    price = 49.0 + np.cumsum(rng.choice([-0.01, 0.0, 0.01], 300))
    wild = price.copy()
    wild[100] *= 1e6
    rows = []
    for prices in (price, wild):
        feed = Feed()
        rows.append(rows_of(*(feed.trade("X", float(each), **at(0.1 * n)) for n, each in enumerate(prices))))
    names = [name for name in features.NAMES if "_10s_" in name or ("_1s_" in name and "bar" not in name)]
    assert len(names) > 10
    for name in names:
        assert rows[0][220][name] == rows[1][220][name], name
