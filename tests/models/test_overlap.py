import numpy as np
import pytest

from models.overlap import mean_error

HORIZON_NS = 10_000_000_000


def pairwise_error(values, event_ns, bandwidth_ns):
    """Every pair for itself, as the formula says it."""
    off = values - values.mean()
    near = np.maximum(0.0, 1.0 - np.abs(event_ns[:, None] - event_ns[None]) / bandwidth_ns)
    return np.sqrt(off @ near @ off) / len(values)


@pytest.mark.parametrize("seed", range(5))
def test_the_passes_over_sums_give_what_every_pair_for_itself_gives(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Bursts with the same time stamp, and a night in between.
    gaps_ns = generator.integers(0, 3, 400) * generator.integers(0, 2_000_000_000, 400)
    event_ns = 1_380_000_000_000_000_000 + np.cumsum(gaps_ns)
    event_ns[200:] += 40_000_000_000_000
    values = generator.normal(3.0, 2.0, 400)
    error = mean_error(values, event_ns, HORIZON_NS)
    assert error.mean == pytest.approx(values.mean())
    bandwidth_ns = error.bandwidth_s * 1e9
    assert bandwidth_ns >= 4 * HORIZON_NS
    assert error.standard_error == pytest.approx(pairwise_error(values, event_ns, bandwidth_ns), rel=1e-6)


def test_what_overlaps_counts_for_what_it_is_and_not_for_its_rows() -> None:
    # A value a horizon, seen in each of 50 rows of it: 400 observations, whatever the 20,000 rows say.
    event_ns = np.arange(20_000) * (HORIZON_NS // 50)
    variances = [
        mean_error(np.repeat(np.random.default_rng(seed).normal(size=400), 50), event_ns, HORIZON_NS).standard_error
        ** 2
        for seed in range(60)
    ]
    assert np.mean(variances) == pytest.approx(1.0 / 400, rel=0.15)


def test_values_that_do_not_vary_have_no_error_and_no_t() -> None:
    error = mean_error(np.full(100, 2.0), np.arange(100) * HORIZON_NS, HORIZON_NS)
    assert (error.mean, error.standard_error, error.t) == (2.0, 0.0, 0.0)
