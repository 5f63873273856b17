"""Bars mean what a trader thinks they mean: against published values, TA-Lib and pandas, and by their own rules."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import talib
from batch_windows import over_bars
from markets import FUTURE_NS, LATENESS_NS, MS, Feed, from_columns

from agents import features
from agents.periods import DEFAULT, Periods
from agents.windows import Windows
from stream.records import Records, TickKind

SECOND_NS = 1_000_000_000
START_NS = 1_600_000_000 * SECOND_NS


def bars_as_ticks(bars: pd.DataFrame) -> Records:
    """Return each bar as four trades, open, high, low, close, in a second of its own; one more closes the last."""
    count = len(bars)
    prices = bars[["open", "high", "low", "close"]].to_numpy().ravel()
    ticks = pd.DataFrame(
        {
            "ts_ns": START_NS
            + np.repeat(np.arange(count) * SECOND_NS, 4)
            + np.tile(np.arange(4) * 200 * MS, count),
            "price": prices,
            "size": np.repeat(bars["volume"].to_numpy() / 4.0, 4),
            "kind": TickKind.TRADE.value,
        }
    )
    end = pd.DataFrame({"ts_ns": [START_NS + count * SECOND_NS], "price": prices[-1:], "size": 1.0, "kind": 1})
    return from_columns("BARS", pd.concat([ticks, end]))


def after_each_bar(bars: pd.DataFrame, periods: Periods = DEFAULT) -> pd.DataFrame:
    """Return the exact bar features after each bar, by their names without ``bar_1s_``."""
    ticks = bars_as_ticks(bars)
    windows = Windows(LATENESS_NS, FUTURE_NS, 4, periods=periods, outlier_bps=np.inf)
    rows = []
    for index in range(len(ticks)):
        windows.step(ticks[index : index + 1], np.array([index]))
        if index % 4 == 0 and index:
            rows.append(windows.exact.copy())
    table = pd.DataFrame(rows, columns=list(features.names(periods)))
    own = [name for name in table.columns if name.startswith("bar_1s_")]
    return table[own].rename(columns=lambda name: name.removeprefix("bar_1s_"))


def assert_close(got: Any, expected: Any, first: int = 0) -> None:
    """Within 1e-9 of each other wherever the reference has a value; gaps and bps are known to 1e-9 of the price."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    known = ~np.isnan(expected)
    known[:first] = False
    assert known.sum() > 30
    away = np.abs(got - expected)[known] / (1e-9 * np.abs(expected[known]) + 1e-9)
    assert away.max() <= 1, f"{np.flatnonzero(known)[away.argmax()]}: off by {away.max():.3g} times 1e-9"


@pytest.fixture(scope="module")
def daily(shared_data: Path) -> pd.DataFrame:
    return pq.read_table(shared_data / "indicators" / "quotes_default.parquet").to_pandas()


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> pd.DataFrame:
    return pq.read_table(shared_data / "indicators" / "reference_default.parquet").to_pandas()


def test_every_indicator_is_the_published_one_from_its_first_value(
    daily: pd.DataFrame, reference: pd.DataFrame
) -> None:
    close = daily["close"]
    got = after_each_bar(daily, Periods(bar_roc=14, bar_channel=14))
    assert_close(got["rsi_14"], reference["rsi.rsi"])
    assert_close(got["sma_20_gap_bps"], (close / reference["sma.sma"] - 1) * 1e4)
    assert_close(got["ema_12_gap_bps"], (close / reference["macd.fastEma"] - 1) * 1e4)
    assert_close(got["macd_12_26_bps"], reference["macd.macd"] / close * 1e4)
    assert_close(got["macd_12_26_9_signal_bps"], reference["macd.signal"] / close * 1e4)
    assert_close(got["macd_12_26_9_histogram_bps"], reference["macd.histogram"] / close * 1e4)
    assert_close(got["bollinger_20_percent_b"], reference["bb.percentB"])
    assert_close(got["bollinger_20_width_bps"], reference["bb.width"] * 1e4)
    assert_close(got["atr_14_bps"], reference["atr.atrp"] * 100)
    assert_close(got["roc_14_bps"], reference["roc.roc"] * 100)
    # The published oscillator is the mean of three places in the channel.
    assert_close(got["channel_14_position"].rolling(3).mean() * 100, reference["stoch.oscillator"])


