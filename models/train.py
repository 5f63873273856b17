"""Training: from a recording to a model file that `models.artifact.load` accepts, with its metrics inside.

`train` does all of it. Its parts are there for those who judge, search or retrain: `models.dataset.history` and
`label`, a split of `models.splits`, `fit`, and `write_trained`.
"""

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agents import drift, features
from agents.inference import MODEL_STATE_FLOATS, Predictor
from agents.periods import DEFAULT, Periods
from agents.validate import OUTLIER_BPS, OUTLIER_SCALE
from models import lstm
from models.artifact import load
from models.card import CLASSES, Golden, ModelCard
from models.checkpoints import training_id
from models.dataset import HistoryRows, Horizon, Labels, Streams, by_symbol, cut_streams, history, label
from models.direct import fit_direct, sample
from models.export import GOLDEN_TOLERANCE, check_parity, code_version, library_versions, with_golden, write_model
from models.metrics import measure_warmup, score, serve
from models.onnx_wire import read_graph
from models.predictor import load_predictor
from models.splits import Split, by_shares
from models.trainer import Objective, Schedule, Told, Trainer, run_epochs
from stream.clock import NS_PER_S
from stream.errors import ModelError
from stream.records import Records

_FEWEST_UPDATES: Final = 64  # of the weights in an epoch


@dataclass(frozen=True)
class TrainSettings:
    """What can be chosen about a training. The same settings and ticks give the same weights on one machine."""

    name: str = "lstm"
    version: int = 1
    seed: int = 7
    feature_names: tuple[str, ...] = features.NAMES
    # As the engine that will serve is set: features and accepted ticks depend on it.
    periods: Periods = DEFAULT
    lateness_s: float = 5.0
    outlier_bps: float = OUTLIER_BPS
    outlier_scale: float = OUTLIER_SCALE
    horizon_s: float = 10.0
    horizon_ticks: int = 0  # above 0: instead of horizon_s, for research; see `models.dataset.Horizon`
    dead_band_bps: float = 1.0
    clip_bps: float = 50.0
    layers: int = 1
    units: int = 32
    dropout: float = 0.2  # between layers and before the heads; see `models.lstm.build`
    input_dropout: float = 0.2
    direct: bool = True  # begin with a regression, and learn what is left; see `models.direct`
    head_penalty_rows: float = 1000.0  # over the rows of training: penalty of the heads' squared weights
    weight_decay: float = 0.0
    class_balance: float = 0.0  # classes weigh frequency to the power of -this: 0 as they come, 1 all the same
    validation_share: float = 0.15  # of the rows, after the training span
    held_out_share: float = 0.2  # of the rows, at the end
    embargo_s: float = 0.0  # between the end of a label and the next span
    epochs: int = 20
    patience: int = 4  # epochs without a better validation loss before training stops
    streams: int = 128  # pieces trained side by side; fewer where an epoch would have less than 64 updates
    steps: int = 64  # how far gradients go back in time
    burn_in: int = 64  # rows at the start of a piece that only build state up
    learning_rate: float = 3e-3
    return_weight: float = 0.5

    @property
    def horizon(self) -> Horizon:
        """How far ahead labels look."""
        return Horizon(ticks=self.horizon_ticks) if self.horizon_ticks else Horizon(ns=_ns(self.horizon_s))

    def check(self) -> None:
        """Check the settings that do not explain themselves when they are wrong.

        Raises:
            ModelError: a model of these settings cannot be trained, or could not serve.
            SettingsError: there is no feature of such a name.
        """
        if not 0 < self.layers * self.units <= MODEL_STATE_FLOATS:
            raise ModelError(
                f"{self.layers} x {self.units} units; a symbol's state has room for {MODEL_STATE_FLOATS}"
            )
        shares = (self.validation_share, self.held_out_share)
        if min(shares) <= 0 or sum(shares) >= 0.9:
            raise ModelError(
                f"shares of {shares[0]} and {shares[1]} for validation and the held-out span; right would be both "
                "above 0 and at least 0.1 left to train on"
            )
        for name in ("dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}; right would be 0 or more, and below 1")
        for name in ("weight_decay", "class_balance", "embargo_s", "head_penalty_rows"):
            if not getattr(self, name) >= 0:
                raise ModelError(f"{name} is {getattr(self, name)}; right would be 0 or more")
        features.indices(self.feature_names, features.names(self.periods))
        _ = self.horizon  # which checks itself


