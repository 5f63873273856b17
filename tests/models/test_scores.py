from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import scores

CLASSES = [0, 1, 2]


def answers(seed: int, rows: int = 3000) -> tuple[Any, Any]:
    """Probabilities that know something, and outcomes of which most are flat."""
    generator = np.random.default_rng(seed)
    outcome = generator.choice(3, rows, p=[0.2, 0.65, 0.15])
    logits = generator.normal(0.0, 1.0, (rows, 3)) + 1.2 * np.eye(3)[outcome]
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), outcome


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_scored_as_scikit_learn_scores_them(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, outcome = answers(seed)
    chosen = probabilities.argmax(axis=1)
    found = scores.classification(probabilities, outcome)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(outcome, chosen))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(outcome, chosen))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(outcome, chosen))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(outcome, chosen, average="macro"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(outcome, probabilities, labels=CLASSES))
    assert found["brier"] == pytest.approx(
        metrics.brier_score_loss(outcome, probabilities, labels=CLASSES, scale_by_half=False)
    )
    assert (scores.confusion(chosen, outcome) == metrics.confusion_matrix(outcome, chosen, labels=CLASSES)).all()


def test_a_class_that_never_came_and_was_never_chosen_does_not_count() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0]])
    outcome = np.array([0, 1, 1, 1])
    found = scores.classification(probabilities, outcome)
    assert found["balanced_accuracy"] == pytest.approx((1.0 + 2 / 3) / 2)
    assert found["macro_f1"] == pytest.approx(
        metrics.f1_score(outcome, probabilities.argmax(axis=1), average="macro")
    )


def test_always_the_same_answer_has_no_correlation_with_anything() -> None:
    found = scores.classification(np.tile([0.2, 0.7, 0.1], (50, 1)), np.arange(50) % 3)
    assert found["mcc"] == 0.0
    assert found["balanced_accuracy"] == pytest.approx(1 / 3)


def test_an_impossible_event_that_came_costs_much_and_not_infinitely_much() -> None:
    loss = scores.log_losses(np.array([[1.0, 0.0, 0.0]]), np.array([1]))
    assert loss[0] == pytest.approx(-np.log(1e-7))


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_truth() -> None:
    # Two bins: 70 % sure and right 3 times of 4; 90 % sure and right once of 2.
    probabilities = np.array([[0.7, 0.2, 0.1]] * 4 + [[0.05, 0.9, 0.05]] * 2)
    outcome = np.array([0, 0, 0, 1, 1, 2])
    assert scores.calibration_error(probabilities, outcome) == pytest.approx((4 * 0.05 + 2 * 0.4) / 6)


def test_probabilities_that_mean_what_they_say_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1.0, 2.0, 1.0], 60_000)
    outcome = (generator.random((60_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert scores.calibration_error(probabilities, outcome) < 0.012
    for bins in scores.reliability(probabilities, outcome).values():
        assert len(bins) == 10
        assert all(abs(each["predicted"] - each["observed"]) < 0.025 for each in bins)
    # And it is seen where they do not: squeezed towards the middle.
    assert scores.calibration_error(0.5 * probabilities + 1 / 6, outcome) > 0.1


def test_bins_of_a_forecaster_that_says_little_are_as_few_as_what_it_says() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3]] * 30 + [[0.1, 0.6, 0.3]] * 10)
    bins = scores.reliability(probabilities, np.repeat([0, 1], 20))
    assert [each["rows"] for each in bins["down"]] == [10, 30]
    assert [each["observed"] for each in bins["down"]] == [0.0, pytest.approx(20 / 30)]
    assert [each["rows"] for each in bins["up"]] == [40]


def test_hits_look_only_at_rows_that_moved() -> None:
    probabilities = np.array([[0.3, 0.6, 0.1], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2], [0.9, 0.0, 0.1], [0.1, 0.0, 0.9]])
    # Right, wrong, undecided, flat, flat.
    found = scores.hits(probabilities, np.array([0, 0, 2, 1, 1]))
    assert found == {"hit_rate": pytest.approx(0.5), "flat_share": pytest.approx(0.4)}
    assert scores.hits(probabilities, np.ones(5, np.int64)) == {"hit_rate": 0.5, "flat_share": 1.0}


def test_correlations_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(2)
    x = generator.normal(size=2000).round(1)
    y = 0.3 * x + generator.standard_t(3, 2000)
    event_ns = np.arange(2000) * 1_000_000_000
    found = scores.information(x, y, event_ns, 1_000_000_000)
    assert found["ic"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["rank_ic"] == pytest.approx(stats.spearmanr(x, y).statistic)
    # Rows a horizon apart are independent: the error is about that of the textbook.
    assert found["rank_ic_t"] == pytest.approx(found["rank_ic"] * np.sqrt(2000), rel=0.3)


def test_the_t_of_a_correlation_counts_horizons_and_not_rows() -> None:
    generator = np.random.default_rng(3)
    x = np.repeat(generator.normal(size=300), 40)
    y = 0.3 * x + np.repeat(generator.normal(size=300), 40)
    event_ns = np.arange(12_000) * 250_000_000
    found = scores.information(x, y, event_ns, 10_000_000_000)
    assert 3.0 < found["ic_t"] < 9.0  # 0.29 x sqrt(300) is 5; with 12,000 rows it would be 31


def test_a_constant_expectation_has_no_correlation() -> None:
    event_ns = np.arange(100) * 1_000_000_000
    y = np.random.default_rng(0).normal(size=100)
    found = scores.information(np.full(100, 0.1, np.float32).astype(np.float64), y, event_ns, 1_000_000_000)
    assert set(found.values()) == {0.0}


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_scores_stay_within_their_ranges(seed: int, rows: int) -> None:
    probabilities, outcome = answers(seed, rows)
    found = scores.classification(probabilities, outcome)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error"):
        assert 0.0 <= found[name] <= 1.0
    assert -1.0 - 1e-9 <= found["mcc"] <= 1.0 + 1e-9
    assert 0.0 <= found["brier"] <= 2.0
