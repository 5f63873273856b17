"""The fallback as a model: it passes every check that any model passes, and says the frequencies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import features
from agents.inference import MODEL_STATE_FLOATS
from models.artifact import load
from models.fallback_model import write_fallback
from models.predictor import load_predictor

SHARES = np.array([0.2, 0.5, 0.3])


def write(path: Path, shares: Any = SHARES) -> Any:
    return write_fallback(
        path, shares, feature=features.NAMES[3], horizon_ns=10**10, dead_band_bps=1.0, seen_from_ns=1, seen_to_ns=2
    )


def test_it_is_served_and_says_the_frequencies_whatever_the_tick(tmp_path: Path) -> None:
    card = write(tmp_path / "model.onnx")
    predictor = load_predictor(tmp_path / "model.onnx")
    assert predictor.model_id == card.model_id
    rows = np.random.default_rng(1).normal(0, 100, (9, features.COUNT)).astype(np.float32)
    h, c = np.zeros((2, 2, MODEL_STATE_FLOATS), np.float32)
    out = np.empty((9, 4), np.float32)
    predictor.run(rows, np.arange(9) % 2, np.arange(9) // 2, h, c, out)
    np.testing.assert_allclose(out, np.tile([*SHARES, 0.0], (9, 1)), rtol=1e-6)


def test_other_frequencies_are_another_model(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.onnx"), write(tmp_path / "b.onnx", np.array([0.3, 0.4, 0.3]))
    assert one.model_id != other.model_id
    assert write(tmp_path / "c.onnx").model_id == one.model_id


def test_it_is_what_the_onnx_package_takes_for_a_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    write(tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    assert load(tmp_path / "model.onnx").graph.operators == ("Gemm", "Identity", "MatMul", "Softmax", "Squeeze")


@pytest.mark.parametrize("shares", [[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0]])
def test_frequencies_that_are_none_are_refused(tmp_path: Path, shares: list[float]) -> None:
    with pytest.raises(ValueError, match="right would be"):
        write(tmp_path / "model.onnx", np.array(shares))
