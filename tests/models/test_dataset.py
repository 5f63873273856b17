from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import features
from agents.windows import Windows
from models.dataset import HistoryRows, Horizon, Labels, by_symbol, cut_streams, history, label, rounds_of
from stream.errors import ModelError

LATENESS_NS = 5_000_000_000
HORIZON_NS = 10_000_000_000


@pytest.fixture(scope="module")
def ticks(make_ticks: Callable[..., Any]) -> Any:
    return make_ticks(6000, symbols=3, seed=1)


@pytest.fixture(scope="module")
def rows(ticks: Any) -> HistoryRows:
    return history(ticks, LATENESS_NS)


def made_up(event_ns: list[int], symbol_row: list[int], ref_price: list[float]) -> HistoryRows:
    count = len(event_ns)
    return HistoryRows(
        features=np.arange(count * features.COUNT, dtype=np.float32).reshape(count, features.COUNT),
        symbol_row=np.array(symbol_row),
        event_ns=np.array(event_ns),
        ref_price=np.array(ref_price),
        spread_bps=np.ones(count, np.float32),
        symbols=tuple(f"S{index}" for index in range(max(symbol_row) + 1)),
        data_sha256="",
    )


def test_the_features_are_those_of_a_live_lane_to_the_bit(ticks: Any, rows: HistoryRows) -> None:
    live = Windows(LATENESS_NS, future_ns=1_000_000_000)
    seen = []
    for offset, start in enumerate(range(0, len(ticks), 7)):
        block = ticks[start : start + 7]
        step = live.step(block, np.full(len(block), offset))
        seen.append(step.features.copy())
    assert np.concatenate(seen).tobytes() == rows.features.tobytes()


@settings(max_examples=10)
@given(cuts=st.sets(st.integers(1, 5999), max_size=8))
def test_a_recording_may_come_in_chunks_of_any_size(ticks: Any, rows: HistoryRows, cuts: set[int]) -> None:
    again = history(iter(np.split(ticks, sorted(cuts))), LATENESS_NS)
    assert again.features.tobytes() == rows.features.tobytes()
    assert again.ref_price.tobytes() == rows.ref_price.tobytes()
    assert (again.event_ns == rows.event_ns).all()
    assert again.data_sha256 == rows.data_sha256


def test_other_ticks_have_another_hash(ticks: Any, rows: HistoryRows) -> None:
    other = ticks.copy()
    other["bid_size"][17] += 1.0
    assert history(other, LATENESS_NS).data_sha256 != rows.data_sha256


def test_history_believes_what_the_engine_is_set_to_believe(ticks: Any) -> None:
    some = ticks[:200].copy()
    which = np.flatnonzero(some["symbol"] == some["symbol"][0])[30]
    some["bid"][which] *= 1.02
    some["ask"][which] *= 1.02
    assert len(history(some, LATENESS_NS).features) == 200
    assert len(history(some, LATENESS_NS, outlier_bps=100.0, outlier_scale=0.0).features) == 199


def test_rejected_and_repeated_ticks_leave_no_row(ticks: Any) -> None:
    some = ticks[:100].copy()
    some["bid"][40] = -1.0
    doubled = np.concatenate([some, some])
    assert len(history(doubled, LATENESS_NS).features) == 99


def test_the_event_time_of_a_symbol_never_falls(ticks: Any) -> None:
    some = ticks[:300].copy()
    some["event_ns"][150] -= 4_000_000_000
    got = history(some, LATENESS_NS)
    for where in by_symbol(got.symbol_row):
        assert (np.diff(got.event_ns[where]) >= 0).all()


def test_records_that_are_no_ticks_are_refused() -> None:
    with pytest.raises(TypeError, match="TICK records"):
        history(np.zeros(3, [("price", "f8")]), LATENESS_NS)


def test_labels_agree_with_a_search_by_hand(rows: HistoryRows) -> None:
    labels = label(rows, HORIZON_NS, dead_band_bps=2.0, clip_bps=8.0)
    for index in range(0, len(rows.event_ns), 13):
        same = np.flatnonzero(rows.symbol_row == rows.symbol_row[index])
        later_ns = rows.event_ns[index] + HORIZON_NS
        if later_ns > rows.event_ns[same[-1]]:
            assert not labels.known[index]
            assert labels.direction[index] == 0
            assert labels.return_bps[index] == 0.0
            continue
        last = [other for other in same if rows.event_ns[other] <= later_ns][-1]
        change = (rows.ref_price[last] / rows.ref_price[index] - 1.0) * 1e4
        assert labels.known[index]
        assert labels.return_bps[index] == np.float32(min(max(change, -8.0), 8.0))
        assert labels.direction[index] == (0 if change < -2.0 else 2 if change > 2.0 else 1)


