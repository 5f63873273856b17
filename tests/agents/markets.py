"""Ticks to feed to lanes: one by one, at random, and from the recorded market data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from stream.records import TICK, Records, TickKind, empty_ticks

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
LATENESS_NS = 5_000 * MS
FUTURE_NS = 5_000 * MS


class Feed:
    """Numbers and times ticks as a source does: 1 ms apart, received 1 us later."""

    def __init__(self, stream_id: int = 1, start_ns: int = START_NS) -> None:
        self.stream_id = stream_id
        self.now_ns = start_ns
        self.source_seq = 0

    def trade(self, symbol: str, price: float, size: float = 1.0, side: int = 0, **fields: Any) -> Records:
        return self._tick(symbol, {"kind": TickKind.TRADE, "price": price, "size": size, "side": side} | fields)

    def quote(
        self, symbol: str, bid: float, ask: float, bid_size: float = 1.0, ask_size: float = 1.0, **fields: Any
    ) -> Records:
        book = {"bid": bid, "ask": ask, "bid_size": bid_size, "ask_size": ask_size}
        return self._tick(symbol, {"kind": TickKind.QUOTE} | book | fields)

    def _tick(self, symbol: str, fields: dict[str, Any]) -> Records:
        self.now_ns += MS
        self.source_seq += 1
        tick = empty_ticks(1)
        own = {"symbol": symbol.encode(), "event_ns": self.now_ns, "recv_ns": self.now_ns + 1000}
        numbers = {"source_seq": self.source_seq, "stream_id": self.stream_id}
        for name, value in (own | numbers | fields).items():
            tick[name] = value
        return tick


def random_market(rng: np.random.Generator, count: int, symbols: int = 3, bad: float = 0.0) -> Records:
    """Return a market with all that is legal: one-sided and locked quotes, sizes of 0 and unknown, equal times,
    times that go back within the lateness. A share ``bad`` is not: crossed, NaN, late, repeated, garbage."""
    ticks = empty_ticks(count)
    names = np.array([f"SYM{number}".encode() for number in range(symbols)], TICK["symbol"])
    chosen = rng.integers(0, symbols, count)
    ticks["symbol"] = names[chosen]
    steps_ns = rng.choice([0, 1_000, MS, 300 * MS], count) - np.where(rng.random(count) < 0.1, 100 * MS, 0)
    ticks["event_ns"] = START_NS + np.cumsum(steps_ns)
    ticks["recv_ns"] = START_NS + np.cumsum(np.abs(steps_ns)) + 1000
    ticks["source_seq"] = np.arange(1, count + 1)
    ticks["stream_id"] = 1
    tick_size = 0.01
    mid = np.round(100 * (1 + chosen) + np.cumsum(rng.choice([-1, 0, 0, 1], count)) * tick_size, 2)
    is_quote = rng.random(count) < 0.7
    ticks["kind"] = np.where(is_quote, TickKind.QUOTE, TickKind.TRADE)
    _fill_quotes(rng, ticks, is_quote, mid, tick_size)
    is_trade = ~is_quote
    ticks["price"][is_trade] = (mid + rng.integers(-1, 2, count) * tick_size)[is_trade]
    ticks["size"][is_trade] = rng.choice([0.0, 1.0, 100.0, 12_345.0], count)[is_trade]
    ticks["side"][is_trade] = rng.integers(-1, 2, count)[is_trade]
    for position in np.flatnonzero(rng.random(count) < bad):
        _spoil(rng, ticks, int(position))
    return ticks


def _fill_quotes(
    rng: np.random.Generator, ticks: Records, is_quote: np.ndarray, mid: np.ndarray, tick_size: float
) -> None:
    count = len(ticks)
    half = rng.integers(0, 3, count) * tick_size  # 0: locked
    sizes = np.array([0.0, 100.0, 300.0, 1e6, np.nan])
    ticks["bid"][is_quote] = (mid - half)[is_quote]
    ticks["ask"][is_quote] = (mid + half)[is_quote]
    ticks["bid_size"][is_quote] = rng.choice(sizes, count)[is_quote]
    ticks["ask_size"][is_quote] = rng.choice(sizes, count)[is_quote]
    one_sided = is_quote & (rng.random(count) < 0.2)
    no_bid = rng.random(count) < 0.5
    for side, away in (("bid", one_sided & no_bid), ("ask", one_sided & ~no_bid)):
        ticks[side][away] = np.nan
        ticks[f"{side}_size"][away] = np.nan


def _spoil(rng: np.random.Generator, ticks: Records, position: int) -> None:
    tick = ticks[position]
    match rng.integers(0, 8):
        case 0:
            tick["bid"], tick["ask"], tick["kind"] = 11.0, 10.0, TickKind.QUOTE
        case 1:
            tick["price"], tick["kind"] = np.nan, TickKind.TRADE
        case 2:
            tick["event_ns"] -= 3600 * 1000 * MS
        case 3:
            tick["event_ns"] += 3600 * 1000 * MS
        case 4:
            tick["source_seq"] = max(position, 1)  # the number of the tick before
        case 5:
            tick["kind"] = 77
        case 6:
            tick["symbol"] = b"\xff\xfe"
        case _:
            ticks[position] = np.frombuffer(rng.bytes(TICK.itemsize), TICK)[0]


def cut(ticks: Records, cuts: list[int]) -> list[Records]:
    """Cut a stream into blocks at some positions; no block is empty."""
    return [block for block in np.split(ticks, sorted(set(cuts))) if len(block)]


def equity_day(shared_data: Path, symbol: str, day: str, count: int) -> Records:
    """Return the first ``count`` trades and quotes of a stock's day, in the order in which they happened."""
    folder = shared_data / "ticks" / "us_equity"
    trades = pq.read_table(folder / f"trades_{symbol}_{day}.parquet").to_pandas()
    quotes = pq.read_table(folder / f"quotes_{symbol}_{day}.parquet").to_pandas()
    trades["kind"], quotes["kind"] = TickKind.TRADE.value, TickKind.QUOTE.value
    rows = pd.concat([quotes, trades]).sort_values(["ts_ns", "kind", "seq"], kind="stable").head(count)
    return from_columns(symbol, rows)


def from_columns(symbol: str, rows: Any) -> Records:
    """Return a frame with the column names of the shared data as ticks, numbered from 1."""
    ticks = empty_ticks(len(rows))
    ticks["symbol"] = symbol.encode()
    ticks["event_ns"] = rows["ts_ns"]
    ticks["recv_ns"] = rows["ts_ns"]
    ticks["source_seq"] = np.arange(1, len(rows) + 1)
    ticks["stream_id"] = 1
    ticks["kind"] = rows["kind"]
    for name in ("price", "size", "bid", "ask", "bid_size", "ask_size"):
        if name in rows:
            ticks[name] = rows[name]
    return ticks
