from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.dataset import HistoryRows, Horizon, Labels, history, label
from models.splits import Split, by_shares, split_at, walk_forward
from stream.errors import ModelError
from stream.sources.replay import Replay

S = 1_000_000_000
DAY_S = 86_400
# 2013-10-07, and some seconds before midnight.
MONDAY_S = 15_985 * DAY_S


def made_up(event_s: Any, symbols: int = 2, seed: int = 0) -> HistoryRows:
    generator = np.random.default_rng(seed)
    count = len(event_s)
    return HistoryRows(
        features=np.zeros((count, 1), np.float32),
        symbol_row=generator.integers(0, symbols, count),
        event_ns=(np.sort(event_s) * S).astype(np.int64),
        ref_price=100.0 + generator.random(count),
        spread_bps=np.ones(count, np.float32),
        symbols=tuple(f"S{index}" for index in range(symbols)),
        data_sha256="",
    )


def spread_over_days(days: int, each: int, seed: int = 0) -> HistoryRows:
    generator = np.random.default_rng(seed)
    seconds = MONDAY_S + generator.uniform(0, DAY_S, (days, each)) + DAY_S * np.arange(days)[:, None]
    return made_up(seconds.ravel(), seed=seed)


horizons = st.one_of(
    st.integers(1, 400).map(lambda seconds: Horizon(ns=seconds * S)),
    st.integers(1, 40).map(lambda n: Horizon(ticks=n)),
)


def check_purged(rows: HistoryRows, labels: Labels, split: Split, embargo_ns: int) -> None:
    """Look at each label by itself: it starts and ends in its span, the embargo before the next."""
    spans = [
        (split.train, split.from_ns, split.validation_ns, embargo_ns),
        (split.validation, split.validation_ns, split.test_ns, embargo_ns),
        (split.test, split.test_ns, split.to_ns, 0),
    ]
    for counts, start_ns, end_ns, distance_ns in spans:
        for index in range(len(counts)):
            inside = start_ns <= rows.event_ns[index] < end_ns
            ends_in_time = labels.known[index] and int(labels.end_ns[index]) + distance_ns < end_ns
            assert counts[index] == (inside and ends_in_time)
    assert (split.train.astype(int) + split.validation + split.test).max() == 1


@settings(max_examples=40)
@given(horizon=horizons, seed=st.integers(0, 10_000), embargo_s=st.integers(0, 300))
def test_a_label_counts_where_it_ends_before_the_embargo_of_the_next_span(
    horizon: Horizon, seed: int, embargo_s: int
) -> None:
    generator = np.random.default_rng(seed)
    # Busy and quiet times, and many ticks at the same moment.
    rows = made_up(np.cumsum(generator.choice([0.0, 0.5, 20.0], 400, p=[0.4, 0.5, 0.1])), seed=seed)
    labels = label(rows, horizon, 1.0, 50.0)
    moments = np.sort(generator.choice(rows.event_ns, 3)).tolist()
    assume(len(set(moments)) == 3)
    try:
        split = split_at(rows, labels, int(rows.event_ns[0]), *moments, embargo_ns=embargo_s * S)
    except ModelError as error:
        assert "no label counts in the span" in str(error)  # noqa: PT017
        return
    check_purged(rows, labels, split, embargo_s * S)


@settings(max_examples=10)
@given(horizon=horizons, seed=st.integers(0, 10_000), embargo_s=st.sampled_from([0, 60, 600]))
def test_a_fold_learns_from_the_days_before_and_is_tested_on_its_day(
    horizon: Horizon, seed: int, embargo_s: int
) -> None:
    rows = spread_over_days(4, 600, seed)
    labels = label(rows, horizon, 1.0, 50.0)
    folds = walk_forward(rows, labels, embargo_ns=embargo_s * S, fewest_labels=200)
    assert len(folds) == 3
    for number, fold in enumerate(folds, start=1):
        assert fold.test_ns == (MONDAY_S + number * DAY_S) * S
        assert fold.to_ns - fold.test_ns == DAY_S * S
        assert fold.from_ns == rows.event_ns[0]
        before = rows.event_ns < fold.test_ns
        assert (rows.event_ns[before] >= fold.validation_ns).mean() == pytest.approx(0.15, abs=0.01)
        check_purged(rows, labels, fold, embargo_s * S)


def test_the_last_label_of_a_span_is_dropped_and_the_one_before_is_not() -> None:
    rows = made_up(np.arange(30.0), symbols=1)
    labels = label(rows, Horizon(ns=2 * S), 1.0, 50.0)
    split = split_at(rows, labels, 0, 10 * S, 20 * S, 30 * S)
    # The label of second 7 ends at 9, that of second 8 at 10, where validation starts.
    assert np.flatnonzero(split.train).tolist() == list(range(8))
    assert np.flatnonzero(split.validation).tolist() == list(range(10, 18))
    assert np.flatnonzero(split.test).tolist() == list(range(20, 28))
    later = split_at(rows, labels, 0, 10 * S, 20 * S, 30 * S, embargo_ns=3 * S)
    assert np.flatnonzero(later.train).tolist() == list(range(5))
    assert np.flatnonzero(later.test).tolist() == list(range(20, 28))


