"""The exported graph against Keras, on real features and for long; and what the file says about itself."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import features
from models import lstm
from models.card import Golden, ModelCard
from models.dataset import HistoryRows, history, label
from models.export import check_parity, library_versions
from models.onnx_wire import read_graph
from models.splits import by_shares
from models.train import TrainSettings, fit
from stream.errors import ModelError
from stream.sources.replay import Replay

SETTINGS = TrainSettings(units=8, epochs=1, streams=32)
STEPS = 100_000


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> HistoryRows:
    pytest.importorskip("tensorflow")
    files = sorted((shared_data / "ticks" / "us_equity").glob("*_AIG_20131007.parquet"))
    return history(np.concatenate(list(Replay(files).days()))[: STEPS + 2000], 5_000_000_000)


@pytest.fixture(scope="module")
def models(rows: HistoryRows) -> lstm.Models:
    labels = label(rows, SETTINGS.horizon, SETTINGS.dead_band_bps, SETTINGS.clip_bps)
    return fit(rows, labels, by_shares(rows, labels, 0.15, 0.2), SETTINGS).models


@pytest.fixture(scope="module")
def graph(models: lstm.Models) -> bytes:
    return lstm.export_step(models)


def card_of(graph: bytes) -> ModelCard:
    nothing = Golden(np.zeros((1, features.COUNT), np.float32), np.zeros((1, 4), np.float32), 1e-5)
    return ModelCard(
        name="small",
        version=1,
        feature_names=features.NAMES,
        horizon_ns=1,
        dead_band_bps=1.0,
        clip_bps=50.0,
        warmup_ticks=1,
        layers=1,
        units=8,
        trained_from_ns=0,
        trained_to_ns=1,
        data_sha256="0" * 64,
        weights_sha256=read_graph(graph).weights_sha256,
        code_version="test",
        golden=nothing,
    )


@pytest.mark.train
def test_the_graph_agrees_with_keras_after_100_000_carried_steps_of_a_real_day(
    models: lstm.Models, graph: bytes, rows: HistoryRows
) -> None:
    some = rows.features[:STEPS]
    assert len(some) == STEPS
    assert 0.0 < check_parity(models, graph, card_of(graph), some, STEPS) < 1e-5


@pytest.mark.train
def test_the_exporter_is_the_one_that_is_pinned(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert lstm.PRODUCER.replace(" ", "==") in project["project"]["optional-dependencies"]["train"]
    model = onnx.load_from_string(graph)
    assert f"{model.producer_name} {model.producer_version}".startswith(lstm.PRODUCER)
    monkeypatch.setattr(lstm, "PRODUCER", "tf2onnx 0.9.0")
    with pytest.raises(ModelError, match=r"exported by tf2onnx.*right would be tf2onnx 0\.9\.0"):
        lstm.check_export(model)


@pytest.mark.train
def test_a_graph_of_another_opset_or_with_a_loop_is_refused(graph: bytes) -> None:
    import onnx

    model = onnx.load_from_string(graph)
    model.opset_import[0].version = 16
    with pytest.raises(ModelError, match=r"opset 16; right would be 17"):
        lstm.check_export(model)
    model = onnx.load_from_string(graph)
    model.graph.node.add(op_type="Loop", name="loop")
    with pytest.raises(ModelError, match=r"Loop.*right would be flat"):
        lstm.check_export(model)


@pytest.mark.train
def test_the_libraries_are_named_whatever_package_tensorflow_comes_from(graph: bytes) -> None:
    versions = library_versions()
    assert versions["tensorflow"].startswith("2.")
    assert f"tf2onnx {versions['tf2onnx']}" == lstm.PRODUCER


def test_what_the_card_says_of_the_exporter_survives_and_may_be_missing(random_model: Any) -> None:
    card = random_model().card
    assert (card.opset, card.producer) == (0, "")  # not known: a file of before
    told = dataclasses.replace(card, opset=17, producer=lstm.PRODUCER)
    again = ModelCard.from_entries(told.to_entries())
    assert (again.opset, again.producer) == (17, lstm.PRODUCER)
