"""The newest feature rows of lanes against the training span of the model that serves."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from agents import features
from agents.drift import ANSWERS, ANSWERS_KEY, FEATURES_KEY, reference
from agents.windows import Windows
from models.artifact import load
from models.feature_drift import FeatureDrift
from models.predictor import load_predictor
from stream.records import Records, TickKind, empty_ticks

CHAMPION = Path(__file__).resolve().parents[2] / "models/champion/model.onnx"


@pytest.fixture
def quotes() -> Records:
    ticks = empty_ticks(2_000)
    ticks["symbol"], ticks["kind"] = b"AIG", TickKind.QUOTE
    ticks["source_seq"] = ticks["event_ns"] = ticks["recv_ns"] = 1 + np.arange(2_000) * 1_000_000
    for name in ("bid", "ask", "bid_size", "ask_size"):
        ticks[name] = 100.0 + (name == "ask")
    return ticks


def test_the_newest_row_of_each_symbol_is_told_to_prometheus(quotes: Records) -> None:
    windows = Windows(0, 0)
    rows = windows.step(quotes[:1_000], np.zeros(1_000, np.int64)).features.copy()
    predictor = load_predictor(CHAMPION)
    predictor.card = dataclasses.replace(predictor.card, training={FEATURES_KEY: reference(rows, features.NAMES)})
    registry = CollectorRegistry()
    drift = FeatureDrift(features.NAMES, registry)
    for at in range(1_000, 2_000):
        windows.step(quotes[at : at + 1], np.array([at]))
        drift.sample(predictor, windows.states[: windows.count])
    text = generate_latest(registry).decode()
    assert "tickloom_feature_drift_rows 1000.0" in text
    assert text.count("tickloom_feature_drift_psi{") == features.COUNT
    assert text.count("tickloom_feature_drift_ks{") == features.COUNT
    assert 'tickloom_feature_drift_psi{feature="spread_bps"} 0.0' in text


def test_a_model_that_says_nothing_of_its_training_has_no_drift(quotes: Records) -> None:
    windows = Windows(0, 0)
    windows.step(quotes, np.zeros(len(quotes), np.int64))
    predictor = load_predictor(CHAMPION)
    predictor.card = dataclasses.replace(predictor.card, training={})
    registry = CollectorRegistry()
    drift = FeatureDrift(features.NAMES, registry)
    drift.sample(predictor, windows.states[: windows.count])
    assert "tickloom_feature_drift_psi{" not in generate_latest(registry).decode()


def test_the_champion_says_what_it_was_trained_on() -> None:
    card = load(CHAMPION).card
    assert tuple(card.training[FEATURES_KEY]) == card.feature_names
    assert tuple(card.training[ANSWERS_KEY]) == ANSWERS
