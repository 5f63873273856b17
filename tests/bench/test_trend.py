import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.trend import growth


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=60), st.integers(0, 2**32 - 1))
def test_slope_and_standard_error_are_those_of_numpy(values: list[float], seed: int) -> None:
    at_s = np.cumsum(np.random.default_rng(seed).uniform(10.0, 90.0, len(values)))
    seen = growth(at_s.tolist(), values)
    (slope, _), covariance = np.polyfit(at_s / 3600.0, values, 1, cov=True)
    scale = max(abs(value) for value in values) * 3600.0 + 1e-9
    assert seen["per_hour"] == pytest.approx(slope, rel=1e-6, abs=1e-9 * scale)
    assert seen["standard_error"] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-6, abs=1e-6 * scale)


def test_a_leak_is_seen_through_noise_and_its_absence_is_not_taken_for_one() -> None:
    at_s = np.arange(54) * 60.0
    noise = np.random.default_rng(1).normal(0.0, 2.0, 54)
    leaking = growth(at_s.tolist(), (300.0 + 30.0 * at_s / 3600.0 + noise).tolist())
    assert leaking["per_hour"] == pytest.approx(30.0, abs=3.0 * leaking["standard_error"])
    assert leaking["per_hour"] > 5.0 * leaking["standard_error"]
    flat = growth(at_s.tolist(), (300.0 + noise).tolist())
    assert abs(flat["per_hour"]) < 2.0 * flat["standard_error"]
