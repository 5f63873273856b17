from typing import Any

import numpy as np
import pytest

from models.diebold_mariano import diebold_mariano

pytest.importorskip("scipy")

HORIZON_NS = 10_000_000_000
ROWS = 4000


def differences(seed: int, shift: float) -> tuple[Any, Any]:
    """Losses that overlap: each row has the mean of all shocks within the horizon after it; rows come at random."""
    generator = np.random.default_rng(seed)
    event_ns = np.cumsum(generator.exponential(2e8, ROWS)).astype(np.int64)
    grid = generator.normal(0.0, 1.0, 20_000)
    sums = np.concatenate([[0.0], np.cumsum(grid)])
    first = event_ns // 100_000_000
    return shift + (sums[first + 100] - sums[first]) / 10.0, event_ns


def p_values(shift: float, runs: int) -> Any:
    found = []
    for seed in range(runs):
        losses, event_ns = differences(seed, shift)
        found.append(diebold_mariano(losses, np.zeros(ROWS), event_ns, HORIZON_NS).p_value)
    return np.array(found)


def test_equals_are_told_apart_about_as_often_as_the_level_says() -> None:
    p = p_values(0.0, 600)
    assert 0.02 < (p < 0.05).mean() < 0.08
    assert (p < 0.01).mean() < 0.025


def test_a_test_that_takes_rows_for_independent_would_cry_wolf() -> None:
    naive = []
    for seed in range(100):
        losses, _ = differences(seed, 0.0)
        naive.append(abs(losses.mean()) / losses.std() * np.sqrt(ROWS) > 1.96)
    assert np.mean(naive) > 0.5


def test_a_better_forecaster_is_found_and_a_much_better_one_always() -> None:
    # 80 horizons with a spread of 1: a standard error of about 0.11.
    assert (p_values(-0.3, 100) < 0.05).mean() > 0.6
    assert (p_values(-1.0, 100) < 0.01).all()


def test_the_sign_says_who_loses_less_and_the_order_changes_nothing_else() -> None:
    losses, event_ns = differences(3, -0.4)
    one = diebold_mariano(losses, np.zeros(ROWS), event_ns, HORIZON_NS)
    other = diebold_mariano(np.zeros(ROWS), losses, event_ns, HORIZON_NS)
    assert one.mean_difference < 0.0
    assert one.mean_difference == -other.mean_difference
    assert one.statistic == -other.statistic
    assert one.p_value == other.p_value


def test_the_bandwidth_is_never_shorter_than_the_horizon_even_of_a_short_series() -> None:
    for rows in (2, 50, 1000):
        losses, event_ns = differences(4, 0.0)
        found = diebold_mariano(losses[:rows], np.zeros(rows), event_ns[:rows], HORIZON_NS)
        assert found.bandwidth_s >= 10.0
        assert 0.0 <= found.p_value <= 1.0


def test_the_same_losses_are_no_evidence() -> None:
    losses, event_ns = differences(5, 0.0)
    found = diebold_mariano(losses, losses, event_ns, HORIZON_NS)
    assert (found.statistic, found.p_value) == (0.0, 1.0)