@dataclass(frozen=True)
class Report:
    """What came of a training."""

    path: Path
    card: ModelCard
    epochs: tuple[tuple[float, float], ...]  # training and validation loss of each
    parity: float  # largest difference between Keras and the served graph
    seconds: float

    def table(self) -> Table:
        """Return the metrics of the held-out span as a table for the terminal."""
        metrics = self.card.metrics
        table = Table(
            title=f"{self.card.name} version {self.card.version}, id {self.card.model_id:016x}: held-out span"
        )
        for heading in ("metric", "model", "without a model"):
            table.add_column(heading)
        table.add_row("rows", f"{metrics['rows']:,.0f}", "")
        table.add_row(
            "accuracy", f"{metrics['accuracy']:.4f}", f"{metrics['majority_accuracy']:.4f} (majority class)"
        )
        table.add_row("balanced accuracy", f"{metrics['balanced_accuracy']:.4f}", f"{1 / len(CLASSES):.4f}")
        table.add_row(
            "log loss", f"{metrics['log_loss']:.4f}", f"{metrics['prior_log_loss']:.4f} (class frequencies)"
        )
        table.add_row("rank IC of the return", f"{metrics['ic']:.4f}", "0")
        table.caption = (
            f"warm-up {self.card.warmup_ticks} ticks, parity with Keras {self.parity:.1e}, {self.seconds:.0f} s"
        )
        return table


def train(
    ticks: Records | Iterable[Records],
    settings: TrainSettings,
    out: Path,
    console: Console | None = None,
    checkpoints: Path | None = None,
) -> Report:
    """Train a model on a recording and write it to ``out`` with its manifest.

    Args:
        ticks: ``TICK[N]`` in order of arrival, whole or in chunks.
        settings: what was chosen.
        out: path of the model file to be written, ending in ``.onnx``.
        console: where to show progress; nowhere if not given.
        checkpoints: see `fit`.

    Raises:
        ModelError: too little data, or the exported model is not what was trained.
        SettingsError: there is no feature of such a name, or the training set is not installed.
    """
    _check_can_serve(settings)
    lstm.start_tensorflow()  # before the work, if it is not there
    rows = history(ticks, _ns(settings.lateness_s), settings.periods, settings.outlier_bps, settings.outlier_scale)
    return train_on(rows, settings, out, console, checkpoints)


def train_on(
    rows: HistoryRows,
    settings: TrainSettings,
    out: Path,
    console: Console | None = None,
    checkpoints: Path | None = None,
) -> Report:
    """Do as `train` does, on rows that are there already."""
    started_s = time.monotonic()
    _check_can_serve(settings)
    labels = label(rows, settings.horizon, settings.dead_band_bps, settings.clip_bps)
    split = by_shares(rows, labels, settings.validation_share, settings.held_out_share, _ns(settings.embargo_s))
    fitted = fit(rows, labels, split, settings, console=console, checkpoints=checkpoints)
    report = write_trained(fitted, rows, labels, split, settings, out)
    return dataclasses.replace(report, seconds=time.monotonic() - started_s)


@dataclass(frozen=True)
class Fitted:
    """A trained model that is not exported yet."""

    models: lstm.Models
    epochs: tuple[tuple[float, float], ...]  # training and validation loss of each


def fit(
    rows: HistoryRows,
    labels: Labels,
    split: Split,
    settings: TrainSettings,
    *,
    console: Console | None = None,
    checkpoints: Path | None = None,
    told: Told | None = None,
) -> Fitted:
    """Train until the validation loss stops falling, and return the weights of the best epoch.

    The scaler, the spread of returns and the frequencies of the classes are those of the training span. Nothing of
    the test span is looked at.

    Args:
        rows: A rows, with all features.
        labels: of them.
        split: whose ``train`` is learnt from, and whose ``validation`` chooses the epoch.
        settings: what was chosen.
        console: where to show progress; nowhere if not given.
        checkpoints: a directory that gets a file of this training after each epoch. Where the same training (rows,
            split, settings, libraries) is started again it goes on from there, and gives the same weights as one
            that was never stopped; one that was done is there at once. Nobody but you deletes the files.
        told: called after each epoch that is run.

    Raises:
        ModelError: it diverged, or a checkpoint cannot be read or written.
        SettingsError: there is no feature of such a name, or the training set is not installed.
    """
    settings.check()
    lstm.start_tensorflow()
    columns = np.array(features.indices(settings.feature_names, features.names(settings.periods)))
    in_training = (rows.event_ns >= split.from_ns) & (rows.event_ns < split.validation_ns)
    in_validation = (rows.event_ns >= split.validation_ns) & (rows.event_ns < split.test_ns)
    scaler = lstm.Scaler.fit(rows.features, in_training, columns)
    spans = [sample(rows, labels, counts, columns) for counts in (split.train, split.validation)]
    direct = fit_direct(scaler.mean, scaler.inverse, *spans) if settings.direct else None
    shape, drops = (settings.layers, settings.units), (settings.dropout, settings.input_dropout)
    models = lstm.build(scaler, *shape, settings.seed, *drops, direct)

    def streams(inside: NDArray[np.bool_], counts: NDArray[np.bool_]) -> Streams:
        most = int(inside.sum()) // (_FEWEST_UPDATES * settings.steps)
        return cut_streams(
            rows, labels, columns, inside, counts, max(1, min(settings.streams, most)), settings.burn_in
        )

    learning, judging = streams(in_training, split.train), streams(in_validation, split.validation)
    trainer = Trainer(models, _objective(labels, split, settings))
    schedule = Schedule(settings.epochs, settings.patience, settings.steps)
    kept = None
    if checkpoints is not None:
        plain = dataclasses.asdict(dataclasses.replace(settings, name="", version=0))  # no weight depends on them
        name = training_id(rows, labels, split, plain, library_versions())
        kept = checkpoints / f"{name}.npz"
    return Fitted(models, run_epochs(trainer, learning, judging, schedule, kept=kept, console=console, told=told))


