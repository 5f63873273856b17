"""Prices in SQL equal pandas on the same ticks, published values of the indicators, and the engine's features."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from book_answers import BPS, Ask, frame, same, start_of
from book_market import DEFAULT_NS, MINUTE, Market, S

from agents.features import NAMES


def trades_of(market: Market, symbol: str) -> pd.DataFrame:
    ticks = frame(market.ticks_of(symbol))
    return ticks[ticks["kind"] == 1]


def price_bars_of(market: Market, symbol: str, length_ns: int) -> pd.DataFrame:
    """Bars of the reference price by pandas, each tick at the newest time of its symbol."""
    rows = frame(market.predictions_of(symbol))
    ticks = frame(market.ticks_of(symbol))
    assert (rows["event_ns"].to_numpy() == ticks["event_ns"].to_numpy()).all()
    size = np.where(ticks["kind"] == 1, ticks["size"], 0)
    newest = np.maximum.accumulate(rows["event_ns"].to_numpy())
    by = rows.assign(size=size, is_trade=ticks["kind"] == 1).groupby(start_of(newest, length_ns))
    prices = by["ref_price"]
    bars = pd.DataFrame(
        {
            "open": prices.first(),
            "high": prices.max(),
            "low": prices.min(),
            "close": prices.last(),
            "volume": by["size"].sum(),
            "ticks": by.size(),
            "trades": by["is_trade"].sum(),
        }
    )
    return bars.reset_index(names="time")


def bars_of(market: Market, symbol: str, length_ns: int) -> pd.DataFrame:
    """Bars of accepted trades by pandas; ``time`` is their start."""
    trades = trades_of(market, symbol)
    by = trades.assign(notional=trades["price"] * trades["size"]).groupby(start_of(trades["event_ns"], length_ns))
    bars = pd.DataFrame(
        {
            "open": by["price"].first(),
            "high": by["price"].max(),
            "low": by["price"].min(),
            "close": by["price"].last(),
            "volume": by["size"].sum(),
            "notional": by["notional"].sum(),
            "trades": by.size(),
        }
    )
    return bars.reset_index(names="time")


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> pd.DataFrame:
    return pq.read_table(shared_data / "indicators" / "reference_default.parquet").to_pandas()


@pytest.mark.parametrize("seconds", [1, 10, 60, 3600])
@pytest.mark.parametrize("symbol", ["AIG", "BAC"])
def test_bars_are_those_of_pandas(ask: Ask, market: Market, symbol: str, seconds: int) -> None:
    bars = bars_of(market, symbol, seconds * S)
    bars["vwap"] = bars.pop("notional") / bars["volume"]
    same(ask("ohlcv", symbol=symbol, seconds=seconds), bars)


@pytest.mark.parametrize("seconds", [1, 60, 3600])
def test_bars_of_the_reference_price_are_those_of_pandas(ask: Ask, market: Market, seconds: int) -> None:
    same(ask("price_bars", symbol="AIG", seconds=seconds), price_bars_of(market, "AIG", seconds * S))


def test_bars_of_mids_are_those_of_quotes(ask: Ask, market: Market) -> None:
    quotes = frame(market.ticks_of("AIG"))
    quotes = quotes[quotes["kind"] == 2]
    mids = 0.5 * (quotes["bid"] + quotes["ask"])
    closes = mids.groupby(start_of(quotes["event_ns"], MINUTE)).last()
    expected = pd.DataFrame({"time": closes.index, "close": closes, "sma": closes.rolling(20, 1).mean()})
    same(ask("moving_averages", symbol="AIG", kind="quote"), expected)


def test_a_range_of_times_holds_its_start_and_not_its_end(ask: Ask, market: Market) -> None:
    bars = bars_of(market, "AIG", MINUTE)
    start, end = bars["time"].iloc[[5, 9]]
    found = ask("ohlcv", symbol="AIG", from_=pd.Timestamp(start), to=pd.Timestamp(end))
    same(found, bars.iloc[5:9][["time", "open", "high", "low", "close", "volume", "trades"]])


def test_the_running_vwap_is_that_of_all_trades_so_far(ask: Ask, market: Market) -> None:
    bars = bars_of(market, "AIG", 5 * MINUTE)
    running = bars["notional"].cumsum() / bars["volume"].cumsum()
    expected = bars[["time", "close", "volume"]].assign(
        bar_vwap=bars["notional"] / bars["volume"],
        running_vwap=running,
        gap_bps=(bars["close"] / running - 1) * BPS,
    )
    same(ask("vwap", symbol="AIG", minutes=5), expected, atol=1e-7)


def test_a_mid_counts_for_as_long_as_it_stood(ask: Ask, market: Market) -> None:
    quotes = frame(market.ticks_of("AIG"))
    quotes = quotes[quotes["kind"] == 2].drop_duplicates("event_ns", keep="last")
    times = quotes["event_ns"].to_numpy()
    mids = (0.5 * (quotes["bid"] + quotes["ask"])).to_numpy()
    # The integral of a step function is a broken line.
    offset = mids[0]
    integral = np.concatenate([[0.0], np.cumsum((mids[:-1] - offset) * np.diff(times) / S)])
    edges = np.unique(np.clip(np.arange(times[0] // MINUTE, times[-1] // MINUTE + 2) * MINUTE, times[0], times[-1]))
    known_s = np.diff(edges) / S
    twap = offset + np.diff(np.interp((edges - times[0]) / S, (times - times[0]) / S, integral)) / known_s
    expected = pd.DataFrame({"time": start_of(edges[:-1], MINUTE), "twap": twap, "known_s": known_s})
    same(ask("twap", symbol="AIG"), expected, rtol=1e-8)


def compare(found: pd.Series, reference: pd.Series, first: int = 0) -> None:
    """Wherever the reference has a value from ``first`` on; it is rounded."""
    known = reference.notna().to_numpy(copy=True)
    known[:first] = False
    assert known.sum() > 300
    np.testing.assert_allclose(found.to_numpy()[known], reference.to_numpy()[known], rtol=1e-9, atol=1e-9)


def test_averages_and_bands_are_the_published_ones(ask: Ask, reference: pd.DataFrame) -> None:
    averages = ask("moving_averages", symbol="DEFAULT")
    np.testing.assert_array_equal(averages["time"], DEFAULT_NS + np.arange(502) * MINUTE)
    compare(averages["sma"], reference["sma.sma"])
    compare(averages["ema"], reference["ema.ema"])
    bands = ask("bollinger", symbol="DEFAULT")
    compare(bands["middle"], reference["bb.sma"])
    compare(bands["lower"], reference["bb.lowerBand"])
    compare(bands["upper"], reference["bb.upperBand"])
    compare(bands["percent_b"], reference["bb.percentB"])
    compare(bands["width_bps"], reference["bb.width"] * BPS)


def test_rsi_and_macd_and_atr_are_the_published_ones(ask: Ask, reference: pd.DataFrame) -> None:
    compare(ask("rsi", symbol="DEFAULT")["rsi"], reference["rsi.rsi"])
    macd = ask("macd", symbol="DEFAULT")
    compare(macd["macd"], reference["macd.macd"])
    compare(macd["signal_line"], reference["macd.signal"])
    compare(macd["histogram"], reference["macd.histogram"])
    atr = ask("atr", symbol="DEFAULT")
    compare(atr["true_range"], reference["atr.tr"])
    compare(atr["atr"], reference["atr.atr"])


def test_channels_and_rates_of_change_are_those_of_pandas(ask: Ask, market: Market) -> None:
    bars = bars_of(market, "DEFAULT", MINUTE)
    highest, lowest = bars["high"].rolling(20, 1).max(), bars["low"].rolling(20, 1).min()
    position = (bars["close"] - lowest) / (highest - lowest)
    roc_bps = (bars["close"] / bars["close"].shift(10) - 1).fillna(0) * BPS
    expected = bars[["time", "close"]].assign(highest=highest, lowest=lowest, position=position, roc_bps=roc_bps)
    same(ask("channel", symbol="DEFAULT"), expected, atol=1e-7)


def test_indicators_are_the_engines_own_features_after_each_bar(ask: Ask, market: Market) -> None:
    rows = market.predictions["symbol"] == b"AIG"
    features = pd.DataFrame(market.features[rows], columns=list(NAMES))
    events_ns = market.predictions["event_ns"][rows]
    bars = bars_of(market, "AIG", MINUTE)
    # The first tick after a bar is the first that knows it.
    after = np.searchsorted(np.maximum.accumulate(events_ns), bars["time"].to_numpy() + MINUTE)
    known = after < len(events_ns)
    after = after[known]
    assert known.sum() > 40
    averages, fast = ask("moving_averages", symbol="AIG"), ask("moving_averages", symbol="AIG", period=12)
    macd, bands, channel = ask("macd", symbol="AIG"), ask("bollinger", symbol="AIG"), ask("channel", symbol="AIG")
    close = averages["close"]
    in_sql = {
        "bar_60s_sma_20_gap_bps": averages["sma_gap_bps"],
        "bar_60s_ema_12_gap_bps": fast["ema_gap_bps"],
        "bar_60s_rsi_14": ask("rsi", symbol="AIG")["rsi"],
        "bar_60s_macd_12_26_bps": macd["macd"] / close * BPS,
        "bar_60s_macd_12_26_9_signal_bps": macd["signal_line"] / close * BPS,
        "bar_60s_macd_12_26_9_histogram_bps": macd["histogram"] / close * BPS,
        "bar_60s_bollinger_20_percent_b": bands["percent_b"],
        "bar_60s_bollinger_20_width_bps": bands["width_bps"],
        "bar_60s_atr_14_bps": ask("atr", symbol="AIG")["atr_bps"].fillna(0),
        "bar_60s_roc_10_bps": channel["roc_bps"],
        "bar_60s_channel_20_position": channel["position"],
    }
    for name, values in in_sql.items():
        own = features[name].to_numpy()[after]
        np.testing.assert_allclose(values.to_numpy()[known], own, rtol=2e-5, atol=1e-5, err_msg=name)


def log_returns(bars: pd.DataFrame) -> Any:
    return np.log(bars["close"] / bars["close"].shift(1)) * BPS


def test_realised_volatility_and_its_jumps_are_those_of_the_formulas(ask: Ask, market: Market) -> None:
    bars = price_bars_of(market, "DEFAULT", MINUTE)
    table = pd.DataFrame({"hour": start_of(bars["time"], 60 * MINUTE), "r": log_returns(bars)})
    table["h"] = np.log(bars["high"] / bars["low"]) * BPS
    expected = []
    for hour, some in table.iloc[1:].groupby("hour"):
        realised = np.sqrt((some["r"] ** 2).sum())
        bipower = np.sqrt(np.pi / 2 * (some["r"].abs() * some["r"].abs().shift(1)).sum())
        parkinson = np.sqrt((some["h"] ** 2).sum() / (4 * np.log(2)))
        jumps = max(0.0, 1 - (bipower / realised) ** 2)
        expected.append((hour, len(some), realised, bipower, jumps, parkinson))
    columns = ["hour", "returns", "realised_bps", "bipower_bps", "jump_share", "parkinson_bps"]
    same(ask("realised_volatility", symbol="DEFAULT"), pd.DataFrame(expected, columns=columns))


def test_symbols_that_move_together_are_those_of_pandas(ask: Ask, market: Market) -> None:
    returns = {}
    for symbol in ("AIG", "BAC"):
        bars = price_bars_of(market, symbol, MINUTE).set_index("time")
        returns[symbol] = log_returns(bars)[bars.index.to_series().diff() == MINUTE]
    table = pd.DataFrame(returns).dropna()
    expected = pd.DataFrame(
        [("AIG", "BAC", len(table), table["AIG"].corr(table["BAC"]))],
        columns=["one", "other", "returns", "correlation"],
    )
    same(ask("correlation"), expected)


def test_the_lag_of_one_symbol_behind_another_is_that_of_shifted_returns(ask: Ask, market: Market) -> None:
    returns = {}
    for symbol in ("AIG", "BAC"):
        bars = price_bars_of(market, symbol, S)
        seconds = bars["time"] // S
        change = log_returns(bars)[seconds.diff() == 1]
        returns[symbol] = pd.Series(change.to_numpy(), index=seconds[seconds.diff() == 1])
    expected = []
    for lag in range(-5, 6):
        shifted = pd.Series(returns["BAC"].to_numpy(), index=returns["BAC"].index - lag)
        both = pd.DataFrame({"a": returns["AIG"], "b": shifted}).dropna()
        expected.append((lag, len(both), both["a"].corr(both["b"])))
    found = ask("lead_lag", leader="AIG", follower="BAC", seconds=5)
    same(found, pd.DataFrame(expected, columns=["lag_s", "returns", "correlation"]))


def test_movers_are_in_the_order_of_their_moves(ask: Ask, market: Market) -> None:
    expected = []
    for symbol in ("AIG", "BAC", "BTCUSDT.usdm", "DEFAULT"):
        rows, ticks = frame(market.predictions_of(symbol)), frame(market.ticks_of(symbol))
        prices, paid = rows["ref_price"], (ticks["price"] * ticks["size"])[ticks["kind"] == 1]
        first, last = prices.iloc[0], prices.iloc[-1]
        height, trades = (prices.max() - prices.min()) / first * BPS, (ticks["kind"] == 1).sum()
        expected.append((symbol, first, last, (last / first - 1) * BPS, height, trades, paid.sum()))
    columns = ["symbol", "first", "last", "return_bps", "range_bps", "trades", "notional"]
    table = pd.DataFrame(expected, columns=columns).sort_values("return_bps", key=abs, ascending=False)
    same(ask("movers"), table, atol=1e-7)
