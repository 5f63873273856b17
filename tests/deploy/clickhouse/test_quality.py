"""What is said of the data is what was done to it: forged ticks are found, repeats are seen and counted once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from book_answers import BPS, Ask, frame, same, start_of
from book_market import HALTED_AT, LATENESS_NS, MINUTE, Market, S

from exporters.clickhouse.book import queries
from stream.records import Reject

AskOf = Callable[[Market], Ask]
SYMBOLS = ("AIG", "BAC", "BTCUSDT.usdm", "DEFAULT")


def all_ticks(market: Market, symbol: str) -> pd.DataFrame:
    return frame(market.ticks["tick"][market.ticks["tick"]["symbol"] == symbol.encode()])


def test_what_there_is_is_counted_by_symbol(ask: Ask, market: Market) -> None:
    expected = []
    for symbol in SYMBOLS:
        ticks = frame(market.ticks_of(symbol))
        trades = ticks[ticks["kind"] == 1]
        expected.append(
            (
                symbol,
                start_of(ticks["event_ns"].min(), MINUTE),
                start_of(ticks["event_ns"].max(), MINUTE),
                len(ticks),
                len(trades),
                (ticks["kind"] == 2).sum(),
                (trades["price"] * trades["size"]).sum(),
            )
        )
    columns = ["symbol", "first", "last", "ticks", "trades", "quotes", "notional"]
    table = pd.DataFrame(expected, columns=columns).sort_values("ticks", ascending=False)
    same(ask("activity"), table)


def test_the_longest_silences_are_found_with_their_ends(ask: Ask, market: Market) -> None:
    times = np.sort(market.ticks_of("BAC")["event_ns"])
    gaps = pd.DataFrame({"last_tick": times[:-1], "next_tick": times[1:], "silence_s": np.diff(times) / S})
    expected = gaps[gaps["silence_s"] > 5].sort_values(["silence_s", "last_tick"], ascending=[False, True]).head(20)
    found = ask("silences", symbol="BAC")
    same(found, expected)
    assert found["silence_s"].iloc[0] >= 60, "the halt of a minute"


def test_numbers_that_never_arrived_are_counted(ask_of: AskOf, market: Market) -> None:
    some = market.ticks[:1_000]
    left = np.delete(some, [10, 11, 500])
    nothing = {name: getattr(market, name)[:0] for name in ("rejected", "outcomes", "shadow_outcomes", "events")}
    ask = ask_of(dataclasses.replace(market, ticks=left, predictions=market.predictions[:1], **nothing))
    found = ask("sequence_gaps")
    assert found[["stream_id", "first_seq", "last_seq", "ticks", "missing"]].to_numpy().tolist() == [
        [7, 1, 1_000, 997, 3]
    ]


def test_how_late_ticks_are_and_how_far_out_of_order(ask: Ask, market: Market) -> None:
    ticks = all_ticks(market, "AIG")
    age_ms = (ticks["recv_ns"] - ticks["event_ns"]) / 1e6
    behind_ms = (ticks["event_ns"].cummax() - ticks["event_ns"]) / 1e6
    by = start_of(ticks["event_ns"], 60 * MINUTE)
    expected = pd.DataFrame(
        {
            "ticks": age_ms.groupby(by).size(),
            "max_ms": age_ms.groupby(by).max(),
            "ahead": (age_ms < 0).groupby(by).sum(),
            "out_of_order": (behind_ms > 0).groupby(by).sum(),
            "furthest_behind_ms": behind_ms.groupby(by).max(),
        }
    )
    found = ask("late_data", symbol="AIG")
    same(found, expected.reset_index(names="hour"))
    assert found["furthest_behind_ms"].max() > LATENESS_NS / 1e6, "late ticks were forged"
    whole = age_ms.groupby(by)
    np.testing.assert_allclose(found["p50_ms"], whole.quantile(0.5), rtol=0.02)
    np.testing.assert_allclose(found["p99_ms"], whole.quantile(0.99), rtol=0.05)


def test_odd_quotes_and_trades_are_counted(ask: Ask, market: Market) -> None:
    expected = []
    for symbol in SYMBOLS:
        ticks = all_ticks(market, symbol)
        quotes, trades = ticks[ticks["kind"] == 2], ticks[ticks["kind"] == 1]
        expected.append(
            (
                symbol,
                len(quotes),
                (quotes["bid"] == quotes["ask"]).mean(),
                (quotes["bid"] > quotes["ask"]).mean(),
                (quotes["bid"] + quotes["ask"]).isna().mean(),
                len(trades),
                (trades["size"] == 0).mean(),
            )
        )
    columns = [
        "symbol",
        "quotes",
        "locked_share",
        "crossed_share",
        "one_sided_share",
        "trades",
        "without_size_share",
    ]
    table = pd.DataFrame(expected, columns=columns)
    assert table["crossed_share"].max() > 0
    same(ask("quote_quality"), table)


def test_refused_ticks_are_counted_by_reason(ask: Ask, market: Market) -> None:
    table = pd.DataFrame(
        {
            "symbol": market.rejected["tick"]["symbol"].astype("U"),
            "reason": [Reject(reason).name.lower() for reason in market.rejected["reason"]],
            "event_ns": market.rejected["tick"]["event_ns"],
        }
    )
    by = table.groupby(["symbol", "reason"])["event_ns"]
    expected = pd.DataFrame({"rejected": by.size(), "first": by.min(), "last": by.max()}).reset_index()
    expected["share"] = expected["rejected"] / expected.groupby("symbol")["rejected"].transform("sum")
    order = ["symbol", "rejected", "reason"]
    expected = expected.sort_values(order, ascending=[True, False, True])
    same(ask("rejected_by_reason"), expected[["symbol", "reason", "rejected", "share", "first", "last"]])
    assert {"crossed", "late", "outlier", "halted"} <= set(expected["reason"])


def test_a_refused_tick_stands_beside_the_price_before_it(ask: Ask, market: Market) -> None:
    rejected = frame(market.rejected["tick"][market.rejected["tick"]["symbol"] == b"BAC"])
    rows = frame(market.predictions_of("BAC")).sort_values(["event_ns", "seq"])
    at = np.searchsorted(rows["event_ns"], rejected["event_ns"], "left") - 1
    stood = rows["ref_price"].to_numpy()[at]
    price = np.where(rejected["kind"] == 2, 0.5 * (rejected["bid"] + rejected["ask"]), rejected["price"])
    expected = pd.DataFrame({"event_time": rejected["event_ns"], "price": price, "stood": stood})
    expected["distance_bps"] = (price / stood - 1) * BPS
    expected = expected.sort_values("distance_bps", key=abs, ascending=False)
    found = ask("rejected_beside_accepted", symbol="BAC", limit=1_000)
    order = ["event_time", "price"]
    same(found.sort_values(order), expected.sort_values(order), atol=1e-6)
    assert found["distance_bps"].abs().is_monotonic_decreasing
    assert found["distance_bps"].iloc[0] == pytest.approx(9e4, rel=0.05), "the lost decimal point"


def test_rows_that_were_written_again_are_stored_twice_and_shown_once(ask: Ask, market: Market) -> None:
    again = market.predictions[:500]["symbol"]
    for symbol in SYMBOLS:
        found = ask("duplicates", symbol=symbol).set_index("what")
        assert (found["shown_twice"] == 0).all()
        shown = len(market.predictions_of(symbol))
        assert found.loc["predictions", "shown"] == shown
        assert found.loc["predictions", "repeats"] == found.loc["predictions", "stored"] - shown
        # None where parts were merged already.
        assert found.loc["predictions", "repeats"] in (0, (again == symbol.encode()).sum())
        assert found.loc["outcomes", "shown"] == len(market.outcomes_of(symbol)) * 2, "of two models"


def test_no_prediction_is_missing_unless_one_is_taken_away(ask: Ask, ask_of: AskOf, market: Market) -> None:
    found = ask("missing_predictions")
    assert found["missing"].tolist() == [0] * 4
    assert dict(zip(found["symbol"], found["last_seq"], strict=True)) == {
        symbol: len(market.predictions_of(symbol)) for symbol in SYMBOLS
    }
    nothing = {name: getattr(market, name)[:0] for name in ("rejected", "outcomes", "shadow_outcomes", "events")}
    left = np.delete(market.predictions_of("AIG")[:100], [7, 8])
    holes = ask_of(dataclasses.replace(market, predictions=left, ticks=market.ticks[:2_000], **nothing))
    assert holes("missing_predictions")[["symbol", "missing"]].to_numpy().tolist() == [["AIG", 2]]


def test_every_tick_is_accounted_for(ask: Ask, market: Market) -> None:
    found = ask("accounting").set_index("symbol")
    assert (found["unexplained"] == 0).all()
    assert found["controls"].to_dict() == {"AIG": 0, "BAC": 2, "BTCUSDT.usdm": 0, "DEFAULT": 0}
    for symbol in SYMBOLS:
        assert found.loc[symbol, "ticks"] == len(all_ticks(market, symbol))
        assert found.loc[symbol, "rejected"] == (market.rejected["tick"]["symbol"] == symbol.encode()).sum()
    part = ask("accounting", symbols="B%", from_=pd.Timestamp(HALTED_AT), to=pd.Timestamp(HALTED_AT + MINUTE))
    assert part.set_index("symbol").loc["BAC", "predictions"] == 0, "nothing is predicted in a halt"


def test_every_query_of_the_book_is_asked_in_these_tests() -> None:
    asked = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert [query.name for query in queries() if f'ask("{query.name}"' not in asked] == []