def test_other_periods_are_the_published_ones_too(daily: pd.DataFrame, reference: pd.DataFrame) -> None:
    got = after_each_bar(daily, Periods(bar_ema_fast=20))
    assert_close(got["ema_20_gap_bps"], (daily["close"] / reference["ema.ema"] - 1) * 1e4)


BARS = [("daily_bokeh5", "MSFT", 1500), ("minute_coinbase", "BTCUSD", 1500), ("minute_us_equity", "SPY", 1500)]


@pytest.mark.parametrize(("file", "symbol", "count"), BARS, ids=[name for name, _, _ in BARS])
def test_bars_equal_ta_lib(shared_data: Path, file: str, symbol: str, count: int) -> None:
    table = pq.read_table(shared_data / "bars" / f"{file}.parquet").to_pandas()
    bars = table[(table["symbol"] == symbol) & (table["volume"] > 0)].tail(count).reset_index(drop=True)
    close, high, low = (bars[name].to_numpy(np.float64) for name in ("close", "high", "low"))
    got = after_each_bar(bars)
    assert_close(got["sma_20_gap_bps"], (close / talib.SMA(close, 20) - 1) * 1e4)
    assert_close(got["ema_12_gap_bps"], (close / talib.EMA(close, 12) - 1) * 1e4)
    assert_close(got["rsi_14"], talib.RSI(close, 14))
    assert_close(got["atr_14_bps"], talib.ATR(high, low, close, 14) / close * 1e4)
    assert_close(got["roc_10_bps"], talib.ROC(close, 10) * 100)
    lowest, highest = talib.MIN(low, 20), talib.MAX(high, 20)
    moved = highest > lowest
    place = np.divide(close - lowest, highest - lowest, out=np.full(len(close), 0.5), where=moved)
    assert_close(got["channel_20_position"], place, first=19)
    # TA-Lib has sigma as the root of mean square less squared mean: half of the digits are lost.
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    np.testing.assert_allclose(got["bollinger_20_width_bps"][19:], ((upper - lower) / middle * 1e4)[19:], rtol=1e-6)
    percent_b = ((close - lower) / (upper - lower))[19:]
    np.testing.assert_allclose(got["bollinger_20_percent_b"][19:], percent_b, rtol=1e-6, atol=1e-6)
    # TA-Lib starts the fast average 14 bars later than its own EMA does: (11/13)^n of the difference is left.
    for name, expected in zip(
        ("macd_12_26_bps", "macd_12_26_9_signal_bps", "macd_12_26_9_histogram_bps"), talib.MACD(close), strict=True
    ):
        assert_close(got[name], expected / close * 1e4, first=300)


def test_bars_equal_pandas(daily: pd.DataFrame) -> None:
    got = after_each_bar(daily)
    assert_close(got.to_numpy().ravel(), over_bars(daily, DEFAULT).ravel())
    returns = np.log(daily["close"]).diff() * 1e4
    assert_close(got["volatility_20_bps"], returns.rolling(20).std(ddof=0))


def bar_rows(*ticks: Records, periods: Periods = DEFAULT) -> list[dict[str, float]]:
    """Return the bar features after each tick."""
    windows = Windows(LATENESS_NS, FUTURE_NS, 4, periods=periods, outlier_bps=np.inf)
    step = windows.step(np.concatenate(ticks), np.zeros(len(ticks), np.int64))
    assert not step.reason.any()
    return [dict(zip(features.names(periods), row.tolist(), strict=True)) for row in step.features]


def at(second: float) -> dict[str, int]:
    now_ns = START_NS + round(second * SECOND_NS)
    return {"event_ns": now_ns, "recv_ns": now_ns}


ROC_1 = Periods(bar_roc=1)