def write_trained(
    fitted: Fitted, rows: HistoryRows, labels: Labels, split: Split, settings: TrainSettings, out: Path
) -> Report:
    """Export what `fit` returned, compare it with Keras, judge it by the test span, and write it to ``out``.

    Args:
        fitted: the trained model.
        rows: as `fit` had them, like the rest.
        labels: of them.
        split: whose ``test`` it is judged by.
        settings: what was chosen.
        out: path of the model file to be written, ending in ``.onnx``; its manifest comes beside it.

    Raises:
        ModelError: the exported model is not what was trained, or could not serve.
    """
    started_s = time.monotonic()
    _check_can_serve(settings)
    available = features.names(settings.periods)
    graph = lstm.export_step(fitted.models)
    card = _draft_card(graph, rows, split, settings)
    longest = max(by_symbol(rows.symbol_row), key=len)
    steps = rows.features[longest][:, features.indices(settings.feature_names, available)]
    parity = check_parity(fitted.models, graph, card, steps)
    card = with_golden(card, graph, steps)
    write_model(out, graph, card)
    # Judged as it will serve: the file itself, through the loader and the predictor, one step at a time.
    card = _judge(card, load_predictor(out, available=available), rows, labels, split)
    write_model(out, graph, card)
    load(out, available)
    return Report(out, card, fitted.epochs, parity, time.monotonic() - started_s)


def _check_can_serve(settings: TrainSettings) -> None:
    settings.check()
    if settings.horizon.ticks:
        raise ModelError(
            f"a horizon of {settings.horizon}: predictions state theirs as a time, by which they are judged; "
            "such a model can be fitted and evaluated, not served. Right would be horizon_s"
        )


def _objective(labels: Labels, split: Split, settings: TrainSettings) -> Objective:
    frequencies = np.bincount(labels.direction[split.train], minlength=len(CLASSES)) / split.train.sum()
    weights = (
        np.maximum(frequencies, 1e-3) ** -settings.class_balance
    )  # a class that never came has some weight, too
    return Objective(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        return_weight=settings.return_weight,
        return_spread_bps=float(labels.return_bps[split.train].std()) or 1.0,
        class_weights=(weights / (weights * frequencies).sum()).astype(np.float32),
        head_penalty=settings.head_penalty_rows / float(split.train.sum()),
    )


def _draft_card(graph: bytes, rows: HistoryRows, split: Split, settings: TrainSettings) -> ModelCard:
    names = settings.feature_names
    some = np.flatnonzero(split.train)[:: 1 + len(rows.features) // drift.MOST_ROWS]
    trained = rows.features[some][:, features.indices(names, features.names(settings.periods))]
    nothing = Golden(np.zeros((1, len(names)), np.float32), np.zeros((1, 4), np.float32), GOLDEN_TOLERANCE)
    return ModelCard(
        name=settings.name,
        version=settings.version,
        feature_names=names,
        horizon_ns=settings.horizon.ns,
        dead_band_bps=settings.dead_band_bps,
        clip_bps=settings.clip_bps,
        warmup_ticks=1,
        layers=settings.layers,
        units=settings.units,
        trained_from_ns=split.from_ns,
        trained_to_ns=split.validation_ns,
        data_sha256=rows.data_sha256,
        weights_sha256=read_graph(graph).weights_sha256,
        code_version=code_version(),
        golden=nothing,
        opset=lstm.OPSET,
        producer=lstm.PRODUCER,
        libraries=library_versions(),
        training=dataclasses.asdict(settings) | {drift.FEATURES_KEY: drift.reference(trained, names)},
    )


def _judge(card: ModelCard, predictor: Predictor, rows: HistoryRows, labels: Labels, split: Split) -> ModelCard:
    # From the validation span on: it builds the state up that the test span starts with, as live.
    later = (rows.event_ns >= split.validation_ns) & (rows.event_ns < split.to_ns)
    recent = rows.only(later)
    answers = serve(predictor, recent)
    prior = np.bincount(labels.direction[split.train], minlength=len(CLASSES)) / split.train.sum()
    return dataclasses.replace(
        card,
        metrics=score(answers, labels.only(later), split.test[later], prior),
        warmup_ticks=measure_warmup(predictor, recent, answers),
        training={**card.training, drift.ANSWERS_KEY: drift.reference(answers, drift.ANSWERS)},
    )


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
