import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agents import features
from models.artifact import OPERATORS, load
from models.checkpoints import read_checkpoint
from models.compiled_predictor import CompiledPredictor
from models.dataset import by_symbol, history, label
from models.lstm import Scaler, build, start_tensorflow, walk
from models.metrics import score
from models.onnx_wire import read_graph
from models.predictor import load_predictor
from models.splits import by_shares
from models.train import Report, TrainSettings, fit, train
from stream.errors import ModelError, SettingsError

SETTINGS = TrainSettings(
    horizon_s=5.0, dead_band_bps=1.0, units=8, epochs=3, streams=8, steps=32, burn_in=16, learning_rate=1e-2
)
NAMES = ("book_imbalance", "return_1_bps", "volatility_64_bps", "spread_bps")
# Whatever draws random numbers or keeps a state of its own.
WITH_EVERYTHING = dataclasses.replace(
    SETTINGS,
    layers=2,
    feature_names=NAMES,
    dropout=0.1,
    input_dropout=0.05,
    weight_decay=1e-3,
    class_balance=0.5,
    embargo_s=10.0,
)


@pytest.fixture(scope="module")
def ticks(make_ticks: Callable[..., Any]) -> Any:
    return make_ticks(9000, symbols=2, seed=5)


@pytest.fixture(scope="module")
def report(ticks: Any, tmp_path_factory: pytest.TempPathFactory) -> Report:
    pytest.importorskip("tensorflow")
    out = tmp_path_factory.mktemp("trained") / "model.onnx"
    return train(iter(np.array_split(ticks, 5)), WITH_EVERYTHING, out)


@pytest.mark.train
def test_a_trained_model_passes_the_loader_and_knows_what_it_is(report: Report, ticks: Any) -> None:
    card = load(report.path).card
    assert card.feature_names == NAMES
    assert card.horizon_ns == 5_000_000_000
    assert (card.layers, card.units) == (2, 8)
    assert card.data_sha256 == history(ticks, 5_000_000_000).data_sha256
    assert card.trained_from_ns == ticks["event_ns"][0]
    assert card.trained_from_ns < card.trained_to_ns < ticks["event_ns"][-1]
    assert card.training["seed"] == SETTINGS.seed
    assert (card.training["direct"], card.training["head_penalty_rows"]) == (True, 1000.0)
    assert (card.training["outlier_bps"], card.training["lateness_s"]) == (500.0, 5.0)
    assert (card.opset, card.producer) == (17, "tf2onnx 1.17.0")
    assert card.libraries["keras"]
    assert 1 <= card.warmup_ticks <= 1024
    assert len(card.golden.features) == 32


@pytest.mark.train
def test_the_exported_graph_is_flat_and_agrees_with_keras_for_10_000_steps(report: Report) -> None:
    graph = read_graph(report.path.read_bytes())
    assert set(graph.operators) <= OPERATORS - {"LSTM"}
    assert {"Sub", "MatMul", "Sigmoid", "Tanh", "Softmax"} <= set(graph.operators)
    assert not graph.subgraphs
    assert 0.0 < report.parity < 1e-5


@pytest.mark.train
def test_a_feature_that_is_left_out_is_left_out_for_a_whole_chunk() -> None:
    start_tensorflow()
    width, steps = 40, 30
    models = build(Scaler(np.zeros(width, np.float32), np.ones(width, np.float32)), 1, 4, seed=7, input_dropout=0.5)
    lost = next(layer for layer in models.sequence.layers if layer.name.startswith("spatial_dropout"))
    handed_on = np.array(lost(np.ones((3, steps, width), np.float32), training=True))
    assert (handed_on == handed_on[:, :1]).all()
    assert 0.2 < (handed_on == 0.0).mean() < 0.8
    assert (handed_on[0] != handed_on[1]).any()  # another choice for each piece


@pytest.mark.train
def test_what_training_exports_is_served_by_compiled_code(report: Report) -> None:
    assert isinstance(load_predictor(report.path, "compiled"), CompiledPredictor)


@pytest.mark.train
def test_training_finds_what_there_is_to_find(report: Report) -> None:
    metrics = report.card.metrics
    assert metrics["log_loss"] < metrics["prior_log_loss"]
    assert metrics["balanced_accuracy"] > 0.36
    assert metrics["ic"] > 0.1
    assert len(report.epochs) == 3
    console = Console(record=True, width=120)
    console.print(report.table())
    text = console.export_text()
    assert f"{metrics['ic']:.4f}" in text
    assert f"{metrics['majority_accuracy']:.4f}" in text


# A training in a process of its own, that says when it is in the middle.
_CHILD = """
import sys
from pathlib import Path
import numpy as np
from models.train import TrainSettings, fit, train
import models.train as module

def slow(*args, **chosen):
    return fit(*args, **chosen, told=lambda epoch, *_: print(epoch, flush=True))

module.fit = slow
folder = Path(sys.argv[1])
train(np.load(folder / "ticks.npy"), eval(sys.argv[2]), folder / "model.onnx", checkpoints=folder / "kept")
"""


