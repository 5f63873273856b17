import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.dataset import HistoryRows, history, label
from models.search_folds import Folds
from models.splits import by_shares
from models.train import TrainSettings
from stream.errors import ModelError

LATENESS_NS = 5_000_000_000
SETTINGS = TrainSettings(
    horizon_s=5.0,
    feature_names=("book_imbalance", "return_1_bps", "volatility_64_bps", "spread_bps"),
    units=8,
    epochs=2,
    streams=8,
    steps=32,
    burn_in=16,
    learning_rate=1e-2,
)


@pytest.fixture(scope="module")
def rows(make_ticks: Callable[..., Any]) -> HistoryRows:
    return history(make_ticks(6000, symbols=2, seed=5), LATENESS_NS)


def held_out_ns(rows: HistoryRows) -> int:
    labels = label(rows, SETTINGS.horizon, SETTINGS.dead_band_bps, SETTINGS.clip_bps)
    return by_shares(rows, labels, SETTINGS.validation_share, SETTINGS.held_out_share).test_ns


def test_folds_follow_one_another_up_to_the_held_out_span(rows: HistoryRows) -> None:
    labels = label(rows, SETTINGS.horizon, SETTINGS.dead_band_bps, SETTINGS.clip_bps)
    folds = Folds(rows, 4).splits(labels, SETTINGS)
    assert len(folds) == 4
    assert folds[-1].test_ns == held_out_ns(rows)
    for earlier, later in itertools.pairwise(folds):
        assert earlier.test_ns == later.validation_ns
        assert earlier.train.sum() < later.train.sum()
    for fold in folds:
        assert fold.from_ns == rows.event_ns.min()
        assert labels.end_ns[fold.train].max() < fold.validation_ns <= rows.event_ns[fold.validation].min()
        assert labels.end_ns[fold.validation].max() < fold.test_ns
    sizes = [int(fold.validation.sum()) for fold in folds]
    assert min(sizes) > 0.8 * max(sizes)


@pytest.mark.train
def test_skill_is_above_nothing_only_where_there_is_something_to_find(
    rows: HistoryRows, make_ticks: Callable[..., Any]
) -> None:
    pytest.importorskip("tensorflow")
    seen: list[float] = []
    skill = Folds(rows, 2)(SETTINGS, seen.append)
    assert 0.005 < skill < 0.3
    assert len(seen) == 2 * SETTINGS.epochs  # which a search may end by raising
    assert seen[-1] == pytest.approx(skill, abs=0.05)
    nothing = history(make_ticks(6000, symbols=2, seed=5, edge=0.0), LATENESS_NS)
    assert Folds(nothing, 1)(SETTINGS, lambda skill: None) < 0.005


@pytest.mark.train
def test_nothing_of_the_held_out_span_is_looked_at(rows: HistoryRows) -> None:
    pytest.importorskip("tensorflow")
    quick = dataclasses.replace(SETTINGS, epochs=1)
    held_out = rows.event_ns >= held_out_ns(rows)
    features, price = rows.features.copy(), rows.ref_price.copy()
    features[held_out] = 1e6
    price[held_out] *= np.random.default_rng(0).uniform(0.5, 2.0, int(held_out.sum()))
    spoilt = dataclasses.replace(rows, features=features, ref_price=price)
    told: tuple[list[float], list[float]] = ([], [])
    skills = [Folds(each, 1)(quick, said.append) for each, said in zip((rows, spoilt), told, strict=True)]
    assert skills[0] == skills[1]
    assert told[0] == told[1]


@pytest.mark.train
def test_a_recording_that_is_too_short_for_its_streams_is_refused(rows: HistoryRows) -> None:
    pytest.importorskip("tensorflow")
    wide = dataclasses.replace(SETTINGS, streams=2000, burn_in=64)
    with pytest.raises(ModelError, match="right would be a longer recording, or fewer streams"):
        Folds(rows)(wide, lambda skill: None)
