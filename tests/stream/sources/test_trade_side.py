"""The rule of Lee and Ready against a plain loop, on made and on recorded data."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.records import TickKind
from stream.sources.replay import Replay
from stream.sources.trade_side import infer_sides


def slow_sides(
    trade_ns: list[int], price: list[float], quote_ns: list[int], bid: list[float], ask: list[float]
) -> list[int]:
    """Lee and Ready as they wrote it: trade by trade."""
    sides = []
    last_different, last = None, None
    for now, traded in zip(trade_ns, price, strict=True):
        if last is not None and traded != last:
            last_different = last
        last = traded
        mid = None
        for at, b, a in zip(quote_ns, bid, ask, strict=True):
            if at < now and b > 0 and a >= b:
                mid = (b + a) / 2
        side = 0
        if mid is not None and traded != mid:
            side = 1 if traded > mid else -1
        elif last_different is not None:
            side = 1 if traded > last_different else -1
        sides.append(side)
    return sides


levels = st.sampled_from([9.0, 10.0, 10.5, 11.0, 12.0])
sides_of_book = st.sampled_from([0.0, 9.0, 10.0, 11.0, 12.0, float("nan")])


@given(
    st.lists(st.tuples(st.integers(0, 12), levels), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), sides_of_book, sides_of_book), max_size=12),
)
def test_arrays_agree_with_the_rule_trade_by_trade(
    trades: list[tuple[int, float]], quotes: list[tuple[int, float, float]]
) -> None:
    trades, quotes = sorted(trades, key=lambda row: row[0]), sorted(quotes, key=lambda row: row[0])
    trade_ns, price = [row[0] for row in trades], [row[1] for row in trades]
    quote_ns, bid, ask = [row[0] for row in quotes], [row[1] for row in quotes], [row[2] for row in quotes]
    sides = infer_sides(
        np.array(trade_ns, np.int64),
        np.array(price, np.float64),
        np.array(quote_ns, np.int64),
        np.array(bid, np.float64),
        np.array(ask, np.float64),
    )
    assert sides.tolist() == slow_sides(trade_ns, price, quote_ns, bid, ask)


@pytest.mark.parametrize("market", ["spot_btcusdt", "spot_ethusdt", "usdm_btcusdt", "usdm_ethusdt"])
def test_inferred_sides_agree_with_what_the_venue_says(shared_data: Path, market: str) -> None:
    paths = list((shared_data / "ticks" / "crypto").glob(f"*{market}*"))
    ticks = next(Replay(paths, date(2024, 8, 8)).days())
    trades, quotes = ticks[ticks["kind"] == TickKind.TRADE], ticks[ticks["kind"] == TickKind.QUOTE]
    reported_late_ns = 50_000_000  # in this recording a trade arrives after the quotes that it has moved
    inferred = infer_sides(
        trades["event_ns"] - reported_late_ns, trades["price"], quotes["event_ns"], quotes["bid"], quotes["ask"]
    )
    assert np.mean(inferred == trades["side"]) > 0.92


@pytest.mark.parametrize(("symbol", "share"), [("AIG", 0.94), ("BAC", 0.99)])
def test_most_equity_trades_are_at_the_prevailing_quote(shared_data: Path, symbol: str, share: float) -> None:
    paths = list((shared_data / "ticks" / "us_equity").glob(f"*_{symbol}_*"))
    ticks = next(Replay(paths, date(2013, 10, 7)).days())
    trades, quotes = ticks[ticks["kind"] == TickKind.TRADE], ticks[ticks["kind"] == TickKind.QUOTE]
    prevailing = np.searchsorted(quotes["event_ns"], trades["event_ns"], side="left") - 1
    trades, prevailing = trades[prevailing >= 0], prevailing[prevailing >= 0]
    at_ask, at_bid = (trades["price"] == quotes[name][prevailing] for name in ("ask", "bid"))
    assert np.mean(at_ask | at_bid) > share - 0.01
    inside = quotes["bid"][prevailing] < quotes["ask"][prevailing]
    assert np.all(trades["side"][at_ask & inside] == 1)
    assert np.all(trades["side"][at_bid & inside] == -1)
