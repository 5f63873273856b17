"""A sequential test that may be looked at all the time, and still seldom condemns what is no worse."""

from typing import Any

import numpy as np
import pytest

from models.trial import TOLERANCE, Trial

HORIZON_NS = 10_000_000_000
ALPHA = 0.01


def run(losses: Any, others: Any, most: float = 2.5) -> tuple[float, int]:
    """Return the highest e-value of a trial, and the windows until it reached 1 / ALPHA (0: never)."""
    trial = Trial(HORIZON_NS)
    highest, tripped = 0.0, 0
    for window, (loss, other) in enumerate(zip(losses, others, strict=True)):
        trial.add(np.array([window * trial.window_ns]), np.array([loss - other]), np.array([-most]))
        trial.close((window + 2) * trial.window_ns)
        highest = max(highest, trial.e_value)
        if highest >= 1 / ALPHA and not tripped:
            tripped = trial.windows
    return highest, tripped


def test_a_model_that_is_as_good_is_condemned_no_more_often_than_it_says() -> None:
    generator = np.random.default_rng(5)
    condemned = 0
    for _ in range(400):
        # Both lose as much on average, heavy tails and all, in 200 windows that are looked at one by one.
        losses, others = np.minimum(generator.exponential(1.0, (2, 200)), 2.5)
        condemned += run(losses, others)[1] > 0
    # With a true rate of ALPHA, 12 or more of 400 come once in a thousand times.
    assert condemned < 12


def test_a_model_that_is_worse_is_found() -> None:
    generator = np.random.default_rng(6)
    losses, others = 1.3 + generator.normal(0, 0.4, 200), 0.9 + generator.normal(0, 0.4, 200)
    _, windows = run(losses, others)
    assert 0 < windows < 120


@pytest.mark.parametrize(("loss", "most"), [(2.0, 20), (5.0, 8), (16.0, 4)])
def test_the_worse_a_model_is_the_sooner_it_is_found(loss: float, most: int) -> None:
    _, windows = run([loss] * 40, [0.9] * 40)
    assert 0 < windows <= most


def test_a_model_within_the_tolerance_is_left_in_peace() -> None:
    highest, windows = run([1.0 + TOLERANCE / 2] * 5_000, [1.0] * 5_000)
    assert windows == 0
    assert highest <= 1.0


def test_only_predictions_whose_horizon_ends_before_the_next_window_count() -> None:
    trial = Trial(HORIZON_NS)
    from_ns = np.arange(0, 10 * trial.window_ns, 1_000_000_000, np.int64)
    counted = from_ns[trial.counts(from_ns)]
    ends = counted + HORIZON_NS
    assert len(counted) > 10
    assert (ends <= (counted // trial.window_ns + 1) * trial.window_ns).all()


def test_a_model_that_was_better_for_long_and_then_is_worse_is_found() -> None:
    generator = np.random.default_rng(8)
    good, bad = 0.7 + generator.normal(0, 0.3, 2_000), 2.0 + generator.normal(0, 0.3, 100)
    _, windows = run(np.concatenate([good, bad]), [1.0] * 2_100)
    assert 2_000 < windows < 2_080


def test_outcomes_that_come_after_their_window_was_closed_are_counted() -> None:
    trial = Trial(HORIZON_NS)
    trial.add(np.zeros(1, np.int64), np.ones(1), -np.ones(1))
    trial.close(10 * trial.window_ns)
    assert trial.left_out == 0
    trial.add(np.zeros(3, np.int64), np.ones(3), -np.ones(3))
    assert trial.left_out == 3


def test_a_trial_goes_on_where_it_was_saved() -> None:
    whole, first = Trial(HORIZON_NS), Trial(HORIZON_NS)
    generator = np.random.default_rng(7)
    for window in range(20):
        from_ns = np.full(3, window * whole.window_ns)
        loss, other = generator.exponential(1.0, (2, 3))
        for trial in (whole, first):
            trial.add(from_ns, loss - other, np.full(3, -9.0))
            trial.close(window * whole.window_ns)
        if window == 9:
            first = Trial.restore(first.save())
    assert first.save() == whole.save()
    assert whole.windows > 15