def test_an_open_bar_changes_nothing() -> None:
    feed = Feed()
    ticks = [
        feed.trade("X", price, **at(second)) for second, price in ((0, 10), (1, 11), (2, 12), (2.5, 99), (2.9, 1))
    ]
    rows = bar_rows(*ticks, periods=ROC_1)
    assert rows[2]["bar_1s_roc_1_bps"] == 1000.0
    bar_names = [name for name in rows[2] if name.startswith("bar_")]
    for row in rows[3:]:
        assert [row[name] for name in bar_names] == [rows[2][name] for name in bar_names]


def test_an_interval_without_a_price_makes_no_bar() -> None:
    feed = Feed()
    ticks = [feed.trade("X", 10.0, **at(0)), feed.trade("X", 11.0, **at(50)), feed.trade("X", 12.0, **at(51))]
    # The bar before that of 11 is that of 10, 50 seconds earlier.
    assert bar_rows(*ticks, periods=ROC_1)[2]["bar_1s_roc_1_bps"] == 1000.0


def test_a_quote_closes_a_bar_of_trades_and_adds_nothing_to_it() -> None:
    feed = Feed()
    ticks = [
        feed.trade("X", 10.0, **at(0)),
        feed.trade("X", 11.0, **at(1)),
        feed.quote("X", 500.0, 502.0, **at(1.5)),
        feed.quote("X", 700.0, 702.0, **at(2)),
        feed.quote("X", 700.0, 702.0, **at(9)),
    ]
    rows = bar_rows(*ticks, periods=ROC_1)
    assert [row["bar_1s_roc_1_bps"] for row in rows] == [0.0, 0.0, 0.0, 1000.0, 1000.0]


def test_a_symbol_that_never_traded_makes_bars_of_its_mid_until_its_first_trade() -> None:
    feed = Feed()
    ticks = [
        feed.quote("X", 9.0, 11.0, **at(0)),
        feed.quote("X", 10.0, 12.0, **at(1)),
        feed.quote("X", 20.0, 22.0, **at(2)),
        feed.trade("X", 22.0, **at(2.5)),
        feed.quote("X", 90.0, 92.0, **at(2.6)),
        feed.quote("X", 90.0, 92.0, **at(3)),
    ]
    rows = bar_rows(*ticks, periods=Periods(bar_roc=1, bar_channel=2))
    assert rows[2]["bar_1s_roc_1_bps"] == 1000.0  # 10 to 11: mids
    assert rows[5]["bar_1s_roc_1_bps"] == 10_000.0  # 11, a mid, to 22, a trade
    # The low of the last two bars is 11: the mid of 21 was dropped, and would not have been the low anyway; the
    # high is 22, not the mid of 91.
    assert rows[5]["bar_1s_channel_2_position"] == 1.0


def test_a_late_trade_counts_in_the_open_bar() -> None:
    feed = Feed()
    ticks = [
        feed.trade("X", 10.0, **at(0.9)),
        feed.trade("X", 11.0, **at(1.1)),
        feed.trade("X", 12.0, **at(0.95)),
        feed.trade("X", 1.0, **at(2)),
    ]
    assert bar_rows(*ticks, periods=ROC_1)[3]["bar_1s_roc_1_bps"] == 2000.0


def test_a_bar_is_the_open_high_low_close_and_volume_of_its_trades() -> None:
    feed = Feed()
    windows = Windows(LATENESS_NS, FUTURE_NS, 4, outlier_bps=np.inf)
    prices = ((0.1, 10.0, 1.0), (0.2, 12.0, 2.0), (0.3, 9.0, 4.0), (0.4, 11.0, 8.0))
    for second, price, size in prices:
        windows.step(feed.trade("X", price, size, **at(second)), np.zeros(1, np.int64) + round(second * 10))
    bar = windows.states[0]["bars"][0]
    assert [float(bar[name]) for name in ("open", "high", "low", "close", "volume")] == [
        10.0,
        12.0,
        9.0,
        11.0,
        15.0,
    ]
    assert bar["prices"] == 4
