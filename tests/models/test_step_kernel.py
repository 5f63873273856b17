from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import step_in_numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from models import step_kernel
from models.artifact import load
from models.compiled_predictor import CompiledPredictor
from models.step_graph import StepWeights, read_step

SYMBOLS = 5


SHAPES = [(1, 32, 18), (2, 64, 18), (1, 7, 5), (3, 40, 17), (1, 33, 18)]


@pytest.fixture(
    scope="module", params=[*((*shape, False) for shape in SHAPES), (1, 32, 18, True), (2, 33, 17, True)], ids=str
)
def pair(request: pytest.FixtureRequest, random_model: Callable[..., Any]) -> tuple[CompiledPredictor, StepWeights]:
    layers, units, width, direct = request.param
    artifact = load(random_model(layers=layers, units=units, width=width, fused=False, direct=direct).path)
    return CompiledPredictor.build(artifact), read_step(artifact.graph, width, layers, units)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-30, 1e-3, 1.0, 30.0, 1e6]))
def test_every_bit_is_that_of_the_same_operations_in_numpy(
    pair: tuple[CompiledPredictor, StepWeights], seed: int, scale: float
) -> None:
    predictor, weights = pair
    layers, units, width = len(weights.layers), len(weights.heads), len(weights.mean)
    generator = np.random.default_rng(seed)
    h, c = np.zeros((2, SYMBOLS, layers, units), np.float32)
    mine = np.zeros((2, SYMBOLS, MODEL_STATE_FLOATS), np.float32)
    out = np.empty((SYMBOLS, 4), np.float32)
    for _ in range(4):
        values = (generator.normal(0.0, scale, (SYMBOLS, features.COUNT))).astype(np.float32)
        predictor.run(values, np.arange(SYMBOLS), np.zeros(SYMBOLS, np.int64), mine[0], mine[1], out)
        with np.errstate(all="ignore"):
            answers, h, c = step_in_numpy.step(weights, values[:, :width], h, c)
        assert out.tobytes() == answers.tobytes()
        for name, state, expected in zip("hc", mine, (h, c), strict=True):
            assert state[:, : layers * units].tobytes() == expected.tobytes(), name


def test_no_product_is_contracted_with_a_sum() -> None:
    # What came out of the cache has no assembly to look at, so it is compiled once more.
    add_up = numba.njit(error_model="numpy")(step_kernel._add_up.py_func)
    add_up(np.zeros(128, np.float32), np.zeros(52, np.float32), np.zeros((53, 128), np.float32))
    (code,) = add_up.inspect_asm().values()
    assert "mul" in code
    for instruction in ("fmadd", "fmla", "fmsub"):
        assert instruction not in code


def test_rows_after_one_that_is_refused_are_not_touched(pair: tuple[CompiledPredictor, StepWeights]) -> None:
    predictor, _ = pair
    values = np.ones((3, features.COUNT), np.float32)
    values[1, predictor_column(predictor)] = np.nan
    h, c = np.full((2, 3, MODEL_STATE_FLOATS), 0.5, np.float32)
    out = np.full((3, 4), 9.0, np.float32)
    with pytest.raises(Exception, match="for feature row 1"):
        predictor.run(values, np.arange(3), np.zeros(3, np.int64), h, c, out)
    assert (h[1:] == 0.5).all()
    assert (c[1:] == 0.5).all()
    assert (out[1:] == 9.0).all()
    values[1] = 1.0
    # What stopped it has left nothing behind in the scratch.
    predictor.run(values[1:], np.arange(1, 3), np.zeros(2, np.int64), h, c, out[1:])
    assert np.isfinite(out).all()
    assert out[1].tobytes() == out[2].tobytes()


def predictor_column(predictor: CompiledPredictor) -> int:
    return features.NAMES.index(predictor.card.feature_names[-1])
