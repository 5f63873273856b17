from pathlib import Path

import numpy as np
import pytest

from agents import features
from models.artifact import OPERATORS
from models.compiled_predictor import CompiledPredictor
from models.dataset import history, label
from models.metrics import score, serve
from models.onnx_wire import read_graph
from models.predictor import load_predictor
from stream.settings import Settings
from stream.sources.simulator import Simulator, symbol_names

CHAMPION = Path(__file__).resolve().parents[2] / Settings().model


@pytest.fixture(scope="module")
def champion() -> CompiledPredictor:
    predictor = load_predictor(CHAMPION)
    assert isinstance(predictor, CompiledPredictor)
    return predictor


def test_the_committed_champion_serves(champion: CompiledPredictor) -> None:
    assert champion.card.feature_names == features.NAMES[:18]
    assert champion.horizon_ns == 10_000_000_000
    assert (champion.card.layers, champion.card.units) == (1, 32)
    assert set(read_graph(CHAMPION.read_bytes()).operators) <= OPERATORS - {"LSTM"}
    assert CHAMPION.stat().st_size < 200_000


def test_the_champion_beat_no_model_on_its_held_out_span(champion: CompiledPredictor) -> None:
    metrics = champion.card.metrics
    assert metrics["accuracy"] > metrics["majority_accuracy"] + 0.02
    assert metrics["log_loss"] < metrics["prior_log_loss"] - 0.01
    assert metrics["balanced_accuracy"] > 0.36
    assert metrics["ic"] > 0.1


def test_the_champion_knows_something_of_a_market_that_it_has_never_seen(champion: CompiledPredictor) -> None:
    market = Simulator(symbol_names(20), seed=7, start_ns=1_750_000_000_000_000_000, rate_per_s=500.0)
    rows = history(market.chunk(150_000), 5_000_000_000)
    labels = label(rows, champion.horizon_ns, champion.card.dead_band_bps, champion.card.clip_bps)
    frequencies = np.bincount(labels.direction[labels.known], minlength=3) / labels.known.sum()
    metrics = score(serve(champion, rows), labels, labels.known, frequencies)
    assert metrics["ic"] > 0.05
    assert metrics["balanced_accuracy"] > 0.345


def test_probabilities_add_up_to_one(champion: CompiledPredictor) -> None:
    market = Simulator(symbol_names(3), seed=1, start_ns=0, rate_per_s=100.0)
    answers = serve(champion, history(market.chunk(2000), 5_000_000_000))
    np.testing.assert_allclose(answers[:, :3].sum(axis=1), 1.0, atol=1e-6)
    assert (answers[:, :3] > 0.0).all()
    assert np.abs(answers[:, 3]).max() < champion.card.clip_bps
