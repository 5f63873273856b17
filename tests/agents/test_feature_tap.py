"""Which feature rows are published: the same whatever happens, and exactly what the model saw."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import FUTURE_NS, LATENESS_NS, MS, Feed, cut, random_market
from recurrent import Recurrent

from agents import features
from agents.feature_names import names_id
from agents.feature_tap import FeatureTap
from agents.history import roll
from agents.lane import Lane
from agents.windows import Windows
from stream.feature_blocks import feature_hashes
from stream.records import Records

EVERY_MS = [0, 1, 250, 60_000]


def new_lane() -> Lane:
    return Lane(3, Windows(LATENESS_NS, FUTURE_NS, 64), Recurrent())


def contents(rows: Records) -> dict[tuple[bytes, int], bytes]:
    """What does not depend on cuts, by symbol and seq."""
    names = ["event_ns", "ref_price", "feature_hash", "names_id", "values"]
    keys = zip(rows["symbol"].tolist(), rows["seq"].tolist(), strict=True)
    return {key: b"".join(row[name].tobytes() for name in names) for key, row in zip(keys, rows, strict=True)}


def take_all(lane: Lane, tap: FeatureTap, blocks: list[tuple[int, Records]]) -> dict[Any, bytes]:
    found = {}
    for block in blocks:
        found |= contents(tap.take(lane.apply([block])))
    return found


def test_each_row_is_what_the_kernel_gave_and_names_its_prediction() -> None:
    ticks = random_market(np.random.default_rng(2), 500, bad=0.1)
    lane = new_lane()
    output = lane.apply([(17, ticks)])
    output.predictions["published_ns"] = 1234
    rows = FeatureTap(new_lane().windows, 0).take(output)
    for name in ("symbol", "seq", "event_ns", "ref_price", "feature_hash", "source_offset", "published_ns"):
        assert rows[name].tolist() == output.predictions[name].tolist()
    assert rows["source_partition"].tolist() == [3] * len(rows)
    assert set(rows["names_id"].tolist()) == {names_id(features.NAMES)}
    [(_, step)] = roll(ticks, Windows(LATENESS_NS, FUTURE_NS, 64))
    assert rows["values"].tobytes() == step.features.tobytes()
    assert feature_hashes(rows["values"]).tolist() == output.predictions["feature_hash"].tolist()


def test_what_is_published_of_a_symbol_is_the_first_tick_in_each_span_of_event_time() -> None:
    feed = Feed(start_ns=0)  # ticks 1 ms apart, the first at 1 ms
    ticks = np.concatenate([feed.trade("A" if turn % 2 else "B", 100.0) for turn in range(40)])
    lane = new_lane()
    rows = FeatureTap(lane.windows, 10).take(lane.apply([(0, ticks)]))
    at_ms = {symbol: (rows["event_ns"][rows["symbol"] == symbol] // MS).tolist() for symbol in (b"A", b"B")}
    assert at_ms == {b"A": [2, 10, 20, 30, 40], b"B": [1, 11, 21, 31]}


def test_a_tick_out_of_order_begins_no_span() -> None:
    feed = Feed(start_ns=0)
    first, old, late = feed.trade("A", 1.0), feed.trade("A", 1.0), feed.trade("A", 1.0)
    first["event_ns"], old["event_ns"], late["event_ns"] = 25 * MS, 5 * MS, 29 * MS
    lane = new_lane()
    output = lane.apply([(0, np.concatenate([first, old, late]))])
    assert len(output.predictions) == 3
    assert FeatureTap(new_lane().windows, 10).take(output)["seq"].tolist() == [1]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 299), min_size=2, max_size=30),
    every_ms=st.sampled_from(EVERY_MS),
    crashes=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=4),
)
def test_neither_cuts_nor_crashes_change_what_is_published(
    seed: int, cuts: list[int], every_ms: int, crashes: list[tuple[int, int]]
) -> None:
    ticks = random_market(np.random.default_rng(seed), 300, symbols=4, bad=0.1)
    lane = new_lane()
    expected = take_all(lane, FeatureTap(lane.windows, every_ms), [(0, ticks)])
    blocks = list(enumerate(cut(ticks, cuts)))
    kept: dict[bytes, bytes] = {}
    at, union = 0, {}
    for before, after in [*crashes, (len(blocks), 0)]:
        lane = new_lane()
        lane.restore(kept.values())
        tap = FeatureTap(lane.windows, every_ms)
        union |= take_all(lane, tap, blocks[at : at + before])
        at += before
        kept |= dict(lane.take(lane.changed()))
        for identity, content in take_all(lane, tap, blocks[at : at + after]).items():  # sent, and forgotten
            assert union.setdefault(identity, content) == content
    assert union == expected


@pytest.mark.parametrize("every_ms", EVERY_MS)
def test_nothing_accepted_gives_nothing(every_ms: int) -> None:
    lane = new_lane()
    assert len(FeatureTap(lane.windows, every_ms).take(lane.apply([(0, Feed().trade("A", np.nan))]))) == 0