@pytest.mark.train
def test_a_killed_training_goes_on_and_gives_the_same_weights_as_an_undisturbed_one(
    report: Report, ticks: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "ticks.npy", ticks)
    settings = repr(WITH_EVERYTHING).replace("Periods(", "module.Periods(")
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path), settings], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"1\n"
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    kept = list((tmp_path / "kept").glob("*.npz"))
    assert len(kept) == 1
    before = read_checkpoint(kept[0])
    assert before is not None
    assert before.losses[1:] == report.epochs[: len(before.losses) - 1]
    assert 1 <= len(before.losses) < 3
    again = train(ticks, WITH_EVERYTHING, tmp_path / "model.onnx", checkpoints=tmp_path / "kept")
    assert again.epochs == report.epochs
    assert again.card.model_id == report.card.model_id
    assert again.card.metrics == report.card.metrics
    assert again.card.golden.answers.tobytes() == report.card.golden.answers.tobytes()


SMALL = dataclasses.replace(SETTINGS, epochs=1, feature_names=NAMES)


@pytest.mark.train
def test_nothing_that_is_judged_by_is_learnt_from(ticks: Any) -> None:
    pytest.importorskip("tensorflow")
    rows = history(ticks, 5_000_000_000)
    by_ticks = dataclasses.replace(SMALL, horizon_ticks=20)
    labels = label(rows, by_ticks.horizon, SMALL.dead_band_bps, SMALL.clip_bps)
    split = by_shares(rows, labels, SMALL.validation_share, SMALL.held_out_share)
    later = rows.event_ns >= split.test_ns
    forged = dataclasses.replace(rows, features=np.where(later[:, None], np.float32(1e4), rows.features))
    lies = dataclasses.replace(labels, direction=np.where(later, 0, labels.direction))
    honest, other = (
        fit(some, what, split, by_ticks).models.sequence.get_weights()
        for some, what in ((rows, labels), (forged, lies))
    )
    assert [weights.tobytes() for weights in honest] == [weights.tobytes() for weights in other]


@pytest.mark.train
def test_labels_that_are_shuffled_are_learnt_no_better_than_their_frequencies(ticks: Any, report: Report) -> None:
    rows = history(ticks, 5_000_000_000)
    labels = label(rows, SMALL.horizon, SMALL.dead_band_bps, SMALL.clip_bps)
    order = np.flatnonzero(labels.known)
    mixed = np.arange(len(labels.known))
    mixed[order] = np.random.default_rng(1).permutation(order)
    shuffled = dataclasses.replace(labels, direction=labels.direction[mixed], return_bps=labels.return_bps[mixed])
    split = by_shares(rows, labels, SMALL.validation_share, SMALL.held_out_share)
    models = fit(rows, shuffled, split, dataclasses.replace(SMALL, epochs=3)).models
    columns = features.indices(NAMES)
    answers = np.zeros((len(rows.event_ns), 4), np.float32)
    for where in by_symbol(rows.symbol_row):
        answers[where] = walk(models, rows.features[where][:, columns])
    prior = np.bincount(shuffled.direction[split.train], minlength=3) / split.train.sum()
    metrics = score(answers, shuffled, split.test, prior)
    assert metrics["log_loss"] > metrics["prior_log_loss"] - 0.002
    assert abs(metrics["ic"]) < 5 / metrics["rows"] ** 0.5 < report.card.metrics["ic"]


@pytest.mark.train
def test_training_refuses_what_the_exporter_spoilt(
    ticks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    from models import train as module

    truth = module.lstm.export_step

    def forgetful(models: Any) -> bytes:
        weights = models.step.get_weights()
        models.step.set_weights([weight * 1.001 for weight in weights])
        graph = truth(models)
        models.step.set_weights(weights)
        return graph

    monkeypatch.setattr(module.lstm, "export_step", forgetful)
    with pytest.raises(ModelError, match="off Keras by"):
        train(ticks[:4000], SMALL, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.train
@pytest.mark.parametrize(
    ("count", "change", "message"),
    [
        (500, {}, "500 accepted ticks to train on"),
        (3000, {"horizon_s": 400.0}, "no label counts in the span validation"),
        (3000, {"units": 129}, "1 x 129 units"),
        (3000, {"horizon_ticks": 100}, "a horizon of 100 ticks.*can be fitted and evaluated, not served"),
        (3000, {"horizon_s": 0.0}, "a horizon of 0 ns"),
        (3000, {"dropout": 1.0}, "dropout is 1.0; right would be 0 or more, and below 1"),
        (3000, {"weight_decay": -0.1}, "weight_decay is -0.1; right would be 0 or more"),
        (3000, {"held_out_share": 0.0}, "right would be both above 0"),
        (3000, {"validation_share": 0.5, "held_out_share": 0.5}, "right would be both above 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    ticks: Any, tmp_path: Path, count: int, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        train(ticks[:count], dataclasses.replace(SETTINGS, **change), tmp_path / "model.onnx")


def test_training_without_tensorflow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(SettingsError, match=r"training needs keras.*uv sync --extra train"):
        train(iter(()), SETTINGS, tmp_path / "model.onnx")


def test_a_feature_that_does_not_exist_is_refused_before_any_work(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, feature_names=("moon_phase", *features.NAMES))
    with pytest.raises(SettingsError, match="moon_phase"):
        train(iter(()), settings, tmp_path / "model.onnx")
