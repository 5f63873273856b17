"""PSI and KS against the bins of the training span."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.drift import FEWEST_ROWS, Drift, reference

NAMES = ("plain", "constant", "few")


def drawn(rows: int, seed: int = 0, shift: float = 0.0) -> Any:
    generator = np.random.default_rng(seed)
    columns = [generator.normal(shift, 1.0, rows), np.full(rows, 3.0), generator.integers(0, 3, rows)]
    return np.stack(columns, axis=1).astype(np.float32)


def drift_of(values: Any, trained: Any = None) -> Drift:
    drift = Drift(reference(drawn(50_000) if trained is None else trained, NAMES), NAMES)
    drift.add(values)
    return drift


def test_values_as_in_training_have_not_drifted() -> None:
    drift = drift_of(drawn(5_000, seed=1))
    assert max(drift.psi().values()) < 0.02
    assert max(drift.ks().values()) < 0.03


def test_a_shift_by_one_deviation_is_much_drift_and_as_much_as_the_formula_says() -> None:
    drift = drift_of(drawn(50_000, seed=1, shift=1.0))
    assert drift.psi()["plain"] > 0.25
    # The distance of two normals one deviation apart is 2 * Phi(1/2) - 1, and at most that at ten edges.
    assert 0.34 < drift.ks()["plain"] < 0.384
    assert drift.psi()["few"] < 0.02


def test_a_constant_that_changes_has_drifted() -> None:
    values = drawn(5_000, seed=1)
    values[:, 1] = 4.0
    assert drift_of(values).psi()["constant"] > 0.25


def test_few_rows_tell_nothing() -> None:
    assert drift_of(drawn(FEWEST_ROWS - 1)).psi() == {}


def test_what_was_long_ago_fades() -> None:
    drift = drift_of(drawn(15_000, seed=1, shift=5.0))
    for seed in range(10):
        drift.add(drawn(15_000, seed=seed))
    assert drift.psi()["plain"] < 0.1


@given(values=arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)))
def test_shares_of_any_column_sum_to_one_and_it_has_not_drifted_from_itself(values: Any) -> None:
    expected = reference(values[:, None], ("x",))
    assert sum(expected["x"]["shares"]) == pytest.approx(1.0, abs=1e-4)
    drift = Drift(expected, ("x",))
    drift.add(np.tile(values, 2 * FEWEST_ROWS)[:, None])
    assert drift.psi()["x"] < 1e-6
    assert drift.ks()["x"] < 1e-4
