import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.stocknet import (
    COLUMNS,
    ELIGIBLE_DAYS,
    FEATURES,
    FOLDS,
    TEST,
    TRAIN,
    VALIDATION,
    Days,
    cut_samples,
    read_days,
    score,
)
from stream.errors import SourceError


@pytest.fixture(scope="module")
def bars(shared_data: Path) -> Path:
    return shared_data / "bars" / "daily_stocknet88.parquet"


@pytest.fixture(scope="module")
def days(bars: Path) -> Days:
    return read_days(bars)


def test_the_samples_are_those_of_the_published_benchmark(days: Days) -> None:
    train, validation, test = (cut_samples(days, span) for span in (TRAIN, VALIDATION, TEST))
    assert [len(span.up) for span in (train, validation, test)] == [20_315, 2_555, 3_720]
    assert 100.0 * test.up.mean() == pytest.approx(51.29, abs=0.005)


def test_the_known_baseline_has_its_known_score(days: Days) -> None:
    test = cut_samples(days, TEST)
    below_its_mean = days.features[test.day - 1, test.stock, -1] > 0.0
    reversion = score(test.up, below_its_mean)
    assert reversion.accuracy_percent == pytest.approx(52.93, abs=0.005)
    assert reversion.mcc == pytest.approx(0.0640, abs=0.00005)


def test_features_are_those_of_the_literature_on_a_known_day(days: Days) -> None:
    # AAPL on 2013-06-03, as published with Adv-ALSTM, in percent.
    day = int(np.searchsorted(days.date, np.datetime64("2013-06-03")))
    known = [0.002215, 0.363858, -1.828186, 0.220128, 0.220127]
    known += [-0.673593, -1.276852, -1.713707, -0.949655, -1.295995, -2.789459]
    assert days.features.shape[2] == FEATURES == len(known)
    np.testing.assert_allclose(days.features[day, 0], known, atol=1e-6)


def test_features_do_not_know_the_days_after(bars: Path, days: Days, tmp_path: Path) -> None:
    table = pd.read_parquet(bars)
    until = pd.Timestamp("2016-12-01").value
    table[table["ts_ns"] < until].to_parquet(tmp_path / "early.parquet")
    early = read_days(tmp_path / "early.parquet")
    assert 500 < len(early.date) < len(days.date)
    np.testing.assert_array_equal(early.features, days.features[: len(early.date)])


def test_a_stock_counts_only_once_it_has_five_days_of_features(days: Days) -> None:
    train = cut_samples(days, TRAIN)
    for day, stock in zip(train.day, train.stock, strict=True):
        assert np.isfinite(days.features[day - ELIGIBLE_DAYS : day, stock]).all()
    listed = np.isfinite(days.features).all(axis=2).argmax(axis=0)
    late = int(listed.argmax())  # listed in 2016
    assert late not in train.stock
    assert len(set(train.stock)) == days.features.shape[1] - 1


def test_what_recipes_are_chosen_by_ends_before_the_test_span_begins() -> None:
    assert all(end <= TEST[0] for _, end in FOLDS)
    assert FOLDS[-1] == VALIDATION
    assert TRAIN[1] == VALIDATION[0]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_the_correlation_is_that_of_the_confusion_matrix(pairs: list[tuple[bool, bool]]) -> None:
    up, predicted = np.array(pairs).T
    right, wrong = (
        (up & predicted).sum() * (~up & ~predicted).sum(),
        (up & ~predicted).sum() * (~up & predicted).sum(),
    )
    margins = up.sum() * (~up).sum() * predicted.sum() * (~predicted).sum()
    found = score(up, predicted)
    assert found.mcc == pytest.approx((right - wrong) / margins**0.5 if margins else 0.0, abs=1e-9)
    assert found.accuracy_percent == pytest.approx(100.0 * np.mean([a == b for a, b in pairs]))


def test_files_that_are_something_else_are_refused(bars: Path, tmp_path: Path, days: Days) -> None:
    table = pd.read_parquet(bars, columns=list(COLUMNS))
    with pytest.raises(SourceError, match="right would be Parquet with the columns ts_ns"):
        read_days(tmp_path / "nothing.parquet")
    table.drop(columns="adj_close").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="right would be Parquet with the columns ts_ns"):
        read_days(tmp_path / "other.parquet")
    pd.concat([table, table.iloc[:3]]).to_parquet(tmp_path / "twice.parquet")
    with pytest.raises(SourceError, match="3 rows of a stock and day that has one already"):
        read_days(tmp_path / "twice.parquet")
    short = dataclasses.replace(days, date=days.date[:500], features=days.features[:500])
    with pytest.raises(SourceError, match=r"right would be from 30 trading days before 2015-10-01 to 2016-01-01"):
        cut_samples(short, TEST)