def test_a_label_takes_the_last_price_at_its_horizon_and_none_beyond_the_recording() -> None:
    rows = made_up([0, 5, 10, 10, 11, 20], [0] * 6, [100.0, 101.0, 102.0, 103.0, 104.0, 105.0])
    labels = label(rows, 10, dead_band_bps=1.0, clip_bps=1e9)
    assert labels.known.tolist() == [True, True, True, True, False, False]
    expected = [103 / 100, 104 / 101, 105 / 102, 105 / 103]
    np.testing.assert_allclose(labels.return_bps[:4], (np.array(expected) - 1) * 1e4, rtol=1e-6)


def test_a_symbol_that_fell_silent_has_no_labels_from_other_symbols_ticks() -> None:
    rows = made_up([0, 1, 100, 200], [0, 1, 1, 1], [10.0, 20.0, 20.0, 20.0])
    assert label(rows, 50, 1.0, 50.0).known.tolist() == [False, True, True, False]


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), ticks_ahead=st.integers(1, 30))
def test_a_label_by_ticks_looks_as_many_ticks_of_its_symbol_ahead(seed: int, ticks_ahead: int) -> None:
    generator = np.random.default_rng(seed)
    count = 60
    event_ns = np.cumsum(generator.integers(0, 5, count)).tolist()
    rows = made_up(event_ns, generator.integers(0, 3, count).tolist(), (1 + generator.random(count)).tolist())
    labels = label(rows, Horizon(ticks=ticks_ahead), dead_band_bps=1.0, clip_bps=1e9)
    for index in range(count):
        same = np.flatnonzero(rows.symbol_row == rows.symbol_row[index])
        later = same[same > index]
        assert labels.known[index] == (len(later) >= ticks_ahead)
        if labels.known[index]:
            there = later[ticks_ahead - 1]
            assert labels.end_ns[index] == event_ns[there]
            change = (rows.ref_price[there] / rows.ref_price[index] - 1.0) * 1e4
            assert labels.return_bps[index] == np.float32(change)


def test_a_horizon_is_a_time_or_a_number_of_ticks() -> None:
    assert str(Horizon(ns=300_000_000_000)) == "300 s"
    assert str(Horizon(ticks=7)) == "7 ticks"
    for ns, count in ((0, 0), (1, 1), (-1, 0), (0, -1), (5, -1)):
        with pytest.raises(ModelError, match="right would be just one above 0"):
            Horizon(ns, count)


@pytest.mark.parametrize("horizon_s", [1, 10, 60, 300])
def test_a_label_by_time_ends_at_its_horizon(rows: HistoryRows, horizon_s: int) -> None:
    labels = label(rows, Horizon(ns=horizon_s * 1_000_000_000), 2.0, 50.0)
    known = labels.known
    assert known.any()
    assert (labels.end_ns[known] - rows.event_ns[known] == horizon_s * 1_000_000_000).all()
    assert (labels.end_ns[~known] == np.iinfo(np.int64).max).all()


def test_a_return_on_the_edge_of_the_dead_band_is_flat() -> None:
    rows = made_up([0, 10], [0, 0], [10_000.0, 10_001.0])
    assert label(rows, 10, dead_band_bps=1.0, clip_bps=50.0).direction[0] == 1
    assert label(rows, 10, dead_band_bps=0.9999, clip_bps=50.0).direction[0] == 2


@pytest.mark.parametrize("kept", [1000, 3001, 5999])
def test_nothing_known_at_a_time_changes_when_later_ticks_are_removed(
    ticks: Any, rows: HistoryRows, kept: int
) -> None:
    early = history(ticks[:kept], LATENESS_NS)
    assert early.features.tobytes() == rows.features[:kept].tobytes()
    labels, early_labels = (label(some, HORIZON_NS, 2.0, 50.0) for some in (rows, early))
    known = early_labels.known
    assert (early_labels.return_bps[known] == labels.return_bps[:kept][known]).all()
    assert known.sum() < labels.known[:kept].sum()


