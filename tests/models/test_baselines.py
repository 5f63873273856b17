import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents import features
from agents.periods import DEFAULT, Periods
from models.baselines import baselines, by_size, forecast, frequencies, order_flow, regressions, trees
from models.dataset import HistoryRows, Labels, history, label
from models.direct import Sample
from models.splits import Split, split_at

pytest.importorskip("sklearn")

HORIZON_NS = 5_000_000_000


@pytest.fixture(scope="module")
def recording(make_ticks: Callable[..., Any]) -> tuple[HistoryRows, Labels, Split]:
    rows = history(make_ticks(16_000, symbols=2, seed=4), HORIZON_NS)
    labels = label(rows, HORIZON_NS, 1.0, 50.0)
    at = [int(rows.event_ns[place]) for place in (0, 9000, 11_000, -1)]
    return rows, labels, split_at(rows, labels, *at)


def sample(seed: int, rows: int = 6000) -> Sample:
    """Two features, of which the first tells the direction as a logistic model would, and the return."""
    generator = np.random.default_rng(seed)
    x = generator.normal(0.0, 3.0, (rows, 2)).astype(np.float32)
    pull = 0.5 * x[:, 0]
    odds = np.exp(np.stack([-pull, np.zeros(rows), pull], axis=1))
    draws = generator.random((rows, 1))
    direction = (draws > (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1)
    return Sample(x, direction, (pull + generator.normal(0.0, 0.5, rows)).astype(np.float32))


def test_the_majority_answers_with_what_came_in_training_whatever_it_sees() -> None:
    train = Sample(np.zeros((8, 0), np.float32), np.array([1] * 6 + [2] * 2), np.arange(8, dtype=np.float32))
    answers = frequencies(train, train)(np.zeros((3, 0), np.float32))
    assert answers == pytest.approx(np.tile([1 / 11, 7 / 11, 3 / 11, 3.5], (3, 1)))


@pytest.mark.parametrize("sign", [1, -1])
def test_momentum_and_reversal_are_learned_from_what_followed(sign: int) -> None:
    generator = np.random.default_rng(0)
    last = generator.choice([-3.0, -1.0, 0.0, 1.0, 3.0], 4000).astype(np.float32)
    direction = 1 + (sign * np.sign(last)).astype(np.int64)
    train = Sample(last[:, None], direction, (sign * last).astype(np.float32))
    answers = by_size(train, train)(np.array([[-3.0], [0.0], [3.0], [1000.0]], np.float32))
    assert answers[:, :3].argmax(axis=1).tolist() == [1 - sign, 1, 1 + sign, 1 + sign]
    assert answers[:, 3] == pytest.approx(sign * np.array([-3.0, 0.0, 3.0, 3.0]), abs=1e-5)


def test_a_size_that_training_never_saw_gets_what_came_on_the_whole() -> None:
    train = Sample(np.ones((100, 1), np.float32), np.full(100, 2), np.ones(100, np.float32))
    answers = by_size(train, train)(np.array([[-1.0]], np.float32))
    assert answers[0] == pytest.approx([1 / 103, 1 / 103, 101 / 103, 1.0])


@pytest.mark.parametrize("fit", [regressions, trees])
def test_what_is_regular_is_found(fit: Any) -> None:
    answers = fit(sample(1), sample(2))(sample(3).features)
    judged = sample(3)
    pull = 0.5 * judged.features[:, 0]
    odds = np.exp(np.stack([-pull, np.zeros(len(pull)), pull], axis=1))
    truth = odds / odds.sum(axis=1, keepdims=True)
    assert answers[:, :3].sum(axis=1) == pytest.approx(np.ones(len(answers)), abs=1e-5)
    assert np.sqrt(np.mean((answers[:, :3] - truth) ** 2)) < 0.05
    assert np.sqrt(np.mean((answers[:, 3] - pull) ** 2)) < 0.15


def test_regressions_are_those_of_scikit_learn_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression

    train, judged = sample(1), sample(3)
    mean, spread = train.features.mean(axis=0), train.features.std(axis=0)
    standard = [np.clip((each.features - mean) / spread, -3.0, 3.0) for each in (train, judged)]
    theirs = LogisticRegression(C=300.0 / 6000, max_iter=500).fit(standard[0], train.direction)
    answers = regressions(train, sample(2))(judged.features)
    assert answers[:, :3] == pytest.approx(theirs.predict_proba(standard[1]), abs=5e-3)


def test_the_validation_span_holds_down_weights_that_learned_noise() -> None:
    generator = np.random.default_rng(0)
    train, validation = (
        Sample(
            generator.normal(size=(rows, 60)).astype(np.float32),
            generator.integers(0, 3, rows),
            generator.normal(size=rows).astype(np.float32),
        )
        for rows in (200, 2000)
    )
    held_down, free = (regressions(train, chooses)(validation.features)[:, :3] for chooses in (validation, train))
    assert np.abs(held_down - 1 / 3).mean() < 0.3 * np.abs(free - 1 / 3).mean()


@pytest.mark.parametrize("fit", [regressions, trees])
def test_a_market_that_never_moved_is_no_reason_to_fail(fit: Any) -> None:
    still = Sample(np.ones((50, 2), np.float32), np.ones(50, np.int64), np.zeros(50, np.float32))
    assert fit(still, still)(still.features)[0] == pytest.approx([1 / 53, 51 / 53, 1 / 53, 0.0])


def test_a_class_that_only_the_validation_span_has_is_no_reason_to_fail() -> None:
    train, validation = sample(1), sample(2)
    two = Sample(train.features, np.minimum(train.direction, 1), train.return_bps)
    for fit in (regressions, trees):
        assert (fit(two, validation)(validation.features)[:, 2] == 0.0).all()


def test_every_baseline_answers_every_judged_row_with_probabilities(recording: Any) -> None:
    rows, labels, split = recording
    names = ("book_imbalance", "return_1_bps", "volatility_64_bps")
    for each in baselines(names, DEFAULT, HORIZON_NS):
        answers = forecast(each, rows, labels, split, features.NAMES)
        assert answers.shape == (split.test.sum(), 4)
        assert np.isfinite(answers).all()
        assert answers[:, :3].sum(axis=1) == pytest.approx(np.ones(len(answers)), abs=1e-5)


def test_nothing_of_the_judged_span_is_learned_from(recording: Any) -> None:
    rows, labels, split = recording
    generator = np.random.default_rng(0)
    direction, return_bps = labels.direction.copy(), labels.return_bps.copy()
    direction[split.test] = generator.integers(0, 3, split.test.sum())
    return_bps[split.test] = 1e3
    other = dataclasses.replace(labels, direction=direction, return_bps=return_bps)
    for each in baselines(("book_imbalance",), DEFAULT, HORIZON_NS):
        one, two = (forecast(each, rows, these, split, features.NAMES) for these in (labels, other))
        assert one.tobytes() == two.tobytes(), each.name


def test_each_symbol_has_a_fit_of_its_own_and_a_new_one_that_of_all(recording: Any) -> None:
    rows, labels, split = recording
    direction = np.where(rows.symbol_row == 0, np.arange(len(rows.event_ns)) % 3, labels.direction)
    skewed = dataclasses.replace(labels, direction=direction)
    majority = baselines(("book_imbalance",), DEFAULT, HORIZON_NS)[0]
    own = forecast(majority, rows, skewed, split, features.NAMES)
    first = rows.symbol_row[split.test] == 0
    assert own[first, :3] == pytest.approx(np.full((first.sum(), 3), 1 / 3), abs=1e-2)
    other = dataclasses.replace(split, train=split.train & (rows.symbol_row == 1))
    unseen = forecast(majority, rows, skewed, other, features.NAMES)
    assert (unseen[first] == unseen[~first][0]).all()


def test_the_features_of_order_flow_are_found_by_the_periods_of_the_engine() -> None:
    assert order_flow(DEFAULT, 10.0) == (
        "book_imbalance",
        "microprice_gap_bps",
        "order_flow_imbalance",
        "trade_flow",
        "order_flow_10s",
    )
    other = Periods(tick_flow=64, windows_s=(2.0, 20.0, 60.0, 300.0))
    flow = order_flow(other, 20.0)
    assert len(features.indices(flow, features.names(other))) == 5
    names = {name for each in baselines((), other, 9 * 10**9) for name in each.names}
    assert {"roc_2s_bps", "order_flow_2s"} <= names
