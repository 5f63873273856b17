import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import step_in_numpy

from models.activations import exp_of_negative, sigmoid, tanh


def each(function: Any) -> Callable[[Any], Any]:
    """Return the function over ``float32[N]``, compiled as the kernel compiles it: in vectors."""

    @numba.njit(error_model="numpy")
    def over(values: Any) -> Any:
        out = np.empty_like(values)
        for index in range(len(values)):
            out[index] = function(values[index])
        return out

    return over  # type: ignore[no-any-return]


def floats(lowest: float, highest: float) -> Any:
    """Return about a million float32 of all magnitudes: every so many of all that there are."""
    bits = np.arange(0, np.float32(np.inf).view(np.int32), 1999, dtype=np.int32)
    values = bits.view(np.float32)
    both = np.concatenate([-values[::-1], values])
    return both[(both >= lowest) & (both <= highest)]


EXACT: dict[str, tuple[Any, Any, Any, float, float, float]] = {
    "exp": (exp_of_negative, step_in_numpy.exp_of_negative, np.exp, -87.0, 0.0, 1.0),
    "sigmoid": (sigmoid, step_in_numpy.sigmoid, lambda x: 1.0 / (1.0 + np.exp(-x)), -87.0, np.inf, 2.4),
    "tanh": (tanh, step_in_numpy.tanh, np.tanh, -np.inf, np.inf, 1.5),
}


@pytest.mark.parametrize("name", EXACT)
def test_no_float_is_further_from_the_truth_than_we_say(name: str) -> None:
    function, _, truth, lowest, highest, ulps = EXACT[name]
    values = floats(lowest, highest)
    expected = truth(values.astype(np.float64))
    ulp = np.spacing(np.abs(expected).astype(np.float32))
    off = np.abs(each(function)(values).astype(np.float64) - expected) / ulp
    assert off.max() <= ulps + 0.1
    assert off.max() > 0.2  # a bound that is far too wide says nothing


@pytest.mark.parametrize("name", EXACT)
def test_the_bits_are_those_of_the_same_operations_in_numpy(name: str) -> None:
    function, in_numpy, _, lowest, highest, _ = EXACT[name]
    values = floats(lowest, highest)
    with np.errstate(all="ignore"):
        expected = in_numpy(values)
    assert each(function)(values).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", EXACT)
def test_nan_is_not_clamped_away(name: str) -> None:
    assert math.isnan(each(EXACT[name][0])(np.full(9, np.nan, np.float32))[4])


def test_far_out_they_are_at_their_ends() -> None:
    far = np.array([-np.inf, -3e38, 3e38, np.inf], np.float32)
    np.testing.assert_allclose(each(sigmoid)(far), [0, 0, 1, 1], atol=1e-37)
    np.testing.assert_allclose(each(tanh)(far), [-1, -1, 1, 1], atol=2e-7)
    assert 0 < each(exp_of_negative)(far)[0] < 2e-38
