"""Bars are those of a plain loop over the predictions, however these were cut into batches."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporters.feed_bars import BarMaker
from exporters.feed_channels import BAR
from stream.records import PREDICTION, Records

LENGTH_NS = 1000


def plain(rows: Records) -> list[tuple[Any, ...]]:
    """The bars, one row at a time."""
    now: dict[bytes, list[Any]] = {}
    out = []
    for row in rows:
        symbol, price = bytes(row["symbol"]), float(row["ref_price"])
        number = max(int(row["event_ns"]) // LENGTH_NS, now[symbol][0] if symbol in now else 0)
        if symbol in now and number > now[symbol][0]:
            bar, is_whole = now[symbol][:7], now[symbol][7]
            if is_whole:
                out.append((symbol, *bar, int(row["published_ns"])))
            now[symbol] = [number, price, price, price, price, 0, 0, True]
        bar = now.setdefault(symbol, [number, price, price, price, price, 0, 0, False])
        bar[2], bar[3], bar[4] = max(bar[2], price), min(bar[3], price), price
        bar[5], bar[6] = bar[5] + 1, int(row["seq"])
    return out


def as_tuples(bars: Records) -> list[tuple[Any, ...]]:
    names = ("symbol", "seq", "open", "high", "low", "close", "ticks", "last_seq", "published_ns")
    return [tuple(bar[name].item() for name in names) for bar in bars]


ticks = st.lists(
    st.tuples(st.sampled_from([b"A", b"B", b"C"]), st.integers(-1500, 2500), st.integers(1, 9)), max_size=60
)


@given(ticks, st.lists(st.integers(0, 60), max_size=6))
def test_bars_are_the_same_for_every_cut(given_ticks: list[tuple[bytes, int, int]], cuts: list[int]) -> None:
    rows = np.zeros(len(given_ticks), PREDICTION)
    at_ns = 1_000_000
    for index, (symbol, step_ns, price) in enumerate(given_ticks):
        at_ns += step_ns
        rows[index]["symbol"], rows[index]["event_ns"], rows[index]["ref_price"] = symbol, at_ns, price
        rows[index]["seq"] = rows[index]["published_ns"] = index + 1
    maker = BarMaker(LENGTH_NS)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    slots = np.array([b"ABC".index(symbol) for symbol in rows["symbol"]], np.int64)
    parts = [maker.add(rows[start:stop], slots[start:stop]) for start, stop in itertools.pairwise(edges)]
    bars = np.concatenate([np.zeros(0, BAR), *parts])
    assert as_tuples(bars) == plain(rows)
    assert (bars["end_ns"] - bars["start_ns"] == LENGTH_NS).all()
    assert (bars["start_ns"] == bars["seq"].astype(np.int64) * LENGTH_NS).all()