def rank_correlation(values: Any, returns: Any) -> float:
    frame = pd.DataFrame({"a": values, "b": returns}).rank()
    return float(frame["a"].corr(frame["b"])) if frame["a"].nunique() > 1 else 0.0


def test_on_a_random_walk_features_know_nothing_of_the_labels_but_later_features_do(
    make_ticks: Callable[..., Any],
) -> None:
    rows = history(make_ticks(40_000, symbols=1, seed=3, edge=0.0), LATENESS_NS)
    labels = label(rows, HORIZON_NS, 2.0, 50.0)
    # About 20 ticks to a horizon: every 20th label stands for itself, and 5 standard errors are 0.11.
    some = np.arange(100, len(rows.event_ns) - 100, 20)
    now = [abs(rank_correlation(rows.features[some, k], labels.return_bps[some])) for k in range(features.COUNT)]
    later = [
        abs(rank_correlation(rows.features[some + 15, k], labels.return_bps[some])) for k in range(features.COUNT)
    ]
    assert max(now) < 0.11
    assert max(later) > 0.5


def all_labels(rows: HistoryRows) -> Labels:
    count = len(rows.event_ns)
    return Labels(
        np.ones(count, np.bool_), np.arange(count) % 3, np.arange(count, dtype=np.float32), rows.event_ns + 1
    )


@settings(max_examples=30)
@given(pieces=st.integers(1, 40), burn_in=st.integers(0, 20), seed=st.integers(0, 1000))
def test_every_row_of_the_span_is_in_one_stream_once_and_in_order(pieces: int, burn_in: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = 200
    rows = made_up(list(range(count)), generator.integers(0, 3, count).tolist(), [1.0] * count)
    inside = generator.random(count) < 0.7
    columns = np.array([3, 0])
    streams = cut_streams(rows, all_labels(rows), columns, inside, inside, pieces, burn_in)
    seen = []
    for piece, index in enumerate(streams.index):
        size = int(np.flatnonzero(index)[-1]) + 1 if index.any() else 1
        indices = index[:size]
        seen.extend(indices.tolist())
        assert (np.diff(indices) > 0).all()
        assert len(set(rows.symbol_row[indices].tolist())) == 1
        assert not streams.weight[piece, :burn_in].any()
        assert streams.weight[piece, burn_in:size].all()
        assert not streams.weight[piece, size:].any()
    assert sorted(seen) == np.flatnonzero(inside).tolist()
    for start in range(0, streams.index.shape[1], 7):
        x, direction, return_bps, weight = streams.chunk(start, start + 7)
        index = streams.index[:, start : start + 7]
        assert (x == rows.features[index][..., columns]).all()
        assert (direction == index % 3).all()
        assert (return_bps == index).all()
        assert (weight == streams.weight[:, start : start + 7]).all()


def test_labels_that_do_not_count_have_no_weight_and_their_rows_still_build_state_up() -> None:
    rows = made_up(list(range(10)), [0] * 10, [1.0] * 10)
    counts = np.ones(10, np.bool_)
    counts[[4, 7]] = False
    streams = cut_streams(rows, all_labels(rows), np.arange(2), np.ones(10, np.bool_), counts, pieces=1, burn_in=2)
    assert streams.index.tolist() == [list(range(10))]
    assert streams.weight.tolist() == [[0, 0, 1, 1, 0, 1, 1, 0, 1, 1]]


def test_state_is_carried_through_a_silence_as_lanes_carry_it() -> None:
    night_ns = 40_000_000_000_000
    rows = made_up([0, 1, 2, night_ns, night_ns + 1], [0] * 5, [1.0] * 5)
    all_of_them = np.ones(5, np.bool_)
    streams = cut_streams(rows, all_labels(rows), np.arange(1), all_of_them, all_of_them, pieces=1, burn_in=0)
    assert streams.index.tolist() == [[0, 1, 2, 3, 4]]


def test_rounds_count_the_earlier_rows_of_the_same_symbol() -> None:
    assert rounds_of(np.array([5, 2, 5, 5, 2])).tolist() == [0, 0, 1, 2, 1]
    assert rounds_of(np.zeros(0, np.int64)).tolist() == []