def test_nothing_after_a_fold_changes_it() -> None:
    rows = spread_over_days(3, 400)
    labels = label(rows, Horizon(ns=60 * S), 1.0, 50.0)
    fold = walk_forward(rows, labels, fewest_labels=100)[0]
    early = rows.only(rows.event_ns < fold.to_ns)
    (again,) = walk_forward(early, label(early, Horizon(ns=60 * S), 1.0, 50.0), fewest_labels=100)
    count = len(early.event_ns)
    assert (again.train == fold.train[:count]).all()
    assert (again.validation == fold.validation[:count]).all()
    # Where the recording ends before the label does, its last few are not known any more.
    assert (again.test <= fold.test[:count]).all()
    assert fold.test[:count].sum() - again.test.sum() <= 2


def test_a_tick_after_midnight_makes_no_day_of_its_own() -> None:
    two = spread_over_days(2, 300)
    rows = made_up(np.append(two.event_ns / S, (MONDAY_S + 2 * DAY_S) + 0.25))
    labels = label(rows, Horizon(ns=1 * S), 1.0, 50.0)
    assert len(walk_forward(rows, labels, fewest_labels=100)) == 1


def test_shares_are_those_of_the_rows_and_not_of_the_hours() -> None:
    generator = np.random.default_rng(1)
    busy, quiet = generator.uniform(0, 3600, 9000), generator.uniform(3600, 36_000, 1000)
    rows = made_up(np.concatenate([busy, quiet]))
    split = by_shares(rows, label(rows, Horizon(ns=1 * S), 1.0, 50.0), 0.15, 0.2)
    assert (rows.event_ns >= split.test_ns).mean() == pytest.approx(0.2, abs=0.001)
    assert (rows.event_ns >= split.validation_ns).mean() == pytest.approx(0.35, abs=0.001)
    assert split.to_ns > rows.event_ns[-1]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda rows, labels: by_shares(rows, labels, 0.1, 0.1), "600 accepted ticks to train on"),
        (walk_forward, r"0 UTC days.*2013-10-07: \d+, 2013-10-08"),
        (lambda rows, labels: split_at(rows, labels, 0, 1, 2, 3), "no label counts in the span train"),
        (
            lambda rows, labels: walk_forward(rows, labels, fewest_labels=100, embargo_ns=DAY_S * S),
            "less embargo than 86400 s",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_with_what_was_seen(split: Any, message: str) -> None:
    rows = spread_over_days(2, 300)
    with pytest.raises(ModelError, match=message):
        split(rows, label(rows, Horizon(ns=60 * S), 1.0, 50.0))


# Leaks: a plain regression on real ticks, which must know no more than it can. These fail where a feature, a
# label or a split lets the future in.


@pytest.fixture(scope="module")
def real_rows(shared_data: Path) -> HistoryRows:
    files = sorted((shared_data / "ticks" / "us_equity").glob("*_AIG_20131007.parquet"))
    return history(np.concatenate(list(Replay(files).days()))[:300_000], 5 * S)


@pytest.fixture(scope="module")
def real_labels(real_rows: HistoryRows) -> Labels:
    return label(real_rows, Horizon(ns=1 * S), 1.0, 50.0)


def skill(rows: HistoryRows, labels: Labels, returns_bps: Any, shift_ticks: int = 0) -> float:
    """Return the rank correlation, on the test span, of a ridge regression with what came.

    Rows get the features of ``shift_ticks`` later; below 0, of earlier.
    """
    split = by_shares(rows, labels, 0.15, 0.2, embargo_ns=60 * S)
    values = np.roll(rows.features, -shift_ticks, axis=0)
    learn, judge = np.flatnonzero(split.train)[::3], np.flatnonzero(split.test)[::3]
    mean, spread = values[learn].mean(axis=0), values[learn].std(axis=0) + 1e-9
    x, judged = (np.clip((values[some] - mean) / spread, -10, 10).astype(np.float64) for some in (learn, judge))
    weights = np.linalg.solve(x.T @ x + 100.0 * np.eye(x.shape[1]), x.T @ returns_bps[learn])
    return float(pd.Series(judged @ weights).rank().corr(pd.Series(returns_bps[judge]).rank()))


def test_features_of_a_tick_before_know_less_and_those_of_a_tick_after_know_more(
    real_rows: HistoryRows, real_labels: Labels
) -> None:
    before, honest, after = (
        skill(real_rows, real_labels, real_labels.return_bps, shift_ticks) for shift_ticks in (-1, 0, 1)
    )
    assert honest > 0.2
    assert before < honest < after


def test_labels_that_are_shuffled_are_foreseen_no_better_than_by_chance(
    real_rows: HistoryRows, real_labels: Labels
) -> None:
    shuffled = real_labels.return_bps.copy()
    known = real_labels.known
    shuffled[known] = np.random.default_rng(0).permutation(shuffled[known])
    # 5 standard errors of some 20,000 rows.
    assert abs(skill(real_rows, real_labels, shuffled)) < 0.035
