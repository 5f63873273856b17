"""Spreads, flows and sizes in SQL equal numpy and pandas on the same ticks, in the order in which they came."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from book_answers import BPS, Ask, frame, same, start_of
from book_market import MINUTE, Market, S

AIG = "AIG"
CRYPTO = "BTCUSDT.usdm"  # its trades tell the aggressor


def quotes_of(market: Market, symbol: str) -> pd.DataFrame:
    ticks = frame(market.ticks_of(symbol))
    quotes = ticks[ticks["kind"] == 2]
    return quotes.assign(mid=0.5 * (quotes["bid"] + quotes["ask"]))


def last_before(places: Any, values: Any, wanted: Any) -> Any:
    """Return the last of ``values`` at or before each wanted place; NaN where there is none."""
    at = np.searchsorted(np.asarray(places), np.asarray(wanted), "right")
    return np.concatenate([[np.nan], np.asarray(values)])[at]


def test_a_spread_counts_for_as_long_as_it_stood(ask: Ask, market: Market) -> None:
    quotes = quotes_of(market, AIG).drop_duplicates("event_ns", keep="last")
    times = quotes["event_ns"].to_numpy()
    spread = ((quotes["ask"] - quotes["bid"]) / quotes["mid"] * BPS).to_numpy()
    edges = np.unique(np.clip(np.arange(times[0] // MINUTE, times[-1] // MINUTE + 2) * MINUTE, times[0], times[-1]))
    expected = pd.DataFrame({"time": start_of(edges[:-1], MINUTE)})
    for name, values in (
        ("spread_bps", spread),
        ("bid_size", quotes["bid_size"].to_numpy()),
        ("ask_size", quotes["ask_size"].to_numpy()),
    ):
        integral = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(times) / S)])
        at_edges = np.interp((edges - times[0]) / S, (times - times[0]) / S, integral)
        expected[name] = np.diff(at_edges) / (np.diff(edges) / S)
    found = ask("spread", symbol=AIG)
    same(found, expected, rtol=1e-7)
    assert (found["narrowest_bps"] <= found["spread_bps"] + 1e-9).all()
    assert (found["widest_bps"] >= found["spread_bps"] - 1e-9).all()
    assert found["widest_bps"].max() == pytest.approx(spread[:-1].max())


def test_a_crossed_quote_that_was_refused_widens_no_spread(ask: Ask, market: Market) -> None:
    crossed = market.rejected["tick"][market.rejected["reason"] == 4]
    assert len(crossed) > 0
    assert ask("spread", symbol=AIG)["narrowest_bps"].min() >= 0


@pytest.mark.parametrize("symbol", [AIG, CRYPTO])
def test_the_effective_spread_is_what_was_paid_and_what_was_kept(ask: Ask, market: Market, symbol: str) -> None:
    ticks, quotes = frame(market.ticks_of(symbol)), quotes_of(market, symbol)
    trades = ticks[(ticks["kind"] == 1) & (ticks["size"] > 0)].copy()
    trades["mid"] = last_before(quotes["place"], quotes["mid"], trades["place"])
    at_end = quotes.sort_values(["event_ns", "place"])
    trades["later"] = last_before(at_end["event_ns"], at_end["mid"], trades["event_ns"] + 5 * S)
    trades = trades[trades["mid"].notna() & (trades["event_ns"] + 5 * S <= quotes["event_ns"].max())]
    side = np.where(trades["side"] != 0, trades["side"], np.sign(trades["price"] - trades["mid"]))
    size = trades["size"]
    table = pd.DataFrame(
        {
            "time": start_of(trades["event_ns"], 30 * MINUTE),
            "size": size,
            "paid": size * 2 * (trades["price"] - trades["mid"]).abs() / trades["mid"] * BPS,
            "kept": size * 2 * side * (trades["price"] - trades["later"]) / trades["mid"] * BPS,
            "moved": size * 2 * side * (trades["later"] - trades["mid"]) / trades["mid"] * BPS,
        }
    )
    by = table.groupby("time")
    sums = by.sum()
    expected = pd.DataFrame(
        {
            "time": sums.index,
            "trades": by.size().to_numpy(),
            "effective_bps": (sums["paid"] / sums["size"]).to_numpy(),
            "realised_bps": (sums["kept"] / sums["size"]).to_numpy(),
            "impact_bps": (sums["moved"] / sums["size"]).to_numpy(),
        }
    )
    same(ask("effective_spread", symbol=symbol), expected, rtol=1e-7)


def test_order_flow_is_conts_and_its_correlation_that_of_numpy(ask: Ask, market: Market) -> None:
    quotes = quotes_of(market, AIG)
    before = quotes.shift(1)
    e = (
        np.where(quotes["bid"] >= before["bid"], quotes["bid_size"], 0)
        - np.where(quotes["bid"] <= before["bid"], before["bid_size"], 0)
        - np.where(quotes["ask"] <= before["ask"], quotes["ask_size"], 0)
        + np.where(quotes["ask"] >= before["ask"], before["ask_size"], 0)
    )
    e[0] = 0
    table = quotes.assign(e=e, depth=0.5 * (quotes["bid_size"] + quotes["ask_size"]))
    by = table.groupby(start_of(quotes["event_ns"], 10 * S))
    mid = by["mid"].last()
    expected = pd.DataFrame({"quotes": by.size(), "order_flow": by["e"].sum(), "depth": by["depth"].mean()})
    expected["imbalance"] = expected["order_flow"] / expected["depth"]
    expected["mid_return_bps"] = (mid / mid.shift(1) - 1).fillna(0) * BPS
    expected["correlation"] = expected["imbalance"].corr(expected["mid_return_bps"])
    same(ask("order_flow_imbalance", symbol=AIG), expected.reset_index(names="time"), atol=1e-7)
    assert expected["correlation"].iloc[0] > 0.2, "the flow of orders moves the price of real stocks"


def test_what_the_book_foretells_is_what_the_mid_then_did(ask: Ask, market: Market) -> None:
    quotes = quotes_of(market, AIG)
    at_end = quotes.sort_values(["event_ns", "place"])
    later = last_before(at_end["event_ns"], at_end["mid"], quotes["event_ns"] + 5 * S)
    known = quotes["event_ns"] + 5 * S <= quotes["event_ns"].max()
    depth = quotes["bid_size"] + quotes["ask_size"]
    micro = (quotes["bid"] * quotes["ask_size"] + quotes["ask"] * quotes["bid_size"]) / depth
    imbalance = (quotes["bid_size"] - quotes["ask_size"]) / depth
    table = pd.DataFrame(
        {
            "bucket": np.minimum(np.floor(imbalance * 5) / 5, 0.8),
            "gap": (micro / quotes["mid"] - 1) * BPS,
            "move": (later / quotes["mid"] - 1) * BPS,
            "rose": later > quotes["mid"],
            "moved": later != quotes["mid"],
        }
    )[known & (depth > 0)]
    by = table.groupby("bucket")
    expected = pd.DataFrame(
        {
            "quotes": by.size(),
            "microprice_gap_bps": by["gap"].mean(),
            "mean_move_bps": by["move"].mean(),
            "up_share": by["rose"].sum() / by["moved"].sum(),
        }
    )
    same(ask("book_imbalance", symbol=AIG), expected.reset_index(names="imbalance_from"), atol=1e-7)


def signed(market: Market, symbol: str) -> pd.DataFrame:
    """Each trade with the verdict of each rule, one trade after the other."""
    ticks, quotes = frame(market.ticks_of(symbol)), quotes_of(market, symbol)
    trades = ticks[ticks["kind"] == 1]
    mids = last_before(quotes["place"], quotes["mid"], trades["place"])
    rows, price_before, test_before, known_before = [], None, 0, 0
    for price, told, mid in zip(trades["price"], trades["side"], mids, strict=True):
        by_quote = 0 if np.isnan(mid) else int(np.sign(price - mid))
        by_tick = 0 if price_before is None else int(np.sign(price - price_before))
        test_before = by_quote or by_tick or test_before
        known_before = int(told) or by_quote or by_tick or known_before
        rows.append((by_quote, by_tick, test_before, known_before))
        price_before = price
    names = ["quote test", "tick test", "Lee and Ready", "known"]
    return trades.reset_index(drop=True).join(pd.DataFrame(rows, columns=names))


@pytest.mark.parametrize("symbol", [AIG, CRYPTO])
def test_the_rules_of_direction_are_as_often_right_as_one_by_one(ask: Ask, market: Market, symbol: str) -> None:
    trades = signed(market, symbol)
    expected = []
    for rule in ("Lee and Ready", "quote test", "tick test"):
        says, told = trades[rule], trades["side"]
        judged = (says != 0) & (told != 0)
        right = (says == told)[judged].mean()
        expected.append(
            (rule, len(trades), (says != 0).mean(), (says > 0).sum() / (says != 0).sum(), judged.sum(), right)
        )
    columns = ["rule", "trades", "decided_share", "buy_share", "told", "right_share"]
    same(ask("tick_rule", symbol=symbol), pd.DataFrame(expected, columns=columns))


@pytest.mark.parametrize("symbol", [AIG, CRYPTO, "DEFAULT"])
def test_what_was_bought_and_sold_is_by_the_engines_rule(ask: Ask, market: Market, symbol: str) -> None:
    trades = signed(market, symbol)
    by = start_of(trades["event_ns"], MINUTE)
    sums = {
        name: trades["size"].where(trades["known"] == side, 0).groupby(by).sum()
        for name, side in (("bought", 1), ("sold", -1), ("unknown", 0))
    }
    expected = pd.DataFrame(sums)
    net = expected["bought"] - expected["sold"]
    expected["trade_flow"] = net / expected[["bought", "sold", "unknown"]].sum(axis=1)
    expected["cumulative"] = net.cumsum()
    same(ask("signed_volume", symbol=symbol), expected.reset_index(names="time"), atol=1e-6)


def test_sizes_of_trades_add_up_by_powers_of_ten(ask: Ask, market: Market) -> None:
    trades = frame(market.ticks_of(CRYPTO))
    size = trades.loc[trades["kind"] == 1, "size"]
    by = size.groupby(10.0 ** np.floor(np.log10(size) + 1e-9))
    expected = pd.DataFrame({"trades": by.size(), "volume": by.sum()})
    expected["share_of_trades"] = expected["trades"] / len(size)
    expected["share_of_volume"] = expected["volume"] / size.sum()
    found = ask("trade_sizes", symbol=CRYPTO)
    same(found, expected.reset_index(names="size_from"))
    middle = [np.sort(some.to_numpy())[len(some) // 2] for _, some in by]
    assert found["median_size"].tolist() == middle


def test_the_volume_of_a_price_is_that_of_its_trades(ask: Ask, market: Market) -> None:
    trades = frame(market.ticks_of(AIG))
    trades = trades[trades["kind"] == 1]
    cents = np.rint(trades["price"] * 100).astype(int)
    by = trades.groupby(cents)["size"]
    expected = pd.DataFrame(
        {"level": by.sum().index / 100, "volume": by.sum().to_numpy(), "trades": by.size().to_numpy()}
    )
    expected["share"] = expected["volume"] / expected["volume"].sum()
    expected["is_most"] = (expected["volume"] == expected["volume"].max()).astype(int)
    same(ask("volume_profile", symbol=AIG), expected)


def test_the_volume_of_an_hour_is_the_mean_of_its_days(ask: Ask, market: Market) -> None:
    rows = market.ticks_of("DEFAULT")
    hours = start_of(rows["event_ns"], 60 * MINUTE)
    expected = pd.DataFrame({"hour": hours, "size": rows["size"], "price": rows["price"]}).groupby("hour")
    height = (expected["price"].max() - expected["price"].min()) / expected["price"].first() * BPS
    table = pd.DataFrame(
        {"hour_of_day": np.arange(9), "days": 1, "volume_per_day": expected["size"].sum().to_numpy()}
    )
    table["share"] = table["volume_per_day"] / table["volume_per_day"].sum()
    table["mean_range_bps"] = height.to_numpy()
    same(ask("volume_by_hour", symbols="DEFAULT"), table)
